//! Plain requests in, TLS out: the mesh client speaks TLS to a server whose certificate comes from
//! an authority of our own, and HTTP/2 because the server agrees to it.
//!
//! ```text
//! cargo run -p mesh-client --example tls_origination
//! ```

use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_client::{Body, MeshClient};
use mesh_core::Publisher;
use mesh_core::model::{
    Address, ClientTls, Cluster, EndpointSet, RouteTable, Rule, Secret, SecretRef, ServerTls,
    SnapshotBuilder, UpstreamProtocol, Validation, VirtualHost,
};
use mesh_identity::Acceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let address = serve(&authority).await?;

    // What a DestinationRule with `tls: {mode: SIMPLE, caCertificates: …}` says.
    let roots = SecretRef::local("our-roots");
    let mut validation = Validation::default();
    validation.roots = Some(roots.clone());
    let mut tls = ClientTls::default();
    tls.validation = Some(validation);
    tls.auto_sni = true;
    tls.auto_san = true;
    let mut cluster = Cluster::new("reviews");
    cluster.protocol = UpstreamProtocol::Alpn;
    cluster.tls = Some(Arc::new(tls));

    let mut builder = SnapshotBuilder::new();
    let host = VirtualHost::new("reviews", ["reviews.example"]);
    let host = host.rule(Rule::prefix_to("/", "reviews"));
    builder.routes(RouteTable::new("http").host(host));
    builder.cluster(cluster);
    builder.endpoints("reviews", EndpointSet::of([Address::Socket(address)]));
    // Or leave it out and let `mesh_identity::Files` read `file-root:/some/ca.pem`.
    builder.secret(roots.clone(), Arc::new(Secret::roots(authority.pem())));
    let (snapshot, _) = builder.build()?;
    let publisher = Publisher::from_arc(snapshot.clone());

    let client = MeshClient::builder(publisher.feed(), "http").build();
    let request = || Request::get("http://reviews.example/7").body(Body::empty());
    let response = client.clone().oneshot(request()?).await?;
    println!("{} over {:?}", response.status(), response.version());
    assert_eq!(response.status(), 200);

    // New roots are for new connections; the one that is open goes on.
    let secret = snapshot.secret(&roots).ok_or("the cluster names it")?;
    secret.publish(None);
    let response = client.clone().oneshot(request()?).await?;
    println!(
        "{} without the secret, on the connection there is",
        response.status()
    );
    assert_eq!(response.status(), 200);
    Ok(())
}

/// A server for `reviews.example` that would rather speak HTTP/2.
async fn serve(authority: &CertifiedIssuer<'_, KeyPair>) -> Result<SocketAddr, Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["reviews.example".to_owned()])?;
    let certificate = params.signed_by(&key, authority)?;
    let own = SecretRef::local("own");
    let mut tls = ServerTls::default();
    tls.alpn = vec!["h2".into(), "http/1.1".into()];
    tls.certificates = vec![own.clone()];

    // Secrets live in snapshots, so one that names it is made.
    let mut holder = ClientTls::default();
    holder.certificates = vec![own.clone()];
    let mut cluster = Cluster::new("holder");
    cluster.tls = Some(Arc::new(holder));
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    let secret = Secret::certificate(certificate.pem(), key.serialize_pem());
    builder.secret(own, Arc::new(secret));
    let (snapshot, _) = builder.build()?;
    let acceptor = Acceptor::new(Arc::new(tls), |named| snapshot.secret(named).cloned())?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok((stream, told)) = acceptor.accept(stream).await else {
                    return;
                };
                println!("asked for {} with {}", told.server_name, told.alpn);
                let service = service_fn(|_| async {
                    Ok::<_, Infallible>(Response::new("reviewed\n".to_owned()))
                });
                let server = auto::Builder::new(TokioExecutor::new());
                // How it ends is up to the client.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}
