//! A real Envoy is the judge of TLS: the same bootstrap for it and for us, the same callers from
//! outside (curl, openssl, h2load), the same backends, and everything that can be seen compared:
//! who is refused and how, what is agreed on, which certificate is shown, what is counted and
//! logged.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path), curl and openssl; without them the test
//! says so and passes, but fails where `CI=true`. h2load is used where it is installed.
//! `MESH_ENVOY_ALL=1` prints every difference.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[path = "tls_full/backend.rs"]
mod backend;
#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
#[path = "tls_full/compare.rs"]
mod compare;
#[path = "tls_full/config.rs"]
mod config;
#[path = "tls_full/downstream.rs"]
mod downstream;
#[path = "tls_full/pki.rs"]
mod pki;
mod support;
#[path = "tls_full/tools.rs"]
mod tools;
#[path = "tls_full/upstream.rs"]
mod upstream;

use child::{Proxy, Stats};
use compare::Difference;
use downstream::{Call, Server};
use pki::Pki;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Http1, Whole, free_address, text};
use tokio::time::{Instant, sleep};
use tools::{Facts, Tool};
use upstream::Upstream;

/// One of the two proxies.
struct Side {
    proxy: Proxy,
    directory: PathBuf,
    listeners: BTreeMap<&'static str, SocketAddr>,
}

/// Everything but addresses and times that both log.
const LOG: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
    [%UPSTREAM_TRANSPORT_FAILURE_REASON%] %PROTOCOL% %DOWNSTREAM_TLS_VERSION% \
    %DOWNSTREAM_TLS_CIPHER% sni=%REQUESTED_SERVER_NAME% peer=[%DOWNSTREAM_PEER_SUBJECT% \
    %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_FINGERPRINT_256% \
    %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_DNS_SAN%] local=%DOWNSTREAM_LOCAL_URI_SAN%\n";

/// The same of what is only passed on.
const TCP_LOG: &str = "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER% sni=%REQUESTED_SERVER_NAME% tls=%DOWNSTREAM_TLS_VERSION%\n";

/// The server whose requests go upstream.
const UPSTREAM: &str = "upstream";

/// What is compared of the statistics. (Ciphers and groups are not: each prefers some of its own.)
const COUNTED: [&str; 11] = [
    "ssl.versions.TLSv1.2",
    "ssl.versions.TLSv1.3",
    "ssl.handshake",
    "ssl.session_reused",
    "ssl.no_certificate",
    "ssl.connection_error",
    "ssl.fail_verify_no_cert",
    "ssl.fail_verify_error",
    "ssl.fail_verify_san",
    "ssl.fail_verify_cert_hash",
    "no_filter_chain_match",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_and_we_accept_and_refuse_alike() {
    let Some(envoy) = judge() else {
        return;
    };
    let h2load = Tool::is_there("h2load");
    if !h2load {
        println!("without h2load, which is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::make(directory.path());
    let servers = downstream::servers(&pki);
    let calls = downstream::calls(&pki, h2load);
    let upstreams = upstream::upstreams(&pki);

    let mut programs = Vec::new();
    let mut clusters = Vec::new();
    for (name, backend) in upstream::behind() {
        let at = backend.start(&pki, &mut programs).await;
        clusters.push(config::cluster(name, at, None));
    }
    for it in &upstreams {
        let at = it.backend.start(&pki, &mut programs).await;
        let cluster = config::cluster(&it.name, at, it.tls.as_ref());
        clusters.push(match &it.http {
            Some(options) => config::with_http(cluster, options.clone()),
            None => cluster,
        });
    }
    let ours = env!("CARGO_BIN_EXE_mesh-proxy");
    let start = async |name: &str, binary: &str| {
        let directory = directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        side(binary, directory, &servers, &upstreams, &clusters).await
    };
    let (theirs, ours) = (start("envoy", &envoy).await, start("ours", ours).await);

    let roots = pki.at("ca.pem");
    let mut seen = Vec::new();
    for call in calls {
        let case = seen.len();
        let (theirs, ours) = tokio::join!(
            theirs.called(&call, case, &roots),
            ours.called(&call, case, &roots),
        );
        seen.push((call.server, call.label, theirs, ours));
    }
    for upstream in &upstreams {
        // The second finds a session to resume, or a connection.
        for label in ["first", "again"] {
            let case = seen.len();
            let theirs = theirs.asked(upstream, case).await;
            let ours = ours.asked(upstream, case).await;
            let label = format!("{} {label}", upstream.name);
            seen.push((UPSTREAM, label, theirs, ours));
        }
    }
    until_logged(&theirs, &ours).await;
    let (their_lines, our_lines) = (theirs.lines(), ours.lines());
    let cases = seen.len();
    let mut differences = Vec::new();
    for (case, (server, label, mut theirs, mut ours)) in seen.into_iter().enumerate() {
        for (facts, lines) in [(&mut theirs, &their_lines), (&mut ours, &our_lines)] {
            let line = lines.get(&case.to_string());
            facts.insert("log".into(), line.map_or("", String::as_str).to_owned());
        }
        if std::env::var_os("MESH_ENVOY_SEEN").is_some() {
            println!("{server}: {label}: {theirs:#?}");
        }
        differences.extend(Difference::between(server, &label, &theirs, &ours));
    }
    let passed = |side: &Side| Facts::from([("lines".to_owned(), side.log("passthrough"))]);
    let (their_tcp, our_tcp) = (passed(&theirs), passed(&ours));
    assert!(!their_tcp["lines"].is_empty());
    differences.extend(Difference::between(
        "passthrough",
        "log",
        &their_tcp,
        &our_tcp,
    ));

    let (their_certificates, our_certificates) =
        (theirs.certificates().await, ours.certificates().await);
    differences.extend(Difference::between(
        "admin",
        "/certs",
        &their_certificates,
        &our_certificates,
    ));

    if std::env::var_os("MESH_ENVOY_ALL").is_some() {
        differences.iter().for_each(|it| println!("{it}"));
    }
    let unexplained = compare::judge(&differences);
    unexplained.iter().for_each(|it| println!("{it}"));
    println!(
        "{cases} cases, {} differences, {} of them not explained",
        differences.len(),
        unexplained.len()
    );
    assert!(unexplained.is_empty());
}

/// Envoy, if everything that is needed is there.
fn judge() -> Option<String> {
    let envoy = std::env::var("MESH_ENVOY").ok();
    let missing = match &envoy {
        None => Some("MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it"),
        Some(_) if !Tool::is_there("curl") => Some("there is no curl"),
        Some(_) if !Tool::is_there("openssl") => Some("there is no openssl"),
        Some(_) => None,
    };
    let Some(missing) = missing else {
        return envoy;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    println!("skipped: {missing}");
    None
}

/// Starts one.
async fn side(
    binary: &str,
    directory: PathBuf,
    servers: &[Server],
    upstreams: &[Upstream],
    clusters: &[Value],
) -> Side {
    let mut listeners = BTreeMap::new();
    let mut configured = Vec::new();
    let fixed = json!({"match": {"prefix": "/"}, "direct_response": {
        "status": 200, "body": {"inline_string": "well"},
    }});
    for server in servers {
        let at = free_address();
        listeners.insert(server.name, at);
        let log = log_path(&directory, server.name);
        let chains = server.chains.iter().map(|chain| {
            let filter = match chain.cluster {
                Some(cluster) => config::tcp(server.name, &log, TCP_LOG, cluster),
                None => config::http(server.name, &log, LOG, std::slice::from_ref(&fixed)),
            };
            config::chain(chain.names, &filter, chain.tls.as_ref())
        });
        let chains: Vec<_> = chains.collect();
        configured.push(config::listener(
            server.name,
            at,
            server.name != "simple",
            &chains,
        ));
    }
    let routes: Vec<_> = upstreams
        .iter()
        .map(
            |it| json!({"match": {"path": format!("/{}", it.name)}, "route": {"cluster": it.name}}),
        )
        .collect();
    let at = free_address();
    listeners.insert(UPSTREAM, at);
    let http = config::http(UPSTREAM, &log_path(&directory, UPSTREAM), LOG, &routes);
    configured.push(config::listener(
        UPSTREAM,
        at,
        false,
        &[config::chain(&[], &http, None)],
    ));
    let config = config::bootstrap(&configured, clusters);
    Side {
        proxy: Proxy::start(binary, config, &directory).await,
        directory,
        listeners,
    }
}

/// Both write their logs with some delay: waits until they have lines for the same, and nothing has
/// come for a second; or, where they do not agree, for ten.
async fn until_logged(theirs: &Side, ours: &Side) {
    let cases = |side: &Side| -> Vec<String> { side.lines().into_keys().collect() };
    let passed = |side: &Side| side.log("passthrough").lines().count();
    let look = || (cases(theirs), cases(ours), passed(theirs), passed(ours));
    let (mut seen, mut since) = (look(), Instant::now());
    loop {
        let agree = seen.0 == seen.1 && seen.2 == seen.3 && seen.2 > 0;
        if since.elapsed() > Duration::from_secs(if agree { 1 } else { 10 }) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
        let now = look();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

fn log_path(directory: &Path, server: &str) -> PathBuf {
    directory.join(format!("{server}.log"))
}

// === impl Side ===

impl Side {
    /// A client calls a server.
    async fn called(&self, call: &Call, case: usize, roots: &str) -> Facts {
        let to = self.listeners[call.server];
        let before = self.proxy.listener(to).await;
        let (tool, roots) = (call.tool.clone(), roots.to_owned());
        let mut facts = tokio::task::spawn_blocking(move || tool.run(to, case, &roots))
            .await
            .unwrap();
        count(&mut facts, &before, &self.proxy.listener(to).await);
        facts
    }

    /// A request for an upstream.
    async fn asked(&self, upstream: &Upstream, case: usize) -> Facts {
        let before = self.proxy.cluster(&upstream.name).await;
        let request = http::Request::get(format!("/{}", upstream.name))
            .header("host", upstream.host)
            .header("x-case", case)
            .body(Whole::default())
            .unwrap();
        let mut client = Http1::connect(self.listeners[UPSTREAM]).await;
        let response = client.send(request).await;
        let status = response.status().to_string();
        let mut body = text(response).await;
        if body.contains("s_server") {
            "openssl".clone_into(&mut body);
        }
        let mut facts = Facts::from([("status".into(), status), ("body".into(), body)]);
        count(
            &mut facts,
            &before,
            &self.proxy.cluster(&upstream.name).await,
        );
        facts
    }

    /// What `/certs` shows of each side of TLS, and how often the same.
    async fn certificates(&self) -> Facts {
        let shown = child::ask(self.proxy.admin, "/certs").await;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let mut facts = BTreeMap::<String, usize>::new();
        for side in shown["certificates"].as_array().unwrap() {
            *facts.entry(side.to_string()).or_default() += 1;
        }
        assert!(facts.len() > 5, "{facts:#?}");
        let counted = facts.into_iter();
        counted
            .map(|(side, count)| (side, count.to_string()))
            .collect()
    }

    fn log(&self, server: &str) -> String {
        std::fs::read_to_string(log_path(&self.directory, server)).unwrap_or_default()
    }

    /// What is logged, by case.
    fn lines(&self) -> BTreeMap<String, String> {
        let texts = self.listeners.keys().map(|server| self.log(server));
        let texts: Vec<_> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        let pairs = lines.filter_map(|line| line.split_once(' '));
        pairs
            .map(|(case, line)| (case.to_owned(), line.to_owned()))
            .collect()
    }
}

/// Notes what was counted in between.
fn count(facts: &mut Facts, before: &Stats, after: &Stats) {
    for name in COUNTED {
        let value = |stats: &Stats| stats.get(name).copied().unwrap_or(0);
        let more = value(after) - value(before);
        if more > 0 {
            facts.insert(name.to_owned(), format!("+{more}"));
        }
    }
}
