//! The layers that judge, around the mesh client, as an application's own server has them: it knows
//! who calls, and says it.

use super::Servers;
use crate::callers::Secured;
use crate::wire::Message;
use http::Request;
use mesh_client::{Body, MeshClient};
use mesh_core::model::{Filter, Snapshot};
use mesh_core::{Caller, Exchange, Publisher};
use mesh_policy::AuthzLayer;
use mesh_policy::jwt::JwtLayer;
use mesh_route::reply::ReplyLayer;
use std::net::SocketAddr;
use std::sync::Arc;
use tower_layer::Layer;

/// What is not compared of them.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[
    ("version", "the server around them is the oracle's"),
    ("reason", "the server around them is the oracle's"),
    ("interim", "the server around them is the oracle's"),
    ("trailers", "the server around them is the oracle's"),
    ("header *", "the server around them is the oracle's"),
    ("log*", "an application has no access log of a listener"),
    ("counter *", "there is no admin interface"),
    (
        "upstream * *",
        "what else a proxy says to its application is the proxy's",
    ),
];

/// The header by which the oracle's server hears who calls, and for which server.
pub(crate) const CALLER: &str = "x-oracle-caller";
/// What is answered where an application could not have made the request.
pub(crate) const NONE: &str = "599";

/// Tells the server around the layers who calls.
pub(crate) fn told(how: Option<Secured>) -> Option<(String, String)> {
    let how = how?;
    let said = format!("{}|{}", how.as_whom, how.server_name);
    Some((CALLER.to_owned(), said))
}

/// Whether an application's layers judge by what these documents ask as a proxy does: no service is
/// asked, and nobody is believed who says who called before.
pub(crate) fn can_judge(documents: &str) -> bool {
    let asked = ["\"CUSTOM\"", "emoteIpBlocks\"", "\"remote.ip\""];
    !asked.iter().any(|it| documents.contains(it))
}

/// Serves what comes in through the listener that has this name in its own.
pub(crate) async fn add(
    servers: &mut Servers,
    at: SocketAddr,
    snapshot: Arc<Snapshot>,
    is_of: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let mut listeners = snapshot.listeners().iter();
    let listener = listeners.find(|it| is_of(&it.name));
    let chains = listener.into_iter().flat_map(|it| it.all_chains());
    let mut managers = chains.filter_map(|chain| match &chain.filter {
        Filter::Http(manager) => Some(manager.clone()),
        _ => None,
    });
    let manager = managers.next().ok_or("there is no listener for HTTP")?;
    let publisher = Publisher::from_arc(snapshot.clone());
    let client = MeshClient::builder(publisher.feed(), manager.routes.clone()).build();
    servers.publishers.push(publisher);
    let service = AuthzLayer::fixed(manager.authz.iter().map(|it| (**it).clone()))
        .normalizing(manager.path)
        .layer(client);
    let authn = manager.authn.as_deref().cloned().unwrap_or_default();
    let service = JwtLayer::fixed(authn).layer(service);
    // Paths are in order before anybody looks at them.
    let service = AuthzLayer::fixed([])
        .normalizing(manager.path)
        .layer(service);
    let service = ReplyLayer::new().layer(service);
    let added = servers.listen(at, service, move |request, message, peer| {
        introduce(request, message, peer, at);
        is_of_a_server(message)
    });
    added.await.map_err(|error| error.to_string())
}

/// Whether a target is one that an application's server has: not one for proxies.
fn is_of_a_server(message: &Message) -> bool {
    let target = message.line.split(' ').nth(1);
    target.is_some_and(|target| target.starts_with('/'))
}

/// Says who calls.
fn introduce(request: &mut Request<Body>, message: &Message, peer: SocketAddr, local: SocketAddr) {
    let mut caller = Caller::default();
    (caller.peer, caller.local) = (Some(peer), Some(local));
    let said = message.header(CALLER).and_then(|it| it.split_once('|'));
    if let Some(how) = said.and_then(|(who, server)| Secured::known(who, server)) {
        caller.tls = Some(Arc::new(how.told()));
    }
    request.headers_mut().remove(CALLER);
    let now = tokio::time::Instant::now().into_std();
    Exchange::new(now, caller).attach(request);
}
