//! What a node gets, in the shape of Envoy's `/config_dump`.

use crate::class::Class;
use mesh_xds::json::{Codec, JsonError};
use mesh_xds::{Encoded, TypeUrl};
use serde_json::{Value, json};

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub(super) enum DumpError {
    #[error("a resource cannot be shown: {0}")]
    Resource(#[from] JsonError),
    #[error("a resource is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// `envoy.admin.v3.ConfigDump` with what is dynamic.
pub(super) fn of(class: &Class) -> Result<Value, DumpError> {
    let clusters = class.view.all(TypeUrl::Cluster);
    let mut configs = Vec::new();
    let mut all = Vec::new();
    for one in &clusters {
        let cluster = resource(TypeUrl::Cluster, one)?;
        all.push(json!({"version_info": &*one.version, "cluster": cluster}));
    }
    configs.push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "dynamic_active_clusters": all,
    }));
    let mut all = Vec::new();
    for one in class.view.all(TypeUrl::Listener) {
        let listener = resource(TypeUrl::Listener, &one)?;
        let state = json!({"version_info": &*one.version, "listener": listener});
        all.push(json!({"name": &*one.name, "active_state": state}));
    }
    configs.push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "dynamic_listeners": all,
    }));
    let mut all = Vec::new();
    for one in class.view.all(TypeUrl::Routes) {
        let table = resource(TypeUrl::Routes, &one)?;
        all.push(json!({"version_info": &*one.version, "route_config": table}));
    }
    configs.push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "dynamic_route_configs": all,
    }));
    // The set of endpoints is shared; a node asks for those of its clusters.
    let mut all = Vec::new();
    for cluster in &clusters {
        if let Some(one) = class.view.get(TypeUrl::Endpoints, &cluster.name) {
            let endpoints = resource(TypeUrl::Endpoints, &one)?;
            all.push(json!({"version_info": &*one.version, "endpoint_config": endpoints}));
        }
    }
    configs.push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "dynamic_endpoint_configs": all,
    }));
    // The codec hides keys.
    let mut all = Vec::new();
    for one in class.view.all(TypeUrl::Secret) {
        let secret = resource(TypeUrl::Secret, &one)?;
        all.push(json!({"name": &*one.name, "version_info": &*one.version, "secret": secret}));
    }
    configs.push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
        "dynamic_active_secrets": all,
    }));
    Ok(json!({"configs": configs}))
}

/// A resource as an `Any` in JSON.
fn resource(kind: TypeUrl, encoded: &Encoded) -> Result<Value, DumpError> {
    let url = kind.url();
    let message = url.rsplit('/').next().unwrap_or(url);
    let text = Codec::new().to_json(message, &encoded.bytes)?;
    let mut value: Value = serde_json::from_str(&text)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("@type".to_owned(), url.into());
    }
    Ok(value)
}
