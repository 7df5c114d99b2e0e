//! A configuration under test, and the requests that are sent to it.
//!
//! Everything is JSON, so that one shrinker can take away any part of it. In its strings
//! `$name` stands for a cluster of this configuration alone, `@name` for a backend's port, and
//! `{id}` for the configuration's own name. In Istio's documents `{address}` stands for where listeners
//! are, and `{port name}` for a backend's port in the middle of a text.

use crate::backend::HEALTH;
use crate::pace::{Mark, Pace};
use crate::request::Call;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One configuration with its requests.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) area: &'static str,
    pub(crate) source: Source,
    pub(crate) calls: Vec<Call>,
}

/// How it is written: as Envoy's own, or, made by [`Source::istio`], as Istio's documents.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Fields of the HTTP connection manager.
    pub(crate) manager: Value,
    /// The clusters; Istio's documents.
    pub(crate) clusters: Value,
}

/// Which proxy Istio's documents are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// On the way out.
    Sidecar,
    /// A sidecar, on the way in.
    Inbound,
    Gateway,
}

/// Where the backends are.
pub(crate) type Backends = BTreeMap<&'static str, SocketAddr>;

// === impl Config ===

impl Config {
    /// Whether what happens depends on the time, so that a difference has to come up again before
    /// it is believed: on a busy machine a request may come late.
    pub(crate) fn is_timed(&self) -> bool {
        let timed = |call: &Call| call.wait > 0 || call.pace != Pace::default();
        self.calls.iter().any(timed)
    }

    /// Whether it tells backends something that holds for every subject, so that those have to be
    /// asked one after the other.
    pub(crate) fn is_shared(&self) -> bool {
        let tells = |call: &Call| call.header(HEALTH).is_some();
        self.calls.iter().any(tells)
    }

    /// Whether nobody knows how many requests were sent.
    pub(crate) fn is_uncounted(&self) -> bool {
        let interval = |call: &Call| call.pace.mark == Some(Mark::Interval);
        self.calls.iter().any(interval)
    }
}

// === impl Source ===

impl Source {
    /// Istio's documents, for a proxy of this kind.
    pub(crate) fn istio(role: Role, documents: Vec<Value>) -> Self {
        let role = match role {
            Role::Sidecar => "sidecar",
            Role::Inbound => "inbound",
            Role::Gateway => "gateway",
        };
        Self {
            manager: json!({ ISTIO: role }),
            clusters: Value::Array(documents),
        }
    }

    /// For which kind of proxy Istio's documents are, if it is these.
    pub(crate) fn role(&self) -> Option<Role> {
        match self.manager[ISTIO].as_str()? {
            "gateway" => Some(Role::Gateway),
            "inbound" => Some(Role::Inbound),
            _ => Some(Role::Sidecar),
        }
    }

    /// Whether the proxy is somebody in the mesh, so that others call it over mutual TLS.
    pub(crate) fn is_mutual(&self) -> bool {
        let is = |it: &Value| it["kind"] == "PeerAuthentication";
        let servers = self.documents("Gateway");
        let mut servers = servers.flat_map(|it| it["spec"]["servers"].as_array());
        self.clusters
            .as_array()
            .is_some_and(|all| all.iter().any(is))
            || servers.any(|all| all.iter().any(|it| it["tls"].is_object()))
    }

    /// Istio's documents of this kind.
    pub(crate) fn documents<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a Value> + Clone {
        let all = self.clusters.as_array().into_iter().flatten();
        all.filter(move |it| it["kind"] == kind)
    }

    /// Its parts that can be made smaller.
    pub(crate) fn parts(&self) -> [&Value; 2] {
        [&self.manager, &self.clusters]
    }

    pub(crate) fn parts_mut(&mut self) -> [&mut Value; 2] {
        [&mut self.manager, &mut self.clusters]
    }
}

/// Marks Istio's documents.
pub(crate) const ISTIO: &str = "istio";

/// Puts names and ports in place of what stands for them.
pub(crate) fn settle(value: &Value, id: &str, backends: &Backends) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('@').and_then(|name| backends.get(name)) {
            Some(address) => address.port().into(),
            None => named(text, id).into(),
        },
        Value::Array(items) => items.iter().map(|it| settle(it, id, backends)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, it)| (key.clone(), settle(it, id, backends)))
            .collect(),
        other => other.clone(),
    }
}

/// A name of this configuration alone.
pub(crate) fn named(text: &str, id: &str) -> String {
    match text.strip_prefix('$') {
        Some(name) => format!("{id}.{name}"),
        None => text.replace("{id}", id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_are_put_in_wherever_they_stand() {
        let backends = Backends::from([("a", SocketAddr::from(([127, 0, 0, 1], 81)))]);
        let before = json!({"x": ["$a", {"port": "@a"}, "@nobody", 3, "a.{id}"]});
        let after = json!({"x": ["c1.a", {"port": 81}, "@nobody", 3, "a.c1"]});
        assert_eq!(settle(&before, "c1", &backends), after);
    }
}
