//! What CORS makes of a request. Pure (Envoy `cors_filter.cc`, checked against Envoy 1.40).

use crate::head::with_header;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use mesh_core::model::Cors;
use mesh_core::reply::Answer;

/// What is done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// Not a cross-origin request.
    Ignore,
    /// The origin is not known; the request goes on and its response says nothing.
    Unknown,
    /// The request goes on, and these headers are set on its response.
    Actual(Vec<(HeaderName, HeaderValue)>),
    /// Answered here.
    Preflight {
        answer: Answer,
        /// Whether the origin is known.
        valid: bool,
    },
}

/// What a rule says of cross-origin requests, and its virtual host where the rule says nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels<'a> {
    closest: &'a Cors,
    other: Option<&'a Cors>,
}

// === impl Levels ===

impl<'a> Levels<'a> {
    pub(crate) fn one(policy: &'a Cors) -> Self {
        Self {
            closest: policy,
            other: None,
        }
    }

    /// Those that are there, the closest first.
    pub(crate) fn of(rule: Option<&'a Cors>, host: Option<&'a Cors>) -> Option<Self> {
        match (rule, host) {
            (Some(closest), other) => Some(Self { closest, other }),
            (None, other) => other.map(Self::one),
        }
    }

    /// A field of the closest policy that says anything, if one does.
    fn given<T>(&self, field: impl Fn(&'a Cors) -> Option<T>) -> Option<T> {
        field(self.closest).or_else(|| self.other.and_then(field))
    }

    /// The same of a header.
    fn text(&self, field: impl Fn(&'a Cors) -> &'a String) -> Option<HeaderValue> {
        let text = self.given(|policy| Some(field(policy)).filter(|text| !text.is_empty()));
        text.and_then(|text| HeaderValue::try_from(text).ok())
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let origins = self.given(|policy| {
            let origins = &policy.allow_origins[..];
            (!origins.is_empty()).then_some(origins)
        });
        origins.unwrap_or_default().iter().any(|allowed| {
            // A pattern that matches a star allows everyone.
            allowed.matches(b"*") || allowed.matches(origin)
        })
    }

    fn with_credentials(&self) -> bool {
        self.given(|policy| policy.allow_credentials)
            .unwrap_or(false)
    }

    fn forwards_unmatched(&self) -> bool {
        self.given(|policy| policy.forward_unmatched_preflights)
            .unwrap_or(true)
    }
}

// === impl Decision ===

impl Decision {
    /// Whether the request's origin is known; none if it has no origin.
    pub(crate) fn origin_is_valid(&self) -> Option<bool> {
        match self {
            Self::Ignore => None,
            Self::Unknown => Some(false),
            Self::Actual(_) => Some(true),
            Self::Preflight { valid, .. } => Some(*valid),
        }
    }
}

pub(crate) fn decide(policy: &Levels<'_>, method: &Method, headers: &HeaderMap) -> Decision {
    let Some(origin) = given(headers, &ORIGIN) else {
        return Decision::Ignore;
    };
    let valid = policy.allows(origin.as_bytes());
    let requested = given(headers, &ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = requested.filter(|_| *method == Method::OPTIONS);
    match preflight {
        Some(_) if !valid && policy.forwards_unmatched() => Decision::Unknown,
        Some(requested) => Decision::Preflight {
            answer: answer(policy, headers, valid.then_some(origin), requested),
            valid,
        },
        None if valid => Decision::Actual(allowed(policy, origin)),
        None => Decision::Unknown,
    }
}

/// What goes on the responses to an origin that is known, preflights included.
fn allowed(policy: &Levels<'_>, origin: HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
    if policy.with_credentials() {
        let yes = HeaderValue::from_static("true");
        headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
    }
    let exposed = policy.text(|policy| &policy.expose_headers);
    headers.extend(exposed.map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)));
    headers
}

fn answer(
    policy: &Levels<'_>,
    headers: &HeaderMap,
    origin: Option<HeaderValue>,
    method: HeaderValue,
) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    if policy.with_credentials() {
        let yes = HeaderValue::from_static("true");
        answer.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    if let Some(methods) = policy.text(|policy| &policy.allow_methods) {
        let methods = if methods == "*" { method } else { methods };
        answer.headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(mut names) = policy.text(|policy| &policy.allow_headers) {
        if names == "*" {
            // Without any in the request the answer's header is there, and empty.
            names = given(headers, &ACCESS_CONTROL_REQUEST_HEADERS)
                .unwrap_or_else(|| HeaderValue::from_static(""));
        }
        answer.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    if let Some(age) = policy.text(|policy| &policy.max_age) {
        answer.headers.insert(ACCESS_CONTROL_MAX_AGE, age);
    }
    for (name, value) in origin
        .into_iter()
        .flat_map(|origin| allowed(policy, origin))
    {
        answer.headers.insert(name, value);
    }
    answer
}

/// A request header that is there and not empty; several values joined with `,`.
fn given(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    with_header(headers, name, |value| {
        let value = value.filter(|value| !value.is_empty())?;
        HeaderValue::from_bytes(value).ok()
    })
}
