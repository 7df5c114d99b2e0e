//! Which YAML a resource came from.
//!
//! Resources carry no origins, so that a comment line above a rule sends nothing to anybody. They
//! are looked up here, in the snapshot that the resources were written from.

use mesh_core::Origin;
use mesh_core::model::{RouteTable, Rule, Snapshot, VirtualHost};
use mesh_xds::TypeUrl;
use serde_json::{Map, Value, json};

/// Where a resource came from, as `VirtualService reviews.default (mesh/reviews.yaml:14:7)`.
///
/// `message` says what is wrong with it: a virtual host, a route or the number of one that it
/// names is taken into account.
pub(crate) fn of(snapshot: &Snapshot, kind: TypeUrl, name: &str, message: &str) -> Option<String> {
    let origin = match kind {
        TypeUrl::Cluster | TypeUrl::Endpoints => cluster(snapshot, name),
        TypeUrl::Listener => listener(snapshot, name),
        TypeUrl::Routes => match snapshot.table(name) {
            Some(table) => routes(table, message),
            // gRPC has a table per service port, called like its cluster.
            None => cluster(snapshot, name),
        },
        _ => Origin::NONE,
    };
    place(snapshot, origin)
}

/// The origins of everything in a snapshot, by type and name.
pub(crate) fn all(snapshot: &Snapshot) -> Value {
    let text = |origin| place(snapshot, origin);
    let mut clusters = Map::new();
    for entry in snapshot.clusters() {
        let config = entry.config();
        let about = json!({"origin": text(config.origin), "policy": text(config.policy_origin)});
        clusters.insert(config.name.to_string(), about);
    }
    let mut listeners = Map::new();
    for listener in snapshot.listeners() {
        let about = json!({"origin": text(listener.origin)});
        listeners.insert(listener.name.to_string(), about);
    }
    let mut tables = Map::new();
    for table in snapshot.tables() {
        let each = table.virtual_hosts.iter();
        let routes = each.flat_map(|host| host.rules.iter().map(move |rule| (host, rule)));
        let routes: Vec<_> = routes
            .map(|(host, rule)| {
                json!({
                    "name": *rule.name,
                    "virtual_host": *host.name,
                    "origin": text(of_rule(host, rule)),
                })
            })
            .collect();
        let first = table.virtual_hosts.iter().map(|host| host.origin);
        let origin = first.into_iter().find(|origin| !origin.is_none());
        let about = json!({"origin": origin.and_then(text), "routes": routes});
        tables.insert(table.name.to_string(), about);
    }
    json!({
        TypeUrl::Cluster.url(): clusters,
        TypeUrl::Listener.url(): listeners,
        TypeUrl::Routes.url(): tables,
    })
}

fn place(snapshot: &Snapshot, origin: Origin) -> Option<String> {
    snapshot.origins().place(origin).map(ToString::to_string)
}

fn cluster(snapshot: &Snapshot, name: &str) -> Origin {
    let entry = snapshot.cluster(name);
    entry.map_or(Origin::NONE, |entry| {
        let config = entry.config();
        // What is refused in a cluster is mostly what a policy put there.
        match config.policy_origin.is_none() {
            true => config.origin,
            false => config.policy_origin,
        }
    })
}

fn listener(snapshot: &Snapshot, name: &str) -> Origin {
    let mut all = snapshot.listeners().iter();
    all.find(|listener| *listener.name == *name)
        .map_or(Origin::NONE, |listener| listener.origin)
}

/// The route, or else the virtual host, that a message is about.
fn routes(table: &RouteTable, message: &str) -> Origin {
    let named = |name: &str| !name.is_empty() && message.contains(name);
    // The longest name: one host's name may be part of another's.
    let hosts = table.virtual_hosts.iter();
    let host = hosts
        .filter(|host| named(&host.name))
        .max_by_key(|host| host.name.len());
    let numbered = number(message, "virtual_hosts[")
        .and_then(|index| table.virtual_hosts.get(index))
        .or_else(|| number(message, "VirtualHosts[").and_then(|at| table.virtual_hosts.get(at)));
    if let Some(host) = host.or(numbered) {
        let index = ["routes[", "Routes["]
            .into_iter()
            .find_map(|key| number(message, key));
        let rule = index.and_then(|index| host.rules.get(index));
        return rule.map_or(host.origin, |rule| of_rule(host, rule));
    }
    // A domain, or the name of a route.
    let domain = |host: &VirtualHost| {
        let mut domains = host.domains.iter();
        domains.any(|domain| domain.len() > 1 && message.contains(&format!("{domain:?}")))
    };
    for host in &table.virtual_hosts {
        if domain(host) {
            return host.origin;
        }
        let mut rules = host.rules.iter();
        let quoted = |rule: &Rule| !rule.name.is_empty() && message.contains(&quote(&rule.name));
        if let Some(rule) = rules.find(|rule| *rule.name != *"default" && quoted(rule)) {
            return of_rule(host, rule);
        }
    }
    // With a single virtual host there is nothing to choose.
    match table.virtual_hosts.as_slice() {
        [only] => only.origin,
        _ => Origin::NONE,
    }
}

fn of_rule(host: &VirtualHost, rule: &Rule) -> Origin {
    match rule.origin.is_none() {
        true => host.origin,
        false => rule.origin,
    }
}

fn quote(name: &str) -> String {
    format!("{name:?}")
}

/// The number after `key`, as in `routes[3]`.
fn number(message: &str, key: &str) -> Option<usize> {
    let (_, rest) = message.split_once(key)?;
    rest.split_once(']')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Place;
    use mesh_core::model::{Cluster, SnapshotBuilder};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn snapshot() -> Arc<Snapshot> {
        let mut builder = SnapshotBuilder::new();
        let mut place = |line| {
            builder
                .origins()
                .add(Place::new("VirtualService a.b", "f", line, 1))
        };
        let mut table = RouteTable::new("9080");
        for (host, line) in [("a:9080", 10), ("a:90801", 20)] {
            let mut virtual_host = VirtualHost::new(host, [host]);
            virtual_host.origin = place(line);
            for step in 1..=2 {
                let mut rule = Rule::prefix_to("/", "c");
                rule.name = format!("r{line}-{step}").into();
                rule.origin = place(line + step);
                virtual_host = virtual_host.rule(rule);
            }
            table = table.host(virtual_host);
        }
        let mut cluster = Cluster::new("c");
        cluster.origin = place(1);
        builder.cluster(cluster).routes(table);
        builder.build().unwrap().0
    }

    fn line(kind: TypeUrl, name: &str, message: &str) -> Option<String> {
        let place = of(&snapshot(), kind, name, message)?;
        Some(place.rsplit(':').nth(1)?.to_owned())
    }

    #[test]
    fn the_part_that_a_message_names_is_what_is_shown() {
        for (message, expected) in [
            (
                "virtual_hosts[a:9080].routes[1].timeout: too long",
                Some("12"),
            ),
            ("virtual_hosts[a:90801].routes[0]: no", Some("21")),
            ("virtual_hosts[1].routes[1]: no", Some("22")),
            (
                "Proto constraint: VirtualHosts[0].Routes[0]: no",
                Some("11"),
            ),
            ("host a:90801 is bad", Some("20")),
            ("route \"r20-2\" is bad", Some("22")),
            ("virtual_hosts[7].routes[99]", None),
            ("something", None),
        ] {
            let found = line(TypeUrl::Routes, "9080", message);
            assert_eq!(found.as_deref(), expected, "{message}");
        }
        assert_eq!(line(TypeUrl::Cluster, "c", "").as_deref(), Some("1"));
        assert_eq!(
            line(TypeUrl::Routes, "c", "").as_deref(),
            Some("1"),
            "as gRPC has it"
        );
        assert_eq!(line(TypeUrl::Cluster, "gone", ""), None);
    }

    proptest! {
        #[test]
        fn any_message_is_looked_at(message in ".{0,60}|(virtual_hosts|routes)\\[[0-9]{0,30}\\]?") {
            let _ = of(&snapshot(), TypeUrl::Routes, "9080", &message);
        }
    }
}
