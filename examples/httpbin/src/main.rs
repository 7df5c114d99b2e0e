//! `httpbin --listen ADDR`: serves the echo service until it is interrupted.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;

/// A small HTTP service that answers with what it was sent.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on
    #[arg(long, env = "HTTPBIN_LISTEN", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// What /hostname answers [default: $HOSTNAME, or `httpbin`]
    #[arg(long)]
    name: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, name } = Arguments::parse();
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    eprintln!("httpbin listens on http://{}", listener.local_addr()?);

    let router = name.map_or_else(httpbin::router, httpbin::named);
    httpbin::serve(listener, router, interrupted()).await?;
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
