//! Secrets in `/config_dump`, in Envoy's shape (`envoy.admin.v3.SecretsConfigDump`), without what
//! nobody may see.
//!
//! Static are those of the bootstrap, or all where no control plane is. Secrets in files are shown as
//! an agent's would be, under the names that Istio has for them. What stands in a listener or a
//! cluster itself is shown there.

use super::dump::{Kind, Shown, add_refused, as_it_came, bootstrap, contents};
use crate::runtime::Shared;
use crate::xds::Known;
use mesh_core::Name;
use mesh_core::model::{SecretName, SecretRef, SecretSource, Snapshot};
use mesh_xds::{TypeUrl, write};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) const SECRETS: Kind = Kind {
    url: TypeUrl::Secret,
    field: "secret",
    dump: "SecretsConfigDump",
    fixed: ("static_secrets", "StaticSecret"),
    active: ("dynamic_active_secrets", "DynamicSecret"),
    warming: ("dynamic_warming_secrets", "DynamicSecret"),
};

/// The version of a secret that never came, as Envoy has it.
const UNINITIALIZED: &str = "uninitialized";

/// What is known of secrets.
pub(super) fn show(
    shared: &Shared,
    snapshot: &Snapshot,
    known: Vec<Known>,
    updated: &Value,
) -> Shown {
    let (fixed, active, warming) = (SECRETS.fixed, SECRETS.active, SECRETS.warming);
    let mut known: HashMap<Name, Known> = known
        .into_iter()
        .map(|known| (known.name.clone(), known))
        .collect();
    let mut entries = Vec::new();
    for (name, secret) in in_bootstrap(shared) {
        let value = json!({"name": name.as_str(), "secret": secret});
        entries.push((fixed.0, fixed.1, name, value));
    }
    let mut shown: Vec<_> = snapshot.secrets().iter().collect();
    shown.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for (named, live) in shown {
        if stands_elsewhere(named, shared) {
            continue;
        }
        let name = named.name.clone();
        let known = match named.source {
            SecretSource::ControlPlane { .. } => known.remove(&name),
            _ => None,
        };
        let known = known.unwrap_or_else(|| Known::of(name.clone()));
        let value = live.value().load();
        let Some(secret) = &*value else {
            entries.push((warming.0, warming.1, name, missing(&known, updated)));
            continue;
        };
        let secret = contents(TypeUrl::Secret, &write::encode_secret(&name, secret).bytes);
        let mut value = json!({
            "name": name.as_str(),
            "secret": secret,
            "last_updated": updated,
        });
        if shared.control.is_none() {
            entries.push((fixed.0, fixed.1, name, value));
            continue;
        }
        if let Some(version) = &known.version {
            value["version_info"] = version.as_str().into();
        }
        add_refused(&SECRETS, &known, &mut value);
        entries.push((active.0, active.1, name, value));
    }
    // What came, or is asked for, for what is not in force yet.
    let mut rest: Vec<Known> = known.into_values().collect();
    rest.sort_by(|a, b| a.name.cmp(&b.name));
    for known in rest {
        let Some(version) = &known.version else {
            let value = missing(&known, updated);
            entries.push((warming.0, warming.1, known.name, value));
            continue;
        };
        let mut value = json!({
            "name": known.name.as_str(),
            "secret": as_it_came(&SECRETS, known.body.as_ref(), &known.name),
            "version_info": version.as_str(),
            "last_updated": updated,
        });
        add_refused(&SECRETS, &known, &mut value);
        entries.push((active.0, active.1, known.name, value));
    }
    Shown {
        kind: SECRETS,
        entries,
    }
}

/// A secret that is asked for and is not there.
fn missing(known: &Known, updated: &Value) -> Value {
    let mut value = json!({
        "name": known.name.as_str(),
        "version_info": UNINITIALIZED,
        "last_updated": updated,
        "secret": as_it_came(&SECRETS, None, &known.name),
    });
    add_refused(&SECRETS, known, &mut value);
    value
}

/// Whether a secret is part of something that shows it: a listener or cluster, or the bootstrap.
fn stands_elsewhere(named: &SecretRef, shared: &Shared) -> bool {
    let is_file = !matches!(SecretName::of(&named.name), SecretName::Other(_));
    named.source == SecretSource::Local
        && !is_file
        && (shared.control.is_some() || named.name.starts_with("inline:"))
}

fn in_bootstrap(shared: &Shared) -> Vec<(Name, Value)> {
    let mut bootstrap = bootstrap(shared);
    let secrets = bootstrap.pointer_mut("/static_resources/secrets");
    let Some(Value::Array(secrets)) = secrets.map(Value::take) else {
        return Vec::new();
    };
    let each = secrets.into_iter().map(|mut secret| {
        let name = secret.get("name").and_then(Value::as_str);
        let name = Name::from(name.unwrap_or_default());
        secret["@type"] = TypeUrl::Secret.url().into();
        (name, secret)
    });
    each.collect()
}
