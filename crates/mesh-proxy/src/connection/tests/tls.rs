//! TLS that ends here.

use super::*;

/// A world with one certificate, and a chain that shows it.
fn secured(mut chain: FilterChain) -> (World, Arc<ListenerState>) {
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    let secret = Secret::certificate(made.cert.pem(), made.signing_key.serialize_pem());
    let mut tls = ServerTls::default();
    tls.certificates = vec![SecretRef::local("cert")];
    tls.alpn = vec!["h2".into(), "http/1.1".into()];
    chain.tls = Some(Arc::new(tls));
    chain.handshake_timeout = Some(3 * SECOND);
    let listener = listener().chain(chain);
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t"));
    builder.listener(listener.clone());
    builder.secret(SecretRef::local("cert"), Some(Arc::new(secret)));
    let world = World::with(builder.build().unwrap().0);
    let state = world.listen(listener);
    (world, state)
}

async fn tls_to(
    call: Call,
    alpn: &str,
) -> (mesh_identity::TlsStream<DuplexStream>, JoinHandle<()>) {
    let mut tls = mesh_core::model::ClientTls::default();
    tls.sni = "a.com".into();
    tls.alpn = vec![alpn.into()];
    let connector = mesh_identity::Connector::new(Arc::new(tls), |_| None).unwrap();
    let (stream, told) = connector.connect(call.io, None).await.unwrap();
    assert_eq!(&*told.alpn, alpn);
    (stream, call.task)
}

#[tokio::test]
async fn tls_ends_here_and_http_is_spoken_inside() {
    let (world, state) = secured(http("tls"));
    let (mut stream, task) = tls_to(world.call(&state), "http/1.1").await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\n\r\ntls 10.0.0.1:1000 to"), "{answer}");
    task.await.unwrap();
    assert_eq!(world.stat(ListenerStat::SslHandshake), 1);
    assert_eq!(world.stat(ListenerStat::SslNoCertificate), 1);

    let (stream, task) = tls_to(world.call(&state), "h2").await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("https://a.com/").body(String::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    drop((response, sender));
    driver.await.unwrap().unwrap();
    task.await.unwrap();
    assert_eq!(world.stat(ListenerStat::CxActive), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_or_takes_too_long_is_counted() {
    let (world, state) = secured(bytes("tls"));
    world.call(&state).says(GET).await;
    assert_eq!(world.stat(ListenerStat::SslConnectionError), 1);
    let began = Instant::now();
    world.call(&state).rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(world.stat(ListenerStat::CxTransportConnectTimeout), 1);
    assert_eq!(world.stat(ListenerStat::SslHandshake), 0);
    assert_eq!(world.stat(ListenerStat::CxActive), 0);
    assert_eq!(world.passed_on("tls"), 0);
}
