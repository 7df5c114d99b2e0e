//! Envoy's own format: lines of `name: value`.

use super::quantile::{QUANTILES, quantile};
use super::{Distribution, Shown};
use std::fmt::Write;

pub(super) fn write<'a>(
    samples: impl Iterator<Item = Shown<'a>>,
    distributions: &[Distribution],
) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for sample in samples {
        let _ = writeln!(out, "{}: {}", sample.id, sample.value);
    }
    for Distribution { id, summary } in distributions {
        let _ = write!(out, "{id}:");
        if summary.count == 0 {
            out.push_str(" No recorded values");
        }
        for percent in QUANTILES {
            if let Some(value) = quantile(summary, percent) {
                // Envoy shows the last interval first; only all of time is kept here.
                let _ = write!(out, " P{percent}(nan,{value})");
            }
        }
        out.push('\n');
    }
    out
}
