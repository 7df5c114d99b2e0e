//! `HTTPMatchRequest`: one block of conditions.

use http::HeaderName;
use mesh_core::model::StringMatch;

use super::HttpMatch;
use crate::cursor::{Cursor, read};
use crate::spec::common::{named_header, string_match, text_match};
use crate::spec::strings;

impl HttpMatch {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let block = Self {
            at: cursor.at(),
            name: fields.get("name", read::string).unwrap_or_default(),
            uri: fields.get("uri", text_match),
            ignore_uri_case: fields.get("ignoreUriCase", read::bool).unwrap_or_default(),
            scheme: fields.get("scheme", text_match),
            method: fields.get("method", text_match),
            authority: fields.get("authority", text_match),
            headers: fields.entries("headers", header),
            without_headers: fields.entries("withoutHeaders", header),
            query: fields.entries("queryParams", parameter),
            port: fields.get("port", read::port),
            source_labels: fields
                .get("sourceLabels", read::string_map)
                .unwrap_or_default(),
            source_namespace: fields
                .get("sourceNamespace", read::string)
                .unwrap_or_default(),
            gateways: fields.get("gateways", strings).unwrap_or_default(),
            stat_prefix: fields.get("statPrefix", read::string).unwrap_or_default(),
        };
        let conditions = [
            "uri",
            "scheme",
            "method",
            "authority",
            "headers",
            "withoutHeaders",
            "queryParams",
            "port",
            "sourceLabels",
            "sourceNamespace",
            "gateways",
        ];
        if !conditions.into_iter().any(|name| fields.has(name)) {
            cursor.error("an empty match block; leave match out to match every request");
        }
        fields.done();
        Some(block)
    }
}

fn header(name: &str, cursor: &Cursor<'_>) -> Option<(HeaderName, Option<StringMatch>)> {
    if name.starts_with("@request.auth.") {
        cursor.error("not supported yet: matching claims needs request authentication");
        return None;
    }
    if matches!(name, "uri" | "scheme" | "method" | "authority") {
        cursor.warn(format!(
            "has no effect: match the {name} with the field of that name"
        ));
        return None;
    }
    // `x-flag:` without a value is the empty match.
    let value = if cursor.node().is_null() {
        Some(None)
    } else {
        string_match(cursor)
    };
    Some((named_header(name, cursor)?, value?))
}

fn parameter(name: &str, cursor: &Cursor<'_>) -> Option<(String, Option<StringMatch>)> {
    let value = if cursor.node().is_null() {
        Some(None)
    } else {
        string_match(cursor)
    };
    Some((name.to_owned(), value?))
}
