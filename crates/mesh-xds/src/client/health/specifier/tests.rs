use super::*;
use crate::pb::envoy::config::core::v3 as core;
use crate::wire::to_number;
use core::health_check::{HealthChecker, TcpHealthCheck};

fn address(port: u32) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: "127.0.0.1".into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    }
}

fn endpoint(port: u32) -> endpoint::Endpoint {
    endpoint::Endpoint {
        address: Some(address(port)),
        ..Default::default()
    }
}

fn seconds(seconds: u64) -> Option<crate::pb::google::protobuf::Duration> {
    Some(to_duration(Duration::from_secs(seconds)))
}

/// A cluster with endpoints at these ports of these zones.
fn cluster(name: &str, zones: &[(&str, &[u32])]) -> pb::ClusterHealthCheck {
    let check = core::HealthCheck {
        timeout: seconds(1),
        interval: seconds(1),
        unhealthy_threshold: to_number(1),
        healthy_threshold: to_number(1),
        health_checker: Some(HealthChecker::TcpHealthCheck(TcpHealthCheck::default())),
        ..Default::default()
    };
    let localities = zones.iter().map(|(zone, ports)| pb::LocalityEndpoints {
        locality: (!zone.is_empty()).then(|| core::Locality {
            zone: (*zone).to_owned(),
            ..Default::default()
        }),
        endpoints: ports.iter().copied().map(endpoint).collect(),
    });
    pb::ClusterHealthCheck {
        cluster_name: name.into(),
        health_checks: vec![check],
        locality_endpoints: localities.collect(),
        ..Default::default()
    }
}

fn specifier(clusters: Vec<pb::ClusterHealthCheck>) -> pb::HealthCheckSpecifier {
    pb::HealthCheckSpecifier {
        cluster_health_checks: clusters,
        interval: seconds(7),
    }
}

fn nothing() -> Arc<Snapshot> {
    SnapshotBuilder::new().build().unwrap().0
}

#[test]
#[expect(deprecated, reason = "Envoy still fills the list of all endpoints")]
fn everybody_is_reported_in_the_order_in_which_they_were_asked_for() {
    let asked = Asked::read(&specifier(vec![
        cluster("b", &[("z", &[1, 2]), ("", &[3, 1])]),
        cluster("a", &[]),
    ]));
    let asked = asked.unwrap();
    assert_eq!(asked.interval, Duration::from_secs(7));
    let snapshot = asked.snapshot(&nothing()).unwrap();
    assert_eq!(
        snapshot.cluster("b").unwrap().config().health_checks.len(),
        1
    );
    let report = asked.report(&snapshot, |cluster| {
        assert!(["a", "b"].contains(&&*cluster.config().name));
        let at = |port: u16| Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        [(at(1), Reported::Healthy), (at(2), Reported::Timeout)].into()
    });
    // As Envoy 1.40 reports.
    let (healthy, late, ill) = (1, 4, 2);
    let all: Vec<i32> = report
        .endpoints_health
        .iter()
        .map(|one| one.health_status)
        .collect();
    assert_eq!(all, [healthy, late, ill, healthy]);
    let [b, a] = report.cluster_endpoints_health.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!((&*b.cluster_name, &*a.cluster_name), ("b", "a"));
    assert!(a.locality_endpoints_health.is_empty());
    let zones: Vec<_> = b
        .locality_endpoints_health
        .iter()
        .map(|one| {
            let ports = one.endpoints_health.iter();
            let ports = ports.map(|one| one.endpoint.clone().unwrap());
            (
                one.locality.clone().unwrap().zone,
                ports.collect::<Vec<_>>(),
            )
        })
        .collect();
    let expected = [
        ("z".to_owned(), vec![endpoint(1), endpoint(2)]),
        (String::new(), vec![endpoint(3), endpoint(1)]),
    ];
    assert_eq!(zones, expected);
}

#[test]
fn what_is_known_of_endpoints_that_stay_is_kept_and_what_is_not_asked_for_any_more_goes() {
    let first = Asked::read(&specifier(vec![
        cluster("a", &[("", &[1])]),
        cluster("b", &[]),
    ]));
    let before = first.unwrap().snapshot(&nothing()).unwrap();
    let second = Asked::read(&specifier(vec![cluster("a", &[("", &[1, 2])])])).unwrap();
    let after = second.snapshot(&before).unwrap();
    let live = |snapshot: &Snapshot| snapshot.cluster("a").unwrap().live().clone();
    assert!(Arc::ptr_eq(&live(&before), &live(&after)));
    assert!(after.cluster("b").is_none());
}

#[test]
fn an_interval_has_a_default_and_a_least() {
    let mut specifier = specifier(Vec::new());
    for (said, expected) in [
        (None, Duration::from_secs(1)),
        (Some(Default::default()), SHORTEST),
    ] {
        specifier.interval = said;
        assert_eq!(Asked::read(&specifier).unwrap().interval, expected);
    }
}

#[test]
fn what_cannot_be_checked_is_refused_by_its_field() {
    let refused = |change: fn(&mut pb::ClusterHealthCheck)| {
        let mut one = cluster("a", &[("", &[1])]);
        change(&mut one);
        let asked = Asked::read(&specifier(vec![one]));
        let refused = asked.and_then(|asked| asked.snapshot(&nothing()));
        refused.unwrap_err().to_string()
    };
    let transport = refused(|it| it.transport_socket_matches.push(Default::default()));
    let field = "cluster_health_checks[0].transport_socket_matches: not supported";
    assert_eq!(transport, field);
    let two = refused(|it| it.health_checks = vec![it.health_checks[0].clone(); 2]);
    assert!(
        two.starts_with("cluster_health_checks[0].health_checks"),
        "{two}"
    );
    let nowhere = refused(|it| it.locality_endpoints[0].endpoints[0].address = None);
    assert!(
        nowhere.starts_with("cluster_health_checks[0]."),
        "{nowhere}"
    );
    let named = refused(|it| {
        let named = core::SocketAddress {
            address: "localhost".into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(1)),
            ..Default::default()
        };
        let address = core::address::Address::SocketAddress(named);
        let address = core::Address {
            address: Some(address),
        };
        it.locality_endpoints[0].endpoints[0].address = Some(address);
    });
    assert!(named.contains("is no address"), "{named}");
    let ports: Vec<u32> = (0..=20_000).map(|n| 1 + n % 60_000).collect();
    let many = Asked::read(&specifier(vec![cluster("a", &[("", &ports)])]));
    let many = many.unwrap_err().to_string();
    assert_eq!(
        many,
        "cluster_health_checks: 20001 endpoints, of 20000 at most"
    );
    let same = Asked::read(&specifier(vec![cluster("a", &[]), cluster("a", &[])])).unwrap();
    assert!(same.snapshot(&nothing()).is_err());
}
