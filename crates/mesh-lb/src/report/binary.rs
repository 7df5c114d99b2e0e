//! Reports as the message `xds.data.orca.v3.OrcaLoadReport`.

use super::LoadReport;
use mesh_core::protobuf::{Fields, Value};

/// The fields of the message. Field 3 was requests per second before there were fractions of them,
/// and is not looked at, as in Envoy.
pub(super) fn read(message: &[u8]) -> Option<LoadReport> {
    let mut report = LoadReport::default();
    for field in Fields::new(message) {
        match field? {
            (1, Value::Eight(bytes)) => report.cpu = f64::from_le_bytes(bytes),
            (2, Value::Eight(bytes)) => report.memory = f64::from_le_bytes(bytes),
            (6, Value::Eight(bytes)) => report.requests_per_second = f64::from_le_bytes(bytes),
            (7, Value::Eight(bytes)) => report.errors_per_second = f64::from_le_bytes(bytes),
            (9, Value::Eight(bytes)) => report.application = f64::from_le_bytes(bytes),
            (number @ (4 | 5 | 8), Value::Bytes(entry)) => {
                let (key, value) = read_entry(entry)?;
                let map = match number {
                    4 => &mut report.request_cost,
                    5 => &mut report.utilization,
                    _ => &mut report.named,
                };
                map.insert(key.to_owned(), value);
            }
            _ => {}
        }
    }
    Some(report)
}

fn read_entry(entry: &[u8]) -> Option<(&str, f64)> {
    let (mut key, mut value) = ("", 0.0);
    for field in Fields::new(entry) {
        match field? {
            (1, Value::Bytes(text)) => key = std::str::from_utf8(text).ok()?,
            (2, Value::Eight(bytes)) => value = f64::from_le_bytes(bytes),
            _ => {}
        }
    }
    Some((key, value))
}
