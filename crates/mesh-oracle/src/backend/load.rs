//! What an endpoint says of its load, where a request tells it to: `ADDRESS KIND METRICS`, one for
//! each endpoint, with `|` between them.

use mesh_core::{base64, protobuf};
use std::net::IpAddr;

/// The line of the answer's head, if the endpoint at this address is to say something.
pub(super) fn line(told: &str, at: IpAddr) -> Option<String> {
    let mine = told.split('|').find_map(|one| {
        let mut words = one.split(' ');
        let address = words.next()?.parse::<IpAddr>().ok()?;
        (address == at).then(|| Some((words.next()?, words.next()?)))?
    });
    let (kind, metrics) = mine?;
    const NAME: &str = "endpoint-load-metrics";
    Some(match kind {
        "TEXT" => format!("{NAME}: TEXT {metrics}\r\n"),
        "JSON" => format!("{NAME}: JSON {}\r\n", json(metrics)),
        "BIN" => format!("{NAME}: BIN {}\r\n", binary(metrics)),
        _ => format!("{NAME}-bin: {}\r\n", binary(metrics).trim_end_matches('=')),
    })
}

fn each(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    let pairs = metrics.split(',').filter_map(|one| one.split_once(':'));
    pairs.map(|(name, value)| (name, value.parse().unwrap_or(0.0)))
}

fn json(metrics: &str) -> String {
    let fields = each(metrics).map(|(name, value)| match name.split_once('.') {
        Some((map, key)) => format!("\"{map}\":{{\"{key}\":{value}}}"),
        None => format!("\"{name}\":\"{value}\""),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn binary(metrics: &str) -> String {
    let mut message = Vec::new();
    for (name, value) in each(metrics) {
        let field = match name {
            "cpu_utilization" => 1,
            "mem_utilization" => 2,
            "rps_fractional" => 6,
            "eps" => 7,
            "application_utilization" => 9,
            _ => {
                let (map, key) = name.split_once('.').unwrap_or(("", name));
                let mut entry = Vec::new();
                protobuf::put_bytes(1, key.as_bytes(), &mut entry);
                double(2, value, &mut entry);
                let field = match map {
                    "named_metrics" => 8,
                    "utilization" => 5,
                    // No such field.
                    _ => 15,
                };
                protobuf::put_bytes(field, &entry, &mut message);
                continue;
            }
        };
        double(field, value, &mut message);
    }
    base64::encode(&message)
}

/// A field of eight bytes.
fn double(field: u8, value: f64, out: &mut Vec<u8>) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}
