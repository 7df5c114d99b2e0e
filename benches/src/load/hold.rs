//! Connections that had one request each and idle.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustls::{ClientConnection, StreamOwned};

use crate::{
    reply::{Done, Reply},
    tls::{self, Group},
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: peers-load\r\n\r\n";

/// Reads numbers, a line each, and answers each with a line when so many are held; ends with the
/// input.
///
/// # Errors
///
/// If a connection cannot be made, or is not answered with 200.
pub(crate) fn run(address: SocketAddr, tls: bool) -> anyhow::Result<()> {
    let config = tls::client(Group::X25519, None)?;
    let mut plain = Vec::new();
    let mut secure = Vec::new();
    for line in io::stdin().lines() {
        let wanted: usize = line?.trim().parse().context("a number is expected")?;
        while plain.len() + secure.len() < wanted {
            let mut stream = TcpStream::connect(address).context("cannot connect")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            if tls {
                let connection = ClientConnection::new(config.clone(), tls::name())?;
                let mut stream = StreamOwned::new(connection, stream);
                ask(&mut stream)?;
                secure.push(stream);
            } else {
                ask(&mut stream)?;
                plain.push(stream);
            }
        }
        println!("{{\"held\":{wanted}}}");
        io::stdout().flush()?;
    }
    Ok(())
}

fn ask(stream: &mut (impl Read + Write)) -> anyhow::Result<()> {
    stream.write_all(REQUEST).context("cannot send")?;
    let mut reply = Reply::default();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).context("cannot read")?;
        if length == 0 {
            bail!("closed before the response");
        }
        match reply.take(&piece[..length])? {
            None => {}
            Some(Done { status: 200, .. }) => return Ok(()),
            Some(done) => bail!("answered with {done:?}"),
        }
    }
}
