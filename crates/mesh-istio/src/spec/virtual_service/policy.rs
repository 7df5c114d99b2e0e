//! What happens to a request on the way: retries, faults, copies, CORS, headers.

use std::time::Duration;

use http::HeaderName;
use mesh_core::model::{Fraction, HeaderTemplate, RetryOn, StringMatch};

use super::Destination;
use super::template::template;
use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;
use crate::spec::common::{header_name, named_header, percentage, text_match, whole_percentage};

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// Where it starts.
    pub at: Position,
    /// Retries after the first attempt; 0 is none.
    pub attempts: u32,
    /// Limit for one attempt.
    pub per_try_timeout: Option<Duration>,
    /// What is retried; `None` is the default set.
    pub on: Option<RetryOn>,
    /// Status codes named among the conditions.
    pub status_codes: Vec<u16>,
    /// Retry in other localities than those tried.
    pub remote_localities: bool,
    /// Avoid hosts already tried; `None` is yes, but for consistent hashing.
    pub ignore_previous_hosts: Option<bool>,
    /// Shortest back-off.
    pub backoff: Option<Duration>,
}

/// A delay, an abort, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Where it starts.
    pub at: Position,
    /// Wait first.
    pub delay: Option<Delay>,
    /// Answer instead.
    pub abort: Option<Abort>,
}

/// A delay for a share of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// For which share; nothing said is none.
    pub share: Fraction,
}

/// An abort for a share of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Whether `code` is a gRPC code and not an HTTP status.
    pub grpc: bool,
    /// The code.
    pub code: u16,
    /// For which share; nothing said is none.
    pub share: Fraction,
}

/// A copy of the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Which share.
    pub share: Fraction,
}

/// Cross-origin rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Where it starts.
    pub at: Position,
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that are allowed.
    pub allow_methods: Vec<String>,
    /// Request headers that are allowed.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight holds, in seconds.
    pub max_age: Option<u64>,
    /// Whether credentials are allowed.
    pub allow_credentials: bool,
    /// Forward preflights of origins that are not allowed.
    pub forward_unmatched: bool,
}

/// Header changes in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Of the request.
    pub request: HeaderOperations,
    /// Of the response.
    pub response: HeaderOperations,
}

/// Header changes in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Replaces, or adds where there is none.
    pub set: Vec<(HeaderName, HeaderTemplate)>,
    /// Adds another value.
    pub add: Vec<(HeaderName, HeaderTemplate)>,
    /// Removes.
    pub remove: Vec<HeaderName>,
    /// The authority to put in place, when `set` has `host` or `:authority`.
    pub authority: Option<String>,
}

/// gRPC status names, in the order of their codes.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

// === impl Retries ===

/// An `HTTPRetry`.
pub(crate) fn retries(cursor: &Cursor<'_>) -> Option<Retries> {
    let mut fields = cursor.fields()?;
    let attempts = fields.get("attempts", read::count).unwrap_or_default();
    let per_try_timeout = fields.get("perTryTimeout", read::positive_duration);
    let (on, status_codes) = fields.get("retryOn", retry_on).unwrap_or_default();
    let remote_localities = fields.get("retryRemoteLocalities", read::bool);
    let ignore_previous_hosts = fields.get("retryIgnorePreviousHosts", read::bool);
    let backoff = fields.get("backoff", read::positive_duration);
    let others = ["perTryTimeout", "retryOn", "retryRemoteLocalities"];
    if attempts == 0 && others.into_iter().any(|name| fields.has(name)) {
        cursor.error("attempts is 0, which switches retries off: the other fields have no effect");
    }
    fields.done();
    Some(Retries {
        at: cursor.at(),
        attempts,
        per_try_timeout,
        on,
        status_codes,
        remote_localities: remote_localities.unwrap_or_default(),
        ignore_previous_hosts,
        backoff,
    })
}

/// Envoy's condition names and status codes, separated by commas.
fn retry_on(cursor: &Cursor<'_>) -> Option<(Option<RetryOn>, Vec<u16>)> {
    let text = cursor.string()?;
    let (mut on, mut codes) = (RetryOn::default(), Vec::new());
    let mut named = false;
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        named = true;
        if let Some(condition) = RetryOn::named(word) {
            on = on.with(condition);
            continue;
        }
        match word.parse::<u16>() {
            Ok(code) if (100..=599).contains(&code) => codes.push(code),
            _ if word == "http3-post-connect-failure" => {
                cursor.error(format!("not supported: retry condition {word:?}"));
            }
            _ => cursor.error(format!(
                "{word:?} is not a retry condition or a status code"
            )),
        }
    }
    if !codes.is_empty() {
        on = on.with(RetryOn::RETRIABLE_STATUS_CODES);
    }
    Some((named.then_some(on), codes))
}

// === impl Fault ===

impl Fault {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let delay = fields.get("delay", |cursor| {
            let mut fields = cursor.fields()?;
            fields.refuse("exponentialDelay", "use fixedDelay");
            let duration = fields.need("fixedDelay", read::positive_duration);
            let share = share(cursor, &mut fields);
            fields.done();
            Some(Delay {
                duration: duration?,
                share,
            })
        });
        let abort = fields.get("abort", Abort::read);
        if !fields.has("delay") && !fields.has("abort") {
            cursor.error("needs delay or abort");
        }
        fields.done();
        Some(Self {
            at: cursor.at(),
            delay,
            abort,
        })
    }
}

impl Abort {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        fields.refuse("http2Error", "use httpStatus or grpcStatus");
        let http = fields
            .get("httpStatus", read::status)
            .map(|code| (false, code));
        let grpc = fields.get("grpcStatus", |cursor| {
            let name = cursor.filled()?;
            let code = GRPC.iter().position(|known| *known == name);
            if code.is_none() {
                cursor.error(format!(
                    "{name:?} is not a gRPC status, such as UNAVAILABLE"
                ));
            }
            Some((true, u16::try_from(code?).ok()?))
        });
        let share = share(cursor, &mut fields);
        match (fields.has("httpStatus"), fields.has("grpcStatus")) {
            (true, true) => cursor.error("httpStatus and grpcStatus exclude one another"),
            (false, false) if !fields.has("http2Error") => {
                cursor.error("needs httpStatus or grpcStatus");
            }
            _ => {}
        }
        fields.done();
        let (grpc, code) = http.or(grpc)?;
        Some(Self { grpc, code, share })
    }
}

/// `percentage`, or the older `percent`. Nothing said is nothing done.
fn share(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Fraction {
    let new = fields.get("percentage", percentage);
    let old = fields.get("percent", |cursor| {
        cursor.warn("deprecated: write percentage: {value: …}");
        whole_percentage(cursor)
    });
    if !fields.has("percentage") && !fields.has("percent") {
        cursor.warn("no percentage, which means 0: nothing happens");
    }
    new.or(old).unwrap_or(Fraction::NONE)
}

/// `mirror` with its percentage, or `mirrors`.
pub(super) fn mirrors(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Vec<Mirror> {
    let single = fields.get("mirror", Destination::read);
    let several = fields.list("mirrors", |cursor| {
        let mut fields = cursor.fields()?;
        let destination = fields.need("destination", Destination::read);
        let share = fields
            .get("percentage", percentage)
            .unwrap_or(Fraction::ALL);
        fields.done();
        Some(Mirror {
            destination: destination?,
            share,
        })
    });
    let share = fields.get("mirrorPercentage", percentage);
    let old = fields.get("mirrorPercent", |cursor| {
        cursor.warn("deprecated: write mirrorPercentage: {value: …}");
        whole_percentage(cursor)
    });
    if fields.has("mirror") && fields.has("mirrors") {
        cursor.error("mirror and mirrors exclude one another");
    }
    for name in ["mirrorPercentage", "mirrorPercent"] {
        if fields.has(name) && !fields.has("mirror") {
            cursor.warn(format!("{name} has no effect without mirror"));
        }
    }
    let share = share.or(old).unwrap_or(Fraction::ALL);
    match single {
        Some(destination) => vec![Mirror { destination, share }],
        None => several,
    }
}

// === impl Cors ===

impl Cors {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut allow_origins = fields.list("allowOrigins", text_match);
        allow_origins.extend(fields.list("allowOrigin", |cursor| {
            cursor.warn("deprecated: write allowOrigins: [{exact: …}]");
            let origin = cursor.filled()?;
            // The old field took `*` for every origin.
            Some(if origin == "*" {
                StringMatch::Prefix(String::new())
            } else {
                StringMatch::Exact(origin)
            })
        }));
        let allow_methods = fields.list("allowMethods", method);
        let allow_headers = fields.list("allowHeaders", listed_header);
        let expose_headers = fields.list("exposeHeaders", listed_header);
        let max_age = fields.get("maxAge", |cursor| {
            let age = cursor.duration()?;
            if age.subsec_nanos() != 0 {
                cursor.error("must be whole seconds");
                return None;
            }
            Some(age.as_secs())
        });
        let allow_credentials = fields
            .get("allowCredentials", read::bool)
            .unwrap_or_default();
        let forward_unmatched = fields.get("unmatchedPreflights", |cursor| {
            cursor.choice(&[("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)])
        });
        fields.done();
        Some(Self {
            at: cursor.at(),
            allow_origins,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            forward_unmatched: forward_unmatched.unwrap_or(true),
        })
    }
}

fn method(cursor: &Cursor<'_>) -> Option<String> {
    let name = cursor.filled()?;
    if http::Method::from_bytes(name.as_bytes()).is_err() {
        cursor.error(format!("{name:?} is not a method"));
        return None;
    }
    Some(name)
}

/// A header name that keeps the spelling it is going to be announced with.
fn listed_header(cursor: &Cursor<'_>) -> Option<String> {
    header_name(cursor)?;
    cursor.string()
}

// === impl Headers ===

impl Headers {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let request = fields.get("request", |cursor| HeaderOperations::read(cursor, true));
        let response = fields.get("response", |cursor| HeaderOperations::read(cursor, false));
        fields.done();
        Some(Self {
            request: request.unwrap_or_default(),
            response: response.unwrap_or_default(),
        })
    }

    pub(super) fn sets_authority(&self) -> bool {
        self.request.authority.is_some()
    }

    /// These, or none.
    pub(super) fn or_none(some: Option<&Self>) -> &Self {
        static NONE: Headers = Headers {
            request: HeaderOperations::NONE,
            response: HeaderOperations::NONE,
        };
        some.unwrap_or(&NONE)
    }
}

/// The field `headers`; nothing where nothing is changed.
pub(super) fn headers(fields: &mut Fields<'_>) -> Option<Box<Headers>> {
    let headers = fields.get("headers", Headers::read)?;
    (headers != *Headers::or_none(None)).then(|| Box::new(headers))
}

impl HeaderOperations {
    const NONE: Self = Self {
        set: Vec::new(),
        add: Vec::new(),
        remove: Vec::new(),
        authority: None,
    };

    fn read(cursor: &Cursor<'_>, request: bool) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut authority = None;
        let set = fields.entries("set", |name, cursor| {
            if request && (name == ":authority" || name.eq_ignore_ascii_case("host")) {
                authority = cursor.filled();
                return None;
            }
            Some((named_header(name, cursor)?, template(cursor)?))
        });
        let add = fields.entries("add", |name, cursor| {
            Some((fixed_header(name, cursor, request)?, template(cursor)?))
        });
        let remove = fields.list("remove", |cursor| {
            let name = cursor.filled()?;
            fixed_header(&name, cursor, request)
        });
        fields.done();
        Some(Self {
            set,
            add,
            remove,
            authority,
        })
    }
}

/// A header that may be added or removed: every request has one host, always.
fn fixed_header(name: &str, cursor: &Cursor<'_>, request: bool) -> Option<HeaderName> {
    let name = named_header(name, cursor)?;
    if request && name == http::header::HOST {
        cursor.error("the host can only be set");
        return None;
    }
    Some(name)
}
