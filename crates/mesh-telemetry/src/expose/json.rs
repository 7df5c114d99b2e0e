//! Envoy's statistics as JSON.

use super::quantile::{QUANTILES, quantile};
use super::{Distribution, Shown};
use std::fmt::Write;

pub(super) fn write<'a>(
    samples: impl Iterator<Item = Shown<'a>>,
    distributions: &[Distribution],
) -> String {
    let mut out = String::from("{\"stats\":[");
    for sample in samples {
        out.push_str("{\"name\":");
        string(&sample.id.to_string(), &mut out);
        // Writing to a String cannot fail.
        let _ = write!(out, ",\"value\":{}}},", sample.value);
    }
    if distributions.is_empty() {
        if out.ends_with(',') {
            out.pop();
        }
        out.push_str("]}");
        return out;
    }
    out.push_str("{\"histograms\":{\"supported_quantiles\":[");
    join(QUANTILES, &mut out, |percent, out| {
        let _ = write!(out, "{percent}");
    });
    out.push_str("],\"computed_quantiles\":[");
    join(
        distributions,
        &mut out,
        |Distribution { id, summary }, out| {
            out.push_str("{\"name\":");
            string(&id.to_string(), out);
            out.push_str(",\"values\":[");
            join(QUANTILES, out, |percent, out| {
                match quantile(summary, percent) {
                    Some(value) => {
                        let _ = write!(out, "{{\"interval\":null,\"cumulative\":{value}}}");
                    }
                    None => out.push_str("{\"interval\":null,\"cumulative\":null}"),
                }
            });
            out.push_str("]}");
        },
    );
    out.push_str("]}}]}");
    out
}

fn join<T>(items: impl IntoIterator<Item = T>, out: &mut String, write: impl Fn(T, &mut String)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
}

/// A string with what RFC 8259 §7 wants escaped.
pub(super) fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
