//! What endpoints say of their load in their answers, and what they weigh by it (gRFC A51, A58; Envoy
//! `source/common/orca`).
//!
//! A report is in a header or trailer of an answer: `endpoint-load-metrics-bin`, an `OrcaLoadReport`
//! in base64, or else `endpoint-load-metrics`, which begins with `BIN `, `TEXT ` or `JSON `. Only the
//! first line of a name is looked at. What an endpoint says is never believed to be well-formed: a
//! report that cannot be read, or is longer than 16 KiB, is none.

mod binary;
mod json;
mod text;
mod weight;

pub(crate) use weight::{Reported, weigh};

use http::{HeaderMap, HeaderName};
use mesh_core::base64;
use std::collections::BTreeMap;

/// The load of an endpoint, as far as anything is made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoadReport {
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
    pub(crate) application: f64,
    pub(crate) errors_per_second: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) request_cost: BTreeMap<String, f64>,
    pub(crate) utilization: BTreeMap<String, f64>,
    pub(crate) named: BTreeMap<String, f64>,
}

/// Longer reports are not read.
const LONGEST: usize = 16 << 10;

const NATIVE: HeaderName = HeaderName::from_static("endpoint-load-metrics");
const BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

// === impl LoadReport ===

impl LoadReport {
    /// The report among these headers or trailers, if there is one that can be read.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(BINARY) {
            return Self::decode(value.as_bytes());
        }
        let value = headers.get(NATIVE)?.as_bytes();
        if value.len() > LONGEST {
            return None;
        }
        if let Some(encoded) = value.strip_prefix(b"BIN ") {
            return Self::decode(encoded);
        }
        let value = std::str::from_utf8(value).ok()?;
        match value.split_at_checked(5)? {
            ("TEXT ", metrics) => text::read(metrics),
            ("JSON ", object) => json::read(object),
            _ => None,
        }
    }

    /// Padding may be there or not, as gRPC leaves it out.
    fn decode(encoded: &[u8]) -> Option<Self> {
        if encoded.len() > LONGEST {
            return None;
        }
        let padding = encoded.iter().rev().take_while(|c| **c == b'=').count();
        let message = base64::decode_unpadded(&encoded[..encoded.len() - padding])?;
        // An empty one is none.
        (!message.is_empty()).then(|| binary::read(&message))?
    }

    /// The largest value that this name stands for; none where it stands for nothing.
    fn metric(&self, name: &str) -> Option<f64> {
        let (map, key) = match name {
            "cpu_utilization" => return Some(self.cpu),
            "mem_utilization" => return Some(self.memory),
            "application_utilization" => return Some(self.application),
            "eps" => return Some(self.errors_per_second),
            "rps_fractional" => return Some(self.requests_per_second),
            _ => match name.split_once('.')? {
                ("named_metrics", key) => (&self.named, key),
                ("utilization", key) => (&self.utilization, key),
                ("request_cost", key) => (&self.request_cost, key),
                _ => return None,
            },
        };
        match key {
            "*" => map.values().copied().reduce(f64::max),
            key => map.get(key).copied(),
        }
    }
}

#[cfg(test)]
mod tests;
