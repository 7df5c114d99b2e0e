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
        let (headers, claims) = Part::split(fields.entries("headers", part));
        let (without_headers, without_claims) = Part::split(fields.entries("withoutHeaders", part));
        let block = Self {
            at: cursor.at(),
            name: fields.get("name", read::string).unwrap_or_default(),
            uri: fields.get("uri", text_match),
            ignore_uri_case: fields.get("ignoreUriCase", read::bool).unwrap_or_default(),
            scheme: fields.get("scheme", text_match),
            method: fields.get("method", text_match),
            authority: fields.get("authority", text_match),
            headers,
            without_headers,
            claims,
            without_claims,
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

/// What stands before a claim in place of a header.
const CLAIMS: &str = "@request.auth.claims";

type Header = (HeaderName, Option<StringMatch>);
type Claim = (Vec<String>, StringMatch);

/// An entry among headers.
enum Part {
    Header(Header),
    Claim(Claim),
}

impl Part {
    fn split(parts: Vec<Self>) -> (Vec<Header>, Vec<Claim>) {
        let (mut headers, mut claims) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Header(header) => headers.push(header),
                Self::Claim(claim) => claims.push(claim),
            }
        }
        (headers, claims)
    }
}

fn part(name: &str, cursor: &Cursor<'_>) -> Option<Part> {
    let begins = name.get(..CLAIMS.len());
    if begins.is_some_and(|begin| begin.eq_ignore_ascii_case(CLAIMS)) {
        return claim(&name[CLAIMS.len()..], cursor).map(Part::Claim);
    }
    header(name, cursor).map(Part::Header)
}

/// `.a.b` or `[a][b]`: in brackets names may have dots.
fn claim(way: &str, cursor: &Cursor<'_>) -> Option<Claim> {
    let bracketed = way.strip_prefix('[').and_then(|way| way.strip_suffix(']'));
    let way: Vec<_> = match (way.strip_prefix('.'), bracketed) {
        (Some(way), _) => way.split('.').map(str::to_owned).collect(),
        (None, Some(way)) => way.split("][").map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    };
    if way.is_empty() || way.iter().any(String::is_empty) {
        cursor.error("a claim is @request.auth.claims.NAME or @request.auth.claims[NAME]");
        return None;
    }
    let value = match cursor.node().is_null() {
        true => None,
        false => string_match(cursor)?,
    };
    if value.is_none() {
        cursor.error("what the claim has to be is missing: exact, prefix or regex");
    }
    Some((way, value?))
}

fn header(name: &str, cursor: &Cursor<'_>) -> Option<Header> {
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
