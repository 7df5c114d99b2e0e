//! Reports as names and values: `rps_fractional:100,cpu_utilization:0.5`.

use super::LoadReport;
use std::collections::{BTreeMap, HashSet};

/// Each name once, each value a finite number that is not below zero; a value is behind the first
/// `:` or `=`.
pub(super) fn read(metrics: &str) -> Option<LoadReport> {
    let mut report = LoadReport::default();
    let mut seen = HashSet::new();
    for metric in metrics.split(',') {
        let metric = metric.trim_matches([' ', '\t']);
        if metric.is_empty() {
            continue;
        }
        let (name, value) = metric.split_once([':', '='])?;
        if !seen.insert(name) {
            return None;
        }
        report.set(name, number(value)?)?;
    }
    // A report without anything is one, too.
    Some(report)
}

/// A number as C++ writes it, for there reports are read and written.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // Whole ones only: nobody writes others.
        Some(digits) => u64::from_str_radix(digits, 16).ok()? as f64,
        None => text.parse::<f64>().ok()?,
    };
    (value.is_finite() && value >= 0.0).then_some(value)
}

// === impl LoadReport ===

impl LoadReport {
    fn set(&mut self, name: &str, value: f64) -> Option<()> {
        let field = match name {
            "cpu_utilization" => &mut self.cpu,
            "mem_utilization" => &mut self.memory,
            "application_utilization" => &mut self.application,
            "eps" => &mut self.errors_per_second,
            "rps_fractional" => &mut self.requests_per_second,
            _ => return self.set_entry(name, value),
        };
        *field = value;
        Some(())
    }

    fn set_entry(&mut self, name: &str, value: f64) -> Option<()> {
        let (map, key): (&mut BTreeMap<_, _>, _) = match name.split_once('.')? {
            ("named_metrics", key) => (&mut self.named, key),
            ("utilization", key) => (&mut self.utilization, key),
            _ => return None,
        };
        if key.is_empty() {
            return None;
        }
        map.insert(key.to_owned(), value);
        Some(())
    }
}
