//! Names of the form `xdstp://AUTHORITY/TYPE/ID?KEY=VALUE&…` (xRFC TP1, gRFC A47).
//!
//! Two names that differ in the order of their context parameters, or in how characters are
//! escaped, are one name: the one that [`canonical`] gives. Of a parameter that is given twice the
//! last value counts. `…/*` is a glob collection: all resources in a directory that have the same
//! parameters.
//!
//! Directives behind a `#` (`alt`, `entry`) are not supported and refused by name; so are list
//! collections, as resources of another type than the one that is asked for.
//!
//! ```
//! use mesh_xds::xdstp::ResourceName;
//!
//! let name = ResourceName::parse("xdstp://a.com/envoy.config.cluster.v3.Cluster/x/y?b=2&a=1")?;
//! assert_eq!((name.authority(), name.id()), ("a.com", "x/y"));
//! assert_eq!(name.to_string(), "xdstp://a.com/envoy.config.cluster.v3.Cluster/x/y?a=1&b=2");
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

use crate::TypeUrl;
use crate::schema::name_in_url;
use mesh_core::Invalid;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

const SCHEME: &str = "xdstp:";

/// The last part of the name of a glob collection.
const GLOB: &str = "*";

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName {
    authority: String,
    kind: String,
    /// With one form for each way to escape it.
    id: String,
    /// Not escaped.
    context: BTreeMap<String, String>,
}

/// Whether a name is of this form, or would like to be.
pub fn is_structured(name: &str) -> bool {
    name.starts_with(SCHEME)
}

/// The one form of a name that others are equal to. Names of another form, and those that are
/// wrong, are left as they are.
pub fn canonical(name: &str) -> Cow<'_, str> {
    if !is_structured(name) {
        return Cow::Borrowed(name);
    }
    match ResourceName::parse(name).map(|parsed| parsed.to_string()) {
        Ok(parsed) if parsed != name => Cow::Owned(parsed),
        _ => Cow::Borrowed(name),
    }
}

/// Whether a name is one of a glob collection.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn is_glob(name: &str) -> bool {
    is_structured(name) && ResourceName::parse(name).is_ok_and(|name| name.is_glob())
}

/// The glob collection that a resource is in; none if it is itself called like one.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn glob_of(name: &str) -> Option<String> {
    if !is_structured(name) {
        return None;
    }
    let name = ResourceName::parse(name).ok()?;
    (!name.is_glob()).then(|| name.glob().to_string())
}

/// What the names of everything in a glob collection begin with, in their one form. What begins so
/// need not be in it: it may be deeper down, or have other parameters.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn prefix_of_glob(glob: &str) -> String {
    match ResourceName::parse(glob) {
        Ok(glob) => glob.prefix(),
        // Nothing is in it, and nothing begins like that but itself.
        Err(_) => glob.to_owned(),
    }
}

// === impl ResourceName ===

impl ResourceName {
    /// Takes a name apart.
    ///
    /// # Errors
    /// If it is no such name, or has directives.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |what: &str| Invalid::new("", format!("{text:?}: {what}"));
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| wrong("a structured name begins with xdstp://"))?;
        let rest = match rest.split_once('#') {
            Some((_, directives)) if !directives.is_empty() => {
                return Err(wrong("directives (behind the #) are not supported"));
            }
            Some((rest, _)) => rest,
            None => rest,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match path.strip_prefix("//") {
            Some(path) => path.split_once('/').unwrap_or((path, "")),
            None => ("", path.strip_prefix('/').unwrap_or(path)),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:@[]".contains(c);
        if !authority.chars().all(is_host) {
            return Err(wrong("its authority has characters that none has"));
        }
        let (kind, id) = path
            .split_once('/')
            .filter(|(kind, id)| !kind.is_empty() && !id.is_empty())
            .ok_or_else(|| wrong("expected xdstp://AUTHORITY/TYPE/ID"))?;
        let mut parts = Vec::new();
        for part in id.split('/') {
            let part = unescape(part).ok_or_else(|| wrong("its id is escaped wrongly"))?;
            parts.push(escape(&part, PATH));
        }
        let mut context = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (unescape(key), unescape(value)) {
                (Some(key), Some(value)) if !key.is_empty() => context.insert(key, value),
                _ => return Err(wrong("its context parameters are not KEY=VALUE&…")),
            };
        }
        Ok(Self {
            authority: authority.to_owned(),
            kind: kind.to_owned(),
            id: parts.join("/"),
            context,
        })
    }

    /// Takes the name of a resource of a type apart.
    ///
    /// # Errors
    /// As [`ResourceName::parse`]; and if it is of another type.
    pub fn of_kind(text: &str, kind: TypeUrl) -> Result<Self, Invalid> {
        let name = Self::parse(text)?;
        let expected = name_in_url(kind.url());
        if name.kind != expected {
            let message = format!("{text:?} where an {expected} was expected");
            return Err(Invalid::new("", message));
        }
        Ok(name)
    }

    /// Who has it; may be empty.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The type, without `type.googleapis.com/`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What is behind the type, escaped.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The context parameters.
    pub fn context(&self) -> &BTreeMap<String, String> {
        &self.context
    }

    /// Whether it is a glob collection (`…/*`).
    pub fn is_glob(&self) -> bool {
        self.directory().1 == GLOB
    }

    /// The glob collection that the resource is in.
    #[must_use]
    pub fn glob(&self) -> Self {
        let (directory, _) = self.directory();
        Self {
            id: format!("{directory}{GLOB}"),
            ..self.clone()
        }
    }

    /// What the names of a directory begin with, those of the directories in it included.
    #[cfg(any(feature = "client", feature = "server"))]
    fn prefix(&self) -> String {
        let (directory, _) = self.directory();
        format!("{SCHEME}//{}/{}/{directory}", self.authority, self.kind)
    }

    /// The id up to its last slash, and the rest.
    fn directory(&self) -> (&str, &str) {
        let at = self.id.rfind('/').map_or(0, |at| at + 1);
        self.id.split_at(at)
    }
}

impl fmt::Display for ResourceName {
    /// In the one form that [`canonical`] gives.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            authority,
            kind,
            id,
            context,
        } = self;
        write!(f, "{SCHEME}//{authority}/{kind}/{id}")?;
        for (index, (key, value)) in context.iter().enumerate() {
            f.write_char(if index == 0 { '?' } else { '&' })?;
            write!(f, "{}={}", escape(key, QUERY), escape(value, QUERY))?;
        }
        Ok(())
    }
}

/// What need not be escaped besides letters and digits: in a part of a path (RFC 3986 §3.3), and in
/// keys and values of a query (§3.4), where `&`, `=` and `+` mean something.
const PATH: &str = "-._~!$&'()*+,;=:@";
const QUERY: &str = "-._~!$'()*,;:@/?";

/// Escapes a text for where these may stand.
fn escape(text: &str, besides: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || besides.as_bytes().contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Escapes a text for the path of a name, of which its slashes are part.
#[cfg(all(feature = "client", feature = "json"))]
pub(crate) fn escape_path(text: &str) -> String {
    let parts: Vec<String> = text.split('/').map(|part| escape(part, PATH)).collect();
    parts.join("/")
}

/// A text without its escapes; none if they are wrong.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "envoy.config.listener.v3.Listener";

    fn of(rest: &str) -> Result<ResourceName, Invalid> {
        ResourceName::parse(&format!("xdstp:{rest}"))
    }

    #[test]
    fn the_order_and_the_escapes_of_a_name_make_no_difference() {
        let one = format!("xdstp://a.com/{TYPE}/x%20y/%7e?b=2&a=1%2f");
        let other = format!("xdstp://a.com/{TYPE}/x%20y/~?a=1/&b=0&b=2#");
        assert_eq!(canonical(&one), canonical(&other));
        let form = format!("xdstp://a.com/{TYPE}/x%20y/~?a=1/&b=2");
        assert_eq!(canonical(&one), form);
        assert!(matches!(canonical(&form), Cow::Borrowed(_)));
    }

    #[test]
    fn a_name_without_an_authority_has_an_empty_one() {
        for rest in [
            format!("///{TYPE}/x"),
            format!("/{TYPE}/x"),
            format!("{TYPE}/x"),
        ] {
            let name = of(&rest).unwrap();
            assert_eq!((name.authority(), name.id()), ("", "x"));
            assert_eq!(name.to_string(), format!("xdstp:///{TYPE}/x"));
        }
    }

    #[test]
    fn an_escaped_slash_is_no_slash() {
        let name = of(&format!("//a/{TYPE}/x%2Fy/*")).unwrap();
        assert_eq!(name.id(), "x%2Fy/*");
        assert!(name.is_glob());
    }

    #[test]
    fn a_collection_is_everything_in_a_directory_with_the_same_context() {
        let one = of(&format!("//a/{TYPE}/d/one?k=v")).unwrap();
        let glob = of(&format!("//a/{TYPE}/d/*?k=v")).unwrap();
        assert_eq!(one.glob(), glob);
        assert_eq!(glob.glob(), glob);
        assert!(glob.is_glob() && !one.is_glob());
        for other in [
            "//b/T/d/x?k=v",
            "//a/T/d/e/x?k=v",
            "//a/T/d/x?k=w",
            "//a/T/d/x",
        ] {
            let other = of(&other.replace('T', TYPE)).unwrap();
            assert_ne!(other.glob(), glob, "{other}");
        }
        // At the top, too.
        assert_eq!(of(&format!("//a/{TYPE}/x")).unwrap().glob().id(), "*");
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_refused_by_name() {
        for (rest, why) in [
            ("//a", "expected xdstp://AUTHORITY/TYPE/ID"),
            ("//a/T", "expected"),
            ("//a/T/", "expected"),
            ("//a b/T/x", "authority"),
            ("//a/T/%zz", "escaped wrongly"),
            ("//a/T/%f", "escaped wrongly"),
            ("//a/T/%ff", "escaped wrongly"),
            ("//a/T/x?=1", "KEY=VALUE"),
            ("//a/T/x#alt=xdstp://b/T/x", "directives"),
        ] {
            let error = of(rest).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(ResourceName::parse("http://a/T/x").is_err());
        assert_eq!(canonical("xdstp://a"), "xdstp://a");
        assert_eq!(canonical("plain?b&a"), "plain?b&a");
    }

    #[test]
    fn a_name_of_another_type_is_refused() {
        let text = format!("xdstp://a/{TYPE}/x");
        assert!(ResourceName::of_kind(&text, TypeUrl::Listener).is_ok());
        let error = ResourceName::of_kind(&text, TypeUrl::Cluster).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("envoy.config.cluster.v3.Cluster")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_is_not(text in "(xdstp:)?[ -~é]{0,60}") {
            let form = canonical(&text).into_owned();
            prop_assert_eq!(canonical(&form), form.as_str());
        }

        #[test]
        fn what_is_taken_apart_is_put_together_again(
            authority in "[a-z.:0-9]{0,8}",
            parts in prop::collection::vec("[ -~é]{1,6}", 1..4),
            context in prop::collection::btree_map("[ -~é]{1,5}", "[ -~é]{0,5}", 0..4),
        ) {
            let id: Vec<_> = parts.iter().map(|part| escape(part, PATH)).collect();
            let name = ResourceName {
                authority,
                kind: TYPE.to_owned(),
                id: id.join("/"),
                context,
            };
            prop_assert_eq!(ResourceName::parse(&name.to_string()), Ok(name));
        }

        #[test]
        fn the_order_of_the_context_never_matters(
            pairs in prop::collection::btree_map("[a-z%]{1,3}", "[ -~]{0,3}", 0..5),
            swap in any::<prop::sample::Index>(),
        ) {
            let mut texts: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{}={}", escape(k, ""), escape(v, "")))
                .collect();
            let ordered = format!("xdstp://a/{TYPE}/x?{}", texts.join("&"));
            if !texts.is_empty() {
                let at = swap.index(texts.len());
                texts.rotate_left(at);
            }
            let turned = format!("xdstp://a/{TYPE}/x?{}", texts.join("&"));
            prop_assert_eq!(canonical(&ordered), canonical(&turned));
        }
    }
}
