//! How requests are kept at an endpoint, as the HTTP filter `stateful_session`.

use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use crate::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use crate::pb::envoy::extensions::http::stateful_session::envelope::v3::{
    EnvelopeSessionState, envelope_session_state::Header,
};
use crate::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use crate::pb::envoy::r#type::http::v3::{Cookie, CookieAttribute};
use crate::wire::{pack, to_duration};
use mesh_core::model::{HashCookie, RouteSession, Session, SessionState};
use prost::Name;

pub(super) fn write(session: &Session) -> StatefulSession {
    let status = session.missing_status;
    let is_told = session.strict && status != Session::default().missing_status;
    StatefulSession {
        session_state: session.state.as_ref().and_then(state),
        strict: session.strict,
        stat_prefix: session.stat_prefix.to_string(),
        status_on_strict_destination_not_found: match is_told {
            true => status.as_u16().into(),
            false => 0,
        },
    }
}

pub(super) fn on_route(session: &RouteSession) -> Option<StatefulSessionPerRoute> {
    let said = match session {
        RouteSession::Off => Override::Disabled(true),
        RouteSession::Instead(session) => Override::StatefulSession(write(session)),
        _ => return None,
    };
    Some(StatefulSessionPerRoute {
        r#override: Some(said),
    })
}

/// None for what is not known here.
fn state(state: &SessionState) -> Option<TypedExtensionConfig> {
    Some(match state {
        SessionState::Cookie(cookie) => {
            let cookie = Some(self::cookie(cookie));
            named("cookie", &CookieBasedSessionState { cookie })
        }
        SessionState::Header(name) => {
            let name = name.to_string();
            named("header", &HeaderBasedSessionState { name })
        }
        SessionState::Envelope(name) => {
            let name = name.to_string();
            let header = Some(Header { name });
            named("envelope", &EnvelopeSessionState { header })
        }
        _ => return None,
    })
}

fn named(kind: &str, config: &impl Name) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: format!("envoy.http.stateful_session.{kind}"),
        typed_config: Some(pack(config)),
    }
}

fn cookie(cookie: &HashCookie) -> Cookie {
    let attributes = cookie.attributes.iter();
    let attributes = attributes.map(|(name, value)| CookieAttribute {
        name: name.to_string(),
        value: value.to_string(),
    });
    Cookie {
        name: cookie.name.to_string(),
        ttl: cookie.ttl.map(to_duration),
        path: cookie.path.to_string(),
        attributes: attributes.collect(),
    }
}
