//! Whether a result calls for another attempt. Pure.
//!
//! The conditions are those of Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`
//! (`source/common/router/retry_state_impl.cc`).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_core::model::{HeaderKey, HeaderMatch, Retry, RetryOn};
use mesh_core::{Error, Failure, RetryClass, seldom};
use std::error::Error as _;

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What one request's attempts are made again for.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) on: RetryOn,
    /// Status codes that the request named, besides the policy's.
    pub(super) status_codes: Vec<u16>,
    /// Response headers that the request named, besides the policy's.
    pub(super) headers: Vec<HeaderName>,
}

// === impl Conditions ===

impl Conditions {
    pub(super) fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// Whether a response with this head is one to try again for.
    pub(super) fn meet_head(
        &self,
        policy: &Retry,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> bool {
        // Comes from a rate limit further on: trying again makes it worse, unless asked for. Looked
        // for only where it decides.
        let limited = || headers.contains_key(RATE_LIMITED);
        if self.on.has(RetryOn::RATE_LIMITED) {
            return limited() || self.meets(policy, status, headers);
        }
        self.meets(policy, status, headers) && !limited()
    }

    fn meets(&self, policy: &Retry, status: StatusCode, headers: &HeaderMap) -> bool {
        let code = status.as_u16();
        let named = || policy.status_codes.contains(&code) || self.status_codes.contains(&code);
        let header = || {
            let by_name = self.headers.iter().any(|name| headers.contains_key(name));
            by_name || policy.headers.iter().any(|one| has(headers, one))
        };
        (self.on.has(RetryOn::SERVER_ERROR) && status.is_server_error())
            || (self.on.has(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && status == StatusCode::CONFLICT)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES) && named())
            || (self.on.has(RetryOn::RETRIABLE_HEADERS) && header())
            || grpc_condition(headers).is_some_and(|condition| self.on.has(condition))
    }

    /// Whether an attempt that failed like this is one to try again for.
    pub(super) fn meet_error(&self, error: &Error) -> bool {
        if class(error) == RetryClass::Never {
            return false;
        }
        // Envoy counts a reset as the 503 that it would become.
        let any_reset = RetryOn::SERVER_ERROR
            .with(RetryOn::GATEWAY_ERROR)
            .with(RetryOn::RESET);
        self.on.has(any_reset)
            || (self.on.has(RetryOn::RESET_BEFORE_REQUEST) && is_unsent(error))
            || match error.failure() {
                Failure::ConnectFailed | Failure::ConnectTimeout => {
                    self.on.has(RetryOn::CONNECT_FAILURE)
                }
                Failure::RemoteRefused => self.on.has(RetryOn::REFUSED_STREAM),
                _ => false,
            }
    }
}

/// Whether an answer's headers are as they have to be.
fn has(headers: &HeaderMap, want: &HeaderMatch) -> bool {
    let HeaderKey::Header(name) = &want.key else {
        // An answer has no method, authority, scheme or path.
        return want.holds([]);
    };
    want.holds(headers.get_all(name).iter().map(HeaderValue::as_bytes))
}

/// Whether no byte of the request went out. One that was refused did go out, even if the server
/// did nothing about it.
fn is_unsent(error: &Error) -> bool {
    error.is_unsent() && error.failure() != Failure::RemoteRefused
}

/// An error that is not ours says nothing about itself: to us it is a reset of unknown kind.
/// A fault of ours has no cause.
fn class(error: &Error) -> RetryClass {
    if error.failure() == Failure::Internal && error.source().is_some() {
        return RetryClass::Policy;
    }
    error.failure().row().retry
}

/// The condition for the gRPC status in a response's head, where there is one.
fn grpc_condition(headers: &HeaderMap) -> Option<RetryOn> {
    let condition = match seldom::get(headers, &GRPC_STATUS)?.as_bytes() {
        b"1" => RetryOn::GRPC_CANCELLED,
        b"4" => RetryOn::GRPC_DEADLINE_EXCEEDED,
        b"8" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        b"13" => RetryOn::GRPC_INTERNAL,
        b"14" => RetryOn::GRPC_UNAVAILABLE,
        _ => return None,
    };
    Some(condition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::StringMatch;
    use proptest::prelude::*;

    fn on(names: &[&str]) -> Conditions {
        let on = names
            .iter()
            .map(|name| RetryOn::named(name).unwrap())
            .fold(RetryOn::default(), RetryOn::with);
        Conditions {
            on,
            ..Conditions::default()
        }
    }

    fn head(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    /// Every condition and the status codes that it fires on.
    #[test]
    fn each_condition_fires_on_its_status_codes_and_no_others() {
        let mut policy = Retry::default();
        policy.status_codes = vec![404, 429];
        for (name, expected) in [
            ("5xx", &[500, 501, 502, 503, 504, 599][..]),
            ("gateway-error", &[502, 503, 504]),
            ("retriable-4xx", &[409]),
            ("retriable-status-codes", &[404, 429]),
            ("reset", &[]),
            ("reset-before-request", &[]),
            ("connect-failure", &[]),
            ("refused-stream", &[]),
            ("envoy-ratelimited", &[]),
            ("unavailable", &[]),
        ] {
            let conditions = on(&[name]);
            for code in 100..600 {
                let status = StatusCode::from_u16(code).unwrap();
                let met = conditions.meet_head(&policy, status, &HeaderMap::new());
                let expected =
                    expected.contains(&code) || (name == "5xx" && (500..600).contains(&code));
                assert_eq!(met, expected, "{name} {code}");
            }
        }
    }

    /// Every condition and the failures that it fires on.
    #[test]
    fn each_condition_fires_on_its_failures_and_no_others() {
        use Failure::*;
        let resets = [
            ConnectFailed,
            ConnectTimeout,
            ConnectionTermination,
            RemoteReset,
            RemoteRefused,
            LocalReset,
            UpstreamProtocol,
            TryTimeout,
            TryIdleTimeout,
        ];
        for (name, expected) in [
            ("5xx", &resets[..]),
            ("gateway-error", &resets),
            ("reset", &resets),
            ("reset-before-request", &[ConnectFailed, ConnectTimeout]),
            ("connect-failure", &[ConnectFailed, ConnectTimeout]),
            ("refused-stream", &[RemoteRefused]),
            ("retriable-4xx", &[]),
            ("retriable-status-codes", &[]),
            ("cancelled", &[]),
        ] {
            let conditions = on(&[name]);
            for failure in Failure::ALL {
                let met = conditions.meet_error(&Error::new(failure));
                assert_eq!(met, expected.contains(&failure), "{name} {failure:?}");
            }
        }
    }

    #[test]
    fn a_request_that_was_never_sent_may_be_sent_again() {
        let conditions = on(&["reset-before-request"]);
        let stale = Error::new(Failure::ConnectionTermination);
        assert!(!conditions.meet_error(&stale));
        assert!(conditions.meet_error(&stale.unsent()));
    }

    #[test]
    fn an_error_that_is_not_ours_is_a_reset_and_a_fault_of_ours_is_final() {
        let foreign = Error::wrap("connection reset by peer");
        for (name, expected) in [("reset", true), ("5xx", true), ("connect-failure", false)] {
            assert_eq!(on(&[name]).meet_error(&foreign), expected, "{name}");
            assert!(!on(&[name]).meet_error(&Error::new(Failure::Internal)));
        }
    }

    #[test]
    fn grpc_conditions_look_at_the_status_in_the_head() {
        for (name, code) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ] {
            for other in ["0", "1", "2", "4", "8", "13", "14", "nonsense"] {
                let head = head(&[("grpc-status", other)]);
                let met = on(&[name]).meet_head(&Retry::default(), StatusCode::OK, &head);
                assert_eq!(met, code == other, "{name} {other}");
            }
        }
    }

    #[test]
    fn a_rate_limited_answer_is_left_alone_unless_that_was_asked_for() {
        let limited = head(&[("x-envoy-ratelimited", "true")]);
        let policy = Retry::default();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert!(!on(&["5xx"]).meet_head(&policy, unavailable, &limited));
        assert!(on(&["envoy-ratelimited"]).meet_head(&policy, StatusCode::OK, &limited));
    }

    #[test]
    fn what_a_request_names_counts_only_where_its_condition_is_set() {
        let policy = Retry::default();
        let answer = head(&[("x-try-again", "1")]);
        let mut conditions = on(&["retriable-status-codes"]);
        conditions.status_codes = vec![418];
        conditions.headers = vec![HeaderName::from_static("x-try-again")];
        assert!(conditions.meet_head(&policy, StatusCode::IM_A_TEAPOT, &HeaderMap::new()));
        assert!(!conditions.meet_head(&policy, StatusCode::OK, &answer));
        conditions.on = RetryOn::RETRIABLE_HEADERS;
        assert!(conditions.meet_head(&policy, StatusCode::OK, &answer));
        assert!(!conditions.meet_head(&policy, StatusCode::IM_A_TEAPOT, &HeaderMap::new()));
    }

    #[test]
    fn a_policys_headers_are_looked_at_line_by_line() {
        let name = HeaderName::from_static("x-again");
        let exactly = |text: &str| {
            let text = StringMatch::Exact(text.to_owned());
            HeaderMatch::text(HeaderKey::Header(name.clone()), text)
        };
        let mut policy = Retry::default();
        policy.headers = vec![exactly("yes"), exactly("sure")];
        let conditions = on(&["retriable-headers"]);
        let meets = |conditions: &Conditions, policy: &Retry, values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("x-again", *value)).collect();
            conditions.meet_head(policy, StatusCode::OK, &head(&pairs))
        };
        assert!(meets(&conditions, &policy, &["no", "sure"]));
        assert!(!meets(&conditions, &policy, &["yes,sure"]));
        assert!(!meets(&conditions, &policy, &[]));
        assert!(!meets(&on(&["5xx"]), &policy, &["yes"]));
        policy.headers[0].invert = true;
        assert!(meets(&conditions, &policy, &["no"]));
        assert!(
            !meets(&conditions, &policy, &[]),
            "what is missing does not match"
        );
        policy.headers = vec![HeaderMatch::text(
            HeaderKey::Path,
            StringMatch::Prefix(String::new()),
        )];
        assert!(
            !meets(&conditions, &policy, &["yes"]),
            "an answer has no path"
        );
    }

    proptest! {
        /// More conditions never mean fewer retries, and none mean none.
        #[test]
        fn conditions_only_ever_add(
            some in prop::collection::vec(0..RetryOn::NAMES.len(), 0..6),
            more in prop::collection::vec(0..RetryOn::NAMES.len(), 0..6),
            code in 100..600_u16,
            grpc in 0..17_u8,
            limited: bool,
            failure in 0..Failure::ALL.len(),
        ) {
            let set = |bits: &[usize]| bits
                .iter()
                .map(|bit| RetryOn::NAMES[*bit].1)
                .fold(RetryOn::default(), RetryOn::with);
            let with = |on| Conditions { on, ..Conditions::default() };
            let (less, more) = (with(set(&some)), with(set(&some).with(set(&more))));
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_STATUS, HeaderValue::from(u64::from(grpc)));
            if limited {
                headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
            }
            let (policy, status) = (Retry::default(), StatusCode::from_u16(code).unwrap());
            let error = Error::new(Failure::ALL[failure]);
            let head = |c: &Conditions| c.meet_head(&policy, status, &headers);
            prop_assert!(!head(&less) || head(&more));
            prop_assert!(!less.meet_error(&error) || more.meet_error(&error));
            prop_assert!(!head(&Conditions::default()));
            prop_assert!(!Conditions::default().meet_error(&error));
        }
    }
}
