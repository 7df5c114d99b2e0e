//! The figures, as text and as JSON.

use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::time::Duration;

/// What was measured for one size.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) services: usize,
    pub(crate) classes: usize,
    pub(crate) clients: usize,
    /// Encoded resources in the server, over all classes.
    pub(crate) resources: usize,
    #[serde(rename = "read_ms", serialize_with = "millis")]
    pub(crate) read: Duration,
    #[serde(rename = "compile_ms", serialize_with = "millis")]
    pub(crate) compile: Duration,
    #[serde(rename = "first_sync_ms", serialize_with = "millis")]
    pub(crate) first_sync: Duration,
    pub(crate) first_sync_bytes: u64,
    #[serde(rename = "endpoint_ms")]
    pub(crate) endpoint: Samples,
    #[serde(rename = "virtual_service_push_ms")]
    pub(crate) virtual_service_push: Samples,
    #[serde(rename = "virtual_service_ms")]
    pub(crate) virtual_service: Samples,
    #[serde(rename = "alone_kib")]
    pub(crate) alone: u64,
    #[serde(rename = "with_clients_kib")]
    pub(crate) with_clients: u64,
    #[serde(rename = "first_sync_peak_kib")]
    pub(crate) first_sync_peak: u64,
    #[serde(rename = "peak_kib")]
    pub(crate) peak: u64,
}

/// The times of the rounds.
#[derive(Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<Duration>);

/// A table, and how the change of an endpoint grows.
pub(crate) fn text(rows: &[Row]) -> String {
    let heads = [
        "services",
        "classes",
        "resources",
        "compile",
        "first sync",
        "MiB sent",
        "endpoint, all have it",
        "VS, own share",
        "VS, all have it",
        "RSS alone",
        "with clients",
        "KiB/client",
        "peak sync",
        "peak",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..heads.len()).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:>width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.push_str("Times in ms (median, least–most), memory of the server in MiB.\n");
    for row in rows {
        let Some(first) = rows.iter().find(|one| one.classes == row.classes) else {
            continue;
        };
        let ratio = row.endpoint.median().as_secs_f64() / first.endpoint.median().as_secs_f64();
        if row.services != first.services {
            let _ = writeln!(
                text,
                "{} classes: an endpoint's change at {} services takes {ratio:.2} times what it \
                 takes at {} (target: 1.5)",
                row.classes, row.services, first.services
            );
        }
    }
    text
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 14] {
        let mib = |kib: u64| format!("{}", kib >> 10);
        let own = self.with_clients.saturating_sub(self.alone);
        [
            self.services.to_string(),
            self.classes.to_string(),
            self.resources.to_string(),
            format!("{:.0}", in_millis(self.compile)),
            format!("{:.0}", in_millis(self.first_sync)),
            format!("{}", self.first_sync_bytes >> 20),
            self.endpoint.cell(),
            self.virtual_service_push.cell(),
            self.virtual_service.cell(),
            mib(self.alone),
            mib(self.with_clients),
            format!("{}", own / self.clients.max(1) as u64),
            mib(self.first_sync_peak),
            mib(self.peak),
        ]
    }
}

// === impl Samples ===

impl Samples {
    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn cell(&self) -> String {
        let [least, most] = [self.0.iter().min(), self.0.iter().max()]
            .map(|one| in_millis(one.copied().unwrap_or_default()));
        format!("{:.1} ({least:.1}–{most:.1})", in_millis(self.median()))
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|one| in_millis(*one)))
    }
}

fn in_millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(in_millis(*time))
}
