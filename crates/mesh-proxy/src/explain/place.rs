//! Places in the YAML, as JSON.

use mesh_core::model::Snapshot;
use mesh_core::{Origin, Place};
use serde_json::{Value, json};
use std::time::Duration;

/// `{"object", "file", "line", "column"}`, or null where nobody knows.
pub(super) fn place(snapshot: &Snapshot, origin: Origin) -> Value {
    snapshot.origins().place(origin).map_or(Value::Null, of)
}

fn of(place: &Place) -> Value {
    json!({
        "object": place.object.as_str(),
        "file": place.file.as_str(),
        "line": place.line,
        "column": place.column,
    })
}

/// Whether the snapshot says of its parts where they were configured: what has no place then is a
/// default. Over xDS nothing has a place.
pub(super) fn knows_places(snapshot: &Snapshot) -> bool {
    !snapshot.origins().is_empty()
}

/// A duration as YAML has it.
pub(super) fn time(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos if nanos % 1_000_000 == 0 && duration < Duration::from_secs(1) => {
            format!("{}ms", duration.as_millis())
        }
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_yaml() {
        let written = [0, 25, 1_000, 1_500, 60_000].map(|ms| time(Duration::from_millis(ms)));
        assert_eq!(written, ["0s", "25ms", "1s", "1.5s", "60s"]);
    }
}
