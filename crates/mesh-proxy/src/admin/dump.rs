//! `/config_dump` in Envoy's shape (`envoy.admin.v3.ConfigDump`): what is in force, what waits, and
//! what was refused.
//!
//! Listeners, clusters and routes of a control plane are shown as they came. Everything else is
//! written from the model, so it has what the proxy acts on and nothing more: endpoints, what is
//! static, what is from files, and a version that is in force while a newer one waits.
//! `last_updated` is the time of the latest snapshot for all of it. A configuration from Istio YAML
//! is shown as static.

use super::secrets::{self, SECRETS};
use crate::runtime::Shared;
use crate::xds::{Control, Known};
use bytes::Bytes;
use mesh_core::Name;
use mesh_core::model::{DiscoveryKind, Filter, Listener, Pattern, Snapshot};
use mesh_xds::json::Codec;
use mesh_xds::pb::google::protobuf::Timestamp;
use mesh_xds::{Encoded, TypeUrl, write};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// With the endpoints.
    pub(super) include_eds: bool,
    /// Only this list, e.g. `dynamic_listeners`.
    pub(super) resource: Option<String>,
    /// Only what is called like this.
    pub(super) names: Option<Pattern>,
}

/// One type of resources.
pub(super) struct Kind {
    pub(super) url: TypeUrl,
    /// The field that holds the resource.
    pub(super) field: &'static str,
    /// The message that holds all of them.
    pub(super) dump: &'static str,
    /// The fields for those that are static, in force, and waiting, each with its message.
    pub(super) fixed: (&'static str, &'static str),
    pub(super) active: (&'static str, &'static str),
    pub(super) warming: (&'static str, &'static str),
}

const CLUSTERS: Kind = Kind {
    url: TypeUrl::Cluster,
    field: "cluster",
    dump: "ClustersConfigDump",
    fixed: ("static_clusters", "StaticCluster"),
    active: ("dynamic_active_clusters", "DynamicCluster"),
    warming: ("dynamic_warming_clusters", "DynamicCluster"),
};

const ENDPOINTS: Kind = Kind {
    url: TypeUrl::Endpoints,
    field: "endpoint_config",
    dump: "EndpointsConfigDump",
    fixed: ("static_endpoint_configs", "StaticEndpointConfig"),
    active: ("dynamic_endpoint_configs", "DynamicEndpointConfig"),
    warming: ("dynamic_endpoint_configs", "DynamicEndpointConfig"),
};

const LISTENERS: Kind = Kind {
    url: TypeUrl::Listener,
    field: "listener",
    dump: "ListenersConfigDump",
    fixed: ("static_listeners", "StaticListener"),
    active: ("dynamic_listeners", "DynamicListener"),
    warming: ("dynamic_listeners", "DynamicListener"),
};

const ROUTES: Kind = Kind {
    url: TypeUrl::Routes,
    field: "route_config",
    dump: "RoutesConfigDump",
    fixed: ("static_route_configs", "StaticRouteConfig"),
    active: ("dynamic_route_configs", "DynamicRouteConfig"),
    warming: ("dynamic_route_configs", "DynamicRouteConfig"),
};

/// What is shown of one type: field, message, name and contents of each.
pub(super) struct Shown {
    pub(super) kind: Kind,
    pub(super) entries: Vec<(&'static str, &'static str, Name, Value)>,
}

/// Writes what is asked for.
///
/// # Errors
/// If there is no such list.
pub(super) async fn json(shared: &Shared, asked: &Asked) -> Result<Value, String> {
    let snapshot = shared.feed.load();
    let updated = timestamp(shared);
    let control = shared.control.as_deref();
    let kinds = match asked.include_eds || asked.resource.as_deref().is_some_and(is_of_endpoints) {
        true => vec![CLUSTERS, ENDPOINTS, LISTENERS, ROUTES],
        false => vec![CLUSTERS, LISTENERS, ROUTES],
    };
    let mut shown = Vec::new();
    for kind in kinds {
        let known = match control {
            Some(control) => control.resources(kind.url).await,
            None => Vec::new(),
        };
        shown.push(show(kind, &snapshot, control, known, &updated));
    }
    let known = match control {
        Some(control) => control.resources(SECRETS.url).await,
        None => Vec::new(),
    };
    shown.push(secrets::show(shared, &snapshot, known, &updated));
    if let Some(names) = &asked.names {
        for kind in &mut shown {
            kind.entries
                .retain(|(_, _, name, _)| names.is_match(name.as_bytes()));
        }
    }
    let bootstrap = with_type(
        "BootstrapConfigDump",
        json!({
            "bootstrap": bootstrap(shared),
            "last_updated": updated,
        }),
    );
    let Some(resource) = &asked.resource else {
        let versions = control.map(Control::kinds).unwrap_or_default();
        let mut configs = vec![bootstrap];
        configs.extend(shown.into_iter().map(|shown| {
            let version = versions
                .get(&shown.kind.url)
                .map(|kind| kind.version.clone());
            shown.whole(version.filter(|version| !version.is_empty()))
        }));
        return Ok(json!({ "configs": configs }));
    };
    if resource == "bootstrap" {
        return Ok(json!({ "configs": [bootstrap] }));
    }
    let has = |kind: &Kind| {
        [kind.fixed, kind.active, kind.warming]
            .iter()
            .any(|f| f.0 == resource)
    };
    let Some(shown) = shown.into_iter().find(|shown| has(&shown.kind)) else {
        return Err(format!("{resource} not found in config dump"));
    };
    let dump = shown.kind.dump;
    let entries = shown
        .entries
        .into_iter()
        .filter(|entry| entry.0 == resource);
    let configs: Vec<Value> = entries
        .map(|(_, message, _, value)| with_type(&format!("{dump}.{message}"), value))
        .collect();
    Ok(json!({ "configs": configs }))
}

fn is_of_endpoints(field: &str) -> bool {
    [ENDPOINTS.fixed.0, ENDPOINTS.active.0].contains(&field)
}

/// What is known of one type.
fn show(
    kind: Kind,
    snapshot: &Snapshot,
    control: Option<&Control>,
    known: Vec<Known>,
    updated: &Value,
) -> Shown {
    let mut known: HashMap<Name, Known> = known
        .into_iter()
        .map(|known| (known.name.clone(), known))
        .collect();
    let mut entries = Vec::new();
    for (resource, is_inline) in in_force(kind.url, snapshot) {
        let name = resource.name.clone();
        let known = known.remove(&name);
        let is_static = match control {
            None => true,
            Some(control) => is_inline || control.is_static(kind.url, &name),
        };
        if is_static {
            let contents = contents(kind.url, &resource.bytes);
            let value = json!({kind.field: contents, "last_updated": updated});
            entries.push((kind.fixed.0, kind.fixed.1, name, value));
            continue;
        }
        let waits = known.as_ref().is_some_and(|known| known.waits);
        let latest = known.as_ref().filter(|_| !waits);
        let body = latest.and_then(|known| known.body.as_ref());
        let contents = contents(kind.url, body.unwrap_or(&resource.bytes));
        let mut state = json!({kind.field: contents, "last_updated": updated});
        if let Some(version) = latest.and_then(|known| known.version.as_ref()) {
            state["version_info"] = version.as_str().into();
        }
        let mut value = dynamic(&kind, &name, "active_state", state);
        let known = known.unwrap_or_else(|| Known::of(name.clone()));
        if let (true, Some(state)) = (waits, came(&kind, &known)) {
            match kind.url {
                TypeUrl::Listener => value["warming_state"] = state,
                _ => entries.push((kind.warming.0, kind.warming.1, name.clone(), state)),
            }
        }
        add_refused(&kind, &known, &mut value);
        entries.push((kind.active.0, kind.active.1, name, value));
    }
    // What came and is not in force.
    let mut rest: Vec<Known> = known.into_values().collect();
    rest.sort_by(|a, b| a.name.cmp(&b.name));
    for known in rest {
        let mut value = match came(&kind, &known) {
            Some(state) => dynamic(&kind, &known.name, "warming_state", state),
            // Asked for, and not there.
            None if known.refused.is_none() => continue,
            None if kind.url == TypeUrl::Listener => json!({"name": known.name.as_str()}),
            None => Value::Object(Map::new()),
        };
        add_refused(&kind, &known, &mut value);
        entries.push((kind.warming.0, kind.warming.1, known.name, value));
    }
    Shown { kind, entries }
}

/// The latest version that was accepted, as it came.
fn came(kind: &Kind, known: &Known) -> Option<Value> {
    let version = known.version.as_ref()?;
    let contents = as_it_came(kind, known.body.as_ref(), &known.name);
    Some(json!({kind.field: contents, "version_info": version.as_str()}))
}

pub(super) fn add_refused(kind: &Kind, known: &Known, value: &mut Value) {
    if let Some(refused) = &known.refused {
        value["error_state"] = json!({
            "failed_configuration": as_it_came(kind, refused.body.as_ref(), &known.name),
            "details": refused.reason,
            "version_info": refused.version.as_str(),
        });
    }
}

/// A resource as it came, or no more than its name where that is not known or no message.
pub(super) fn as_it_came(kind: &Kind, body: Option<&Bytes>, name: &Name) -> Value {
    let shown = body.map(|body| contents(kind.url, body));
    // What cannot be read has its type only.
    let shown = shown.filter(|shown| shown.get(name_field(kind.url)).is_some());
    shown.unwrap_or_else(|| json!({"@type": kind.url.url(), (name_field(kind.url)): name.as_str()}))
}

/// An entry for a resource that is not static: listeners have their states apart.
fn dynamic(kind: &Kind, name: &Name, which: &str, state: Value) -> Value {
    match kind.url {
        TypeUrl::Listener => json!({"name": name.as_str(), which: state}),
        _ => state,
    }
}

fn name_field(url: TypeUrl) -> &'static str {
    match url {
        TypeUrl::Endpoints => "cluster_name",
        _ => "name",
    }
}

// === impl Shown ===

impl Shown {
    /// All of it in one message.
    fn whole(self, version: Option<String>) -> Value {
        let mut lists: Map<String, Value> = Map::new();
        for (field, _, _, value) in self.entries {
            let list = lists
                .entry(field)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
        }
        if let (Some(version), TypeUrl::Cluster | TypeUrl::Listener) = (version, self.kind.url) {
            lists.insert("version_info".to_owned(), version.into());
        }
        with_type(self.kind.dump, Value::Object(lists))
    }
}

/// The resources of a type that are in force, and whether each came with another one.
fn in_force(url: TypeUrl, snapshot: &Snapshot) -> Vec<(Encoded, bool)> {
    let clusters = snapshot.clusters().iter();
    match url {
        TypeUrl::Cluster => clusters
            .map(|entry| {
                let config = entry.config();
                let own = (config.discovery != DiscoveryKind::Endpoints)
                    .then(|| entry.live().given().load());
                let proto = write::cluster(config, own.as_deref());
                (write::encode(&config.name, &proto), false)
            })
            .collect(),
        TypeUrl::Endpoints => clusters
            .filter(|entry| entry.config().discovery == DiscoveryKind::Endpoints)
            .map(|entry| {
                let name = &entry.config().name;
                let proto = write::endpoints(name, &entry.live().given().load());
                (write::encode(name, &proto), false)
            })
            .collect(),
        TypeUrl::Listener => snapshot
            .listeners()
            .iter()
            .map(|listener| {
                let mut listener = listener.clone();
                if listener
                    .managers()
                    .any(|manager| is_stripped(&manager.routes))
                {
                    as_named(Arc::make_mut(&mut listener));
                }
                let manager = listener.managers().next();
                let table = manager.and_then(|manager| snapshot.table(&manager.routes));
                let inline = table.filter(|table| is_inline(&table.name));
                let proto = write::listener(&listener, inline.map(|table| &**table));
                (write::encode(&listener.name, &proto), false)
            })
            .collect(),
        TypeUrl::Routes => snapshot
            .tables()
            .iter()
            .filter(|table| !is_stripped(&table.name))
            .map(|table| {
                let proto = write::route::table(table);
                (write::encode(&table.name, &proto), is_inline(&table.name))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a table came with its listener: [`mesh_xds::assemble`] names such tables so.
fn is_inline(table: &str) -> bool {
    table.contains(" (inline in ")
}

/// Whether a table was made for a listener that lacks filters.
fn is_stripped(table: &str) -> bool {
    table.contains(" (without ")
}

/// The listener with the tables that it names itself.
fn as_named(listener: &mut Listener) {
    listener.for_each_chain(|chain| {
        if let Filter::Http(manager) = &mut chain.filter
            && let Some((name, _)) = manager.routes.split_once(" (without ")
        {
            let name = Name::from(name);
            Arc::make_mut(manager).routes = name;
        }
    });
}

/// A resource as it stands in an `Any`.
pub(super) fn contents(url: TypeUrl, bytes: &[u8]) -> Value {
    let message = url.url().rsplit('/').next().unwrap_or_default();
    let text = Codec::new().to_json(message, bytes);
    // Only what was refused may be no message.
    let mut value = text
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_else(|| Value::Object(Map::new()));
    value["@type"] = url.url().into();
    value
}

pub(super) fn bootstrap(shared: &Shared) -> Value {
    let Some(control) = &shared.control else {
        let workload = &shared.workload;
        return json!({"node": {"id": format!("{}.{}", workload.name, workload.namespace)}});
    };
    let message = "envoy.config.bootstrap.v3.Bootstrap";
    let text = Codec::new().to_json(message, &control.bootstrap().bytes);
    let value = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut value = value.unwrap_or(Value::Null);
    // Where it was told otherwise than by a bootstrap.
    if let (Some(address), None) = (control.admin(), value.get("admin")) {
        value["admin"] = json!({"address": super::listener_address(address)});
    }
    value
}

/// When the latest snapshot came into force.
fn timestamp(shared: &Shared) -> Value {
    let at = shared.updated.load(std::sync::atomic::Ordering::Relaxed);
    let at = std::time::Duration::from_millis(at);
    let seconds = i64::try_from(at.as_secs()).unwrap_or_default();
    time(
        seconds,
        i32::try_from(at.subsec_nanos()).unwrap_or_default(),
    )
}

/// A time since 1970 as protobuf has it in JSON.
pub(crate) fn time(seconds: i64, nanos: i32) -> Value {
    let proto = Timestamp { seconds, nanos };
    let bytes = Encoded::of("", &proto).bytes;
    let text = Codec::new().to_json("google.protobuf.Timestamp", &bytes);
    text.ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}

fn with_type(message: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/envoy.admin.v3.{message}").into();
    value
}

/// What waits for something else, in Envoy's shape (`envoy.admin.v3.UnreadyTargetsDumps`).
pub(super) async fn unready(shared: &Shared) -> Value {
    let mut dumps = Vec::new();
    if let Some(control) = &shared.control {
        let snapshot = shared.feed.load();
        for kind in [CLUSTERS, LISTENERS] {
            let there: HashSet<Name> = in_force(kind.url, &snapshot)
                .into_iter()
                .map(|(resource, _)| resource.name)
                .collect();
            let known = control.resources(kind.url).await;
            let waits = known.iter().filter(|known| known.version.is_some());
            let waits: Vec<&str> = waits
                .filter(|known| !there.contains(&known.name))
                .map(|known| known.name.as_str())
                .collect();
            if !waits.is_empty() {
                dumps.push(json!({"name": kind.url.short(), "target_names": waits}));
            }
        }
    }
    json!({ "unready_targets_dumps": dumps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_protobuf_has_it() {
        assert_eq!(time(1, 5_000_000), "1970-01-01T00:00:01.005Z");
        assert_eq!(time(1_797_856_904, 0), "2026-12-21T12:41:44Z");
    }
}
