//! Tests of putting snapshots together.

use super::*;
use crate::model::{HttpManager, Rule, TcpProxy, VirtualHost};
use crate::origin::Place;

fn table(rules: &[&str]) -> RouteTable {
    let host = rules
        .iter()
        .fold(VirtualHost::new("all", ["*"]), |host, to| {
            host.rule(Rule::prefix_to("/", *to))
        });
    RouteTable::new("t")
        .host(host)
        .host(VirtualHost::new("other", ["other"]))
}

fn build(builder: SnapshotBuilder) -> (Arc<Snapshot>, Vec<Warning>) {
    builder.build().unwrap()
}

#[test]
fn a_route_to_an_unknown_cluster_is_a_warning_unless_the_table_validates() {
    let mut builder = SnapshotBuilder::new();
    builder.routes(table(&["gone"]));
    assert_eq!(build(builder).1.len(), 1);

    let mut builder = SnapshotBuilder::new();
    let mut strict = table(&["gone"]);
    strict.validate_clusters = true;
    builder.routes(strict);
    let error = builder.build().unwrap_err();
    assert_eq!(error.path(), "routes[t].virtual_hosts[all].routes[0]");
}

#[test]
fn a_rate_limit_that_did_not_change_keeps_its_bucket() {
    let limited = || {
        let mut rule = Rule::prefix_to("/", "a");
        let limit = crate::model::RateLimit::new(1, 1, std::time::Duration::from_secs(1));
        rule.rate_limit = Some(Arc::new(limit));
        RouteTable::new("t").host(VirtualHost::new("all", ["*"]).rule(rule))
    };
    let bucket = |snapshot: &Snapshot| {
        let rule = &snapshot.tables()[0].virtual_hosts[0].rules[0];
        rule.rate_limit.clone().unwrap()
    };
    let mut builder = SnapshotBuilder::new();
    builder.routes(limited());
    let (first, _) = build(builder);
    bucket(&first).slot.get_or_init(|| 7_u8);
    let mut builder = SnapshotBuilder::from(&first);
    builder.routes(limited());
    let (second, _) = build(builder);
    assert_eq!(bucket(&second).slot.get::<u8>(), Some(&7));
}

#[test]
fn what_is_given_again_as_it_is_stays_the_very_same_thing() {
    let mut builder = SnapshotBuilder::new();
    builder
        .cluster(Cluster::new("a"))
        .cluster(Cluster::new("b"));
    let mut strict = table(&["a"]);
    strict.validate_clusters = true;
    builder.routes(strict);
    let (first, _) = build(builder);

    let mut builder = SnapshotBuilder::from(&first);
    builder.keep_clusters().keep_routes();
    assert!(builder.has_cluster("b"));
    let (kept, _) = build(builder);
    assert_eq!(kept.version(), first.version() + 1);
    assert!(Arc::ptr_eq(&kept.clusters, &first.clusters));
    assert!(Arc::ptr_eq(&kept.tables, &first.tables));

    // One changes: the others are not made anew.
    let mut builder = SnapshotBuilder::from(&kept);
    builder.cluster(first.clusters()[0].config().clone());
    let mut changed = Cluster::new("b");
    changed.panic_threshold = 1;
    builder.cluster(changed).keep_routes();
    let (second, _) = build(builder);
    assert!(Arc::ptr_eq(&second.clusters()[0], &first.clusters()[0]));
    assert!(Arc::ptr_eq(&second.cluster_index, &first.cluster_index));
    assert_eq!(second.clusters()[1].config().panic_threshold, 1);

    // A table in force outlives a cluster, although it validates: new ones would not do.
    let mut builder = SnapshotBuilder::from(&second);
    builder.keep_routes();
    let (third, warnings) = build(builder);
    assert_eq!(warnings.len(), 1);
    assert!(third.cluster("a").is_none());

    // Kept and given again is twice.
    let mut builder = SnapshotBuilder::from(&second);
    builder.keep_clusters().cluster(Cluster::new("a"));
    assert!(builder.build().unwrap_err().to_string().contains("twice"));
}

#[test]
fn a_domain_in_two_virtual_hosts_is_refused() {
    let mut builder = SnapshotBuilder::new();
    builder.routes(table(&[]).host(VirtualHost::new("third", ["*"])));
    assert!(builder.build().unwrap_err().to_string().contains("\"*\""));
}

#[test]
fn a_listener_without_its_table_is_refused() {
    let mut builder = SnapshotBuilder::new();
    let address = "127.0.0.1:80".parse().unwrap();
    builder.listener(Listener::http(
        "l",
        address,
        HttpManager::new("l", "missing"),
    ));
    assert!(builder.build().unwrap_err().to_string().contains("missing"));
}

#[test]
fn a_cluster_keeps_its_key_its_counts_and_its_endpoints() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(Cluster::new("a"));
    builder.endpoints(
        "a",
        EndpointSet::of(["127.0.0.1:1".parse::<crate::model::Address>().unwrap()]),
    );
    let (first, _) = build(builder);
    let mut builder = SnapshotBuilder::from(&first);
    let mut changed = Cluster::new("a");
    changed.max_requests_per_connection = 1;
    builder.cluster(changed).cluster(Cluster::new("b"));
    let (second, _) = build(builder);
    let (old, new) = (first.cluster("a").unwrap(), second.cluster("a").unwrap());
    assert_eq!(old.key(), new.key());
    assert!(new.revision() > old.revision());
    assert_eq!(new.live().endpoints().load().len(), 1);

    // Removed and added again it is another cluster.
    let (third, _) = build(SnapshotBuilder::from(&second));
    let mut builder = SnapshotBuilder::from(&third);
    builder.cluster(Cluster::new("a"));
    let (fourth, _) = build(builder);
    assert_ne!(fourth.cluster("a").unwrap().key(), old.key());
}

#[test]
fn what_was_compiled_from_an_unchanged_host_is_reused_although_lines_moved() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(Cluster::new("a")).routes(table(&["a"]));
    let (first, _) = build(builder);
    for host in &first.table("t").unwrap().virtual_hosts {
        host.slot.get_or_init(|| 1_u8);
    }
    let mut builder = SnapshotBuilder::from(&first);
    let moved = builder
        .origins()
        .add(Place::new("VirtualService x.y", "f", 99, 1));
    let mut next = table(&["a"]);
    Arc::make_mut(&mut next.virtual_hosts[0]).origin = moved;
    Arc::make_mut(&mut next.virtual_hosts[1]).count_attempts = true;
    builder.cluster(Cluster::new("a")).routes(next);
    let (second, _) = build(builder);
    let hosts = &second.table("t").unwrap().virtual_hosts;
    assert_eq!(
        hosts[0].slot.get::<u8>(),
        Some(&1),
        "unchanged but for its line"
    );
    assert_eq!(hosts[1].slot.get::<u8>(), None, "changed");
    let place = second.origins().place(hosts[0].origin).unwrap();
    assert_eq!(place.line, 99, "the new line is what an explanation shows");
}

fn secured(name: &str, secret: &str) -> Cluster {
    let tls = crate::model::ClientTls {
        certificates: vec![SecretRef::local(secret)],
        ..Default::default()
    };
    let mut cluster = Cluster::new(name);
    cluster.tls = Some(Arc::new(tls));
    cluster
}

#[test]
fn a_secret_lives_on_while_somebody_names_it() {
    let named = SecretRef::local("s");
    let mut builder = SnapshotBuilder::new();
    builder.cluster(secured("a", "s"));
    builder.secret(named.clone(), Arc::new(Secret::roots("first")));
    // Nobody names this one.
    builder.secret(SecretRef::local("other"), Arc::new(Secret::roots("x")));
    let (first, _) = builder.build().unwrap();
    assert_eq!(first.secrets().len(), 1);
    let mut feed = first.secret(&named).unwrap().value();
    assert_eq!(*feed.load(), Some(Arc::new(Secret::roots("first"))));

    // Named by another cluster now, and not given again.
    let mut builder = SnapshotBuilder::from(&first);
    builder.cluster(secured("b", "s"));
    let (second, _) = builder.build().unwrap();
    assert_eq!(*feed.load(), Some(Arc::new(Secret::roots("first"))));
    let mut builder = SnapshotBuilder::from(&second);
    builder.keep_clusters();
    builder.secret(named.clone(), None);
    let (third, _) = builder.build().unwrap();
    assert_eq!(*feed.load(), None);
    assert!(Arc::ptr_eq(second.secrets(), third.secrets()));

    let (fourth, _) = SnapshotBuilder::from(&third).build().unwrap();
    assert!(fourth.secret(&named).is_none());
    drop((first, second, third));
    let waiting = std::pin::pin!(feed.changed());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(_)) = waiting.poll(&mut cx) else {
        panic!("what was published is not seen");
    };
}

#[test]
fn connections_to_a_cluster_that_does_not_exist_are_warned_of() {
    let address = "127.0.0.1:1".parse().unwrap();
    let mut builder = SnapshotBuilder::new();
    builder.listener(Listener::tcp("l", address, TcpProxy::to("l", "nowhere")));
    let (_, warnings) = builder.build().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("\"nowhere\" does not exist"));
}

#[test]
fn only_listeners_that_bind_need_an_address_of_their_own() {
    let address = "0.0.0.0:80".parse().unwrap();
    let two = |bind| {
        let mut builder = SnapshotBuilder::new();
        for name in ["a", "b"] {
            let mut listener = Listener::new(name, address);
            listener.bind = bind;
            builder.listener(listener);
        }
        builder.build().map(|_| ())
    };
    assert!(
        two(true)
            .unwrap_err()
            .to_string()
            .contains("another listener")
    );
    assert!(two(false).is_ok());
}

#[test]
fn a_cluster_has_its_secrets_and_keeps_what_was_made_of_its_tls_while_that_stays_the_same() {
    let named = SecretRef::local("s");
    let mut builder = SnapshotBuilder::new();
    builder.cluster(secured("a", "s"));
    let (first, _) = builder.build().unwrap();
    let entry = &first.clusters()[0];
    assert!(Arc::ptr_eq(
        entry.secret(&named).unwrap(),
        first.secret(&named).unwrap()
    ));
    assert!(entry.secret(&SecretRef::local("other")).is_none());
    entry.tls_slot().get_or_init(|| 1_u8);

    let next = |previous: &Arc<Snapshot>, secret: &str, requests| {
        let mut builder = SnapshotBuilder::from(previous);
        let mut cluster = secured("a", secret);
        cluster.max_requests_per_connection = requests;
        builder.cluster(cluster);
        builder.build().unwrap().0
    };
    let second = next(&first, "s", 1);
    let entry = &second.clusters()[0];
    assert_eq!(entry.tls_slot().get::<u8>(), Some(&1));
    assert!(Arc::ptr_eq(
        entry.secret(&named).unwrap(),
        first.secret(&named).unwrap()
    ));
    let third = next(&second, "t", 1);
    assert_eq!(third.clusters()[0].tls_slot().get::<u8>(), None);
}
