use super::*;
use crate::ClusterHosts;
use http::HeaderValue;
use mesh_core::Caller;
use mesh_core::exchange::SessionHost;
use mesh_core::model::{
    Cluster, Endpoint, EndpointSet, Health, LocalityEndpoints, SnapshotBuilder,
};
use mesh_test::fixture::address;
use std::time::Instant;

const WELL: &str = "10.0.0.1:80";
const DEGRADED: &str = "10.0.0.2:80";
const ILL: &str = "10.0.0.3:80";
const LEAVING: &str = "10.0.0.4:80";
const LATER: &str = "[::1]:80";

fn hosts(change: impl FnOnce(&mut Cluster)) -> Arc<HostSet> {
    let mut cluster = Cluster::new("c");
    change(&mut cluster);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    let endpoint = |(at, health)| {
        let mut endpoint = Endpoint::new(address(at));
        endpoint.health = health;
        Arc::new(endpoint)
    };
    let first = [
        (WELL, Health::Healthy),
        (DEGRADED, Health::Degraded),
        (ILL, Health::Unhealthy),
        (LEAVING, Health::Draining),
    ];
    let mut later = LocalityEndpoints::default();
    later.priority = 1;
    later.endpoints = vec![endpoint((LATER, Health::Healthy))];
    let mut endpoints = EndpointSet::from_endpoints(first.map(endpoint).to_vec());
    endpoints.localities.push(later);
    builder.endpoints("c", endpoints);
    let (snapshot, _) = builder.build().unwrap();
    ClusterHosts::of(&snapshot.clusters()[0]).current()
}

fn exchange() -> Exchange {
    Exchange::new(Instant::now(), Caller::default())
}

fn chosen(set: &HostSet, exchange: &Exchange, lines: &[(&'static str, &str)]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let of = Wishing {
        exchange: Some(exchange),
        headers: &headers,
    };
    let host = choose(set, of).expect("nothing is strict");
    host.map(|host| host.address().to_string())
}

fn kept_at(set: &HostSet, address: &str, strict: bool) -> Result<bool, StatusCode> {
    let exchange = exchange();
    exchange.set_session_host(SessionHost {
        address: address.to_owned(),
        strict,
        missing_status: StatusCode::NOT_FOUND,
    });
    let of = Wishing {
        exchange: Some(&exchange),
        headers: &HeaderMap::new(),
    };
    let host = choose(set, of).map_err(Refused::status)?;
    Ok(host.is_some_and(|host| host.address().to_string() == address))
}

#[test]
fn a_session_is_kept_at_an_endpoint_that_is_there_and_well_enough() {
    let set = hosts(|_| {});
    for (address, expected) in [
        (WELL, true),
        (DEGRADED, true),
        (LATER, true),
        (ILL, false),
        (LEAVING, false),
        ("10.0.0.9:80", false),
        ("010.0.0.1:80", false),
        ("[0:0:0:0:0:0:0:1]:80", false),
        ("", false),
    ] {
        assert_eq!(kept_at(&set, address, false), Ok(expected), "{address}");
    }
    let set = hosts(|cluster| {
        cluster.session_health.draining = true;
        cluster.session_health.healthy = false;
    });
    assert_eq!(kept_at(&set, LEAVING, false), Ok(true));
    assert_eq!(kept_at(&set, WELL, false), Ok(false));
}

#[test]
fn where_it_has_to_be_kept_the_status_says_whether_the_endpoint_is_there() {
    let set = hosts(|_| {});
    assert_eq!(kept_at(&set, WELL, true), Ok(true));
    assert_eq!(
        kept_at(&set, ILL, true),
        Err(StatusCode::SERVICE_UNAVAILABLE)
    );
    assert_eq!(
        kept_at(&set, "10.0.0.9:80", true),
        Err(StatusCode::NOT_FOUND)
    );
}

#[test]
fn an_ejected_endpoint_is_not_well_enough() {
    let set = hosts(|_| {});
    set.at(WELL).unwrap().set_ejected(true);
    assert_eq!(kept_at(&set, WELL, false), Ok(false));
}

#[test]
fn another_attempt_is_balanced() {
    let set = hosts(|_| {});
    let exchange = exchange();
    exchange.set_session_host(SessionHost {
        address: "10.0.0.9:80".to_owned(),
        strict: true,
        missing_status: StatusCode::NOT_FOUND,
    });
    assert_eq!(chosen(&set, &exchange.for_attempt(), &[]), None);
}

#[test]
fn headers_name_endpoints_one_for_each_attempt() {
    let set = hosts(|cluster| {
        cluster.host_headers = vec![
            HeaderName::from_static("x-to"),
            HeaderName::from_static("x-too"),
        ];
    });
    let lines = [
        ("x-too", LATER),
        ("x-to", "10.0.0.9:80, 10.0.0.3:80 ,,10.0.0.4:80"),
        ("x-to", WELL),
    ];
    let exchange = exchange();
    let next = |exchange: &Exchange| chosen(&set, exchange, &lines);
    assert_eq!(next(&exchange).as_deref(), Some(ILL), "whatever its health");
    assert_eq!(next(&exchange.for_attempt()).as_deref(), Some(LEAVING));
    assert_eq!(next(&exchange.for_attempt()).as_deref(), Some(LATER));
    assert_eq!(next(&exchange.for_attempt()), None, "balanced");
}

#[test]
fn without_a_policy_headers_name_nobody_and_a_session_comes_before_them() {
    assert_eq!(chosen(&hosts(|_| {}), &exchange(), &[("x-to", WELL)]), None);
    let set = hosts(|cluster| cluster.host_headers = vec![HeaderName::from_static("x-to")]);
    let exchange = exchange();
    exchange.set_session_host(SessionHost {
        address: DEGRADED.to_owned(),
        strict: false,
        missing_status: StatusCode::SERVICE_UNAVAILABLE,
    });
    let found = chosen(&set, &exchange, &[("x-to", WELL)]);
    assert_eq!(found.as_deref(), Some(DEGRADED));
}
