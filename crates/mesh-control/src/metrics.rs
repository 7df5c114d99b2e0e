//! What is counted, under istiod's names.

use mesh_xds::TypeUrl;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// istiod's buckets for times, in seconds, with finer ones below: a push that takes a tenth of a
/// second is slow here.
const SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];

/// istiod's buckets for sizes, in bytes.
const BYTES: &[f64] = &[
    1.0,
    10_000.0,
    1_000_000.0,
    4_000_000.0,
    10_000_000.0,
    40_000_000.0,
];

/// Counters, gauges and histograms. Nothing here is on the path of a request.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    /// By the labels as text, without braces.
    series: BTreeMap<String, Series>,
}

#[derive(Debug)]
enum Series {
    Value(f64),
    Histogram {
        bounds: &'static [f64],
        counts: Vec<u64>,
        sum: f64,
        count: u64,
    },
}

// === impl Metrics ===

impl Metrics {
    /// Adds to a counter.
    pub(crate) fn count(&self, name: &'static str, help: &'static str, labels: &str, by: u64) {
        let mut state = self.state();
        if let Series::Value(value) = state.series(name, help, "counter", labels, None) {
            *value += by as f64;
        }
    }

    /// Changes a gauge.
    pub(crate) fn shift(&self, name: &'static str, help: &'static str, labels: &str, by: i32) {
        let mut state = self.state();
        if let Series::Value(value) = state.series(name, help, "gauge", labels, None) {
            *value += f64::from(by);
        }
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: &'static str, help: &'static str, labels: &str, to: usize) {
        let mut state = self.state();
        if let Series::Value(value) = state.series(name, help, "gauge", labels, None) {
            *value = to as f64;
        }
    }

    /// Notes how long something took.
    pub(crate) fn took(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &str,
        time: Duration,
    ) {
        let mut state = self.state();
        let series = state.series(name, help, "histogram", labels, Some(SECONDS));
        series.observe(time.as_secs_f64());
    }

    /// Notes how large something was.
    pub(crate) fn size(&self, name: &'static str, help: &'static str, labels: &str, bytes: usize) {
        let mut state = self.state();
        let series = state.series(name, help, "histogram", labels, Some(BYTES));
        series.observe(bytes as f64);
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let state = self.state();
        let mut out = String::new();
        for (name, family) in &state.values {
            let _ = writeln!(out, "# HELP {name} {}", family.help);
            let _ = writeln!(out, "# TYPE {name} {}", family.kind);
            for (labels, series) in &family.series {
                series.write(&mut out, name, labels);
            }
        }
        out
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers; a panic leaves none of them half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label: `type="cds"`.
pub(crate) fn of_kind(kind: TypeUrl) -> String {
    format!("type=\"{}\"", kind.short().to_ascii_lowercase())
}

/// A label with any value.
pub(crate) fn label(name: &str, value: &str) -> String {
    let value: String = value.chars().take(128).collect();
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}=\"{}\"", value.replace('\n', "\\n"))
}

// === impl State ===

impl State {
    fn series(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: &str,
        bounds: Option<&'static [f64]>,
    ) -> &mut Series {
        let family = self.values.entry(name).or_insert_with(|| Family {
            help,
            kind,
            series: BTreeMap::new(),
        });
        let new = || match bounds {
            None => Series::Value(0.0),
            Some(bounds) => Series::Histogram {
                bounds,
                counts: vec![0; bounds.len()],
                sum: 0.0,
                count: 0,
            },
        };
        family.series.entry(labels.to_owned()).or_insert_with(new)
    }
}

// === impl Series ===

impl Series {
    fn observe(&mut self, value: f64) {
        if let Self::Histogram {
            bounds,
            counts,
            sum,
            count,
        } = self
        {
            for (bound, seen) in bounds.iter().zip(counts) {
                *seen += u64::from(value <= *bound);
            }
            *sum += value;
            *count += 1;
        }
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let braces = |labels: &str| match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        match self {
            Self::Value(value) => {
                let _ = writeln!(out, "{name}{} {value}", braces(labels));
            }
            Self::Histogram {
                bounds,
                counts,
                sum,
                count,
            } => {
                let comma = if labels.is_empty() { "" } else { "," };
                for (bound, seen) in bounds.iter().zip(counts) {
                    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {seen}");
                }
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
                let _ = writeln!(out, "{name}_sum{} {sum}", braces(labels));
                let _ = writeln!(out, "{name}_count{} {count}", braces(labels));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_every_bucket_above() {
        let metrics = Metrics::default();
        let seen = |time| metrics.took("t", "Times.", "type=\"cds\"", Duration::from_millis(time));
        seen(60);
        seen(700);
        let text = metrics.text();
        for line in [
            "# TYPE t histogram",
            "t_bucket{type=\"cds\",le=\"0.05\"} 0",
            "t_bucket{type=\"cds\",le=\"0.1\"} 1",
            "t_bucket{type=\"cds\",le=\"+Inf\"} 2",
            "t_count{type=\"cds\"} 2",
        ] {
            assert!(
                text.lines().any(|one| one == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(label("v", "a\"b\\c\nd"), r#"v="a\"b\\c\nd""#);
    }
}
