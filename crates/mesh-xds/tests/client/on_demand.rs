//! What requests ask for, over sockets: who answers, and who is not let wait.

use super::server::{Server, Stream, builder, decode, soon};
use super::support::{CDS, EDS, LDS, RDS};
use mesh_core::demand::{Missing, Outcome};
use mesh_core::model::{
    ClientTls, ClustersOnDemand, FilterChain, HostsOnDemand, HttpManager, Listener, RouteTable,
    Rule, SecretRef, TcpProxy, Validation, VirtualHost,
};
use mesh_core::{Invalid, Name};
use mesh_xds::TypeUrl;
use mesh_xds::client::{Client, Variant, Wanted};
use mesh_xds::read::{ListenerResource, Resource, RouteSource, VirtualHostResource};
use std::sync::Arc;
use std::time::Duration;

const VHDS: TypeUrl = TypeUrl::VirtualHost;
const SOME: Option<ClustersOnDemand> = Some(ClustersOnDemand::Within(Duration::from_secs(9)));

/// As `decode`, but clusters called `refused` need a secret that nobody has, and tables and virtual
/// hosts are those of requests that ask: a virtual host's text is its cluster, and one whose name
/// begins with `clashes` has a domain twice.
fn asking(kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
    match decode(kind, bytes)? {
        Resource::Cluster(mut cluster) if cluster.cluster.name == *"refused" => {
            let mut validation = Validation::default();
            validation.roots = Some(SecretRef::local("nobody has it"));
            let mut tls = ClientTls::default();
            tls.validation = Some(validation);
            cluster.cluster.tls = Some(Arc::new(tls));
            Ok(Resource::Cluster(cluster))
        }
        Resource::Routes(table) if kind == VHDS => {
            let mut host = VirtualHost::clone(&table.virtual_hosts[0]);
            let (_, domain) = table.name.rsplit_once('/').unwrap();
            host.domains = vec![domain.into()];
            if domain.starts_with("clashes") {
                host.domains.push(domain.into());
            }
            Ok(Resource::VirtualHost(Box::new(VirtualHostResource {
                name: table.name.clone(),
                host,
                instead_of: Vec::new(),
            })))
        }
        Resource::Routes(mut table) => {
            table.virtual_hosts.clear();
            table.on_demand = Some(HostsOnDemand {
                table: table.name.clone(),
                wait: None,
            });
            Ok(Resource::Routes(table))
        }
        other => Ok(other),
    }
}

/// Waits for the answer to the response with this nonce; returns what it refuses.
async fn answer(stream: &mut Stream, kind: TypeUrl, nonce: &str) -> Option<String> {
    loop {
        let asked = stream.asked_for(kind).await;
        if asked.nonce == nonce {
            return asked.error;
        }
    }
}

#[tokio::test]
async fn a_cluster_that_is_refused_when_it_is_put_together_is_answered_for() {
    let mut server = Server::start().await;
    let client = builder(&[&server])
        .decode(asking)
        .clusters(Wanted::Nothing)
        .listeners(Wanted::Nothing)
        .build()
        .unwrap();
    let demand = client.handle().demand();
    let running = tokio::spawn(client.run(std::future::pending()));
    let asked = tokio::spawn(demand.ask(Missing::Cluster("refused".into())));
    let mut stream = server.stream().await;
    assert_eq!(stream.asked_for(CDS).await.names, ["refused"]);
    stream.send(CDS, "1", &[("refused", "")]).await;
    assert_eq!(soon(asked).await.unwrap(), Outcome::Absent);
    running.abort();
}

#[tokio::test]
async fn a_virtual_host_whose_next_version_cannot_be_read_stays_in_force() {
    let mut server = Server::start().await;
    let client = builder(&[&server])
        .decode(asking)
        .clusters(Wanted::Nothing)
        .build()
        .unwrap();
    let (snapshots, demand) = (client.snapshots(), client.handle().demand());
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(LDS).await;
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    stream.asked_for(RDS).await;
    stream.send(RDS, "1", &[("t", "")]).await;
    assert_eq!(answer(&mut stream, RDS, "2").await, None);
    let host = || Missing::VirtualHost {
        table: "t".into(),
        host: "a.com".into(),
    };
    let asked = tokio::spawn(demand.ask(host()));
    loop {
        if stream.asked_for(VHDS).await.names == ["t/a.com"] {
            break;
        }
    }
    stream.send(VHDS, "1", &[("t/a.com", "one")]).await;
    assert_eq!(soon(asked).await.unwrap(), Outcome::Came);
    stream.send(VHDS, "2", &[("t/a.com", "bad")]).await;
    assert!(answer(&mut stream, VHDS, "4").await.is_some());
    let snapshot = snapshots.load();
    let table = snapshot.table("t").unwrap();
    assert_eq!(table.virtual_hosts.len(), 1, "the last good one stays");
    // It is still asked for, so that a better version comes by itself.
    assert_eq!(soon(demand.ask(host())).await, Outcome::Came);
    stream.send(VHDS, "3", &[("t/a.com", "two")]).await;
    assert_eq!(answer(&mut stream, VHDS, "5").await, None);
    running.abort();
}

#[tokio::test]
async fn an_alias_that_moves_to_what_is_refused_when_it_is_put_together_keeps_what_it_had() {
    let mut server = Server::start().await;
    let client = builder(&[&server])
        .decode(asking)
        .clusters(Wanted::Nothing)
        .build()
        .unwrap();
    let (snapshots, demand) = (client.snapshots(), client.handle().demand());
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(LDS).await;
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    stream.asked_for(RDS).await;
    stream.send(RDS, "1", &[("t", "")]).await;
    let host = || Missing::VirtualHost {
        table: "t".into(),
        host: "a.com".into(),
    };
    let asked = tokio::spawn(demand.ask(host()));
    while stream.asked_for(VHDS).await.names != ["t/a.com"] {}
    let domains = || {
        let snapshot = snapshots.load();
        let hosts = &snapshot.table("t").unwrap().virtual_hosts;
        let domains = hosts.iter().flat_map(|host| &host.domains);
        domains.map(ToString::to_string).collect::<Vec<_>>()
    };
    let to = |name: &'static str| [(name, "one")];
    stream.send_for(&["t/a.com"], VHDS, "1", &to("t/one")).await;
    assert_eq!(soon(asked).await.unwrap(), Outcome::Came);
    stream
        .send_for(&["t/a.com"], VHDS, "2", &to("t/clashes"))
        .await;
    assert!(answer(&mut stream, VHDS, "4").await.is_some());
    assert_eq!(domains(), ["one"], "the last good one stays");
    assert_eq!(soon(demand.ask(host())).await, Outcome::Came);
    stream.send_for(&["t/a.com"], VHDS, "3", &to("t/two")).await;
    assert_eq!(answer(&mut stream, VHDS, "5").await, None);
    assert_eq!(domains(), ["two"]);
    running.abort();
}

#[tokio::test]
async fn the_wait_for_clusters_ends_when_every_authority_that_is_asked_has_answered() {
    let (mut own, mut other) = (Server::start().await, Server::start().await);
    let theirs: Name = "xdstp://b/envoy.config.cluster.v3.Cluster/x".into();
    let client = builder(&[&own])
        .authority("b", [other.uri()])
        .clusters(Wanted::Named(vec!["plain".into(), theirs.clone()]))
        // Longer than this test takes.
        .initial_fetch_timeout(Some(Duration::from_secs(600)))
        .build()
        .unwrap();
    let running = tokio::spawn(client.run(std::future::pending()));
    let (mut stream, mut far) = (own.stream().await, other.stream().await);
    far.asked_for(CDS).await;
    far.send(CDS, "1", &[(&theirs, "")]).await;
    assert_eq!(answer(&mut far, CDS, "1").await, None);
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    while stream.asked_for(RDS).await.names != ["t"] {}
    stream.send(RDS, "1", &[("t", "plain")]).await;
    stream.send(CDS, "1", &[("plain", "")]).await;
    // The table is in force, and acknowledged, after its cluster was heard of.
    loop {
        let asked = stream.asked().await;
        assert_ne!((asked.kind, asked.nonce.as_str()), (RDS, "2"), "too early");
        if (asked.kind, asked.nonce.as_str()) == (CDS, "3") {
            break;
        }
    }
    stream.send(EDS, "1", &[("plain", "9")]).await;
    assert_eq!(answer(&mut stream, RDS, "2").await, None);
    running.abort();
}

#[tokio::test]
async fn a_resource_is_there_under_a_spelling_that_is_referred_to_later() {
    const KIND: &str = "envoy.config.route.v3.RouteConfiguration";
    let form = format!("xdstp:///{KIND}/t?a=1&b=2");
    let later = format!("xdstp:///{KIND}/t?b=2&a=1");
    let mut server = Server::start().await;
    let client = builder(&[&server])
        .clusters(Wanted::Nothing)
        .build()
        .unwrap();
    let mut snapshots = client.snapshots();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(LDS).await;
    stream
        .send(LDS, "1", &[("one", &format!("80 {form}"))])
        .await;
    assert_eq!(stream.asked_for(RDS).await.names, [form.as_str()]);
    stream.send(RDS, "1", &[(&form, "a")]).await;
    assert_eq!(answer(&mut stream, RDS, "2").await, None);
    // Nobody sends the table again.
    let two = format!("81 {later}");
    stream.send(LDS, "2", &[("two", &two)]).await;
    let both = async {
        loop {
            let snapshot = snapshots.load();
            if snapshot.listeners().len() == 2 {
                return snapshot;
            }
            snapshots.changed().await.unwrap();
        }
    };
    let snapshot = soon(both).await;
    let hosts = |name: &str| snapshot.table(name).unwrap().virtual_hosts.clone();
    assert_eq!(hosts(&later), hosts(&form));

    // And follows what comes for either.
    stream.send(RDS, "2", &[(&form, "b")]).await;
    assert_eq!(answer(&mut stream, RDS, "4").await, None);
    let snapshot = snapshots.load();
    let hosts = |name: &str| snapshot.table(name).unwrap().virtual_hosts.clone();
    assert_eq!(hosts(&later), hosts(&form));
    running.abort();
}

/// Resources that ask for something, and the field that says so.
fn that_ask() -> Vec<(Resource, &'static str)> {
    let at = ([127, 0, 0, 1], 80).into();
    let listener = |listener: Listener, routes: Vec<RouteSource>| {
        Resource::Listener(Box::new(ListenerResource {
            listener,
            routes,
            secrets: Vec::new(),
        }))
    };
    let mut manager = HttpManager::new("l", "t");
    manager.on_demand = SOME;
    let mut proxy = TcpProxy::to("l", "c");
    proxy.on_demand = ClustersOnDemand::Within(Duration::from_secs(9));
    let host = || VirtualHost::new("h", ["*"]).rule(Rule::prefix_to("/", "c"));
    let mut vhds = RouteTable::new("t").host(host());
    vhds.on_demand = Some(HostsOnDemand {
        table: "t".into(),
        wait: None,
    });
    let mut of_host = host();
    of_host.on_demand = SOME;
    let mut rule = Rule::prefix_to("/", "c");
    rule.on_demand = SOME;
    let of_rule = VirtualHost::new("h", ["*"]).rule(rule);
    let inline = RouteSource::Inline(Box::new(vhds.clone()));
    vec![
        (
            listener(Listener::http("l", at, manager), Vec::new()),
            "http_filters: odcds",
        ),
        (
            listener(
                Listener::new("l", at).chain(FilterChain::tcp(proxy)),
                Vec::new(),
            ),
            "on_demand",
        ),
        (
            listener(
                Listener::http("l", at, HttpManager::new("l", "t")),
                vec![inline],
            ),
            "route_config.vhds",
        ),
        (Resource::Routes(Box::new(vhds)), "vhds"),
        (
            Resource::Routes(Box::new(RouteTable::new("t").host(of_host))),
            "virtual_hosts[h].typed_per_filter_config: odcds",
        ),
        (
            Resource::Routes(Box::new(RouteTable::new("t").host(of_rule))),
            "virtual_hosts[h].routes[0].typed_per_filter_config: odcds",
        ),
    ]
}

#[test]
fn what_asks_where_nobody_answers_is_refused_by_its_field() {
    let none = Vec::<String>::new;
    for (servers, variant) in [
        (vec!["http://h:1".to_owned()], Variant::Sotw),
        (none(), Variant::Delta),
    ] {
        for (resource, field) in that_ask() {
            let client = Client::builder(servers.clone());
            let error = client.variant(variant).fixed([resource]).build();
            let error = error.unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
            assert!(error.contains("DELTA_GRPC"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_that_asks_where_nobody_answers_is_refused_alone() {
    let client = Client::builder(Vec::<String>::new()).build().unwrap();
    let handle = client.handle();
    let running = tokio::spawn(client.run(std::future::pending()));
    for (resource, field) in that_ask() {
        let Resource::Routes(table) = resource else {
            continue;
        };
        let good = RouteTable::new("good").host(VirtualHost::new("h", ["*"]));
        let given = [*table, good].map(|one| Resource::Routes(Box::new(one)));
        let supplied = handle.supply(RDS, "rds.yaml".into(), given.into());
        let refused = soon(supplied).await.unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, "t");
        assert_eq!(refused[0].1.path(), field);
    }
    running.abort();
}
