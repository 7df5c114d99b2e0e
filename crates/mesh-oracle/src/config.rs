//! A configuration under test, and the requests that are sent to it.
//!
//! Everything is JSON, so that one shrinker can take away any part of it. In its strings
//! `$name` stands for a cluster of this configuration alone, and `@name` for a backend's port.

use crate::request::Call;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One configuration with its requests.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) area: &'static str,
    pub(crate) source: Source,
    pub(crate) calls: Vec<Call>,
}

/// How it is written: as Envoy's own.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Fields of the HTTP connection manager.
    pub(crate) manager: Value,
    /// The clusters.
    pub(crate) clusters: Value,
}

/// Where the backends are.
pub(crate) type Backends = BTreeMap<&'static str, SocketAddr>;

// === impl Source ===

impl Source {
    /// Its parts that can be made smaller.
    pub(crate) fn parts(&self) -> [&Value; 2] {
        [&self.manager, &self.clusters]
    }

    pub(crate) fn parts_mut(&mut self) -> [&mut Value; 2] {
        [&mut self.manager, &mut self.clusters]
    }
}

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
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_ports_are_put_in_wherever_they_stand() {
        let backends = Backends::from([("a", SocketAddr::from(([127, 0, 0, 1], 81)))]);
        let before = json!({"x": ["$a", {"port": "@a"}, "@nobody", 3]});
        let after = json!({"x": ["c1.a", {"port": 81}, "@nobody", 3]});
        assert_eq!(settle(&before, "c1", &backends), after);
    }
}
