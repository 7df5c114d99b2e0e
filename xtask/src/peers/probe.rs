//! Whether a peer does what it is to be measured at, asked before each run.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    load::{self, Generator},
    machine,
    mutual::{self, Caller},
    peer::{Kind, Peer},
    process::Program,
    rows::{Load, POST_QUANTUM, Port, ROWS},
    run::{Running, Stage},
};

/// How long an access log may take to be written: Envoy flushes every ten seconds.
const LOG: Duration = Duration::from_secs(15);
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A response, as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Asks whether all that is measured is there.
///
/// # Errors
///
/// What is not.
pub(crate) fn all(stage: &Stage<'_>, peer: &Peer, running: &Running) -> anyhow::Result<()> {
    let listens = running.listens;
    for (path, length) in [
        ("/", 1024),
        ("/64k", 64 * 1024),
        ("/1m", 1024 * 1024),
        ("/h2/", 1024),
    ] {
        let answer = get(listens.h1, path, &[])?;
        let found = (answer.status, answer.body.len());
        ensure!(
            found == (200, length),
            "{path}: status and length {found:?}"
        );
    }
    if peer.has(Port::Tcp, 1) {
        let answer = get(listens.tcp, "/", &[])?;
        ensure!(
            answer.body.len() == 1024,
            "TCP: {} bytes",
            answer.body.len()
        );
    }
    if peer.has(Port::H2c, 1) {
        let address = format!("127.0.0.1:{}", listens.h2c);
        let calls = Program::new(stage.own_load).arguments(["grpc", &address]);
        let output = calls.output(&stage.cores.generator, stage.folder, LIMIT);
        output.context("gRPC")?;
    }
    let caller = stage.mutual.as_ref().map(|mutual| Caller {
        stage,
        mutual,
        port: listens.mtls,
    });
    let caller = caller.filter(|_| peer.has(Port::Mtls, 1));
    if let Some(caller) = caller {
        mutual::probe(caller)?;
    }
    if peer.kind.has_the_list() {
        list(peer, running, caller)?;
    }
    Ok(())
}

/// The features of `benches/peers/FEATURES.md`, also where this caller calls.
fn list(peer: &Peer, running: &Running, caller: Option<Caller<'_>>) -> anyhow::Result<()> {
    let id = running.process.id();
    let plain = format!("probe-{id}-h1");
    let h1 = running.listens.h1;
    routed(&plain, &["x-forwarded-proto: http\n"], |path, headers| {
        get(h1, path, headers)
    })?;
    let mut agents = vec![plain];
    if let Some(caller) = caller {
        let agent = format!("probe-{id}-mtls");
        let told = format!(";URI={}\n", mutual::CALLER);
        let told = [
            "x-forwarded-proto: https\n",
            "x-forwarded-client-cert: ",
            &told,
        ];
        routed(&agent, &told, |path, headers| caller.get(path, headers)).context("mutual TLS")?;
        agents.push(agent);
    }
    let stats = get(running.listens.admin, "/stats/prometheus", &[])?.body;
    let mut wanted = vec![
        "envoy_cluster_upstream_rq",
        "envoy_http_downstream_rq",
        "outlier_detection",
    ];
    if peer.kind == Kind::Mesh {
        wanted.extend([
            "istio_requests_total",
            "istio_request_duration_milliseconds",
        ]);
    }
    for name in wanted {
        ensure!(stats.contains(name), "no `{name}` among the statistics");
    }
    let log = running
        .access_log
        .as_deref()
        .context("the list has an access log")?;
    agents.iter().try_for_each(|agent| logged(log, agent))
}

/// What routes and filters do with requests of this agent; the backend has to be told so much more.
fn routed(
    agent: &str,
    told: &[&str],
    get: impl Fn(&str, &[&str]) -> anyhow::Result<Answer>,
) -> anyhow::Result<()> {
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let agent = format!("user-agent: {agent}");
    let answer = get("/headers", &[trace, &agent])?;
    let always = ["x-request-id: ", trace, "x-envoy-attempt-count: "];
    for what in always.iter().chain(told) {
        ensure!(
            answer.body.contains(what),
            "the backend gets no `{what}`: {}",
            answer.body
        );
    }
    let cors = get("/", &["origin: https://example.com"])?;
    let allowed = cors.header("access-control-allow-origin");
    ensure!(
        allowed == Some("https://example.com"),
        "CORS says {allowed:?}"
    );
    let denied = get("/denied", &[])?.status;
    ensure!(denied == 403, "RBAC: status {denied} where 403 is expected");
    let fault = get("/", &["x-env: canary8", "x-user: u8"])?.status;
    ensure!(
        fault == 418,
        "the fault of route r8: status {fault} where 418 is expected"
    );
    let matched = get("/svc7/x", &["x-env: canary7", "x-user: u7", &agent])?.status;
    ensure!(matched == 200, "route r7: status {matched}");
    Ok(())
}

/// Waits for two lines of this agent: by the last route, and by r7, in either order.
fn logged(file: &Path, agent: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut of = text.lines().filter(|line| line.contains(agent));
        let routes = [of.next(), of.next()].map(|line| line.and_then(|it| it.rsplit(' ').next()));
        match routes {
            // Two workers write when each of them has time.
            [Some("last"), Some("r7")] | [Some("r7"), Some("last")] => return Ok(()),
            [_, None] if start.elapsed() < LOG => machine::pause(Duration::from_millis(100)),
            other => bail!("the access log has lines by the routes {other:?}"),
        }
    }
}

/// Whether the peer agrees to the post-quantum group.
pub(crate) fn has_post_quantum(stage: &Stage<'_>, running: &Running) -> bool {
    let row = ROWS
        .iter()
        .find(|row| row.load == Load::Fresh(Some(POST_QUANTUM)));
    let Some(row) = row else {
        return false;
    };
    let generator = Generator {
        own: stage.own_load.clone(),
        threads: 1,
    };
    let found = (generator.program(row, running.listens.tls, 1, stage.folder))
        .and_then(|(program, _)| program.output(&stage.cores.generator, stage.folder, 3 * LIMIT))
        .and_then(|said| load::read(row, &said));
    found.is_ok_and(|found| found.requests > 0)
}

/// Asks for a path, with these headers.
///
/// # Errors
///
/// If there is no answer of HTTP/1.1.
pub(crate) fn get(port: u16, path: &str, headers: &[&str]) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let more: String = headers.iter().map(|it| format!("{it}\r\n")).collect();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("{path}: no answer"))?;
    read(&String::from_utf8_lossy(&bytes)).with_context(|| format!("{path}: no answer of HTTP/1.1"))
}

/// Reads a response that ends with its connection. One in chunks is left as it came.
pub(crate) fn read(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

// === impl Answer ===

impl Answer {
    /// The value of a header; its name in small letters, and so is the value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| (found == name).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_status_headers_and_body() {
        let answer = read("HTTP/1.1 403 No\r\nX-A: B\r\nc: d\r\n\r\nbody\r\n\r\nmore").unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("x-a"), Some("b"));
        assert_eq!(answer.header("x"), None);
        assert_eq!(answer.body, "body\r\n\r\nmore");
        assert!(read("SSH-2.0\r\n\r\n").is_none());
    }

    #[test]
    fn lines_of_another_are_not_those_that_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let lines = [
            "x probe-3 last\nx probe-2 last\nx probe-1 last\n",
            "x probe-3 r3\nx probe-2 r7\nx probe-1 r7\n",
        ];
        fs::write(&file, lines.concat()).unwrap();
        assert!(logged(&file, "probe-1").is_ok());
        assert!(logged(&file, "probe-2").is_ok());
        let error = logged(&file, "probe-3").unwrap_err().to_string();
        assert!(error.contains("last") && error.contains("r3"), "{error}");
    }

    #[test]
    fn two_workers_write_their_lines_in_either_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        fs::write(&file, "x probe-1 r7\nx probe-1 last\n").unwrap();
        assert!(logged(&file, "probe-1").is_ok());
        fs::write(&file, "x probe-1 r7\nx probe-1 r7\n").unwrap();
        assert!(logged(&file, "probe-1").is_err());
    }
}
