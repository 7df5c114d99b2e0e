//! `VirtualService`: which requests go where, and what happens to them on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use mesh_core::model::StringMatch;

use super::common::{self, Visibility, export_to};
use super::{Spanned, strings};
use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;

mod action;
mod l4;
mod matches;
mod policy;
mod template;

pub use action::{
    Delegate, Destination, DirectResponse, PortSource, Redirect, RedirectPath, Rewrite,
    RewritePath, WeightedDestination,
};
pub use l4::{L4Match, RouteDestination, TcpRoute, TlsRoute};
pub use policy::{Abort, Cors, Delay, Fault, HeaderOperations, Headers, Mirror, Retries};

pub(crate) use action::port_selector;
pub(super) use l4::subnet;
pub(crate) use policy::retries;

/// The spec of a `VirtualService`.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// The hosts it speaks for, as written; a delegate has none and speaks where it is named.
    pub hosts: Vec<Spanned<String>>,
    /// `mesh`, `name` or `namespace/name`; `["mesh"]` where nothing is said.
    pub gateways: Vec<String>,
    /// Rules in order; the first that matches wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that goes on as it is, in order.
    pub tls: Vec<TlsRoute>,
    /// Rules for everything else, in order.
    pub tcp: Vec<TcpRoute>,
    /// Who sees it; `None` is the mesh's default.
    pub export_to: Option<Visibility>,
}

/// One entry of `http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Where it starts.
    pub at: Position,
    /// Its name, or empty.
    pub name: String,
    /// Alternatives; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: Action,
    /// How path and authority change.
    pub rewrite: Option<Box<Rewrite>>,
    /// Limit for the whole exchange; zero is none.
    pub timeout: Option<Spanned<Duration>>,
    /// Retries; `None` is the mesh's default.
    pub retries: Option<Box<Retries>>,
    /// Delays and aborts.
    pub fault: Option<Box<Fault>>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin rules.
    pub cors: Option<Box<Cors>>,
    /// Header changes; `None` is none.
    pub headers: Option<Box<Headers>>,
}

/// What an [`HttpRoute`] does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Forwards, to one or by weight to several.
    Route(Vec<WeightedDestination>),
    /// Redirects.
    Redirect(Box<Redirect>),
    /// Answers.
    Respond(Box<DirectResponse>),
    /// The rules of another object come in its place.
    Delegate(Box<Delegate>),
}

/// One entry of `match`: everything in it has to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// Where it starts.
    pub at: Position,
    /// Its name, or empty.
    pub name: String,
    /// The path.
    pub uri: Option<StringMatch>,
    /// Ignore case in `uri`, unless that is a regular expression.
    pub ignore_uri_case: bool,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority.
    pub authority: Option<StringMatch>,
    /// Headers; `None` is presence.
    pub headers: Vec<(HeaderName, Option<StringMatch>)>,
    /// Headers that must not be so; `None` is absence.
    pub without_headers: Vec<(HeaderName, Option<StringMatch>)>,
    /// Claims of the caller's token, each by the way to it.
    pub claims: Vec<(Vec<String>, StringMatch)>,
    /// Claims that must not be so.
    pub without_claims: Vec<(Vec<String>, StringMatch)>,
    /// Query parameters; `None` is presence.
    pub query: Vec<(String, Option<StringMatch>)>,
    /// Only where the listener or service has this port.
    pub port: Option<u16>,
    /// Only in clients with these labels.
    pub source_labels: BTreeMap<String, String>,
    /// Only in clients of this namespace; empty is any.
    pub source_namespace: String,
    /// Only on these gateways, instead of the whole object's.
    pub gateways: Vec<String>,
    /// The name of the rule's own statistics; empty is none.
    pub stat_prefix: String,
}

impl VirtualService {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let hosts = fields.list("hosts", |host| host.spanned(common::host_name));
        let gateways = fields.get("gateways", strings).unwrap_or_default();
        let mut closed = false;
        let http = fields.list("http", |cursor| {
            if closed {
                cursor.warn("never reached: a rule before it matches every request");
            }
            let route = HttpRoute::read(cursor)?;
            // A delegate may match less.
            closed |= route.matches.is_empty() && !matches!(route.action, Action::Delegate(_));
            Some(route)
        });
        let tls = fields.list("tls", |cursor| TlsRoute::read(cursor, &hosts));
        let mut closed = false;
        let tcp = fields.list("tcp", |cursor| {
            if closed {
                cursor.warn("never reached: a rule before it matches every connection");
            }
            let route = TcpRoute::read(cursor)?;
            closed |= route.takes_all();
            Some(route)
        });
        let export_to = fields.get("exportTo", export_to);
        if hosts.is_empty() && fields.has("gateways") {
            cursor.error(
                "hosts is missing; only delegates do without, and they have their root's gateways",
            );
        }
        if !["http", "tls", "tcp"]
            .into_iter()
            .any(|name| fields.has(name))
        {
            cursor.error("http, tls and tcp are missing: there is nothing to route");
        }
        fields.done();
        let gateways = if gateways.is_empty() {
            vec!["mesh".to_owned()]
        } else {
            gateways
        };
        check_hosts(cursor, &hosts, &gateways);
        if !hosts.is_empty() {
            check_claims(cursor, &http, &gateways);
        }
        let delegates = |route: &HttpRoute| matches!(route.action, Action::Delegate(_));
        if hosts.is_empty() && !(tls.is_empty() && tcp.is_empty()) {
            cursor.error("a delegate, which this is for want of hosts, has http rules only");
        }
        if hosts.is_empty() && http.iter().any(delegates) {
            cursor.error("a delegate, which this is for want of hosts, cannot delegate further");
        }
        Some(Self {
            hosts,
            gateways,
            http,
            tls,
            tcp,
            export_to,
        })
    }

    /// Whether it applies to sidecars at all.
    pub fn in_mesh(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway == "mesh")
    }
}

/// Tokens are looked at before routing on gateways only, as in Istio.
fn check_claims(cursor: &Cursor<'_>, http: &[HttpRoute], gateways: &[String]) {
    let in_mesh = |own: &[String]| {
        let gateways = if own.is_empty() { gateways } else { own };
        gateways.iter().any(|gateway| gateway == "mesh")
    };
    let asks = |block: &HttpMatch| !(block.claims.is_empty() && block.without_claims.is_empty());
    let blocks = http.iter().flat_map(|route| &route.matches);
    if blocks
        .into_iter()
        .any(|it| asks(it) && in_mesh(&it.gateways))
    {
        cursor.error(
            "http: claims (@request.auth.claims) are matched on gateways only: name the gateways, \
             without \"mesh\"",
        );
    }
}

fn check_hosts(cursor: &Cursor<'_>, hosts: &[Spanned<String>], gateways: &[String]) {
    for (index, host) in hosts.iter().enumerate() {
        if hosts[..index].contains(host) {
            cursor.error(format!("host {:?} given twice", host.value));
        }
        if host.value == "*" && gateways.iter().any(|gateway| gateway == "mesh") {
            cursor.error("host \"*\" is for gateways only: name the gateways, without \"mesh\"");
        }
    }
}

impl HttpRoute {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let name = fields.get("name", read::string).unwrap_or_default();
        let matches = fields.list("match", HttpMatch::read);
        let action = action(cursor, &mut fields);
        let rewrite = fields.get("rewrite", Rewrite::read).map(Box::new);
        let timeout = fields.get("timeout", |cursor| cursor.spanned(read::duration));
        let retries = fields.get("retries", retries).map(Box::new);
        let fault = fields.get("fault", Fault::read).map(Box::new);
        let mirrors = policy::mirrors(cursor, &mut fields);
        let cors = fields.get("corsPolicy", Cors::read).map(Box::new);
        let headers = policy::headers(&mut fields);
        let sets_authority = headers.as_ref().is_some_and(|it| it.sets_authority());
        check_combination(
            cursor,
            &fields,
            sets_authority,
            rewrite.as_deref(),
            &matches,
        );
        fields.done();
        let action = action?;
        Some(Self {
            at: cursor.at(),
            name,
            matches,
            action,
            rewrite,
            timeout,
            retries,
            fault,
            mirrors,
            cors,
            headers,
        })
    }
}

impl HttpRoute {
    /// Header changes, where there are none as well.
    pub fn headers(&self) -> &Headers {
        Headers::or_none(self.headers.as_deref())
    }
}

/// Exactly one of `route`, `redirect`, `directResponse` and `delegate`.
fn action(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Option<Action> {
    let mut found: Vec<&str> = ["route", "redirect", "directResponse", "delegate"]
        .into_iter()
        .filter(|name| fields.has(name))
        .collect();
    let delegate = fields.get("delegate", Delegate::read).map(Box::new);
    let delegate = delegate.map(Action::Delegate);
    let route = fields.get("route", action::destinations).map(Action::Route);
    let redirect = fields.get("redirect", Redirect::read).map(Box::new);
    let redirect = redirect.map(Action::Redirect);
    let respond = fields.get("directResponse", DirectResponse::read);
    let respond = respond.map(Box::new).map(Action::Respond);
    match found.len() {
        0 => cursor.error("needs one of route, redirect, directResponse and delegate"),
        1 => return route.or(redirect).or(respond).or(delegate),
        _ => {
            let last = found.pop().unwrap_or_default();
            cursor.error(format!(
                "{} and {last} exclude one another",
                found.join(", ")
            ));
        }
    }
    None
}

/// What may not stand beside one another in a rule.
fn check_combination(
    cursor: &Cursor<'_>,
    fields: &Fields<'_>,
    sets_authority: bool,
    rewrite: Option<&Rewrite>,
    matches: &[HttpMatch],
) {
    for action in ["redirect", "directResponse"] {
        for other in ["rewrite", "fault", "mirror", "mirrors"] {
            if fields.has(action) && fields.has(other) {
                cursor.error(format!("{action} and {other} exclude one another"));
            }
        }
        for other in ["timeout", "retries"] {
            if fields.has(action) && fields.has(other) {
                cursor.warn(format!("{other} has no effect: {action} forwards nothing"));
            }
        }
    }
    if sets_authority && rewrite.is_some_and(|rewrite| rewrite.authority.is_some()) {
        cursor.error("headers.request.set of the host and rewrite.authority exclude one another");
    }
    let uses_prefix = matches!(
        fields.peek("redirect").and_then(|node| node.get("prefixRewrite")),
        Some(node) if !node.is_null(),
    );
    let prefix = |block: &HttpMatch| matches!(block.uri, Some(StringMatch::Prefix(_)));
    if uses_prefix && (matches.is_empty() || !matches.iter().all(prefix)) {
        cursor.error("redirect.prefixRewrite needs a uri prefix in every match");
    }
}
