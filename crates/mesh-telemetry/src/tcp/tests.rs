//! Tests of what is told of connections.

use super::*;
use crate::expose::{Query, Scrape};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{Cluster, Direction, Endpoint, Snapshot, SnapshotBuilder, WorkloadRef};
use mesh_core::{Name, WallClock};
use std::io::{self, Write};
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Place {
    telemetry: Arc<Telemetry>,
    lines: Lines,
    proxy: Arc<TcpProxy>,
    snapshot: Arc<Snapshot>,
    now: Instant,
}

fn place(direction: Direction) -> Place {
    let mut node = WorkloadRef::default();
    node.name = "page".into();
    let lines = Lines::default();
    let clock = WallClock::fixed(Duration::ZERO);
    let telemetry = Telemetry::new(node)
        .clock(clock)
        .output("log", lines.clone());
    let mut proxy = TcpProxy::to("mongo", "outbound|27017||mongo");
    proxy.direction = direction;
    proxy.access_log = vec![AccessLog {
        path: "log".into(),
        format: Name::default(),
    }];
    let mut builder = SnapshotBuilder::new();
    let mut cluster = Cluster::new("outbound|27017||mongo");
    cluster.service.host = "mongo.default.svc.cluster.local".into();
    builder.cluster(cluster);
    Place {
        telemetry: Arc::new(telemetry),
        lines,
        proxy: Arc::new(proxy),
        snapshot: builder.build().unwrap().0,
        now: tokio::time::Instant::now().into_std(),
    }
}

impl Place {
    fn begin(&self, caller: Caller) -> Connection {
        Connection::begin(self.telemetry.clone(), &self.proxy, caller, self.now)
    }

    fn line(&self) -> String {
        self.telemetry.flush().unwrap();
        let mut lines = self.lines.0.lock().unwrap();
        String::from_utf8(std::mem::take(&mut *lines)).unwrap()
    }

    /// The lines of one of Istio's metrics.
    fn metric(&self, name: &str) -> Vec<String> {
        let mut scrape = Scrape::new();
        scrape.telemetry(&self.telemetry);
        let text = scrape.prometheus(&Query::parse("").unwrap());
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(str::to_owned).collect()
    }
}

fn caller() -> Caller {
    let mut caller = Caller::default();
    caller.peer = Some("10.0.0.1:4000".parse().unwrap());
    caller.local = Some("10.9.0.1:27017".parse().unwrap());
    caller
}

fn upstream(place: &Place, connection: &Connection) {
    connection.cluster(place.snapshot.clusters()[0].clone());
    let mut endpoint = Endpoint::new(
        "10.0.0.9:5555"
            .parse::<mesh_core::model::Address>()
            .unwrap(),
    );
    let mut workload = WorkloadRef::default();
    workload.name = "mongo-v1".into();
    endpoint.workload = Arc::new(workload);
    let mut upstream = Upstream::new(Arc::new(endpoint));
    upstream.remote = Some("10.0.0.9:5555".parse().unwrap());
    upstream.local = Some("10.0.0.2:1234".parse().unwrap());
    connection.upstream(upstream);
}

#[test]
fn a_connection_is_one_line_in_istios_format() {
    let place = place(Direction::Outbound);
    let mut caller = caller();
    let mut tls = TlsInfo::default();
    tls.server_name = "mongo.example".into();
    caller.tls = Some(Arc::new(tls));
    let connection = place.begin(caller);
    upstream(&place, &connection);
    connection.received(140);
    connection.sent(309);
    connection.end(place.now + Duration::from_millis(7));
    let line = "[1970-01-01T00:00:00.000Z] \"- - -\" 0 - - - \"-\" 140 309 7 - \"-\" \"-\" \"-\" \"-\" \
                \"10.0.0.9:5555\" outbound|27017||mongo 10.0.0.2:1234 10.9.0.1:27017 \
                10.0.0.1:4000 mongo.example -\n";
    assert_eq!(place.line(), line);
}

#[test]
fn a_failed_connection_says_why_and_one_that_is_just_dropped_is_told_of_too() {
    let place = place(Direction::Outbound);
    let connection = place.begin(caller());
    connection.fail(Failure::ConnectFailed, Some("refused\nforged line".into()));
    drop(connection);
    let line = place.line();
    assert_eq!(line.lines().count(), 1);
    assert!(
        line.contains(" 0 UF,URX - - \"refused_forged_line\" 0 0 - "),
        "{line}"
    );
    drop(place.begin(caller()));
    assert!(place.line().contains(" 0 - - - \"-\" 0 0 - "));
}

#[test]
fn a_connection_without_a_chain_is_told_of_by_its_listener() {
    let place = place(Direction::Outbound);
    refuse(
        &place.telemetry,
        &place.proxy.access_log,
        caller(),
        place.now,
    );
    let line = place.line();
    assert!(
        line.contains(" 0 NR filter_chain_not_found - \"-\" 0 0 0 "),
        "{line}"
    );
}

#[test]
fn istios_metrics_have_the_bytes_as_they_flow_and_each_connection_once() {
    let place = place(Direction::Outbound);
    let connection = place.begin(caller());
    upstream(&place, &connection);
    connection.received(5);
    connection.report();
    let opened = place.metric("istio_tcp_connections_opened_total");
    assert_eq!(opened.len(), 1);
    for label in [
        "reporter=\"source\"",
        "source_workload=\"page\"",
        "destination_workload=\"mongo-v1\"",
        "destination_service=\"mongo.default.svc.cluster.local\"",
        "request_protocol=\"tcp\"",
        "response_flags=\"-\"",
    ] {
        assert!(opened[0].contains(label), "{label}: {opened:?}");
    }
    assert!(!opened[0].contains("response_code=") && !opened[0].contains("grpc_response"));
    assert!(opened[0].ends_with(" 1"));
    assert!(place.metric("istio_tcp_received_bytes_total")[0].ends_with(" 5"));
    assert!(place.metric("istio_tcp_connections_closed_total")[0].ends_with(" 0"));
    connection.received(2);
    connection.sent(11);
    connection.report();
    connection.sent(1);
    drop(connection);
    for (name, value) in [
        ("istio_tcp_connections_opened_total", " 1"),
        ("istio_tcp_connections_closed_total", " 1"),
        ("istio_tcp_received_bytes_total", " 7"),
        ("istio_tcp_sent_bytes_total", " 12"),
    ] {
        let lines = place.metric(name);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(value), "{lines:?}");
    }
}

#[test]
fn the_destination_side_does_not_know_its_caller() {
    let place = place(Direction::Inbound);
    let connection = place.begin(caller());
    upstream(&place, &connection);
    drop(connection);
    let lines = place.metric("istio_tcp_connections_opened_total");
    assert!(lines[0].contains("reporter=\"destination\""), "{lines:?}");
    assert!(lines[0].contains("source_workload=\"unknown\""));
    assert!(lines[0].contains("destination_workload=\"page\""));
}
