use super::*;
use crate::peers::{load::Latency, measure::Busy};

fn record(row: &'static str, peer: Kind, round: u32, rate: f64, cpu: f64) -> Record {
    Record {
        round,
        row,
        peer,
        rate,
        wrong: 0,
        cpu,
        latency: None,
        busy: Busy {
            backend: 0.5,
            generator: 1.25,
            ..Busy::default()
        },
        attempts: 1,
        flaws: Vec::new(),
    }
}

fn report(records: Vec<Record>) -> Report {
    let peers = [Kind::Mesh, Kind::Envoy, Kind::Nginx];
    Report {
        peers: peers.map(|kind| (kind, String::new())).into(),
        rounds: 3,
        seconds: 1,
        records,
        memory: Vec::new(),
        without: BTreeSet::new(),
        failed: BTreeMap::new(),
    }
}

/// The line of a peer in a table.
fn line<'a>(text: &'a str, peer: &str) -> &'a str {
    let start = format!("| {peer} |");
    text.lines().find(|line| line.starts_with(&start)).unwrap()
}

#[test]
fn a_median_is_the_one_in_the_middle_or_between_two() {
    let spread = |values: &[f64]| Spread::of(values.iter().copied());
    let expected = |median, least, most| {
        Some(Spread {
            median,
            least,
            most,
        })
    };
    assert_eq!(spread(&[3.0, 1.0, 9.0]), expected(3.0, 1.0, 9.0));
    assert_eq!(spread(&[4.0, 1.0, 9.0, 3.0]), expected(3.5, 1.0, 9.0));
    assert_eq!(spread(&[]), None);
}

#[test]
fn numbers_have_commas() {
    let shown = ["0", "999", "1000", "-1234567.25", "100000"].map(thousands);
    assert_eq!(shown, ["0", "999", "1,000", "-1,234,567.25", "100,000"]);
}

#[test]
fn ratios_are_those_within_a_round() {
    let text = report(vec![
        record("h1", Kind::Mesh, 1, 200.0, 5.0),
        record("h1", Kind::Envoy, 1, 100.0, 10.0),
        record("h1", Kind::Mesh, 2, 300.0, 5.0),
        record("h1", Kind::Envoy, 2, 300.0, 10.0),
        // Nobody to compare with.
        record("h1", Kind::Mesh, 3, 400.0, 5.0),
    ])
    .text();
    assert_eq!(
        line(&text, "mesh"),
        "| mesh | 300 (200–400) | 1.50 (1.00–2.00) | 5.0 | 0.50 | 0.50, 1.25 |  |"
    );
    assert!(!text.contains("| nginx |"), "{text}");
}

#[test]
fn at_a_fixed_rate_the_cpu_is_compared_and_latency_shown() {
    let latency = |p50| {
        Some(Latency {
            p50,
            p99: 2_000.0,
            p999: 3_000.0,
            lag: 1.0,
        })
    };
    let text = report(vec![
        Record {
            latency: latency(90.0),
            ..record("h1-rate", Kind::Mesh, 1, 10_000.0, 30.0)
        },
        record("h1-rate", Kind::Envoy, 1, 10_000.0, 60.0),
    ])
    .text();
    assert_eq!(
        line(&text, "mesh"),
        "| mesh | 10,000 | 1.00 | 30.0 | 0.50 | 90 | 2,000 | 3,000 | 0.50, 1.25 |  |"
    );
    assert!(line(&text, "envoy").contains(" | – | – | – | "));
}

#[test]
fn two_workers_are_compared_with_one() {
    let text = report(vec![
        record("h1-rate", Kind::Mesh, 1, 10_000.0, 30.0),
        record("h1-rate-2", Kind::Mesh, 1, 10_000.0, 33.0),
    ])
    .text();
    let table = text.split("### h1-rate-2").nth(1).unwrap();
    assert!(line(table, "mesh").contains(" | 1.10 | 0.50"), "{table}");
}

#[test]
fn each_line_of_a_table_has_as_many_cells() {
    let records = ROWS
        .iter()
        .map(|row| record(row.name, Kind::Mesh, 1, 1.0, 1.0));
    let mut report = report(records.collect());
    report.remember(Memory {
        round: 1,
        peer: "mesh",
        what: "idle".to_owned(),
        kilobytes: 2048.0,
    });
    let text = report.text();
    for table in text.split("### ").skip(1) {
        let cells = table.lines().filter(|line| line.starts_with('|'));
        let cells: BTreeSet<usize> = cells.map(|line| line.matches('|').count()).collect();
        assert_eq!(cells.len(), 1, "{table}");
    }
    assert!(line(&text, "idle, MB").starts_with("| idle, MB | 2.0 | – |"));
}

#[test]
fn flaws_and_what_a_peer_lacks_are_said() {
    let mut report = report(vec![
        Record {
            flaws: vec![Flaw::Disturbed],
            ..record("tls-new-pq", Kind::Mesh, 1, 1.0, 1.0)
        },
        record("tls-new-pq", Kind::Mesh, 2, 1.0, 1.0),
    ]);
    report.without("tls-new-pq", Kind::Nginx);
    assert!(report.result().is_ok());
    report.failed("tls-new-pq", Kind::Envoy);
    assert!(report.result().is_err());
    let text = report.text();
    assert!(
        line(&text, "mesh").ends_with("| disturbed 1 of 2 |"),
        "{text}"
    );
    assert_eq!(line(&text, "nginx"), "| nginx | does not have it |");
    assert_eq!(line(&text, "envoy"), "| envoy | failed |");
}
