//! What a rule does: destinations, redirects, direct responses and rewrites.

use mesh_core::model::Pattern;

use super::Headers;
use super::policy::headers;
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;
use crate::spec::Spanned;
use crate::spec::common::{host_name, pattern};

/// A service, a subset of it, and a port.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where it starts.
    pub at: Position,
    /// Where it stands in the object, for messages.
    pub path: String,
    /// The host as written.
    pub host: Spanned<String>,
    /// The subset, or empty.
    pub subset: Spanned<String>,
    /// The service port; needed where the service has several.
    pub port: Option<Spanned<u16>>,
}

/// One entry of `route`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedDestination {
    /// Where it starts.
    pub at: Position,
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum of all weights.
    pub weight: u32,
    /// Header changes for this destination; `None` is none.
    pub headers: Option<Box<Headers>>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Where it starts.
    pub at: Position,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// New scheme.
    pub scheme: Option<String>,
    /// New authority.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<PortSource>,
    /// New path.
    pub path: Option<RedirectPath>,
}

/// Where a redirect's port comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSource {
    /// This one.
    Number(u16),
    /// 80 or 443 by scheme, hence left out.
    ProtocolDefault,
    /// The one the request came in on.
    Request,
}

/// The path of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// This, whole.
    Full(String),
    /// The matched prefix becomes this.
    Prefix(String),
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// Where it starts.
    pub at: Position,
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Another VirtualService, without hosts of its own, whose rules come in place of this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Delegate {
    /// Where it starts.
    pub at: Position,
    /// Its name.
    pub name: String,
    /// Its namespace; empty is that of the object that names it.
    pub namespace: String,
}

/// Changes of path and authority before forwarding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewrite {
    /// Where it starts.
    pub at: Position,
    /// The path.
    pub path: Option<RewritePath>,
    /// The authority.
    pub authority: Option<String>,
}

/// How the path changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewritePath {
    /// The matched prefix, or the whole path, becomes this.
    Prefix(String),
    /// Every match of the expression becomes this, `\1` standing for groups.
    Regex(Pattern, String),
}

// Envoy refuses larger ones; istiod warns above a tenth of it.
const LARGEST_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

// === impl Destination ===

impl Destination {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let host = fields.need("host", |host| {
            let name = host.spanned(host_name)?;
            if name.starts_with('*') {
                host.error("a destination cannot be a wildcard");
                return None;
            }
            Some(name)
        });
        let subset = fields.get("subset", |subset| subset.spanned(read::string));
        let subset = subset.unwrap_or_else(|| Spanned {
            value: String::new(),
            at: cursor.at(),
        });
        let port = fields.get("port", |port| port.spanned(port_selector));
        fields.done();
        Some(Self {
            at: cursor.at(),
            path: cursor.path(),
            host: host?,
            subset,
            port,
        })
    }
}

impl PartialEq for Destination {
    /// Places do not count.
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && self.subset == other.subset && self.port == other.port
    }
}

pub(crate) fn port_selector(cursor: &Cursor<'_>) -> Option<u16> {
    let mut fields = cursor.fields()?;
    let number = fields.need("number", read::port);
    fields.done();
    number
}

// === impl WeightedDestination ===

impl WeightedDestination {
    /// Header changes for this destination, where there are none as well.
    pub fn headers(&self) -> &Headers {
        Headers::or_none(self.headers.as_deref())
    }
}

/// The list `route`.
pub(super) fn destinations(cursor: &Cursor<'_>) -> Option<Vec<WeightedDestination>> {
    let all = cursor.list(|item| {
        let mut fields = item.fields()?;
        let destination = fields.need("destination", Destination::read);
        let weight = fields.get("weight", read::count).unwrap_or_default();
        let headers = headers(&mut fields);
        fields.done();
        Some(WeightedDestination {
            at: item.at(),
            destination: destination?,
            weight,
            headers,
        })
    })?;
    let weights = all.iter().map(|one| one.weight);
    check_weights(cursor, weights).then_some(all)
}

/// Whether there is a destination; says so where there is none or where nothing can be drawn.
pub(super) fn check_weights(
    cursor: &Cursor<'_>,
    weights: impl ExactSizeIterator<Item = u32>,
) -> bool {
    let length = weights.len();
    if length == 0 {
        // Either it was empty in the file, or every item was refused already.
        if !cursor.report().failed() {
            cursor.error("needs at least one destination");
        }
        return false;
    }
    let mut weights = weights;
    match weights.try_fold(0u32, u32::checked_add) {
        Some(0) if length > 1 => {
            cursor.error("the weights of several destinations must not all be 0");
        }
        None => cursor.error("the weights add up to more than fits 32 bits"),
        Some(_) => {}
    }
    true
}

// === impl Delegate ===

impl Delegate {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let name = fields.need("name", read::filled);
        let namespace = fields.get("namespace", read::string).unwrap_or_default();
        fields.done();
        Some(Self {
            at: cursor.at(),
            name: name?,
            namespace,
        })
    }
}

// === impl Redirect ===

impl Redirect {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let uri = fields.get("uri", read::string);
        let prefix = fields.get("prefixRewrite", read::string);
        let authority = fields.get("authority", read::filled);
        let scheme = fields.get("scheme", |cursor| {
            cursor
                .choice(&[("http", "http"), ("https", "https")])
                .map(str::to_owned)
        });
        let port = fields.get("port", read::port).map(PortSource::Number);
        let derived = fields.get("derivePort", |cursor| {
            cursor.choice(&[
                ("FROM_PROTOCOL_DEFAULT", PortSource::ProtocolDefault),
                ("FROM_REQUEST_PORT", PortSource::Request),
            ])
        });
        let code = fields.get("redirectCode", |cursor| {
            let code = u16::try_from(cursor.integer(0, 999)?).ok()?;
            if !matches!(code, 301 | 302 | 303 | 307 | 308) {
                cursor.error(format!("{code} is not one of 301, 302, 303, 307, 308"));
                return None;
            }
            Some(code)
        });
        let parts = [
            "uri",
            "prefixRewrite",
            "authority",
            "scheme",
            "port",
            "derivePort",
        ];
        if !parts.into_iter().any(|name| fields.has(name)) {
            cursor.error("needs one of uri, prefixRewrite, authority, scheme, port and derivePort");
        }
        for (one, other) in [("uri", "prefixRewrite"), ("port", "derivePort")] {
            if fields.has(one) && fields.has(other) {
                cursor.error(format!("{one} and {other} exclude one another"));
            }
        }
        fields.done();
        let path = uri
            .map(RedirectPath::Full)
            .or_else(|| prefix.map(RedirectPath::Prefix));
        let port = port.or(derived);
        Some(Self {
            at: cursor.at(),
            code: code.unwrap_or(301),
            scheme,
            authority,
            port,
            path,
        })
    }
}

// === impl DirectResponse ===

impl DirectResponse {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let status = fields.need("status", read::status);
        let body = fields.get("body", |cursor| {
            let mut fields = cursor.fields()?;
            let string = fields.get("string", read::string).map(String::into_bytes);
            let bytes = fields.get("bytes", read::bytes);
            if fields.has("string") && fields.has("bytes") {
                cursor.error("string and bytes exclude one another");
            }
            fields.done();
            let body = string.or(bytes).unwrap_or_default();
            if body.len() > LARGEST_BODY {
                cursor.error(format!("larger than {LARGEST_BODY} bytes"));
            } else if body.len() > LARGE_BODY {
                cursor.warn(format!(
                    "larger than {LARGE_BODY} bytes: every proxy keeps a copy"
                ));
            }
            Some(body)
        });
        fields.done();
        Some(Self {
            at: cursor.at(),
            status: status?,
            body: body.unwrap_or_default(),
        })
    }
}

// === impl Rewrite ===

impl Rewrite {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let uri = fields.get("uri", read::filled);
        let regex = fields.get("uriRegexRewrite", |cursor| {
            let mut fields = cursor.fields()?;
            let matching = fields.need("match", pattern);
            let with = fields.need("rewrite", read::string);
            fields.done();
            Some(RewritePath::Regex(matching?, with?))
        });
        let authority = fields.get("authority", read::filled);
        if fields.has("uri") && fields.has("uriRegexRewrite") {
            cursor.error("uri and uriRegexRewrite exclude one another");
        }
        if !["uri", "uriRegexRewrite", "authority"]
            .into_iter()
            .any(|name| fields.has(name))
        {
            cursor.error("needs one of uri, uriRegexRewrite and authority");
        }
        fields.done();
        Some(Self {
            at: cursor.at(),
            path: uri.map(RewritePath::Prefix).or(regex),
            authority,
        })
    }
}
