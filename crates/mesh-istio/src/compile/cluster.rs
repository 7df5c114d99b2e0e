//! Clusters and their endpoints: one per service port, and per subset of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::discovery::{Instance, Resolution};
use mesh_core::model::{
    Balancing, Cluster, DiscoveryKind, Dns, DnsFamily, EndpointSet, Limits, Locality,
    LocalityEndpoints, Outlier, RetryBudget, ServiceRef, TcpKeepalive, UpstreamProtocol,
};
use mesh_core::{Name, Origin};

use super::memory::Place;
use super::policy::{self, Policy};
use super::spread::{self, Spread};
use super::{Compiler, mutual, tls};
use crate::names::{BLACK_HOLE, PASSTHROUGH, outbound};
use crate::registry::Entry;
use crate::spec::MutualTls;
use crate::spec::kubernetes::Protocol;
use crate::spec::traffic_policy::{ClientTls, ConnectionPool, OutlierDetection, Simple};

mod balancing;

/// One port of a service, or of a subset of it.
struct Part<'p> {
    entry: &'p Entry,
    subset: &'p str,
    port: u16,
    protocol: Protocol,
    policy: Policy,
    /// The policy is for workloads with certain labels.
    selected: bool,
    origin: Origin,
    policy_origin: Origin,
}

/// Adds the clusters of a service, once.
pub(super) fn service(compiler: &mut Compiler<'_>, entry: &Arc<Entry>) {
    if !compiler.served.insert(entry.service.id.host.clone()) {
        return;
    }
    let index = Arc::clone(&compiler.memory.rules);
    // Not what rules depend on that lead here: whoever uses those again comes here again.
    let seen = compiler.viewer.forget();
    let rules = policy::find(compiler, &index, entry, compiler.viewer.namespace());
    compiler.half.seen = compiler.half.seen.and(compiler.viewer.forget());
    compiler.viewer.note(seen);
    credentials(compiler, &rules);
    let seen = compiler.viewer.forget();
    let place = Place {
        intercepts: compiler.intercepts(),
        gateway: compiler.viewer.is_gateway(),
        identity: compiler.viewer.has_identity(),
        mutual: compiler.memory.peers.namespace(entry.namespace()) != MutualTls::Disable,
        spreads: spreads(compiler, entry, &rules),
    };
    compiler.half.seen = compiler.half.seen.and(compiler.viewer.forget());
    compiler.viewer.note(seen);
    let known = compiler.memory.clusters(entry, &rules.stamps, &place);
    let made = known.unwrap_or_else(|| {
        let made = Arc::new(make(compiler, entry, &rules, &place.spreads));
        let memory = &mut compiler.memory;
        memory.keep_clusters(entry, rules.stamps.clone(), place.clone(), &made);
        made
    });
    for (cluster, endpoints) in &*made {
        compiler.clusters.insert(cluster.name.clone());
        let half = &mut compiler.half;
        half.clusters.push(Arc::clone(cluster));
        half.endpoints
            .push((cluster.name.clone(), Arc::clone(endpoints)));
    }
    for ((cluster, _), spread) in made.iter().zip(place.spreads) {
        let spread = spread.map(|spread| (cluster.name.clone(), spread));
        compiler.half.spreads.extend(spread);
    }
}

/// Which endpoints come first for this node, for each cluster of a service in the order in which
/// [`make`] makes them; empty where that is said of none.
fn spreads(
    compiler: &Compiler<'_>,
    entry: &Entry,
    rules: &policy::Rules<'_>,
) -> Vec<Option<Arc<Spread>>> {
    let mesh = compiler.mesh;
    let top = rules.policy.map(|(_, policy)| policy);
    let subsets = rules.subsets.iter();
    let subsets = subsets.filter_map(|(_, subset)| subset.policy.as_ref());
    let asked = entry.distribution.is_some()
        || !mesh.locality.distribute.is_empty()
        || mesh.zone_aware.is_some()
        || mesh.policy.as_ref().is_some_and(spread::says)
        || top.into_iter().chain(subsets).any(spread::says);
    if !asked {
        return Vec::new();
    }
    let mut spreads = Vec::new();
    for (port, _) in entry.ports() {
        let subsets = rules.subsets.iter().map(|(_, subset)| Some(*subset));
        for subset in std::iter::once(None).chain(subsets) {
            let policy = policy::resolve(mesh, rules, subset, port);
            spreads.push(spread::spread(compiler, entry, &policy));
        }
    }
    spreads
}

/// Says which Secrets that destination rules name are not there, or are not for this node.
fn credentials(compiler: &mut Compiler<'_>, rules: &policy::Rules<'_>) {
    let top = rules.policy.into_iter();
    let subsets = rules.subsets.iter();
    let subsets = subsets.filter_map(|(meta, subset)| Some((*meta, subset.policy.as_ref()?)));
    // Whoever uses rules again comes here again: they need not remember this.
    let hears = compiler.hears.take();
    for (meta, policy) in top.chain(subsets) {
        let ports = policy.ports.iter().map(|port| &port.blocks);
        for blocks in std::iter::once(&policy.blocks).chain(ports) {
            if let Some(ClientTls::Mesh(asked)) = &blocks.tls
                && !compiler.viewer.has_identity()
            {
                let message = "ISTIO_MUTUAL needs a certificate of the mesh, and this proxy has \
                               none: connections fail";
                let path = "spec.trafficPolicy.tls.mode";
                compiler.fail(meta, asked.at, path, message.to_owned());
            }
            let asked = blocks.tls.as_ref().and_then(ClientTls::origination);
            let Some((asked, name)) = asked.and_then(|one| Some((one, one.credential()?))) else {
                continue;
            };
            let message = if !compiler.viewer.is_gateway() && !rules.selected {
                "credentialName is for gateways, and for sidecars where the rule has a \
                 workloadSelector; here it has no effect"
                    .to_owned()
            } else if tls::has(compiler.world, compiler.viewer.namespace(), asked) {
                continue;
            } else {
                let namespace = compiler.viewer.namespace();
                format!(
                    "the Secret {:?} in namespace {namespace:?} is missing, or has not all that is \
                     needed: until there is one, connections fail",
                    name.value
                )
            };
            compiler.warn(meta, name.at, "spec.trafficPolicy.tls", message);
        }
    }
    compiler.hears = hears;
}

/// The clusters of a service. They depend on nothing of the node but its [`Place`]: what else
/// does has to be among what [`service`] tells them apart by.
fn make(
    compiler: &mut Compiler<'_>,
    entry: &Entry,
    rules: &policy::Rules<'_>,
    spreads: &[Option<Arc<Spread>>],
) -> Vec<(Arc<Cluster>, Arc<EndpointSet>)> {
    let mut made = Vec::new();
    let spread = |made: &Vec<_>| spreads.get(made.len()).and_then(Option::as_deref);
    for (port, protocol) in entry.ports() {
        let policy = policy::resolve(compiler.mesh, rules, None, port);
        let origin = compiler.origin(&entry.meta, entry.at);
        let policy_origin = match rules.policy {
            Some((meta, _)) => compiler.origin(meta, policy.at),
            None => Origin::NONE,
        };
        let whole = Part {
            entry,
            subset: "",
            port,
            protocol,
            policy,
            selected: rules.selected,
            origin,
            policy_origin,
        };
        let cluster = one(compiler, &whole, spread(&made), |_| true);
        made.push(cluster);
        for (meta, subset) in &rules.subsets {
            let policy = policy::resolve(compiler.mesh, rules, Some(subset), port);
            let origin = compiler.origin(meta, subset.at);
            let policy_origin = match (&subset.policy, rules.policy) {
                (Some(_), _) => compiler.origin(meta, policy.at),
                (None, Some((owner, _))) => compiler.origin(owner, policy.at),
                (None, None) => Origin::NONE,
            };
            let labels = policy::labels(subset);
            let subset = subset.name.as_str();
            let part = Part {
                entry,
                subset,
                port,
                protocol,
                policy,
                selected: rules.selected,
                origin,
                policy_origin,
            };
            let cluster = one(compiler, &part, spread(&made), |instance| {
                let have = &instance.endpoint.labels;
                labels
                    .iter()
                    .all(|(key, value)| have.get(key) == Some(value))
            });
            made.push(cluster);
        }
    }
    made
}

fn one(
    compiler: &Compiler<'_>,
    part: &Part<'_>,
    spread: Option<&Spread>,
    takes: impl Fn(&Instance) -> bool,
) -> (Arc<Cluster>, Arc<EndpointSet>) {
    let Part {
        entry,
        policy,
        port,
        protocol,
        policy_origin,
        ..
    } = part;
    let (port, protocol, policy_origin) = (*port, *protocol, *policy_origin);
    let name = outbound(port, part.subset, entry.host());
    let mut cluster = Cluster::new(name.as_str());
    cluster.origin = part.origin;
    cluster.policy_origin = policy_origin;
    cluster.discovery = discovery(compiler, part);
    if matches!(
        cluster.discovery,
        DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns
    ) {
        cluster.dns = dns(compiler.mesh.dns_refresh);
    }
    cluster.service = ServiceRef {
        host: entry.service.id.host.clone(),
        name: entry.service.name.clone(),
        namespace: entry.service.id.namespace.clone(),
        subset: Name::from(part.subset),
        port,
    };
    if entry.service.external {
        // As istiod marks it; nobody outside is told who calls.
        cluster
            .metadata
            .insert("istio/external".into(), "true".into());
    }
    cluster.connect_timeout = compiler.mesh.connect_timeout;
    cluster.stat_name = compiler.stat_name(&name);
    cluster.protocol = upstream(protocol);
    balancing::apply(&mut cluster, policy.blocks.balancer.as_ref());
    cluster.localities = spread::localities(compiler, entry, policy);
    cluster.limits = Limits::unlimited();
    if let Some(pool) = &policy.blocks.pool {
        apply_pool(&mut cluster, pool, protocol);
    }
    cluster.limits.budget = policy.retry_budget.map(|asked| {
        let mut budget = RetryBudget::default();
        budget.share = asked.share.unwrap_or(budget.share);
        budget.min_concurrency = asked.min_concurrency.unwrap_or(budget.min_concurrency);
        budget.interval = asked.interval.unwrap_or(budget.interval);
        budget
    });
    if let Some(asked) = &policy.blocks.outlier {
        // Whoever ejects hosts does not want them back through panic.
        cluster.panic_threshold = asked.min_health_percent.unwrap_or(0);
        let mut outlier = outlier(asked);
        outlier.origin = policy_origin;
        cluster.outlier = Some(outlier);
    }
    cluster.proxy_protocol = policy.proxy_protocol;
    let asked = policy.blocks.tls.as_ref().and_then(ClientTls::origination);
    if let Some(asked) = asked {
        let h2 = cluster.protocol == UpstreamProtocol::Http2;
        let secrets = compiler.viewer.is_gateway() || part.selected;
        let named = &entry.subject_alt_names;
        let agent = compiler.intercepts();
        cluster.tls = Some(tls::client(asked, policy_origin, named, h2, agent, secrets));
        // As istiod marks it: what is agreed on inside is not the mesh's business.
        let metadata = &mut cluster.metadata;
        metadata.insert("istio/alpn_override".into(), "false".into());
    }
    let h2 = cluster.protocol == UpstreamProtocol::Http2;
    let of = (*entry, part.subset, port);
    match &policy.blocks.tls {
        Some(ClientTls::Mesh(asked)) => {
            let tls = mutual::client(compiler, of, Some(&**asked), policy_origin, h2);
            cluster.tls = Some(tls);
        }
        None if cluster.discovery != DiscoveryKind::Authority => {
            let simple = policy.blocks.balancer.as_ref().map(|one| one.simple);
            let called = entry.headless
                || entry.service.resolution == Resolution::None
                || simple == Some(Simple::Passthrough);
            if mutual::is_automatic(compiler, entry, called) {
                let tls = mutual::client(compiler, of, None, part.origin, h2);
                match cluster.discovery {
                    // Which endpoint it will be nobody knows: all of them take it.
                    DiscoveryKind::OriginalDestination => cluster.tls = Some(tls),
                    _ => cluster.tls_matches = mutual::matches(tls),
                }
            }
        }
        _ => {}
    }
    // Of others it is not known beforehand where they are.
    let listed = matches!(
        cluster.discovery,
        DiscoveryKind::Endpoints | DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns
    );
    let instances = entry.instances.iter();
    let instances = instances.filter(|one| listed && one.port == port && takes(one));
    (Arc::new(cluster), Arc::new(endpoints(instances, spread)))
}

/// How the endpoints of a cluster become known.
fn discovery(compiler: &Compiler<'_>, part: &Part<'_>) -> DiscoveryKind {
    // Without interception nobody knows where a connection was going to but from what it asks for.
    let original = match compiler.intercepts() {
        true => DiscoveryKind::OriginalDestination,
        false => DiscoveryKind::Authority,
    };
    let simple = part.policy.blocks.balancer.as_ref().map(|one| one.simple);
    if simple == Some(Simple::Passthrough) {
        return original;
    }
    let gateway = compiler.viewer.is_gateway();
    match part.entry.service.resolution {
        Resolution::Static if part.entry.headless && compiler.intercepts() && !gateway => original,
        Resolution::Static => DiscoveryKind::Endpoints,
        Resolution::Dns => DiscoveryKind::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryKind::LogicalDns,
        Resolution::DynamicDns => DiscoveryKind::Authority,
        // Nothing that comes to a gateway was going somewhere else.
        Resolution::None if gateway && compiler.intercepts() => DiscoveryKind::Endpoints,
        Resolution::None => original,
        _ => DiscoveryKind::Endpoints,
    }
}

/// How names of endpoints are resolved, as istiod has it.
fn dns(refresh: Duration) -> Dns {
    let mut dns = Dns::default();
    dns.refresh = refresh;
    dns.jitter = Duration::from_millis(100);
    dns.respect_ttl = true;
    dns.family = DnsFamily::V4Only;
    dns
}

/// What is spoken to the endpoints of a port.
pub(super) fn upstream(protocol: Protocol) -> UpstreamProtocol {
    match protocol {
        Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2,
        Protocol::Unknown => UpstreamProtocol::AsDownstream,
        _ => UpstreamProtocol::Http1,
    }
}

/// Lays a connection pool over a cluster that has Istio's defaults.
pub(super) fn apply_pool(cluster: &mut Cluster, pool: &ConnectionPool, protocol: Protocol) {
    let limits = &mut cluster.limits;
    limits.max_connections = pool.max_connections.unwrap_or(limits.max_connections);
    limits.max_pending = pool.max_pending.unwrap_or(limits.max_pending);
    limits.max_requests = pool.max_requests.unwrap_or(limits.max_requests);
    limits.max_retries = pool.max_retries.unwrap_or(limits.max_retries);
    cluster.connect_timeout = pool.connect_timeout.unwrap_or(cluster.connect_timeout);
    cluster.max_requests_per_connection = pool.max_requests_per_connection.unwrap_or(0);
    // tcp.idleTimeout stands in for http.idleTimeout; 0 is never.
    match pool.idle_timeout.or(pool.tcp_idle_timeout) {
        Some(Duration::ZERO) => cluster.idle_timeout = None,
        Some(idle) => cluster.idle_timeout = Some(idle),
        None => {}
    }
    cluster.max_connection_duration = pool.max_connection_duration;
    if let Some(streams) = pool.max_concurrent_streams {
        cluster.max_concurrent_streams = streams;
    }
    cluster.http2_keepalive = pool.http2_keepalive;
    cluster.tcp_keepalive = pool.keepalive.map(|asked| TcpKeepalive {
        probes: asked.probes,
        time: asked.time,
        interval: asked.interval,
    });
    if pool.use_client_protocol {
        cluster.protocol = UpstreamProtocol::AsDownstream;
    } else if pool.upgrade == Some(true) {
        cluster.protocol = UpstreamProtocol::Http2;
    } else if pool.upgrade == Some(false) && !protocol.is_http2() {
        cluster.protocol = UpstreamProtocol::Http1;
    }
}

fn outlier(asked: &OutlierDetection) -> Outlier {
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = asked.consecutive_5xx.unwrap_or(outlier.consecutive_5xx);
    outlier.consecutive_gateway_failure = asked
        .consecutive_gateway
        .unwrap_or(outlier.consecutive_gateway_failure);
    outlier.consecutive_local_failure = asked
        .consecutive_local
        .unwrap_or(outlier.consecutive_local_failure);
    outlier.split_local_origin = asked.split_local;
    outlier.interval = asked.interval.unwrap_or(outlier.interval);
    outlier.base_ejection_time = asked
        .base_ejection_time
        .unwrap_or(outlier.base_ejection_time);
    outlier.max_ejection_time = outlier.max_ejection_time.max(outlier.base_ejection_time);
    outlier.max_ejection_percent = asked
        .max_ejection_percent
        .unwrap_or(outlier.max_ejection_percent);
    outlier.error_codes.clone_from(&asked.error_codes);
    outlier
}

/// The endpoints that [`compile`](crate::compile) gives to the cluster of a port of a service: all
/// of `instances` that serve the port, or, for a subset, those that carry all of its labels; in
/// the order of `spread`, if the cluster has one for the node
/// ([`Workshop::spread`](crate::Workshop::spread)).
pub fn endpoints_of<'l>(
    instances: &[Instance],
    port: u16,
    labels: impl IntoIterator<Item = (&'l str, &'l str)> + Clone,
    spread: Option<&Spread>,
) -> EndpointSet {
    let carries = |one: &Instance| {
        let have = &one.endpoint.labels;
        let mut wanted = labels.clone().into_iter();
        wanted.all(|(key, value)| have.get(key).is_some_and(|have| *have == *value))
    };
    let serving = instances.iter().filter(|one| one.port == port);
    endpoints(serving.filter(|one| carries(one)), spread)
}

/// Endpoints grouped by locality, each address once: of several with the same one the first stays.
/// gRPC clients refuse what repeats an address (gRFC A27), and Envoy drops it.
pub(super) fn endpoints<'i>(
    instances: impl Iterator<Item = &'i Instance>,
    spread: Option<&Spread>,
) -> EndpointSet {
    let mut groups: BTreeMap<Locality, Vec<_>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for instance in instances.filter(|one| seen.insert(&one.endpoint.address)) {
        groups
            .entry(instance.locality.clone())
            .or_default()
            .push(Arc::clone(&instance.endpoint));
    }
    let mut set = EndpointSet::default();
    for (locality, endpoints) in groups {
        let mut group = LocalityEndpoints::default();
        group.locality = locality;
        group.weight = endpoints
            .iter()
            .fold(0, |sum, one| sum.saturating_add(one.weight));
        group.endpoints = endpoints;
        set.localities.push(group);
    }
    match spread {
        Some(spread) => spread.over(set),
        None => set,
    }
}

/// The two clusters that every proxy has, but for intercepted gateways: nothing leads them to
/// unknown hosts.
pub(super) fn built_in(compiler: &mut Compiler<'_>) {
    let mut hole = Cluster::new(BLACK_HOLE);
    hole.connect_timeout = compiler.mesh.connect_timeout;
    hole.stat_name = compiler.stat_name(BLACK_HOLE);
    if compiler.intercepts() {
        hole.balancing = Balancing::RoundRobin;
    }
    compiler.half.clusters.push(Arc::new(hole));
    if compiler.intercepts() && compiler.viewer.is_gateway() {
        return;
    }
    let pass = passthrough(compiler, PASSTHROUGH);
    compiler.half.clusters.push(Arc::new(pass));
}

/// A cluster that passes on to wherever something was going to.
pub(super) fn passthrough(compiler: &Compiler<'_>, name: &str) -> Cluster {
    let mut pass = Cluster::new(name);
    // istiod calls the one on the way in like the one on the way out.
    pass.stat_name = compiler.stat_name(PASSTHROUGH);
    pass.discovery = match compiler.intercepts() {
        true => DiscoveryKind::OriginalDestination,
        false => DiscoveryKind::Authority,
    };
    pass.connect_timeout = compiler.mesh.connect_timeout;
    pass.limits = Limits::unlimited();
    pass.protocol = UpstreamProtocol::AsDownstream;
    pass.idle_timeout = Some(Duration::from_secs(300));
    pass
}
