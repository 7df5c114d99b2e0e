//! Keys, certificates and roots of trust, with istioctl's columns. Keys themselves are not in a
//! dump.

use super::at;
use super::dump::Dump;
use crate::style::Tone;
use crate::table::{Cell, Table};
use mesh_core::WallClock;
use mesh_identity::{CertificateFacts, certificate_facts};
use mesh_xds::Encoded;
use mesh_xds::json::{Codec, decode_bytes};
use mesh_xds::pb::google::protobuf::Timestamp;
use serde_json::{Map, Value, json};
use std::time::UNIX_EPOCH;

/// Which secrets.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only those whose name contains this.
    #[arg(long)]
    name: Option<String>,
}

/// The lists of a dump, in istioctl's order, with what they say about what is in them.
const LISTS: [(&str, &str); 3] = [
    ("dynamic_warming_secrets", "WARMING"),
    ("dynamic_active_secrets", "ACTIVE"),
    ("static_secrets", "ACTIVE"),
];

/// Where certificates stand in a secret.
const PLACES: [&str; 2] = [
    "/secret/tls_certificate/certificate_chain",
    "/secret/validation_context/trusted_ca",
];

// === impl Filter ===

impl Filter {
    fn fits(&self, secret: &Value) -> bool {
        let name = at(secret, "/name");
        self.name
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    }

    /// Envoy's `SecretsConfigDump`, with what fits.
    pub(super) fn select(&self, dump: &Dump) -> Value {
        let mut out = Map::new();
        for (list, _) in LISTS {
            let found: Vec<&Value> = self.list(dump, list).collect();
            if !found.is_empty() {
                out.insert(list.to_owned(), json!(found));
            }
        }
        Value::Object(out)
    }

    fn list<'a>(&'a self, dump: &'a Dump, list: &str) -> impl Iterator<Item = &'a Value> {
        let all = dump.secrets.get(list).and_then(Value::as_array);
        all.into_iter().flatten().filter(|secret| self.fits(secret))
    }
}

pub(super) fn table(dump: &Dump, filter: &Filter) -> Table {
    let now = WallClock::system().now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let mut table = Table::with_header(&[
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ]);
    for (list, status) in LISTS {
        for secret in filter.list(dump, list) {
            let facts = first(secret);
            let is_valid = facts.as_ref().is_some_and(|facts| facts.is_valid(now));
            let tone = if is_valid { Tone::Good } else { Tone::Bad };
            let of = |tell: fn(&CertificateFacts) -> String| {
                facts.as_ref().map(tell).unwrap_or_default()
            };
            let kind = of(|facts| match facts.is_authority {
                true => "CA".to_owned(),
                false => "Cert Chain".to_owned(),
            });
            let status = match status {
                "WARMING" => Cell::toned(status, Tone::Doubtful),
                status => Cell::toned(status, Tone::Good),
            };
            table.push([
                at(secret, "/name").into(),
                kind.into(),
                status,
                Cell::toned(if is_valid { "true" } else { "false" }, tone),
                of(|facts| facts.serial.trim_start_matches('0').to_owned()).into(),
                of(|facts| time(facts.not_after)).into(),
                of(|facts| time(facts.not_before)).into(),
            ]);
        }
    }
    table
}

/// The first certificate in a secret, unless it is in a file.
fn first(secret: &Value) -> Option<CertificateFacts> {
    let source = PLACES.iter().find_map(|place| secret.pointer(place))?;
    let text = match at(source, "/inline_bytes") {
        "" => at(source, "/inline_string").as_bytes().to_vec(),
        encoded => decode_bytes(encoded)?,
    };
    certificate_facts(&text).ok()?.into_iter().next()
}

/// RFC 3339, as istioctl has it.
fn time(seconds: i64) -> String {
    let encoded = Encoded::of("", &Timestamp { seconds, nanos: 0 });
    let text = Codec::new().to_json("google.protobuf.Timestamp", &encoded.bytes);
    let text = text.unwrap_or_default();
    text.trim_matches('"').to_owned()
}
