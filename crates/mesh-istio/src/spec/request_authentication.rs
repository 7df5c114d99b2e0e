//! `RequestAuthentication`: which tokens callers of a workload may bring.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::Selector;
use super::authorization_policy::target;
use super::common::{header_name, selector};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;
use crate::yaml::{Value, compose};

/// A `RequestAuthentication`.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestAuthentication {
    /// The workloads that it is for, by labels; none is all of its namespace, and of the mesh in
    /// the root namespace.
    pub selector: Option<Selector>,
    /// The Gateways that it is for, by name; workloads otherwise.
    pub gateways: Vec<String>,
    /// Whose tokens are taken.
    pub rules: Vec<JwtRule>,
}

/// Whose tokens are taken, and what is done with them.
#[derive(Clone, PartialEq)]
pub struct JwtRule {
    /// Where it is.
    pub at: Position,
    /// Who issues them.
    pub issuer: String,
    /// For whom they are; none takes any.
    pub audiences: Vec<String>,
    /// The keys that they are signed with.
    pub keys: JwtKeys,
    /// Headers that bring them, each with what stands before the token.
    pub from_headers: Vec<(HeaderName, String)>,
    /// Parameters of the query that bring them.
    pub from_params: Vec<String>,
    /// Cookies that bring them.
    pub from_cookies: Vec<String>,
    /// The header that the payload goes on in.
    pub payload_header: Option<HeaderName>,
    /// The token goes on as well.
    pub forward: bool,
    /// Headers that claims go on in.
    pub claim_headers: Vec<(HeaderName, String)>,
    /// How long getting the keys may take. Default 5 s.
    pub timeout: Duration,
    /// Claims that are lists of words; `scope` and `permission` always are.
    pub word_claims: Vec<String>,
}

/// Where keys come from.
#[derive(Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// Here they are.
    Inline(String),
    /// They are got from there.
    Uri(Uri),
    /// They are where the issuer's OpenID configuration says.
    Discovered,
}

impl RequestAuthentication {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let selected = fields.get("selector", selector("matchLabels"));
        let mut gateways = fields.list("targetRefs", target);
        gateways.extend(fields.get("targetRef", target));
        if selected.is_some() && !gateways.is_empty() {
            cursor.error("selector and targetRefs exclude each other");
        }
        if gateways.len() > 16 {
            cursor.error("targetRefs: at most 16 are allowed");
        }
        let rules = fields.list("jwtRules", JwtRule::read);
        fields.done();
        Some(Self {
            selector: selected.filter(|labels| !labels.is_empty()),
            gateways,
            rules,
        })
    }
}

impl JwtRule {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let issuer = fields.need("issuer", read::filled);
        let audiences = fields.list("audiences", read::filled);
        let uri = fields.get("jwksUri", uri);
        // The deprecated spelling of the same field.
        let uri = fields.get("jwks_uri", self::uri).or(uri);
        let jwks = fields.get("jwks", jwks);
        if uri.is_some() && jwks.is_some() {
            cursor.error("jwksUri and jwks exclude each other");
        }
        let from_headers = fields.list("fromHeaders", from_header);
        let from_params = fields.list("fromParams", read::filled);
        let from_cookies = fields.list("fromCookies", read::filled);
        let payload_header = fields.get("outputPayloadToHeader", header_name);
        let forward = fields.get("forwardOriginalToken", read::bool);
        let claim_headers = fields.list("outputClaimToHeaders", claim_header);
        let timeout = fields.get("timeout", read::positive_duration);
        let word_claims = fields.list("spaceDelimitedClaims", read::filled);
        fields.done();
        Some(Self {
            at: cursor.at(),
            issuer: issuer?,
            audiences,
            keys: match (jwks, uri) {
                (Some(text), _) => JwtKeys::Inline(text),
                (None, Some(uri)) => JwtKeys::Uri(uri),
                (None, None) => JwtKeys::Discovered,
            },
            from_headers,
            from_params,
            from_cookies,
            payload_header,
            forward: forward.unwrap_or_default(),
            claim_headers,
            timeout: timeout.unwrap_or(Duration::from_secs(5)),
            word_claims,
        })
    }
}

/// Keys may be symmetric, so they are not shown.
impl std::fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
            Self::Uri(uri) => f.debug_tuple("Uri").field(uri).finish(),
            Self::Discovered => f.write_str("Discovered"),
        }
    }
}

impl std::fmt::Debug for JwtRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtRule")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A set that no key is in would have Envoy refuse the whole listener.
fn jwks(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.filled()?;
    let documents = compose(&text).unwrap_or_default();
    let keys = match &documents[..] {
        [set] => set.get("keys").map(|keys| &keys.value),
        _ => None,
    };
    if !matches!(keys, Some(Value::List(keys)) if !keys.is_empty()) {
        cursor.error("not a JSON Web Key Set: {\"keys\": [...]} with at least one key");
    }
    Some(text)
}

fn uri(cursor: &Cursor<'_>) -> Option<Uri> {
    let text = cursor.filled()?;
    let parsed = text.parse::<Uri>().ok();
    let parsed = parsed.filter(|uri| {
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        known && uri.host().is_some_and(|host| !host.is_empty())
    });
    if parsed.is_none() {
        cursor.error(format!("{text:?} is not a URI of http or https"));
    }
    parsed
}

fn from_header(cursor: &Cursor<'_>) -> Option<(HeaderName, String)> {
    let mut fields = cursor.fields()?;
    let name = fields.need("name", header_name);
    let prefix = fields.get("prefix", read::string);
    fields.done();
    Some((name?, prefix.unwrap_or_default()))
}

fn claim_header(cursor: &Cursor<'_>) -> Option<(HeaderName, String)> {
    let mut fields = cursor.fields()?;
    let header = fields.need("header", header_name);
    let claim = fields.need("claim", read::filled);
    fields.done();
    Some((header?, claim?))
}
