//! Pieces that several kinds share: visibility, selectors, text and header checks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::HeaderName;
use mesh_core::model::{Fraction, Pattern, StringMatch, UnixPath};

use crate::cursor::{Cursor, read};

/// To which namespaces an object shows itself (`exportTo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// To all (`*`).
    All,
    /// To its own (`.`) and to those named.
    Only {
        /// Whether the object's own namespace is among them.
        own: bool,
        /// Other namespaces.
        namespaces: Vec<String>,
    },
    /// To none (`~`).
    None,
}

/// What a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// An IP address; the port is said beside it.
    Ip(IpAddr),
    /// A Unix domain socket, which has no port.
    Unix(UnixPath),
}

/// Labels that a workload has to carry; empty selects every workload.
pub type Selector = BTreeMap<String, String>;

/// A Unix domain socket as Istio takes it (`ValidateUnixAddress`): `unix://` and the absolute path
/// of a file, or `@` and an abstract name. None where the text is something else.
pub(super) fn unix(text: &str) -> Option<Result<UnixPath, String>> {
    let path = match UnixPath::from_url(text)? {
        Ok(path) => path,
        Err(error) => return Some(Err(format!("{text:?}: {error}"))),
    };
    let is_file = path.as_str().starts_with('/') && !path.as_str().ends_with('/');
    if !is_file && path.abstract_name().is_none() {
        let message = format!("{text:?} is not unix:// and the absolute path of a file, or @NAME");
        return Some(Err(message));
    }
    Some(Ok(path))
}

/// An IP address or a Unix domain socket to bind.
pub(super) fn bind(cursor: &Cursor<'_>) -> Option<Bind> {
    match unix(cursor.node().text().unwrap_or_default()) {
        None => cursor.ip().map(Bind::Ip),
        Some(Ok(path)) => Some(Bind::Unix(path)),
        Some(Err(message)) => {
            cursor.error(message);
            None
        }
    }
}

/// The number of a Unix domain socket's port: as in Istio 0, and nothing else.
pub(super) fn no_port(cursor: &Cursor<'_>) -> Option<u16> {
    if cursor.u32()? != 0 {
        cursor.error("must be 0 for a Unix domain socket, which has no port");
        return None;
    }
    Some(0)
}

// === impl Visibility ===

impl Visibility {
    /// Whether an object of namespace `own` shows itself to namespace `viewer`.
    pub fn shows(&self, own: &str, viewer: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only {
                own: mine,
                namespaces,
            } => (*mine && own == viewer) || namespaces.iter().any(|n| n == viewer),
        }
    }
}

/// Reads the values of `exportTo`; an empty list says nothing.
pub fn parse_visibility<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Visibility> {
    let (mut own, mut namespaces, mut any) = (false, Vec::new(), false);
    for value in values {
        any = true;
        match value {
            "*" => return Some(Visibility::All),
            "~" => return Some(Visibility::None),
            "." => own = true,
            namespace => namespaces.push(namespace.to_owned()),
        }
    }
    any.then_some(Visibility::Only { own, namespaces })
}

/// The list `exportTo`.
pub(super) fn export_to(cursor: &Cursor<'_>) -> Option<Visibility> {
    let values = cursor.list(|item| {
        let value = item.filled()?;
        if !matches!(value.as_str(), "*" | "." | "~") && !is_dns_label(&value) {
            item.error(format!(
                "{value:?} is not a namespace, \".\", \"*\" or \"~\""
            ));
            return None;
        }
        Some(value)
    })?;
    if values.len() > 1 && values.iter().any(|v| v == "*" || v == "~") {
        cursor.error("\"*\" and \"~\" stand alone");
        return None;
    }
    parse_visibility(values.iter().map(String::as_str))
}

/// A `workloadSelector` (`labels`) of Sidecar and ServiceEntry, or (`matchLabels`) of DestinationRule.
pub(super) fn selector(field: &'static str) -> impl FnOnce(&Cursor<'_>) -> Option<Selector> {
    move |cursor| {
        let mut fields = cursor.fields()?;
        let labels = fields.get(field, read::string_map).unwrap_or_default();
        if let Some((key, _)) = labels
            .iter()
            .find(|(key, value)| key.contains('*') || value.contains('*'))
        {
            cursor.error(format!(
                "wildcards are not allowed in a selector (label {key:?})"
            ));
        }
        fields.done();
        Some(labels)
    }
}

/// A regular expression in RE2's syntax.
pub(super) fn pattern(cursor: &Cursor<'_>) -> Option<Pattern> {
    match Pattern::new(&cursor.string()?) {
        Ok(pattern) => Some(pattern),
        Err(invalid) => {
            // The expression engine draws a picture over several lines; its last line says why.
            let mut lines = invalid.message().lines();
            let first = lines.next().unwrap_or_default();
            let first = first.strip_suffix(": regex parse error:").unwrap_or(first);
            match lines.next_back() {
                Some(why) => {
                    cursor.error(format!("{first}: {}", why.trim_start_matches("error: ")))
                }
                None => cursor.error(first),
            }
            None
        }
    }
}

/// A `StringMatch`; `None` inside is the empty one, which means presence where that makes sense.
pub(super) fn string_match(cursor: &Cursor<'_>) -> Option<Option<StringMatch>> {
    let mut fields = cursor.fields()?;
    let found: Vec<StringMatch> = [
        fields.get("exact", read::string).map(StringMatch::Exact),
        fields.get("prefix", read::string).map(StringMatch::Prefix),
        fields.get("regex", pattern).map(StringMatch::Regex),
    ]
    .into_iter()
    .flatten()
    .collect();
    let asked = ["exact", "prefix", "regex"]
        .into_iter()
        .filter(|name| fields.has(name))
        .count();
    fields.done();
    if asked > 1 {
        cursor.error("only one of exact, prefix and regex may be given");
        return None;
    }
    // A regular expression that failed must not turn into "present".
    if asked == 1 && found.is_empty() {
        return None;
    }
    Some(found.into_iter().next())
}

/// A `StringMatch` that has to say something.
pub(super) fn text_match(cursor: &Cursor<'_>) -> Option<StringMatch> {
    let found = string_match(cursor)?;
    if found.is_none() {
        cursor.error("needs one of exact, prefix and regex");
    }
    found
}

/// A header name, given as a value.
pub(super) fn header_name(cursor: &Cursor<'_>) -> Option<HeaderName> {
    named_header(&cursor.filled()?, cursor)
}

/// A header name, given as a key or otherwise.
pub(super) fn named_header(name: &str, cursor: &Cursor<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok();
    if parsed.is_none() {
        cursor.error(format!("{name:?} is not a header name"));
    }
    parsed
}

/// `{value: 12.5}`: 0, or 0.0001 to 100.
pub(super) fn percentage(cursor: &Cursor<'_>) -> Option<Fraction> {
    let mut fields = cursor.fields()?;
    let share = fields.get("value", |cursor| {
        let percent = cursor.double()?;
        match Fraction::percent(percent) {
            Ok(share) if percent == 0.0 || share > Fraction::NONE => Some(share),
            _ => {
                cursor.error(format!(
                    "{percent} is not a percentage: 0, or from 0.0001 to 100"
                ));
                None
            }
        }
    });
    let said = fields.has("value");
    fields.done();
    if said { share } else { Some(Fraction::NONE) }
}

/// A percentage as a whole number, the way it was written before `{value: …}`.
pub(super) fn whole_percentage(cursor: &Cursor<'_>) -> Option<Fraction> {
    let percent = u32::try_from(cursor.integer(0, 100)?).ok()?;
    Some(Fraction::millionths(percent * 10_000))
}

/// A host name: DNS, optionally with a wildcard for its first label.
pub(super) fn host_name(cursor: &Cursor<'_>) -> Option<String> {
    let host = cursor.filled()?.to_ascii_lowercase();
    if !is_host(&host) {
        cursor.error(format!("{host:?} is not a host name"));
        return None;
    }
    Some(host)
}

/// Whether this is a DNS name, `*.`-prefixed one or `*`.
pub(super) fn is_host(host: &str) -> bool {
    if host == "*" {
        return true;
    }
    let name = host
        .strip_prefix("*.")
        .or_else(|| host.strip_prefix("*-"))
        .unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether TLS can tell this host by its server name: `*` stands for whole labels there.
pub(super) fn is_server_name(host: &str) -> bool {
    !host.starts_with("*-")
}

/// RFC 1123 with underscores, which host names in the wild carry.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// RFC 1123, in lower case: a namespace's name, a service's.
pub(super) fn is_dns_label(label: &str) -> bool {
    is_label(label) && label.bytes().all(|b| !b.is_ascii_uppercase() && b != b'_')
}

/// Labels with dots between them: the name of any object of Kubernetes.
pub(super) fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_host_names() {
        for host in [
            "reviews",
            "*.example.com",
            "a_b.example",
            "1.2.3.4",
            "*",
            "example.com.",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a..b", "-a", "a b", "a.*.b", "**", "a/b", "a:80", "*."] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn visibility_follows_export_to() {
        let own = parse_visibility(["."]).unwrap();
        assert!(own.shows("a", "a") && !own.shows("a", "b"));
        let named = parse_visibility(["b"]).unwrap();
        assert!(named.shows("a", "b") && !named.shows("a", "a"));
        assert!(parse_visibility(["*"]).unwrap().shows("a", "z"));
        assert!(!parse_visibility(["~"]).unwrap().shows("a", "a"));
        assert_eq!(parse_visibility([]), None);
    }
}
