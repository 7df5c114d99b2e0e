//! Making connections: TCP or a Unix domain socket, the PROXY protocol's header, TLS, all within
//! one limit of time.

use super::counted::Counted;
use super::fault;
use super::secure::{Offer, Secured};
use super::transport::{Connected, Stream, Transport};
use super::variant::Variant;
use crate::proxy_protocol;
use mesh_core::model::{Address, Cluster, ClusterEntry, ProxyProtocol, UnixPath};
use mesh_core::stats::ClusterStat;
use mesh_core::{Error, Failure};
use mesh_lb::Host;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};

#[cfg(test)]
use std::{future::Future, pin::Pin};

/// How connections are made: by the system, or in memory in tests.
#[derive(Clone)]
pub(crate) enum Connector {
    System,
    #[cfg(test)]
    Memory(Arc<dyn Fn(&Address) -> InMemory + Send + Sync>),
}

/// A connection that will be made in memory.
#[cfg(test)]
pub(crate) type InMemory =
    Pin<Box<dyn Future<Output = io::Result<tokio::io::DuplexStream>> + Send>>;

/// One connection that is wanted, and everything that it takes to make it.
pub(crate) struct Dial {
    pub(crate) connector: Connector,
    pub(crate) host: Arc<Host>,
    pub(crate) entry: Arc<ClusterEntry>,
    pub(crate) variant: Variant,
    pub(crate) offer: Offer,
    pub(crate) counted: Counted,
}

/// The address that a connection is made from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// One of ours (Envoy's `upstream_bind_config`).
    Ours(IpAddr),
    /// A caller's, which takes the capability NET_ADMIN, with the mark of packets (Envoy's
    /// `original_src`). It comes before the cluster's, as there.
    Callers(IpAddr, u32),
}

// === impl Connector ===

impl Connector {
    async fn connect(
        &self,
        address: &Address,
        cluster: &Cluster,
        variant: &Variant,
    ) -> io::Result<Transport> {
        match self {
            Self::System => match address {
                Address::Unix(path) => Ok(Transport::Unix(connect_unix(path).await?)),
                other => {
                    let source = Source::of(cluster, variant);
                    Ok(Transport::Tcp(connect_tcp(other, cluster, source).await?))
                }
            },
            #[cfg(test)]
            Self::Memory(make) => Ok(Transport::Memory(make(address).await?)),
        }
    }
}

/// Settings of TCP and the address to connect from have no meaning there.
async fn connect_unix(path: &UnixPath) -> io::Result<UnixStream> {
    match path.abstract_name() {
        // The system's spelling.
        Some(name) => UnixStream::connect(format!("\0{name}")).await,
        None => UnixStream::connect(path.as_str()).await,
    }
}

async fn connect_tcp(
    address: &Address,
    cluster: &Cluster,
    source: Option<Source>,
) -> io::Result<TcpStream> {
    let stream = match (address, source) {
        (Address::Socket(to), None) => TcpStream::connect(to).await?,
        (Address::Socket(to), Some(source)) => connect_from(source, *to).await?,
        (Address::Host(host, port), None) => TcpStream::connect((host.as_str(), *port)).await?,
        (Address::Host(host, port), Some(source)) => {
            let mut last = None;
            let mut found = None;
            for to in lookup_host((host.as_str(), *port)).await? {
                match connect_from(source, to).await {
                    Ok(stream) => {
                        found = Some(stream);
                        break;
                    }
                    Err(error) => last = Some(error),
                }
            }
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            found.ok_or_else(|| last.unwrap_or_else(none))?
        }
        (other, _) => {
            let message = format!("address {other} is of a kind that cannot be connected to");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    };
    stream.set_nodelay(true)?;
    if let Some(wanted) = cluster.tcp_keepalive {
        let mut keepalive = TcpKeepalive::new();
        if let Some(time) = wanted.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = wanted.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(probes) = wanted.probes {
            keepalive = keepalive.with_retries(probes);
        }
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(stream)
}

/// The address only, with any port.
async fn connect_from(source: Source, to: SocketAddr) -> io::Result<TcpStream> {
    let from = source.address();
    if from.is_ipv4() != to.is_ipv4() {
        let message = format!("{to} cannot be reached from {from}: it is of another family");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
    }
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Source::Callers(_, mark) = source {
        let options = SockRef::from(&socket);
        match from {
            IpAddr::V4(_) => options.set_ip_transparent_v4(true)?,
            IpAddr::V6(_) => options.set_ip_transparent_v6(true)?,
        }
        if mark != 0 {
            options.set_mark(mark)?;
        }
    }
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

// === impl Source ===

impl Source {
    fn of(cluster: &Cluster, variant: &Variant) -> Option<Self> {
        match variant.source {
            Some((address, mark)) => Some(Self::Callers(address, mark)),
            None => cluster.bind_source.map(Self::Ours),
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::Ours(address) | Self::Callers(address, _) => address,
        }
    }
}

// === impl Dial ===

impl Dial {
    /// Makes the connection. What went wrong is counted for the cluster and the host.
    ///
    /// # Errors
    /// [`Failure::ConnectTimeout`] or [`Failure::ConnectFailed`], with the reason in Envoy's words.
    pub(crate) async fn dial(self) -> Result<Connected, Error> {
        let limit = self.entry.config().connect_timeout;
        let made = match tokio::time::timeout(limit, self.attempt(self.host.address())).await {
            Ok(made) => made,
            Err(_) => Err(Error::new(Failure::ConnectTimeout).unsent()),
        };
        if let Err(error) = &made {
            self.counted.count(ClusterStat::CxConnectFail);
            self.host.connect_failed();
            if error.failure() == Failure::ConnectTimeout {
                self.counted.count(ClusterStat::CxConnectTimeout);
            }
        }
        made
    }

    /// The same to any address, within no limit of time, and without counting a failure.
    ///
    /// # Errors
    /// [`Failure::ConnectFailed`].
    pub(crate) async fn attempt(&self, to: &Address) -> Result<Connected, Error> {
        let config = self.entry.config();
        let connecting = self.connector.connect(to, config, &self.variant);
        let mut transport = connecting
            .await
            .map_err(|error| fault::connecting(&error))?;
        let (remote, local) = addresses(&transport);
        if let Some(version) = config.proxy_protocol {
            let header = header(version, &self.variant, local.zip(remote));
            let told = transport.write_all(&header).await;
            told.map_err(|error| fault::connecting(&error))?;
        }
        let (stream, tls) = match Secured::of(&self.entry, self.host.endpoint()) {
            None => (Stream::Plain(transport), None),
            Some((way, secured)) => {
                let name = self.variant.name.as_deref();
                let shaking = secured.handshake(way, &self.entry, self.offer, transport, name);
                let (stream, info) = shaking.await.map_err(|refused| {
                    refused.count(&self.counted);
                    refused.into_error()
                })?;
                self.counted.count(ClusterStat::SslHandshake);
                self.counted.agreed(&info);
                if info.resumed {
                    self.counted.count(ClusterStat::SslSessionReused);
                }
                (Stream::Tls(Box::new(stream)), Some(info))
            }
        };
        Ok(Connected {
            stream,
            remote,
            local,
            tls,
        })
    }
}

fn addresses(transport: &Transport) -> (Option<SocketAddr>, Option<SocketAddr>) {
    match transport {
        Transport::Tcp(stream) => (stream.peer_addr().ok(), stream.local_addr().ok()),
        Transport::Unix(_) => (None, None),
        #[cfg(test)]
        Transport::Memory(_) => (None, None),
    }
}

/// Without a caller, version 1 names the connection's own ends and version 2 says `LOCAL`, as in
/// Envoy (`UpstreamProxyProtocolSocket::generateHeader`). A Unix domain socket has no ends that
/// could be named, and who calls over one is nobody: then it is `UNKNOWN` or `LOCAL`, where Envoy
/// 1.40 ends itself (version 1) or leaves the header out (version 2).
fn header(
    version: ProxyProtocol,
    variant: &Variant,
    own: Option<(SocketAddr, SocketAddr)>,
) -> Vec<u8> {
    let own = own.filter(|_| version == ProxyProtocol::V1);
    match variant.caller.or(own) {
        Some((source, destination)) => proxy_protocol::encode(version, source, destination),
        None => proxy_protocol::encode_local(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(header: &[u8]) -> String {
        String::from_utf8_lossy(header).into_owned()
    }

    #[test]
    fn without_a_caller_the_header_says_so_as_in_envoy() {
        let ends = ("10.0.0.1:5", "10.0.0.2:80");
        let own = Some((ends.0.parse().unwrap(), ends.1.parse().unwrap()));
        let nobody = Variant::default();
        assert_eq!(
            local(&header(ProxyProtocol::V1, &nobody, own)),
            "PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n"
        );
        let v2 = header(ProxyProtocol::V2, &nobody, own);
        assert_eq!(v2, proxy_protocol::encode_local(ProxyProtocol::V2));
        let ends = ("10.9.9.9:1".parse().unwrap(), "10.8.8.8:2".parse().unwrap());
        let somebody = Variant {
            caller: Some(ends),
            ..Variant::default()
        };
        assert_eq!(
            local(&header(ProxyProtocol::V1, &somebody, own)),
            "PROXY TCP4 10.9.9.9 10.8.8.8 1 2\r\n"
        );
    }

    #[tokio::test]
    async fn a_connection_is_made_from_the_address_that_is_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut cluster = Cluster::new("c");
        cluster.bind_source = Some("127.0.0.2".parse().unwrap());
        let source = Source::of(&cluster, &Variant::default());
        for to in [
            Address::Socket(listener.local_addr().unwrap()),
            Address::Host("localhost".into(), port),
        ] {
            let stream = connect_tcp(&to, &cluster, source).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.2");
        }
        let other = Address::Socket("[::1]:1".parse().unwrap());
        let error = connect_tcp(&other, &cluster, source).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "[::1]:1 cannot be reached from 127.0.0.2: it is of another family"
        );
    }
}
