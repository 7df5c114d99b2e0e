//! TLS towards endpoints, and which protocol is spoken inside.

use super::pki::{Authority, validation};
use super::*;
use mesh_core::Failure;
use mesh_core::Name;
use mesh_core::model::{ClientTls, EndpointSet, SecretRef, TlsMatch, UpstreamProtocol};
use mesh_identity::Acceptor;
use std::collections::BTreeMap;
use std::time::Duration;

type Seen = Arc<Mutex<Vec<(String, String)>>>;

const BOTH: &[&str] = &["h2", "http/1.1"];

fn roots() -> SecretRef {
    SecretRef::local("roots")
}

fn own() -> SecretRef {
    SecretRef::local("own")
}

fn secured(protocol: UpstreamProtocol, change: impl FnOnce(&mut ClientTls)) -> Cluster {
    let mut tls = ClientTls::default();
    tls.validation = Some(validation(&roots()));
    tls.sni = "a.test".into();
    change(&mut tls);
    let mut cluster = cluster();
    cluster.protocol = protocol;
    cluster.tls = Some(Arc::new(tls));
    cluster
}

/// Serves what was agreed on; each answer is the number of its connection. Notes the names asked
/// for and the protocols.
fn server(acceptor: &Acceptor, seen: &Seen) -> impl Fn(usize, DuplexStream) + Send + Sync + use<> {
    let (acceptor, seen) = (acceptor.clone(), seen.clone());
    move |number, stream| {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok((stream, info)) = acceptor.accept(stream).await else {
                return;
            };
            let agreed = (info.server_name.to_string(), info.alpn.to_string());
            seen.lock().unwrap().push(agreed);
            let answer = move |_| async move { text(number.to_string()) };
            if info.alpn == "h2" {
                http2::answer(stream, 100, answer);
            } else {
                serve(stream, answer);
            }
        });
    }
}

fn seen(seen: &Seen) -> Vec<(String, String)> {
    std::mem::take(&mut *seen.lock().unwrap())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, alpn): &(&str, &str)| ((*name).to_owned(), (*alpn).to_owned());
    expected.iter().map(owned).collect()
}

impl Net {
    /// A cluster with TLS whose authority is known.
    fn trusting(authority: &Authority, cluster: Cluster, server: &Acceptor) -> (Self, Seen) {
        let seen = Seen::default();
        let net = Self::new(cluster, self::server(server, &seen));
        net.publish(&roots(), Some(authority.roots()));
        (net, seen)
    }

    fn publish(&self, named: &SecretRef, secret: Option<Arc<mesh_core::model::Secret>>) {
        self.entry.secret(named).unwrap().publish(secret);
    }

    /// The answer to a request for this host.
    async fn ask(&self, host: &str) -> Result<String, Error> {
        let mut request = get();
        let host = http::HeaderValue::from_str(host).unwrap();
        request.headers_mut().insert("host", host);
        Ok(mesh_test::read(self.send(request).await?.into_body()).await)
    }
}

#[tokio::test(start_paused = true)]
async fn alpn_settles_the_protocol_and_the_pool_learns_it() {
    let authority = Authority::new();
    for (offered, agreed, connections) in [(BOTH, "h2", 1), (&["http/1.1"], "http/1.1", 3)] {
        let server = authority.server(&["a.test"], offered, false);
        let cluster = secured(UpstreamProtocol::Alpn, |_| {});
        let (net, seen) = Net::trusting(&authority, cluster, &server.acceptor);
        let requests: Vec<_> = (0..3).map(|_| net.spawn(get())).collect();
        for request in requests {
            let body = request.await.unwrap().unwrap().into_body();
            mesh_test::read(body).await;
        }
        assert_eq!(net.made(), connections, "{agreed}");
        let expected = vec![("a.test", agreed); connections];
        assert_eq!(self::seen(&seen), pairs(&expected));
        assert_eq!(
            net.stat(ClusterStat::SslHandshake),
            connections as u64,
            "{agreed}"
        );
        // What was made is used again.
        net.get().await.unwrap();
        assert_eq!(net.made(), connections, "{agreed}");
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_settled_protocol_is_the_only_one_offered() {
    let authority = Authority::new();
    let server = authority.server(&["a.test"], BOTH, false);
    let configure = |tls: &mut ClientTls| tls.alpn = vec!["h2".into(), "http/1.1".into()];
    for (protocol, version, agreed) in [
        (
            UpstreamProtocol::AsDownstream,
            http::Version::HTTP_11,
            "http/1.1",
        ),
        (UpstreamProtocol::AsDownstream, http::Version::HTTP_2, "h2"),
        (UpstreamProtocol::Http1, http::Version::HTTP_2, "http/1.1"),
        (UpstreamProtocol::Http2, http::Version::HTTP_11, "h2"),
    ] {
        let cluster = secured(protocol, configure);
        let (net, seen) = Net::trusting(&authority, cluster, &server.acceptor);
        let mut request = get();
        *request.version_mut() = version;
        let response = net.send(request).await.unwrap();
        assert_eq!(mesh_test::read(response.into_body()).await, "0");
        assert_eq!(
            self::seen(&seen),
            pairs(&[("a.test", agreed)]),
            "{protocol:?} {version:?}"
        );
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asked_for_one_name_serves_no_other() {
    let authority = Authority::new();
    let server = authority.server(&["a.test", "b.test"], BOTH, false);
    let cluster = secured(UpstreamProtocol::Http2, |tls| {
        tls.sni = "".into();
        tls.auto_sni = true;
        tls.auto_san = true;
    });
    let (net, seen) = Net::trusting(&authority, cluster, &server.acceptor);
    for (host, connection) in [
        ("a.test", "0"),
        ("b.test:8443", "1"),
        ("A.TEST", "0"),
        ("b.test", "1"),
    ] {
        assert_eq!(net.ask(host).await.unwrap(), connection, "{host}");
    }
    assert_eq!(
        self::seen(&seen),
        pairs(&[("a.test", "h2"), ("b.test", "h2")])
    );
    let error = net.ask("c.test").await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectFailed);
    assert_eq!(net.stat(ClusterStat::SslFailVerifySan), 1);
    // A name without connections is forgotten, the others stay.
    net.upstreams.sweep(tokio::time::Instant::now().into_std());
    assert_eq!(net.ask("a.test").await.unwrap(), "0");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_is_a_failure_to_connect_with_envoys_reason() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server(&["a.test"], BOTH, false);
    let cluster = secured(UpstreamProtocol::Alpn, |_| {});
    let (net, _) = Net::trusting(&stranger, cluster, &server.acceptor);
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectFailed);
    assert!(error.is_unsent());
    let reason = error.cause().unwrap();
    assert!(
        reason.starts_with("TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY"),
        "{reason}"
    );
    let details = mesh_core::reply::details(&error);
    let expected = "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|";
    assert!(details.starts_with(expected), "{details}");
    assert_eq!(net.stat(ClusterStat::CxConnectFail), 1);
    assert_eq!(net.stat(ClusterStat::SslFailVerifyError), 1);
    assert_eq!(net.stat(ClusterStat::SslHandshake), 0);
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_its_secret_nothing_is_connected_and_with_a_new_one_open_connections_stay() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = first.server(&["a.test"], BOTH, false);
    let cluster = secured(UpstreamProtocol::Http1, |_| {});
    let (net, _) = Net::trusting(&first, cluster, &server.acceptor);
    net.publish(&roots(), None);
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectFailed);
    assert_eq!(
        error.cause().as_deref(),
        Some("TLS error: Secret is not supplied by SDS")
    );
    net.publish(&roots(), Some(first.roots()));
    assert_eq!(net.get().await.unwrap(), "1");

    net.publish(&roots(), Some(second.roots()));
    server.secret.publish(Some(second.certificate(&["a.test"])));
    assert_eq!(net.get().await.unwrap(), "1", "made with the old secrets");
    let (held, more) = upload();
    let held = net.spawn(held);
    settle().await;
    assert_eq!(net.get().await.unwrap(), "2", "made with the new ones");
    drop((held, more));
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_connecting_is_for_tls_too() {
    let mut cluster = secured(UpstreamProtocol::Http1, |_| {});
    cluster.connect_timeout = Duration::from_secs(3);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    let net = Net::new(cluster, move |_, stream| keep.lock().unwrap().push(stream));
    net.publish(&roots(), Some(Authority::new().roots()));
    let began = tokio::time::Instant::now();
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectTimeout);
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(net.stat(ClusterStat::CxConnectTimeout), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_shown_and_a_server_that_refuses_late_says_why() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server(&["a.test"], BOTH, true);
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let cluster = secured(protocol, |tls| tls.certificates = vec![own()]);
        let (net, _) = Net::trusting(&authority, cluster, &server.acceptor);
        net.publish(&own(), Some(stranger.certificate(&["me.test"])));
        let error = net.get().await.unwrap_err();
        assert_eq!(error.failure(), Failure::ConnectionTermination);
        let reason = error.cause().unwrap();
        assert!(reason.starts_with("TLS_error:|268436"), "{reason}");
        assert_eq!(net.stat(ClusterStat::SslConnectionError), 1);
        settle().await;
        assert_eq!(net.stat(ClusterStat::CxDestroyRemote), 1);

        net.publish(&own(), Some(authority.certificate(&["me.test"])));
        assert_eq!(net.get().await.unwrap(), "1");
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_reached_the_way_that_it_says_and_connections_are_not_mixed() {
    let authority = Authority::new();
    let secure = authority.server(&["a.test"], BOTH, false);
    let mut cluster = secured(UpstreamProtocol::Http1, |_| {});
    let labels = BTreeMap::from([("tlsMode".into(), "\"istio\"".into())]);
    let way = |name: &str, labels, tls| TlsMatch {
        name: name.into(),
        labels,
        tls,
    };
    let tls = cluster.tls.take();
    cluster.tls_matches = vec![
        way("tlsMode-istio", labels.clone(), tls),
        way("tlsMode-disabled", BTreeMap::new(), None),
    ];
    let acceptor = secure.acceptor.clone();
    let net = Net::new(cluster, move |number, stream| {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Every other connection is expected to be secured.
            let answer = move |_| async move { text(number.to_string()) };
            if number % 2 == 0 {
                serve(stream, answer);
            } else {
                let (stream, _) = acceptor.accept(stream).await.unwrap();
                serve(stream, answer);
            }
        });
    });
    net.publish(&roots(), Some(authority.roots()));
    let set = net.entry.live().endpoints().load();
    let saying = |labels: &BTreeMap<Name, Name>| {
        let mut set = EndpointSet::clone(&set);
        let endpoint = &mut set.localities[0].endpoints[0];
        Arc::make_mut(endpoint).transport = Arc::new(labels.clone());
        Arc::new(set)
    };
    assert_eq!(net.get().await.unwrap(), "0");
    assert_eq!(net.stat(ClusterStat::SslHandshake), 0);
    net.entry.live().publish_endpoints(saying(&labels));
    assert_eq!(net.get().await.unwrap(), "1");
    assert_eq!(net.stat(ClusterStat::SslHandshake), 1);
    let more = BTreeMap::from([("tlsMode".into(), "\"other\"".into())]);
    net.entry.live().publish_endpoints(saying(&more));
    assert_eq!(net.get().await.unwrap(), "2");
    assert_eq!(net.stat(ClusterStat::SslHandshake), 1);
}
