//! Sets of keys from servers on loopback, in plain text and in TLS.

use mesh_core::model::{KeySource, Secret, SecretRef, ServerTls, WantedKeys};
use mesh_identity::Acceptor;
use mesh_keys::{Fetcher, Keys};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

const ONE: &str = r#"{"keys":[{"kty":"oct","k":"b25l"}]}"#;
const TWO: &str = r#"{"keys":[{"kty":"oct","k":"dHdv"}]}"#;
/// A try fails at once on loopback, or not at all.
const LIMIT: Duration = Duration::from_secs(30);

/// Answers by path: everything that is sent, head and all.
type Pages = Arc<Mutex<HashMap<&'static str, String>>>;

fn page(status: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\n\r\n{body}")
}

fn ok(body: &str) -> String {
    page("200 OK", "", body)
}

fn moved(to: &str) -> String {
    page("302 Found", &format!("location: {to}\r\n"), "")
}

/// A server on a port of its own; with TLS if there is an acceptor.
async fn serve(pages: Pages, tls: Option<Acceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let (pages, tls) = (pages.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => answer(io, &pages).await,
                    Some(tls) => match tls.accept(io).await {
                        Ok((io, _)) => answer(io, &pages).await,
                        Err(_) => None,
                    },
                }
            });
        }
    });
    port
}

async fn answer<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, pages: &Pages) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    assert!(head.to_ascii_lowercase().contains("\r\nhost: "), "{head}");
    let path = head.split(' ').nth(1)?;
    let page = pages.lock().unwrap().get(path).cloned();
    let page = page.unwrap_or_else(page_not_found);
    io.write_all(page.as_bytes()).await.ok()?;
    io.shutdown().await.ok()
}

fn page_not_found() -> String {
    page("404 Not Found", "", "")
}

/// An authority, and a server's certificate of it for these names.
fn certified(names: &[&str]) -> (String, Acceptor) {
    let key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(root, key);
    let own = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&own, &issuer).unwrap();
    let named = SecretRef::local("own");
    let mut tls = ServerTls::default();
    tls.certificates = vec![named.clone()];
    let secret = Arc::new(Secret::certificate(leaf.pem(), own.serialize_pem()));
    let acceptor = Acceptor::alone(Arc::new(tls), [(named, secret)]).unwrap().0;
    (root_pem, acceptor)
}

/// What one try for each source brings.
async fn tried(root: &str, sources: impl IntoIterator<Item = KeySource>) -> Keys {
    within(LIMIT, root, sources).await
}

async fn within(limit: Duration, root: &str, sources: impl IntoIterator<Item = KeySource>) -> Keys {
    let (keys, mut fetcher) = Fetcher::builder().roots(root).build();
    keys.want(sources.into_iter().map(|one| (one, limit)).collect());
    fetcher.begin(limit).await;
    keys
}

fn uri(text: String) -> KeySource {
    KeySource::Uri(text.into())
}

async fn brings(root: &str, source: KeySource) -> Option<String> {
    let keys = tried(root, [source.clone()]).await;
    keys.load().get(&source).map(ToString::to_string)
}

#[tokio::test]
async fn a_server_is_believed_if_its_certificate_leads_to_a_root_and_is_for_its_name() {
    let pages = Pages::default();
    pages.lock().unwrap().insert("/jwks?v=1", ok(ONE));
    let (root, tls) = certified(&["localhost", "127.0.0.1"]);
    let port = serve(pages.clone(), Some(tls)).await;
    let (other, strange) = certified(&["elsewhere.test"]);
    let wrong = serve(pages.clone(), Some(strange)).await;
    for host in ["localhost", "127.0.0.1"] {
        let source = uri(format!("https://{host}:{port}/jwks?v=1"));
        assert_eq!(brings(&root, source.clone()).await.as_deref(), Some(ONE));
        assert_eq!(brings(&other, source).await, None, "of another authority");
    }
    let source = uri(format!("https://localhost:{wrong}/jwks?v=1"));
    assert_eq!(brings(&other, source).await, None, "for another name");
    let plain = serve(pages, None).await;
    let source = uri(format!("http://127.0.0.1:{plain}/jwks?v=1"));
    assert_eq!(brings(&root, source).await.as_deref(), Some(ONE));
    let source = uri(format!("https://127.0.0.1:{plain}/jwks?v=1"));
    let soon = Duration::from_millis(300);
    let keys = within(soon, &root, [source]).await;
    assert!(
        keys.load().is_empty(),
        "no TLS is spoken there, and nothing is said"
    );
}

#[tokio::test]
async fn an_issuer_says_where_its_keys_are() {
    let pages = Pages::default();
    let (root, tls) = certified(&["localhost"]);
    let port = serve(pages.clone(), Some(tls)).await;
    let issuer = format!("https://localhost:{port}/realm/");
    let put = |to: &str| {
        let text = format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{to}\"}}");
        let path = "/realm/.well-known/openid-configuration";
        pages.lock().unwrap().insert(path, ok(&text));
    };
    pages.lock().unwrap().insert("/keys", ok(TWO));
    let source = KeySource::Issuer(issuer.as_str().into());
    assert_eq!(brings(&root, source.clone()).await, None, "there is none");
    put(&format!("https://localhost:{port}/keys"));
    assert_eq!(brings(&root, source.clone()).await.as_deref(), Some(TWO));
    let plain = serve(pages.clone(), None).await;
    put(&format!("http://localhost:{plain}/keys"));
    assert_eq!(brings(&root, source).await, None, "less secret than it was");
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_never_out_of_tls() {
    let pages = Pages::default();
    let (root, tls) = certified(&["localhost"]);
    let port = serve(pages.clone(), Some(tls)).await;
    let plain = serve(pages.clone(), None).await;
    let names = ["/6", "/5", "/4", "/3", "/2", "/1", "/0"];
    for pair in names.windows(2) {
        pages.lock().unwrap().insert(pair[0], moved(pair[1]));
    }
    let away = moved(&format!("http://localhost:{plain}/0"));
    pages
        .lock()
        .unwrap()
        .extend([("/0", ok(ONE)), ("/away", away)]);
    pages.lock().unwrap().insert("/round", moved("/round"));
    let at = |path: &str| uri(format!("https://localhost:{port}{path}"));
    assert_eq!(brings(&root, at("/5")).await.as_deref(), Some(ONE));
    for refused in ["/6", "/away", "/round"] {
        assert_eq!(brings(&root, at(refused)).await, None, "{refused}");
    }
    let up = moved(&format!("https://localhost:{port}/0"));
    pages.lock().unwrap().insert("/up", up);
    let source = uri(format!("http://localhost:{plain}/up"));
    assert_eq!(brings(&root, source).await.as_deref(), Some(ONE));
}

#[tokio::test]
async fn what_is_no_set_of_keys_is_none() {
    let long = format!("{ONE}{}", " ".repeat((1 << 20) - ONE.len()));
    let pages = HashMap::from([
        ("/error", page("500 Oops", "", ONE)),
        ("/moved", page("302 Found", "", ONE)),
        ("/empty", ok("{\"keys\":[]}")),
        ("/html", ok("<html>")),
        (
            "/torn",
            ok(ONE).replace(&format!(": {}", ONE.len()), ": 9999"),
        ),
        ("/nonsense", "\0\0\0\0 200\r\n\r\n".to_owned()),
        ("/large", ok(&format!("{long} "))),
        (
            "/endless",
            "HTTP/1.1 200 OK\r\n\r\n".to_owned() + &" ".repeat(3 << 20),
        ),
        ("/largest", ok(&long)),
        ("/closed", format!("HTTP/1.1 200 OK\r\n\r\n{ONE}")),
    ]);
    let good = ["/largest", "/closed"];
    let paths: Vec<_> = pages.keys().copied().collect();
    let port = serve(Arc::new(Mutex::new(pages)), None).await;
    let at = |path: &str| uri(format!("http://127.0.0.1:{port}{path}"));
    let more = [
        uri("http://127.0.0.1:1/k".to_owned()),
        uri("ftp://a/k".to_owned()),
    ];
    let sources = paths.iter().map(|path| at(path)).chain(more);
    let keys = tried("", sources).await;
    let book = keys.load();
    for path in paths {
        assert_eq!(
            book.get(&at(path)).is_some(),
            good.contains(&path),
            "{path}"
        );
    }
    assert_eq!(book.len(), good.len());
}

#[tokio::test]
async fn keys_rotate_and_the_last_ones_stay_when_the_server_is_gone_or_talks_nonsense() {
    let pages = Pages::default();
    let (root, tls) = certified(&["localhost"]);
    let port = serve(pages.clone(), Some(tls)).await;
    let source = uri(format!("https://localhost:{port}/k"));
    let fetcher = Fetcher::builder()
        .refresh(Duration::from_secs(1))
        .roots(root);
    let (keys, fetcher) = fetcher.build();
    let mut feed = keys.feed();
    keys.want(WantedKeys::from([(source.clone(), LIMIT)]));
    let running = tokio::spawn(fetcher.run());
    let put = |page: String| pages.lock().unwrap().insert("/k", page);
    put(ok(ONE));
    let book = feed.changed().await.unwrap();
    assert_eq!(book.get(&source).map(|keys| &**keys), Some(ONE));
    put(page("503 Later", "", ""));
    let later = tokio::time::timeout(Duration::from_millis(2500), feed.changed());
    assert!(later.await.is_err(), "nothing changes");
    assert_eq!(keys.load().get(&source).map(|keys| &**keys), Some(ONE));
    put(ok(TWO));
    let book = feed.changed().await.unwrap();
    assert_eq!(book.get(&source).map(|keys| &**keys), Some(TWO));
    running.abort();
}
