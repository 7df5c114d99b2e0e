//! Asking the name servers that `resolv.conf` names, in the way in which we were asked.

use super::wire;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long each name server has to answer: that of Istio's agent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Larger datagrams are not read: who wants more asks over TCP.
const LARGEST_DATAGRAM: usize = 8192;

/// Asks one server after the other until one answers; `id` is a random one, under which they are
/// asked. None if nobody answers.
pub(super) async fn ask(
    servers: &[SocketAddr],
    query: &[u8],
    id: [u8; 2],
    limit: usize,
    datagram: bool,
) -> Option<Vec<u8>> {
    let own = wire::id(query)?;
    let mut asked = query.to_vec();
    wire::set_id(&mut asked, id);
    for server in servers {
        let answer = async {
            match datagram {
                true => over_udp(*server, &asked, limit).await,
                false => over_tcp(*server, &asked).await,
            }
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(mut response)) => {
                wire::set_id(&mut response, own);
                return match response.len() > limit {
                    true => wire::cut(&response),
                    false => Some(response),
                };
            }
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    None
}

async fn over_udp(server: SocketAddr, query: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    // A port of its own for each question, which nobody else can guess.
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    // One byte more than may come, to notice what does not fit.
    let mut buffer = vec![0; limit.min(LARGEST_DATAGRAM) + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let response = &buffer[..length];
        // Others may say something too; only the answer counts.
        if !wire::answers(response, query) {
            continue;
        }
        if length == buffer.len() {
            let cut = wire::cut(response);
            return cut.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        return Ok(response.to_vec());
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write(&mut stream, query).await?;
    let response = read(&mut stream).await?;
    match wire::answers(&response, query) {
        true => Ok(response),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Reads a message with its length before it (RFC 1035 §4.2.2).
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    let mut message = Vec::new();
    let mut rest = AsyncReadExt::take(stream, u64::try_from(length).unwrap_or_default());
    // What is announced need not come: it is not made room for before.
    rest.read_to_end(&mut message).await?;
    match message.len() == length {
        true => Ok(message),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes a message with its length before it, at once.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let Ok(length) = u16::try_from(message.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
