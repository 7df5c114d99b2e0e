//! `/config_dump`, taken apart.

use super::at;
use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

/// The parts of a dump, in Envoy's order: what is static first.
#[derive(Debug, Default)]
pub(super) struct Dump {
    bootstrap: Option<Value>,
    pub(super) clusters: Vec<Value>,
    pub(super) endpoints: Vec<Value>,
    pub(super) listeners: Vec<Value>,
    pub(super) routes: Vec<Value>,
    /// Envoy's `SecretsConfigDump` as it is.
    pub(super) secrets: Value,
    /// What the proxy refused or is still waiting for.
    notes: Vec<String>,
}

// === impl Dump ===

impl Dump {
    /// Reads Envoy's `envoy.admin.v3.ConfigDump`. Parts of unknown types are skipped, as more may
    /// come with newer versions.
    pub(super) fn read(mut dump: Value) -> anyhow::Result<Self> {
        let configs = dump.get_mut("configs").map(Value::take);
        let Some(Value::Array(configs)) = configs else {
            bail!("/config_dump has no `configs`: this is the admin interface of something else");
        };
        let mut out = Self::default();
        for mut config in configs {
            let kind = at(&config, "/@type").to_owned();
            let kind = kind.rsplit('.').next().unwrap_or_default();
            match kind {
                "BootstrapConfigDump" => {
                    let bootstrap = config.get_mut("bootstrap").map(bare);
                    // mesh-proxy has none unless it was started with one.
                    out.bootstrap = bootstrap.filter(|has| *has != json!({}));
                }
                "ClustersConfigDump" => {
                    for (part, note) in [
                        ("static_clusters", None),
                        ("dynamic_active_clusters", None),
                        ("dynamic_warming_clusters", Some("is warming")),
                    ] {
                        out.refused(&config, part, "cluster");
                        let mut found = resources(&mut config, part, "cluster");
                        out.note(&found, "cluster", note);
                        // Of one that is being replaced the version in force counts.
                        found.retain(|one| !out.has_cluster(at(one, "/name")));
                        out.clusters.extend(found);
                    }
                }
                "EndpointsConfigDump" => {
                    for part in ["static_endpoint_configs", "dynamic_endpoint_configs"] {
                        let found = resources(&mut config, part, "endpoint_config");
                        out.endpoints.extend(found);
                    }
                }
                "ListenersConfigDump" => {
                    let found = resources(&mut config, "static_listeners", "listener");
                    out.listeners.extend(found);
                    out.dynamic_listeners(&mut config);
                }
                "RoutesConfigDump" => {
                    for part in ["static_route_configs", "dynamic_route_configs"] {
                        out.refused(&config, part, "route configuration");
                        let found = resources(&mut config, part, "route_config");
                        out.routes.extend(found);
                    }
                }
                "SecretsConfigDump" => {
                    for part in ["dynamic_active_secrets", "dynamic_warming_secrets"] {
                        out.refused(&config, part, "secret");
                    }
                    out.secrets = bare(&mut config);
                }
                _ => {}
            }
        }
        Ok(out)
    }

    pub(super) fn bootstrap(&self) -> anyhow::Result<&Value> {
        self.bootstrap
            .as_ref()
            .context("/config_dump has no bootstrap: the proxy was not started with one")
    }

    /// What there is to know beside the configuration in force.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn has_cluster(&self, name: &str) -> bool {
        self.clusters.iter().any(|one| at(one, "/name") == name)
    }

    /// Everything, sorted by name.
    pub(super) fn into_value(self) -> Value {
        let sorted = |mut list: Vec<Value>, name: &str| {
            list.sort_by(|a, b| at(a, name).cmp(at(b, name)));
            Value::Array(list)
        };
        let mut out = Map::new();
        if let Some(bootstrap) = self.bootstrap {
            out.insert("bootstrap".to_owned(), bootstrap);
        }
        out.insert("clusters".to_owned(), sorted(self.clusters, "/name"));
        let endpoints = sorted(self.endpoints, "/cluster_name");
        out.insert("endpoints".to_owned(), endpoints);
        out.insert("listeners".to_owned(), sorted(self.listeners, "/name"));
        out.insert("routes".to_owned(), sorted(self.routes, "/name"));
        Value::Object(out)
    }

    /// A listener that is being replaced has more than one state; the active one counts.
    fn dynamic_listeners(&mut self, config: &mut Value) {
        self.refused(config, "dynamic_listeners", "listener");
        let Some(listeners) = config
            .get_mut("dynamic_listeners")
            .and_then(Value::as_array_mut)
        else {
            return;
        };
        for listener in listeners {
            let states = ["active_state", "warming_state", "draining_state"];
            let state = states
                .into_iter()
                .find(|state| listener.pointer(&format!("/{state}/listener")).is_some());
            let Some(state) = state else {
                continue;
            };
            if state != "active_state" {
                let name = at(listener, "/name");
                let state = state.trim_end_matches("_state");
                self.notes.push(format!("listener {name} is {state}"));
            }
            self.listeners
                .extend(listener[state].get_mut("listener").map(bare));
        }
    }

    /// Notes the updates in a list that were refused.
    fn refused(&mut self, config: &Value, part: &str, what: &str) {
        for entry in super::list(config, &format!("/{part}")) {
            let Some(error) = entry.get("error_state") else {
                continue;
            };
            let name = [
                "/name",
                "/route_config/name",
                "/cluster/name",
                "/error_state/failed_configuration/name",
            ];
            let name = name.map(|pointer| at(entry, pointer));
            let name = name.into_iter().find(|name| !name.is_empty());
            let name = name.unwrap_or_default();
            let details = at(error, "/details");
            self.notes.push(format!(
                "the last update of {what} {name} was refused: {details}"
            ));
        }
    }

    fn note(&mut self, found: &[Value], what: &str, note: Option<&str>) {
        let Some(note) = note else {
            return;
        };
        let notes = found.iter().map(|one| at(one, "/name"));
        let notes = notes.map(|name| format!("{what} {name} {note}"));
        self.notes.extend(notes);
    }
}

/// The resources in one list of a dump.
fn resources(config: &mut Value, part: &str, field: &str) -> Vec<Value> {
    let entries = config.get_mut(part).and_then(Value::as_array_mut);
    let entries = entries.into_iter().flatten();
    entries
        .filter_map(|entry| entry.get_mut(field).map(bare))
        .collect()
}

/// The message without the type that only an `Any` needs.
fn bare(value: &mut Value) -> Value {
    let mut value = value.take();
    if let Value::Object(fields) = &mut value {
        fields.remove("@type");
    }
    value
}
