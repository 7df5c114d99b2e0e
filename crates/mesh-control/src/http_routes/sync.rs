//! Who is connected and how far they are.

use super::{Asked, answer};
use crate::Control;
use crate::node::short_name;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use mesh_xds::TypeUrl;
use mesh_xds::server::{ConnectionStatus, Scope, Sent, Sync, TypeStatus, Variant};
use serde_json::{Map, Value, json};

/// istiod's list, one entry per stream: `cluster_sent` and so on are nonces. Besides, `types` has
/// all there is about each type.
pub(super) async fn syncz(State(control): State<Control>) -> Response {
    let connections = control.xds().connections();
    let each = connections.iter().map(|one| sync(&control, one));
    answer(StatusCode::OK, &each.collect())
}

/// Streams with what they subscribe to.
pub(super) async fn adsz(State(control): State<Control>, Query(asked): Query<Asked>) -> Response {
    if asked.push.as_deref() == Some("true") {
        control.request("debug");
    }
    let connections = control.xds().connections();
    let each = connections.iter().map(|one| stream(&control, one));
    let about = json!({"totalClients": connections.len(), "clients": each.collect::<Value>()});
    answer(StatusCode::OK, &about)
}

fn sync(control: &Control, one: &ConnectionStatus) -> Value {
    let node = &one.client.node;
    let mut about = Map::new();
    let mut put = |key: &str, value: Value| {
        about.insert(key.to_owned(), value);
    };
    let name = short_name(node);
    put(
        "cluster_id",
        node.text("CLUSTER_ID").unwrap_or_default().into(),
    );
    put("cluster", node.cluster().into());
    put("proxy", name.as_str().into());
    put("proxy_id", name.into());
    put("id", node.id().into());
    put("proxy_type", node.kind().unwrap_or_default().into());
    put(
        "istio_version",
        node.text("ISTIO_VERSION").unwrap_or_default().into(),
    );
    put("protocol", variant(one.client.variant).into());
    let mut types = Map::new();
    for status in &one.types {
        if let Some(prefix) = prefix(status.kind) {
            let nonce = |sent: &Option<Sent>| sent.as_ref().map(|sent| sent.nonce.to_string());
            put(&format!("{prefix}_sent"), nonce(&status.sent).into());
            put(&format!("{prefix}_acked"), nonce(&status.acked).into());
        }
        let about = kind(control, one, status);
        types.insert(status.kind.short().to_owned(), about);
    }
    put("types", types.into());
    about.into()
}

fn kind(control: &Control, one: &ConnectionStatus, status: &TypeStatus) -> Value {
    let reports = control.engine().reports();
    let nack = reports.nack_of(one.client.stream, status.kind);
    let nacked = status.nacked.as_ref().map(|nacked| {
        let resources = nack.map(|nack| nack.resources.iter().map(|name| name.to_string()));
        json!({
            "version": &*nacked.version,
            "nonce": &*nacked.nonce,
            "ago_ms": nacked.ago.as_millis() as u64,
            "message": nack.map_or(&*nacked.message, |nack| &*nack.message),
            "resources": resources.map(Iterator::collect::<Vec<_>>),
            "origins": nack.map(|nack| &nack.origins),
        })
    });
    json!({
        "status": word(status.sync),
        "resources": status.resources,
        "sent": status.sent.as_ref().map(sent),
        "acked": status.acked.as_ref().map(sent),
        "nacked": nacked,
        "held": status.held,
    })
}

fn sent(sent: &Sent) -> Value {
    json!({
        "version": &*sent.version,
        "nonce": &*sent.nonce,
        "ago_ms": sent.ago.as_millis() as u64,
    })
}

fn stream(control: &Control, one: &ConnectionStatus) -> Value {
    let client = &one.client;
    let class = control.engine().class_of(&client.node);
    let watches = one.types.iter().map(|status| {
        let about = json!({
            "wildcard": status.wildcard,
            "named": status.named,
            "resources": status.resources,
        });
        (status.kind.short().to_owned(), about)
    });
    json!({
        "connectionId": format!("{}-{:?}", short_name(&client.node), client.stream),
        "node": client.node.id(),
        "address": client.address.map(|address| address.to_string()),
        "connected_for_ms": one.connected_for.as_millis() as u64,
        "protocol": variant(client.variant),
        "scope": match client.scope {
            Scope::Aggregated => "ADS",
            Scope::Only(kind) => kind.short(),
        },
        "class": class.as_ref().map(|class| &class.key),
        "size": class.as_ref().map(|class| crate::engine::sizes(&class.view)),
        "watches": watches.collect::<Map<_, _>>(),
    })
}

fn variant(variant: Variant) -> &'static str {
    match variant {
        Variant::StateOfTheWorld => "SOTW",
        Variant::Delta => "DELTA",
    }
}

/// The words of `istioctl proxy-status`.
fn word(sync: Sync) -> &'static str {
    match sync {
        Sync::NotSent => "NOT SENT",
        Sync::Synced => "SYNCED",
        Sync::Stale => "STALE",
        Sync::Nacked => "NACKED",
    }
}

fn prefix(kind: TypeUrl) -> Option<&'static str> {
    Some(match kind {
        TypeUrl::Cluster => "cluster",
        TypeUrl::Listener => "listener",
        TypeUrl::Routes => "route",
        TypeUrl::Endpoints => "endpoint",
        TypeUrl::Extension => "extensionconfig",
        _ => return None,
    })
}
