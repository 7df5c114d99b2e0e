//! Sessions of listeners and of routes.

use crate::{any_of, filter, router, with};
use mesh_core::model::{
    HttpManager, RouteSession, RouteTable, Rule, Session, SessionState, VirtualHost,
};
use mesh_xds::pb::envoy::config::core::v3::TypedExtensionConfig;
use mesh_xds::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use mesh_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use mesh_xds::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use mesh_xds::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use mesh_xds::pb::envoy::extensions::http::stateful_session::envelope::v3::{
    EnvelopeSessionState, envelope_session_state::Header,
};
use mesh_xds::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use mesh_xds::pb::envoy::r#type::http::v3::Cookie;
use mesh_xds::pb::google::protobuf::Duration;
use mesh_xds::{read, write};
use prost::{Message, Name};
use std::sync::Arc;

const FILTER: &str = "envoy.filters.http.stateful_session";

fn kept<M: Message + Name>(state: &M) -> StatefulSession {
    StatefulSession {
        session_state: Some(TypedExtensionConfig {
            name: "any".to_owned(),
            typed_config: Some(any_of(state)),
        }),
        ..Default::default()
    }
}

fn by_header(name: &str) -> StatefulSession {
    kept(&HeaderBasedSessionState {
        name: name.to_owned(),
    })
}

fn read(filters: Vec<hcm::HttpFilter>) -> Result<HttpManager, String> {
    let proto = with(|manager| manager.http_filters = filters);
    let read = read::listener(&proto).map_err(|error| error.to_string())?;
    Ok(HttpManager::clone(read.listener.managers().next().unwrap()))
}

fn of<M: Message + Name>(name: &str, message: &M) -> hcm::HttpFilter {
    filter(name, any_of(message))
}

fn session(value: &StatefulSession) -> Result<Session, String> {
    let manager = read(vec![of(FILTER, value), router()])?;
    Ok((**manager.session.as_ref().unwrap()).clone())
}

#[test]
fn a_cookie_a_header_and_an_envelope_are_read() {
    let cookie = kept(&CookieBasedSessionState {
        cookie: Some(Cookie {
            name: "sticky".to_owned(),
            ttl: Some(Duration {
                seconds: 60,
                nanos: 0,
            }),
            path: "/a".to_owned(),
            ..Default::default()
        }),
    });
    let Some(SessionState::Cookie(cookie)) = session(&cookie).unwrap().state else {
        panic!("a cookie");
    };
    assert_eq!((&*cookie.name, &*cookie.path), ("sticky", "/a"));
    assert_eq!(cookie.ttl, Some(std::time::Duration::from_secs(60)));
    let header = session(&by_header("X-S")).unwrap();
    assert_eq!(
        header,
        Session::new(SessionState::Header("x-s".parse().unwrap()))
    );
    let envelope = kept(&EnvelopeSessionState {
        header: Some(Header {
            name: "x-e".to_owned(),
        }),
    });
    let expected = SessionState::Envelope("x-e".parse().unwrap());
    assert_eq!(session(&envelope).unwrap().state, Some(expected));
    assert_eq!(session(&StatefulSession::default()).unwrap().state, None);
}

#[test]
fn a_status_counts_where_the_endpoint_has_to_be_there() {
    let with = |strict, status| {
        session(&StatefulSession {
            strict,
            status_on_strict_destination_not_found: status,
            ..by_header("x-s")
        })
    };
    assert_eq!(with(true, 404).unwrap().missing_status, 404);
    assert_eq!(with(true, 0).unwrap().missing_status, 503);
    assert_eq!(with(false, 42).unwrap().missing_status, 503);
    for status in [42, 199, 600, 70_000] {
        let message = with(true, status).unwrap_err();
        let expected = format!(
            "status_on_strict_destination_not_found: {status} is not a status from 200 to 599"
        );
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let one = || of(FILTER, &by_header("a"));
    let rules = || of("rules", &Rbac::default());
    for (filters, expected) in [
        (
            vec![one(), of("second", &by_header("b")), router()],
            "http_filters[1]: a second session is not supported",
        ),
        (
            vec![of("mine", &by_header("a")), router()],
            "http_filters[0].name: has to be called envoy.filters.http.stateful_session",
        ),
        (
            vec![one(), rules(), router()],
            "http_filters[1]: rules that judge have to stand before",
        ),
        (
            vec![of(FILTER, &by_header("a b")), router()],
            "session_state.typed_config.name: \"a b\" is not the name of a header",
        ),
        (
            vec![of(FILTER, &kept(&Router::default())), router()],
            "session_state.typed_config: not supported: envoy.extensions.filters.http.router.v3",
        ),
        (
            vec![
                of(FILTER, &kept(&CookieBasedSessionState::default())),
                router(),
            ],
            "typed_config.cookie",
        ),
    ] {
        let message = read(filters).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}

fn on_route(
    said: Option<Override>,
    host: Option<Override>,
) -> Result<Option<RouteSession>, String> {
    let config = |said: Option<Override>| {
        let config = |said| StatefulSessionPerRoute {
            r#override: Some(said),
        };
        let config = said.map(config);
        config
            .iter()
            .map(|config| (FILTER.to_owned(), any_of(config)))
            .collect()
    };
    let shop = VirtualHost::new("v", ["*"]).rule(Rule::prefix_to("/", "c"));
    let mut table = write::route::table(&RouteTable::new("t").host(shop));
    table.virtual_hosts[0].typed_per_filter_config = config(host);
    table.virtual_hosts[0].routes[0].typed_per_filter_config = config(said);
    let read = read::route::table(&table).map_err(|error| error.to_string())?;
    Ok(read.virtual_hosts[0].rules[0].session.clone())
}

#[test]
fn a_route_says_it_before_its_virtual_host() {
    let other = || Override::StatefulSession(by_header("x-r"));
    let expected = RouteSession::Instead(Arc::new(session(&by_header("x-r")).unwrap()));
    assert_eq!(on_route(None, None), Ok(None));
    assert_eq!(
        on_route(None, Some(Override::Disabled(true))),
        Ok(Some(RouteSession::Off))
    );
    assert_eq!(
        on_route(Some(other()), Some(Override::Disabled(true))),
        Ok(Some(expected.clone()))
    );
    assert_eq!(on_route(None, Some(other())), Ok(Some(expected)));
    let message = on_route(Some(Override::Disabled(false)), None).unwrap_err();
    assert!(message.contains("disabled: must be true"), "{message}");
}
