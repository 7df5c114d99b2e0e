//! What is never printed: keys and their passwords. As in Envoy's dumps, what stands in their place
//! says so.

use crate::wire::base64;
use serde_json::Value as Json;

const REDACTED: &str = "[redacted]";

const PACKAGE: &str = "envoy.extensions.transport_sockets.tls.v3.";

/// The fields that Envoy marks as sensitive, by their messages.
const FIELDS: [(&str, &str); 7] = [
    ("TlsCertificate", "private_key"),
    ("TlsCertificate", "pkcs12"),
    ("TlsCertificate", "password"),
    ("TlsSessionTicketKeys", "keys"),
    ("GenericSecret", "secret"),
    ("GenericSecret", "secrets"),
    ("PrivateKeyProvider", "typed_config"),
];

/// Whether what a field holds is not to be printed.
pub(super) fn is_secret(message: &str, field: &str) -> bool {
    let inner = message.strip_prefix(PACKAGE);
    inner.is_some_and(|message| FIELDS.contains(&(message, field)))
}

/// The same without what it says, but for where a file is.
pub(super) fn hidden(value: Json) -> Json {
    match value {
        Json::Array(items) => items.into_iter().map(hidden).collect(),
        Json::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                // Only of a source of data: the names in a map are anybody's.
                let shown = match (name.as_str(), value) {
                    ("filename" | "environment_variable", value @ Json::String(_)) => value,
                    ("inline_bytes", Json::String(_)) => base64::encode(REDACTED.as_bytes()).into(),
                    (_, value) => hidden(value),
                };
                (name, shown)
            })
            .collect(),
        Json::Null => Json::Null,
        _ => REDACTED.into(),
    }
}
