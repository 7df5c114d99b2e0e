//! What `cargo xtask bench peers` asks for that h2load cannot do: a fixed rate whose latency counts
//! from when a request was due, a connection for each request, mutual TLS, connections that idle, and
//! calls of gRPC whose trailers are read.
//!
//! Each command says what it found in one line of JSON. Certificates are not checked: who answers
//! was started by whoever asks.
#![forbid(unsafe_code)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};

mod ask;
mod authority;
mod churn;
mod crowd;
mod fresh;
mod grpc;
mod hold;
mod kept;
mod pace;
mod quantile;
mod reply;
mod tls;

/// The load of `cargo xtask bench peers`
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a certificate for localhost (ECDSA P-256, signed by itself) and its key
    Certificate { certificate: PathBuf, key: PathBuf },
    /// Write an authority (ca.pem) and what it signed for mutual TLS: NAME.pem and NAME.key for server,
    /// proxy, backend and caller
    Authority { folder: PathBuf },
    /// One request over mutual TLS; prints the answer or that it was refused
    Ask(ask::Options),
    /// Requests of HTTP/1.1 at a fixed rate
    Pace(pace::Options),
    /// A new connection for each request
    Fresh(fresh::Options),
    /// As many requests as go on connections that are kept, with mutual TLS
    Kept(kept::Options),
    /// Requests of all kinds at a rate, of which some are left before they are answered
    Churn(churn::Options),
    /// Hold as many connections as each line of the standard input says
    Hold {
        address: SocketAddr,
        /// Over TLS
        #[arg(long)]
        tls: bool,
    },
    /// A unary call and a stream, whose messages and status are checked
    Grpc {
        address: SocketAddr,
        /// Messages of the stream
        #[arg(long, default_value_t = 10)]
        messages: usize,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Certificate { certificate, key } => certify(&certificate, &key),
        Command::Authority { folder } => authority::write(&folder),
        Command::Ask(options) => ask::run(&options),
        Command::Pace(options) => say(&pace::run(&options)?),
        Command::Fresh(options) => say(&fresh::run(&options)?),
        Command::Kept(options) => say(&kept::run(&options)?),
        Command::Churn(options) => say(&churn::run(&options)?),
        Command::Hold { address, tls } => hold::run(address, tls),
        Command::Grpc { address, messages } => grpc::run(address, messages),
    }
}

fn say(found: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(found)?);
    Ok(())
}

fn certify(certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    authority::save(certificate, &made.cert.pem())?;
    authority::save_key(key, &made.signing_key.serialize_pem())
}
