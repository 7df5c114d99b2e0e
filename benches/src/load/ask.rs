//! One request over TLS, for probes: the answer as it came, or that it was refused.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustls::{ClientConnection, StreamOwned};

use crate::tls::{self, Group, Identity};

/// How long the other side may say nothing.
const LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may be.
const MOST: u64 = 4 << 20;

/// Which certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    Caller,
    /// None at all
    Nothing,
    /// One that says the same as the caller's, of another authority
    Stranger,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    address: SocketAddr,

    /// Where the caller's certificate is (see `authority`)
    #[arg(long, value_name = "FOLDER")]
    mutual: PathBuf,

    #[arg(long, value_enum, default_value = "caller")]
    shows: Shown,

    #[arg(long, default_value = "/")]
    path: String,

    /// More headers, as NAME: VALUE
    #[arg(long)]
    header: Vec<String>,
}

/// Prints the response, or `refused: ` and why.
///
/// # Errors
///
/// If nobody listens, or there is neither an answer nor a refusal in time.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let identity = match options.shows {
        Shown::Caller => Some(Identity::caller(&options.mutual)?),
        Shown::Nothing => None,
        Shown::Stranger => Some(Identity::stranger()?),
    };
    let config = tls::client(Group::X25519, identity)?;
    let stream = TcpStream::connect(options.address).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let connection = ClientConnection::new(config, tls::name())?;
    let mut stream = StreamOwned::new(connection, stream);
    let more: String = options
        .header
        .iter()
        .map(|it| format!("{it}\r\n"))
        .collect();
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n",
        options.path
    );
    let mut answer = Vec::new();
    let end = (stream.write_all(request.as_bytes()))
        .and_then(|()| (&mut stream).take(MOST).read_to_end(&mut answer));
    let why = match end {
        // Not all say in TLS that they close.
        _ if !answer.is_empty() => {
            return Ok(io::stdout().write_all(&answer)?);
        }
        Ok(_) => "closed".to_owned(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("neither an answer nor a refusal in {LIMIT:?}")
        }
        Err(error) => error.to_string(),
    };
    println!("refused: {why}");
    Ok(())
}
