//! Reports as JSON, as protobuf's mapping has it: names in either spelling, numbers as such or as
//! text, `null` for what is not said, and nothing that the message does not have.

use super::LoadReport;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn read(object: &str) -> Option<LoadReport> {
    let Value::Object(fields) = serde_json::from_str(object).ok()? else {
        return None;
    };
    let mut report = LoadReport::default();
    for (name, value) in &fields {
        if value.is_null() {
            continue;
        }
        match name.as_str() {
            "cpu_utilization" | "cpuUtilization" => report.cpu = number(value)?,
            "mem_utilization" | "memUtilization" => report.memory = number(value)?,
            "application_utilization" | "applicationUtilization" => {
                report.application = number(value)?;
            }
            "eps" => report.errors_per_second = number(value)?,
            "rps_fractional" | "rpsFractional" => report.requests_per_second = number(value)?,
            "request_cost" | "requestCost" => report.request_cost = map(value)?,
            "utilization" => report.utilization = map(value)?,
            "named_metrics" | "namedMetrics" => report.named = map(value)?,
            // The older whole number: it has to be one, and is not looked at.
            "rps" => drop(whole(value)?),
            _ => return None,
        }
    }
    Some(report)
}

fn map(value: &Value) -> Option<BTreeMap<String, f64>> {
    let entries = value.as_object()?.iter();
    let entries = entries.filter(|(_, value)| !value.is_null());
    let read = |(key, value): (&String, &Value)| Some((key.clone(), number(value)?));
    entries.map(read).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
