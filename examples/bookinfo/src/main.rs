//! `bookinfo SERVICE --listen ADDR [--outbound ADDR]`: serves one service until interrupted.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::http::uri::Authority;
use bookinfo::{ReviewsVersion, Services};
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;

/// One of the services of Bookinfo.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The service to be
    service: Service,

    /// Address to listen on
    #[arg(long, env = "BOOKINFO_LISTEN", default_value = "127.0.0.1:9080")]
    listen: SocketAddr,

    /// HTTP proxy (the sidecar) that all calls go through; without it, each is made directly
    #[arg(long, env = "BOOKINFO_OUTBOUND")]
    outbound: Option<SocketAddr>,

    /// Authority to call details at
    #[arg(long, default_value = "details:9080")]
    details: Authority,

    /// Authority to call reviews at
    #[arg(long, default_value = "reviews:9080")]
    reviews: Authority,

    /// Authority to call ratings at
    #[arg(long, default_value = "ratings:9080")]
    ratings: Authority,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Service {
    Productpage,
    Details,
    Ratings,
    /// Reviews without stars
    ReviewsV1,
    /// Reviews with black stars
    ReviewsV2,
    /// Reviews with red stars
    ReviewsV3,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (service, listen) = (arguments.service, arguments.listen);
    let services = Services {
        outbound: arguments.outbound,
        details: arguments.details,
        reviews: arguments.reviews,
        ratings: arguments.ratings,
        ..Services::direct()
    };
    let router = match service {
        Service::Productpage => bookinfo::productpage(&services),
        Service::Details => bookinfo::details(),
        Service::Ratings => bookinfo::ratings(),
        Service::ReviewsV1 => bookinfo::reviews(ReviewsVersion::V1, &services),
        Service::ReviewsV2 => bookinfo::reviews(ReviewsVersion::V2, &services),
        Service::ReviewsV3 => bookinfo::reviews(ReviewsVersion::V3, &services),
    };

    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    eprintln!("{service:?} listens on http://{}", listener.local_addr()?);
    bookinfo::serve(listener, router, interrupted()).await?;
    Ok(())
}

/// Resolves on SIGINT and, where there is such a thing, SIGTERM.
async fn interrupted() {
    let interrupt = async {
        // A process that cannot listen for signals is ended by them: never resolving is right.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();

    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
