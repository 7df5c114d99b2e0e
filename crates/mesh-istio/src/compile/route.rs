//! Rules from a virtual service: one per match block.
//!
//! What istiod decides when it generates routes is decided here too: which
//! gateways, ports and clients a block is for. The blocks of one route share
//! its policies.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use mesh_core::Name;
use mesh_core::model::{
    Action, AuthorityRewrite, Condition, DirectResponse, Forward, HashPolicy, HeaderEdits,
    PathMatch, PathRewrite, Redirect, RedirectPath, Retry, Rule, Target, Weighted,
};

use super::memory::{List, Rules};
use super::policy as cluster_policy;
use super::{Compiler, Heard, cluster, l4};
use crate::names::{complete, outbound};
use crate::registry::Entry;
use crate::spec::virtual_service::{
    self as spec, Destination, HttpMatch, PortSource, RewritePath, WeightedDestination,
};
use crate::spec::{Meta, VirtualService};

mod condition;
mod default;
mod delegate;
mod policy;

use delegate::Merged;

pub(super) use default::{default_rule, wanting};
pub(super) use policy::default_retry;

/// Where rules are going to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'s> {
    /// `mesh`, or a gateway as `namespace/name`.
    pub(super) gateway: &'s str,
    /// The service's port, or the gateway server's.
    pub(super) port: u16,
}

/// The rules of a virtual service at a site. Those behind one that matches
/// everything could never be reached and are left out.
///
/// Rules that were made before of the same are the very same: of the same object, the same
/// delegates, services and clusters, for a node that is the same in what was asked of it.
pub(super) fn rules(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    spec: &VirtualService,
    site: Site<'_>,
) -> Rules {
    let place = (Name::from(site.gateway), site.port);
    if let Some(rules) = again(compiler, meta, &place) {
        return rules;
    }
    remembered(compiler, meta, place, |compiler| {
        make(compiler, meta, spec, site)
    })
}

/// Makes rules, and remembers what had a say in them.
fn remembered(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    place: (Name, u16),
    make: impl FnOnce(&mut Compiler<'_>) -> Vec<Arc<Rule>>,
) -> Rules {
    let seen = compiler.viewer.forget();
    let outer = compiler.hears.replace(Heard::default());
    let rules = Arc::new(make(compiler));
    let heard = std::mem::replace(&mut compiler.hears, outer).unwrap_or_default();
    let asked = compiler.viewer.asked(compiler.viewer.seen());
    compiler.viewer.note(seen);
    let list = List {
        asked,
        heard: Arc::new(heard),
        rules: Arc::clone(&rules),
    };
    compiler.memory.keep_list(meta.stamp, place, list);
    rules
}

/// The rules as they were made before, if nothing that had a say in them is another now.
fn again(compiler: &mut Compiler<'_>, meta: &Meta, place: &(Name, u16)) -> Option<Rules> {
    let (world, services) = (compiler.world, compiler.services);
    let index = Arc::clone(&compiler.memory.rules);
    let same = |list: &List| {
        let heard = &list.heard;
        let entry = |(host, was): &(String, Option<Arc<Entry>>)| match (services.entry(host), was) {
            (Some(now), Some(was)) => Arc::ptr_eq(now, was),
            (None, None) => true,
            _ => false,
        };
        let delegate = |(namespace, name, was): &(String, String, Option<u64>)| {
            let now = delegate::named(world, namespace, name).map(|(meta, _)| meta.stamp);
            now == *was
        };
        let policy = |(entry, was): &(Arc<Entry>, Vec<u64>)| {
            let viewer = compiler.viewer.namespace();
            cluster_policy::find(compiler, &index, entry, viewer).stamps == *was
        };
        list.asked.holds(&compiler.viewer)
            && heard.policies.iter().all(policy)
            && heard.services.iter().all(entry)
            && heard.delegates.iter().all(delegate)
    };
    let known = compiler.memory.lists(meta.stamp, place).enumerate();
    let known: Vec<_> = known
        .filter(|(_, list)| same(list))
        .map(|(index, list)| (index, list.clone()))
        .collect();
    for (index, list) in known {
        // Destinations have clusters, as when the rules were made.
        for (_, entry) in &list.heard.services {
            if let Some(entry) = entry.as_ref().filter(|entry| compiler.sees(entry)) {
                cluster::service(compiler, entry);
            }
        }
        let there = |(name, was): &(Name, bool)| compiler.clusters.contains(name) == *was;
        if !list.heard.clusters.iter().all(there) {
            continue;
        }
        compiler.viewer.note(list.asked.seen());
        compiler.memory.use_list(meta.stamp, place, index);
        for (what, finding) in &list.heard.warnings {
            compiler.warned(what.clone(), finding.clone());
        }
        return Some(list.rules);
    }
    None
}

fn make(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    spec: &VirtualService,
    site: Site<'_>,
) -> Vec<Arc<Rule>> {
    let mut rules = Vec::new();
    for merged in delegate::routes(compiler, meta, spec) {
        let shared = Shared::new(compiler, &merged, site);
        if merged.route.matches.is_empty() {
            let rule = rule(compiler, meta, &merged, None, &shared, site);
            rules.push(Arc::new(rule));
            break;
        }
        for block in &merged.route.matches {
            if !applies(compiler, meta, block, site) {
                continue;
            }
            let rule = rule(compiler, meta, &merged, Some(block), &shared, site);
            let last = matches_everything(&rule);
            rules.push(Arc::new(rule));
            if last {
                return rules;
            }
        }
    }
    rules
}

/// What the match blocks of one route have in common.
struct Shared {
    action: Action,
    retry: Option<Arc<Retry>>,
    fault: Option<Arc<mesh_core::model::Fault>>,
    cors: Option<Arc<mesh_core::model::Cors>>,
    mirrors: Vec<mesh_core::model::Mirror>,
    request_edits: HeaderEdits,
    response_edits: HeaderEdits,
}

impl Shared {
    fn new(compiler: &mut Compiler<'_>, merged: &Merged<'_>, site: Site<'_>) -> Self {
        let (route, owners) = (&*merged.route, &merged.owners);
        let mut request = vec![&route.headers().request];
        let mut response = vec![&route.headers().response];
        // Of a single destination, the edits and the rewrite join the route's.
        if let spec::Action::Route(destinations) = &route.action
            && let [only] = destinations.as_slice()
        {
            request.push(&only.headers().request);
            response.push(&only.headers().response);
        }
        let (request_edits, response_edits) = (policy::edits(&request), policy::edits(&response));
        let action = action(compiler, merged, site);
        // To a single destination that hashes, retries go where the request went.
        let hashed = match &action {
            Action::Forward(forward) => {
                Some(!forward.hash.is_empty() && matches!(forward.to, Target::Cluster(..)))
            }
            _ => None,
        };
        Self {
            action,
            retry: match (&route.retries, hashed) {
                (_, None) => None,
                (Some(own), Some(hashed)) => {
                    let retry = policy::retry(compiler, own, Some(owners.retries), hashed);
                    retry.map(Arc::new)
                }
                (None, Some(hashed)) => default_retry(compiler, hashed),
            },
            fault: route
                .fault
                .as_ref()
                .map(|it| Arc::new(policy::fault(compiler, owners.fault, it))),
            cors: route
                .cors
                .as_ref()
                .map(|it| Arc::new(policy::cors(compiler, owners.cors, it))),
            mirrors: policy::mirrors(compiler, owners.mirrors, route, site),
            request_edits,
            response_edits,
        }
    }
}

/// Whether a block is for this gateway, port and client.
fn applies(compiler: &Compiler<'_>, meta: &Meta, block: &HttpMatch, site: Site<'_>) -> bool {
    let named = |name: &String| gateway_name(name, &meta.namespace) == site.gateway;
    let viewer = &compiler.viewer;
    let labels = &block.source_labels;
    (block.gateways.is_empty() || block.gateways.iter().any(named))
        && block.port.is_none_or(|port| port == site.port)
        && (block.source_namespace.is_empty() || block.source_namespace == viewer.namespace())
        && (labels.is_empty() || crate::registry::contains(viewer.labels(), labels))
}

/// `mesh` as it is, anything else as `namespace/name`.
pub(super) fn gateway_name(name: &str, namespace: &str) -> String {
    match name == "mesh" || name.contains('/') {
        true => name.to_owned(),
        false => format!("{namespace}/{name}"),
    }
}

/// Whether nothing gets past a rule.
pub(super) fn matches_everything(rule: &Rule) -> bool {
    let condition = &rule.condition;
    matches!(&condition.path, PathMatch::Prefix(prefix) if prefix == "/")
        && condition.headers.is_empty()
        && condition.query.is_empty()
}

fn rule(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    merged: &Merged<'_>,
    block: Option<&HttpMatch>,
    shared: &Shared,
    site: Site<'_>,
) -> Rule {
    let (route, owners) = (&*merged.route, &merged.owners);
    let mut condition = Condition::default();
    if let Some(block) = block {
        condition = condition::condition(block);
        condition.origin = compiler.origin(owners.matches, block.at);
    }
    let mut rule = Rule::new(condition, shared.action.clone());
    rule.origin = compiler.origin(owners.action, route.at);
    rule.name = Name::from(match block.map(|block| block.name.as_str()) {
        None | Some("") => route.name.clone(),
        Some(name) => format!("{}.{name}", route.name),
    });
    if let Some(block) = block {
        rule.stat_prefix = Name::from(block.stat_prefix.as_str());
    }
    rule.operation = operation(&rule, meta, site);
    if let Action::Forward(_) = &rule.action {
        let timeout = route.timeout.filter(|timeout| !timeout.is_zero());
        rule.timeout = timeout.map(|timeout| timeout.value);
        // A caller's grpc-timeout counts, up to the route's own limit; 0 is no limit.
        rule.max_grpc_timeout = Some(rule.timeout.unwrap_or_default());
        if let Some(timeout) = route.timeout {
            rule.timeout_origin = compiler.origin(owners.timeout, timeout.at);
        }
    }
    rule.retry.clone_from(&shared.retry);
    rule.fault.clone_from(&shared.fault);
    rule.cors.clone_from(&shared.cors);
    rule.mirrors.clone_from(&shared.mirrors);
    rule.request_edits.clone_from(&shared.request_edits);
    rule.response_edits.clone_from(&shared.response_edits);
    rule
}

/// `host:port/path`, after the destination, or after the virtual service where there is not just
/// one.
fn operation(rule: &Rule, meta: &Meta, site: Site<'_>) -> Name {
    let path = match &rule.condition.path {
        PathMatch::Prefix(path) | PathMatch::PrefixIgnoreCase(path) => format!("{path}*"),
        PathMatch::Exact(path) | PathMatch::ExactIgnoreCase(path) => path.clone(),
        PathMatch::Regex(pattern) => pattern.source().to_owned(),
        _ => "/*".to_owned(),
    };
    if let Action::Forward(forward) = &rule.action
        && let Target::Cluster(name, _) = &forward.to
    {
        let mut parts = name.split('|');
        if let (Some(port), Some(host)) = (parts.nth(1), parts.nth(1)) {
            return Name::from(format!("{host}:{port}{path}"));
        }
    }
    Name::from(format!("{}:{}{path}", meta.name, site.port))
}

fn action(compiler: &mut Compiler<'_>, merged: &Merged<'_>, site: Site<'_>) -> Action {
    let meta = merged.owners.action;
    match &merged.route.action {
        spec::Action::Route(destinations) => {
            Action::Forward(forward(compiler, merged, destinations, site))
        }
        spec::Action::Redirect(asked) => Action::Redirect(redirect(compiler, meta, asked, site)),
        spec::Action::Respond(asked) => {
            let mut answer = DirectResponse::default();
            answer.origin = compiler.origin(meta, asked.at);
            answer.status = StatusCode::from_u16(asked.status).unwrap_or_default();
            answer.body = Bytes::copy_from_slice(&asked.body);
            Action::Respond(answer)
        }
        // The delegate's rules have taken its place; this one leads nowhere.
        spec::Action::Delegate(asked) => {
            let mut answer = DirectResponse::default();
            answer.origin = compiler.origin(meta, asked.at);
            answer.status = StatusCode::NOT_FOUND;
            Action::Respond(answer)
        }
    }
}

fn forward(
    compiler: &mut Compiler<'_>,
    merged: &Merged<'_>,
    destinations: &[WeightedDestination],
    site: Site<'_>,
) -> Forward {
    let (route, meta) = (&*merged.route, merged.owners.action);
    let mut forward = Forward::default();
    // The least specific first: what comes later wins.
    let mut authority = route.headers().request.authority.clone();
    if let Some(rewrite) = &route.rewrite {
        forward.rewrite_origin = compiler.origin(merged.owners.rewrite, rewrite.at);
        forward.path = match &rewrite.path {
            None => PathRewrite::Keep,
            Some(RewritePath::Prefix(with)) => PathRewrite::Prefix(with.clone()),
            Some(RewritePath::Regex(pattern, with)) => {
                PathRewrite::Regex(pattern.clone(), with.clone())
            }
        };
        authority = rewrite.authority.clone().or(authority);
    }
    forward.to = match destinations {
        [only] => {
            authority = only.headers().request.authority.clone().or(authority);
            let name = destination(compiler, meta, &only.destination, site);
            Target::Cluster(name, compiler.origin(meta, only.at))
        }
        several => Target::Weighted(
            several
                .iter()
                .filter(|one| one.weight > 0)
                .map(|one| weighted(compiler, meta, one, site))
                .collect(),
        ),
    };
    forward.authority =
        authority.map(|authority| Box::new(AuthorityRewrite::Literal(authority.into())));
    // All that may be chosen hash by what one of them wants.
    let single = destinations.len() == 1;
    for one in destinations.iter().filter(|one| single || one.weight > 0) {
        let policy = l4::destination_policy(compiler, meta, &one.destination, site);
        let source = policy.hash_source().cloned();
        forward.hash.extend(source.map(HashPolicy::new));
    }
    forward
}

fn weighted(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    one: &WeightedDestination,
    site: Site<'_>,
) -> Weighted {
    let mut part = Weighted::default();
    part.origin = compiler.origin(meta, one.at);
    part.cluster = destination(compiler, meta, &one.destination, site);
    part.weight = one.weight;
    part.request_edits = policy::edits(&[&one.headers().request]);
    policy::set_host(
        &mut part.request_edits,
        one.headers().request.authority.as_deref(),
    );
    part.response_edits = policy::edits(&[&one.headers().response]);
    part
}

fn redirect(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    asked: &spec::Redirect,
    site: Site<'_>,
) -> Redirect {
    let mut redirect = Redirect::default();
    redirect.origin = compiler.origin(meta, asked.at);
    redirect.code = asked.code;
    redirect.scheme = asked.scheme.as_ref().map(Name::from);
    let port = match asked.port {
        Some(PortSource::Number(port)) => Some(port),
        // Rules are made for one port, so the request's is known.
        Some(PortSource::Request) => Some(site.port),
        Some(PortSource::ProtocolDefault) | None => None,
    };
    let usual = match asked.scheme.as_deref() {
        Some("https") => 443,
        _ => 80,
    };
    redirect.port = port.filter(|port| *port != usual);
    if let Some(authority) = &asked.authority {
        // An authority may bring its own port along.
        let split = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.ends_with(':'));
        let own = split.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, own) = own.map_or((authority.as_str(), None), |(host, port)| {
            (host, Some(port))
        });
        redirect.host = Some(Name::from(host));
        redirect.port = redirect.port.or(own);
    }
    redirect.path = match &asked.path {
        Some(spec::RedirectPath::Full(path)) if !path.is_empty() => {
            RedirectPath::Full(path.clone())
        }
        Some(spec::RedirectPath::Prefix(prefix)) => RedirectPath::Prefix(prefix.clone()),
        _ => RedirectPath::Keep,
    };
    redirect
}

/// The cluster of a destination. One that does not exist is used all the same, with a warning.
pub(super) fn destination(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    asked: &Destination,
    site: Site<'_>,
) -> Name {
    let host = complete(&asked.host, &meta.namespace);
    let entry = compiler.service(&host);
    let only = entry.as_ref().and_then(|entry| entry.only_port());
    let port = asked
        .port
        .map(|port| port.value)
        .or(only)
        .unwrap_or(site.port);
    let name = outbound(port, &asked.subset, &host);
    let port_at = asked.port.map_or(asked.host.at, |port| port.at);
    let (path, at, message) = match &entry {
        None => (
            "host",
            asked.host.at,
            format!("no service has the host {host:?}"),
        ),
        Some(entry) if !compiler.sees(entry) => {
            let viewer = compiler.viewer.namespace();
            let message = format!("{host:?} is not exported to namespace {viewer:?}");
            ("host", asked.host.at, message)
        }
        Some(entry) => {
            cluster::service(compiler, entry);
            if let Some(name) = compiler.cluster_named(&name) {
                return name;
            }
            if entry.ports().any(|(have, _)| have == port) {
                let subset = &asked.subset.value;
                let message = format!("no DestinationRule for {host:?} has a subset {subset:?}");
                ("subset", asked.subset.at, message)
            } else {
                ("port", port_at, format!("{host:?} has no port {port}"))
            }
        }
    };
    let message = format!("{message}; requests sent there are answered 503, connections closed");
    compiler.warn(meta, at, &format!("{}.{path}", asked.path), message);
    Name::from(name)
}
