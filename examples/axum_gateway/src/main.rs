//! A gateway of your own: axum for what you answer yourself, the mesh for everything else.
//!
//! `cargo run -p axum_gateway` checks itself and ends; with `--serve ADDRESS` it goes on serving.

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use mesh_client::MeshClient;
use mesh_core::Publisher;
use mesh_core::model::{
    Address, Cluster, EndpointSet, PathRewrite, RouteTable, Rule, SnapshotBuilder, VirtualHost,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let backend = backend().await?;

    // Configuration as data: one host, one rule, one cluster. It could come from YAML as well,
    // and a new snapshot can be published at any time.
    let mut rule = Rule::prefix_to("/api/", "httpbin");
    rule.timeout = Some(Duration::from_secs(2));
    if let mesh_core::model::Action::Forward(forward) = &mut rule.action {
        forward.path = PathRewrite::Prefix("/".to_owned());
    }
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("gateway").host(VirtualHost::new("all", ["*"]).rule(rule)));
    builder.cluster(Cluster::new("httpbin"));
    builder.endpoints("httpbin", EndpointSet::of([Address::from(backend)]));
    let (snapshot, _) = builder.build()?;
    let publisher = Publisher::from_arc(snapshot);

    let mesh = MeshClient::builder(publisher.feed(), "gateway").build();
    let gateway = Router::new()
        .route("/health", get(async || "ok\n"))
        .fallback_service(mesh);

    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--serve") {
        let address = args.next().context("--serve wants an address")?;
        let listener = TcpListener::bind(&address).await?;
        println!("serving on http://{address}/api/headers until Ctrl-C");
        axum::serve(listener, gateway)
            .with_graceful_shutdown(async {
                // Without a handler Ctrl-C ends the process anyway.
                let _ = tokio::signal::ctrl_c().await;
            })
            .await?;
        return Ok(());
    }

    for (path, expected) in [
        ("/health", StatusCode::OK),
        ("/api/status/418", StatusCode::IM_A_TEAPOT),
        ("/api/delay/5", StatusCode::GATEWAY_TIMEOUT),
        ("/elsewhere", StatusCode::NOT_FOUND),
    ] {
        let request = Request::get(path)
            .header("host", "gateway")
            .body(Body::empty())?;
        let response = gateway.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!(
            "{path:16} {status} {}",
            String::from_utf8_lossy(&body).trim()
        );
        anyhow::ensure!(status == expected, "{path} is answered {expected}");
    }
    Ok(())
}

async fn backend() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    tokio::spawn(httpbin::serve(
        listener,
        httpbin::router(),
        std::future::pending(),
    ));
    Ok(address)
}
