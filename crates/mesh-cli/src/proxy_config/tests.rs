//! Over a dump of Envoy 1.40 with what istiod generates, cut short; the refused and the warming
//! parts were put in by hand.

use super::*;
use clap::Parser;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn dump() -> Dump {
    let text = include_str!("../../data/envoy_config_dump.json");
    Dump::read(serde_json::from_str(text).unwrap()).unwrap()
}

fn statuses() -> Value {
    serde_json::from_str(include_str!("../../data/envoy_clusters.json")).unwrap()
}

/// The table for a command line, one row per line and one space for any number of them.
fn table(line: &str) -> Vec<String> {
    let words = std::iter::once("proxy-config").chain(line.split(' '));
    let (dump, part) = (dump(), Line::try_parse_from(words).unwrap().args.part);
    let table = match part {
        Part::Cluster(filter) => cluster::table(&filter.select(&dump)),
        Part::Listener(filter) => listener::table(&filter.select(&dump)),
        Part::Route(filter) => route::table(&filter.select(&dump)),
        Part::Endpoint(filter) => endpoint::table(&statuses(), &filter),
        Part::Secret(filter) => secret::table(&dump, &filter),
        Part::Bootstrap => bootstrap::table(dump.bootstrap().unwrap()),
        Part::All => panic!("several tables"),
    };
    let text = table.render(Style::plain());
    let lines = text.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn clusters_are_shown_by_the_parts_of_their_names() {
    assert_eq!(
        table("cluster"),
        [
            "- 8080 - inbound ORIGINAL_DST -",
            "BlackHoleCluster - - - STATIC -",
            "PassthroughCluster - - - ORIGINAL_DST -",
            "catalog.shop.svc.cluster.local 80 - outbound EDS catalog.shop",
            "catalog.shop.svc.cluster.local 80 v1 outbound EDS catalog.shop",
            "dns.example 80 - outbound STRICT_DNS -",
            "feed.shop.svc.cluster.local 7000 - outbound EDS feed.shop",
            "xds-grpc - - - STATIC -",
        ]
    );
}

#[test]
fn each_filter_of_clusters_leaves_out_what_does_not_fit() {
    let count = |line: &str| table(line).len();
    assert_eq!(count("cluster --fqdn catalog"), 2);
    assert_eq!(count("cluster --port 7000"), 1);
    assert_eq!(count("cluster --subset v1"), 1);
    assert_eq!(count("cluster --subset v"), 0);
    assert_eq!(count("cluster --direction inbound"), 1);
    assert_eq!(count("cluster --direction outbound --port 80"), 3);
}

#[test]
fn a_listener_has_a_row_for_each_filter_chain() {
    assert_eq!(
        table("listener"),
        [
            "0.0.0.0 80 Trans: raw_buffer; App: http/1.1,h2c Route: 80",
            "0.0.0.0 80 ALL PassthroughCluster",
            "0.0.0.0 3306 Addr: 10.98.0.0/24 Cluster: outbound|3306||db.example",
            "0.0.0.0 3306 ALL PassthroughCluster",
            "10.96.1.2 7000 Addr: 10.96.1.77/32 Cluster: outbound|7000|v1|feed.shop.svc.cluster.local",
            "10.96.1.2 7000 ALL Cluster: outbound|7000|v1|feed.shop.svc.cluster.local=1, \
             outbound|7000|v2|feed.shop.svc.cluster.local=3",
            "0.0.0.0 26001 Addr: *:15001 BlackHoleCluster",
            "0.0.0.0 26001 ALL PassthroughCluster",
            "127.0.0.1 26102 ALL Inline Route: /a, /*",
        ]
    );
    assert_eq!(table("listener --address 10.96.1.2").len(), 2);
    assert_eq!(table("listener --port 80").len(), 2);
    assert_eq!(table("listener --name static-http").len(), 1);
    assert_eq!(table("listener --name static").len(), 0);
}

#[test]
fn a_route_that_wants_more_than_a_path_says_so() {
    let catalog = "80 catalog.shop.svc.cluster.local:80 catalog, catalog.shop + 3 more...";
    assert_eq!(
        table("route --name 80"),
        [
            format!("{catalog} /* +1 condition catalog.shop"),
            format!("{catalog} /* +2 conditions catalog.shop"),
            format!("{catalog} /* +1 condition catalog.shop"),
            format!("{catalog} /* catalog.shop"),
            "80 allow_any * /* -".to_owned(),
            "80 nothing:80 nothing 404 -".to_owned(),
        ]
    );
    assert_eq!(table("route").last().unwrap(), "inline v * /* -");
}

#[test]
fn endpoints_are_shown_with_both_kinds_of_health() {
    assert_eq!(
        table("endpoint"),
        [
            "10.244.1.20:8080 DRAINING OK outbound|80|v1|catalog.shop.svc.cluster.local",
            "10.244.1.20:8080 HEALTHY FAILED outbound|80||catalog.shop.svc.cluster.local",
            "10.244.1.21:8080 HEALTHY OK outbound|80||catalog.shop.svc.cluster.local",
            "[::1]:80 HEALTHY OK agent",
            "envoy://inner UNKNOWN OK agent",
            "unix:///run/agent.sock UNHEALTHY OK agent",
        ]
    );
    let count = |line: &str| table(line).len();
    assert_eq!(count("endpoint --status healthy"), 3);
    assert_eq!(count("endpoint --status draining"), 1);
    assert_eq!(count("endpoint --address ::1"), 1);
    assert_eq!(count("endpoint --port 8080 --cluster agent"), 0);
    assert_eq!(
        count("endpoint --cluster outbound|80||catalog.shop.svc.cluster.local"),
        2
    );
}

#[test]
fn the_same_filter_selects_endpoints_for_programs() {
    let words = ["x", "endpoint", "--status", "draining"];
    let Part::Endpoint(filter) = Line::try_parse_from(words).unwrap().args.part else {
        panic!("endpoints were asked for");
    };
    let found = endpoint::select(&statuses(), &filter);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(
        found[0]["name"],
        "outbound|80|v1|catalog.shop.svc.cluster.local"
    );
    assert_eq!(found[0]["host_statuses"].as_array().unwrap().len(), 1);
}

#[test]
fn the_bootstrap_says_who_the_proxy_is_and_whom_it_asks() {
    let rows = table("bootstrap");
    for row in [
        "node sidecar~10.244.0.9~client-1.shop~shop.svc.cluster.local",
        "version envoy 1.40.0",
        "aggregated xDS GRPC xds-grpc",
        "CDS aggregated",
        "admin 127.0.0.1:26100",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {rows:#?}");
    }
}

#[test]
fn what_was_refused_or_is_warming_is_noted() {
    let dump = dump();
    let notes = dump.notes().join("\n");
    for part in [
        "cluster inbound|8080|| is warming",
        "listener 0.0.0.0_3306 is warming",
        "of listener 0.0.0.0_80 was refused: error adding listener",
        "of route configuration 80 was refused: Only unique",
    ] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
    assert_eq!(dump.notes().len(), 4);
}

#[test]
fn a_cluster_that_is_replaced_or_was_refused_is_there_once() {
    let dump = |value: Value| {
        let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump";
        let mut value = value;
        value["@type"] = kind.into();
        Dump::read(json!({"configs": [value]})).unwrap()
    };
    let cluster = |rule: &str| {
        let config =
            format!("/apis/networking.istio.io/v1/namespaces/shop/destination-rule/{rule}");
        json!({"cluster": {
            "name": "outbound|80||a.shop.svc.cluster.local",
            "metadata": {"filter_metadata": {"istio": {"config": config}}},
        }})
    };
    let dump = dump(json!({
        "dynamic_active_clusters": [cluster("old")],
        "dynamic_warming_clusters": [cluster("new"), {"error_state": {
            "failed_configuration": {"name": "bad"}, "details": "no"}}],
    }));
    let rows = cluster::table(&cluster::Filter::default().select(&dump));
    let rows = rows.render(Style::plain());
    assert!(
        rows.contains("old.shop") && !rows.contains("new.shop"),
        "{rows}"
    );
    let notes = dump.notes().join("\n");
    assert!(
        notes.contains("a.shop.svc.cluster.local is warming"),
        "{notes}"
    );
    assert!(
        notes.contains("update of cluster bad was refused: no"),
        "{notes}"
    );
}

#[test]
fn all_of_it_is_sorted_and_has_no_type_at_the_top() {
    let all = dump().into_value();
    for (part, name) in [
        ("clusters", "name"),
        ("endpoints", "cluster_name"),
        ("listeners", "name"),
        ("routes", "name"),
    ] {
        let list = all[part].as_array().unwrap();
        let names: Vec<&str> = list.iter().map(|one| one[name].as_str().unwrap()).collect();
        assert!(names.is_sorted() && !names.is_empty(), "{part}: {names:?}");
        assert!(list.iter().all(|one| one.get("@type").is_none()), "{part}");
    }
    assert!(all["bootstrap"]["node"].is_object());
}

#[test]
fn what_is_no_dump_is_refused_and_what_is_unknown_is_skipped() {
    for not in [json!({}), json!([]), json!("x"), json!({"configs": {}})] {
        assert!(Dump::read(not).is_err());
    }
    let odd = json!({"configs": [1, {"@type": "x.FutureConfigDump"}, {"@type": "x.ClustersConfigDump",
        "static_clusters": [{}, 7, {"cluster": 3}], "dynamic_active_clusters": "no"},
        {"@type": "x.ListenersConfigDump", "dynamic_listeners": [{"name": "l"}, null]}]});
    let dump = Dump::read(odd).unwrap();
    assert!(dump.bootstrap().is_err());
    let clusters = cluster::Filter::default().select(&dump);
    assert_eq!(
        cluster::table(&clusters)
            .render(Style::plain())
            .lines()
            .count(),
        2
    );
}

#[test]
fn a_secret_is_shown_by_its_first_certificate() {
    let rows = table("secret");
    let without_dates: Vec<&str> = rows
        .iter()
        .map(|row| row.split(" 2126-").next().unwrap())
        .collect();
    assert_eq!(
        without_dates,
        [
            "kubernetes://shop - WARMING false - - -",
            "default Cert Chain ACTIVE true 5a01",
            "ROOTCA CA ACTIVE true b01ad",
            // In a file that only the proxy can read.
            "st_cert - ACTIVE false - - -",
            "st_ca CA ACTIVE true b01ad",
            "st_gen - ACTIVE false - - -",
        ]
    );
    assert!(
        rows[1].ends_with('Z') && rows[1].contains(" 2026-"),
        "{rows:?}"
    );
    assert_eq!(table("secret --name ROOT").len(), 1);
}

#[test]
fn secrets_as_json_are_envoys_own_lists() {
    let dump = dump();
    let all = secret::Filter::default().select(&dump);
    assert_eq!(all, dump.secrets);
    assert!(all["dynamic_active_secrets"][0]["secret"].is_object());
    assert!(!all.to_string().contains("PRIVATE KEY"));
}
