//! What stands behind the proxies: servers with TLS of ours and of openssl, which tell what they
//! saw.

use super::pki::Pki;
use crate::support::{self, Whole};
use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretRef, ServerTls, SnapshotBuilder, TlsVersion, Validation,
};
use mesh_identity::Acceptor;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// A server.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// The name of its certificate. Empty: it does not speak TLS.
    pub certificate: &'static str,
    pub alpn: &'static [&'static str],
    /// Callers need a certificate.
    pub mutual: bool,
    /// The only version.
    pub version: Option<TlsVersion>,
    /// It is openssl's, with these arguments.
    pub openssl: Option<&'static [&'static str]>,
}

/// A program that ends with the test.
pub struct Program(Child);

// === impl Program ===

impl Program {
    /// Waits until it accepts connections.
    async fn listens(&mut self, at: SocketAddr) {
        let open = async {
            while TcpStream::connect(at).await.is_err() {
                if let Some(status) = self.0.try_wait().unwrap() {
                    panic!("openssl ended with {status}");
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(Duration::from_secs(60), open).await;
        assert!(waited.is_ok(), "openssl does not listen on {at}");
    }
}

// === impl Backend ===

impl Backend {
    pub fn of(certificate: &'static str) -> Self {
        Self {
            certificate,
            ..Self::default()
        }
    }

    pub async fn start(&self, pki: &Pki, programs: &mut Vec<Program>) -> SocketAddr {
        if let Some(arguments) = self.openssl {
            let at = support::free_address();
            let mut program = self.program(arguments, at, pki);
            program.listens(at).await;
            programs.push(program);
            return at;
        }
        if self.certificate.is_empty() {
            return support::named("plain").await;
        }
        let acceptor = self.acceptor(pki);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok((stream, told)) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |_| {
                        let seen = seen(&told);
                        async move { Ok::<_, Infallible>(Response::new(Whole::from(seen))) }
                    });
                    // A connection that the proxy closes is no failure of the test.
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        at
    }

    fn acceptor(&self, pki: &Pki) -> Acceptor {
        let read = |file: String| std::fs::read(pki.at(&file)).unwrap();
        let certificate = Secret::certificate(
            read(format!("{}.pem", self.certificate)),
            read(format!("{}.key", self.certificate)),
        );
        let mut builder = SnapshotBuilder::new();
        // Only what something refers to is in a snapshot.
        let mut refers = ClientTls::default();
        for (name, secret) in [
            ("own", certificate),
            ("ca", Secret::roots(read("ca.pem".into()))),
        ] {
            refers.certificates.push(SecretRef::local(name));
            builder.secret(SecretRef::local(name), Arc::new(secret));
        }
        let mut cluster = Cluster::new("all");
        cluster.tls = Some(Arc::new(refers));
        builder.cluster(cluster);
        let snapshot = builder.build().unwrap().0;

        let mut tls = ServerTls::default();
        tls.certificates = vec![SecretRef::local("own")];
        tls.alpn = self.alpn.iter().map(|name| (*name).into()).collect();
        (tls.params.min, tls.params.max) = (self.version, self.version);
        if self.mutual {
            let mut validation = Validation::default();
            validation.roots = Some(SecretRef::local("ca"));
            tls.validation = Some(validation);
            tls.require_client_certificate = true;
        }
        Acceptor::new(Arc::new(tls), |name| snapshot.secret(name).cloned()).unwrap()
    }

    fn program(&self, arguments: &[&str], at: SocketAddr, pki: &Pki) -> Program {
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", &at.to_string()])
            .args(["-cert", &pki.at(&format!("{}.pem", self.certificate))])
            .args(["-key", &pki.at(&format!("{}.key", self.certificate))])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Program(child)
    }
}

fn seen(told: &TlsInfo) -> String {
    let version = told.version.map_or("", TlsVersion::as_str);
    let peer = told.peer.as_ref().map_or("nobody", |peer| &*peer.subject);
    format!(
        "{version} alpn={} sni={} peer={peer}",
        told.alpn, told.server_name
    )
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
