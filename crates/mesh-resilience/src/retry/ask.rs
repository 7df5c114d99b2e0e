//! What a request's own headers ask of retries. Pure.
//!
//! Envoy's router reads them beside the route's policy and takes them out
//! (`RetryStateImpl::create`): conditions, status codes and header names add to the policy's, the
//! number of retries replaces it. Names and numbers that cannot be read are passed over.

use super::decide::Conditions;
use crate::like::is_like;
use crate::limits::{HEDGE, has_envoy_headers};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use mesh_core::model::{Retry, RetryOn};

const ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");

/// Envoy's `num_retries` where there are conditions and no policy.
const DEFAULT_RETRIES: u32 = 1;

/// What is done for one request: conditions and number of retries.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) conditions: Conditions,
    pub(super) retries: u32,
    /// Whether the policy or the request asks for retries at all, of this request or not: that is
    /// enough for an attempt that is late to get another beside it.
    pub(super) asked: bool,
}

// === impl Wanted ===

impl Wanted {
    /// What the policy alone says.
    pub(super) fn by_policy(policy: Option<&Retry>) -> Self {
        let conditions = Conditions {
            on: policy.map(|policy| policy.on).unwrap_or_default(),
            ..Conditions::default()
        };
        Self {
            asked: !conditions.is_empty(),
            conditions,
            retries: policy.map_or(DEFAULT_RETRIES, |policy| policy.attempts),
        }
    }

    /// What the policy and the request's headers say. The headers are taken out.
    pub(super) fn take(policy: Option<&Retry>, headers: &mut HeaderMap) -> Self {
        let mut wanted = Self::by_policy(policy);
        if !has_envoy_headers(headers, is_about_retries) {
            return wanted;
        }
        let conditions = &mut wanted.conditions;
        if let Some(value) = headers.remove(ON) {
            wanted.asked = true;
            list(&value).for_each(|name| add(conditions, name, false));
        }
        if let Some(value) = headers.remove(GRPC_ON) {
            wanted.asked = true;
            list(&value).for_each(|name| add(conditions, name, true));
        }
        if let Some(value) = headers.remove(STATUS_CODES) {
            conditions
                .status_codes
                .extend(list(&value).filter_map(|code| code.parse::<u16>().ok()));
        }
        if let Some(value) = headers.remove(HEADER_NAMES) {
            conditions
                .headers
                .extend(list(&value).filter_map(|name| name.parse::<HeaderName>().ok()));
        }
        if let Some(value) = headers.remove(MAX)
            && let Some(retries) = list(&value).next().and_then(|text| text.parse().ok())
        {
            wanted.retries = retries;
        }
        headers.remove(HEDGE);
        wanted
    }

    /// Asks for nothing where the policy wants requests to be like something that this one is not
    /// (Envoy `retriable_request_headers`), whatever the request itself asks for.
    pub(super) fn only_of<B>(mut self, policy: Option<&Retry>, request: &Request<B>) -> Self {
        let wants = policy.map_or(&[][..], |policy| &policy.request_headers);
        if !wants.is_empty() && !wants.iter().any(|want| is_like(request, want)) {
            self.conditions.on = RetryOn::default();
        }
        self
    }

    /// Whether nothing is ever tried again for. With conditions and no retries left the request is
    /// told that it met their limit, as in Envoy.
    pub(super) fn is_nothing(&self) -> bool {
        self.conditions.is_empty()
    }
}

/// Whether this is the end of one of the names that are looked for.
fn is_about_retries(rest: &str) -> bool {
    matches!(
        rest,
        "retry-on"
            | "retry-grpc-on"
            | "max-retries"
            | "retriable-status-codes"
            | "retriable-header-names"
            | "hedge-on-per-try-timeout"
    )
}

/// The parts of a comma-separated value. One that is not text has none.
fn list(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn add(conditions: &mut Conditions, name: &str, grpc: bool) {
    if let Some(condition) = RetryOn::named(name)
        && is_grpc(condition) == grpc
    {
        conditions.on = conditions.on.with(condition);
    }
}

/// Whether a condition belongs to `x-envoy-retry-grpc-on`.
fn is_grpc(condition: RetryOn) -> bool {
    [
        RetryOn::GRPC_CANCELLED,
        RetryOn::GRPC_DEADLINE_EXCEEDED,
        RetryOn::GRPC_INTERNAL,
        RetryOn::GRPC_RESOURCE_EXHAUSTED,
        RetryOn::GRPC_UNAVAILABLE,
    ]
    .into_iter()
    .any(|grpc| condition.has(grpc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HOST;
    use mesh_core::model::StringMatch;
    use mesh_core::model::{HeaderKey, HeaderMatch};
    use proptest::prelude::*;

    fn policy(attempts: u32, on: RetryOn) -> Retry {
        let mut policy = Retry::default();
        policy.attempts = attempts;
        policy.on = on;
        policy
    }

    fn take(policy: Option<&Retry>, pairs: &[(HeaderName, &str)]) -> Wanted {
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        headers.insert("x-mine", HeaderValue::from_static("kept"));
        let wanted = Wanted::take(policy, &mut headers);
        assert_eq!(
            headers.len(),
            1,
            "all of them are taken out, and nothing else"
        );
        wanted
    }

    #[test]
    fn conditions_of_the_header_add_to_the_policys() {
        let policy = policy(2, RetryOn::CONNECT_FAILURE);
        let wanted = take(
            Some(&policy),
            &[
                (ON, " 5xx, ,nonsense,retriable-4xx"),
                (GRPC_ON, "cancelled"),
            ],
        );
        let names: Vec<_> = wanted.conditions.on.names().collect();
        assert_eq!(
            names,
            ["5xx", "connect-failure", "retriable-4xx", "cancelled"]
        );
        assert_eq!(wanted.retries, 2);
    }

    #[test]
    fn each_header_takes_its_own_kind_of_condition() {
        let wanted = take(None, &[(ON, "cancelled"), (GRPC_ON, "5xx")]);
        assert!(wanted.is_nothing());
    }

    #[test]
    fn without_a_policy_a_header_gets_one_retry() {
        let wanted = take(None, &[(ON, "5xx")]);
        assert_eq!(wanted.retries, 1);
        assert!(take(None, &[]).is_nothing());
    }

    #[test]
    fn the_number_of_retries_is_replaced_upward_and_downward() {
        let policy = policy(2, RetryOn::SERVER_ERROR);
        for (asked, expected) in [("5", 5), ("1", 1), ("0", 0), ("many", 2), ("-1", 2)] {
            assert_eq!(
                take(Some(&policy), &[(MAX, asked)]).retries,
                expected,
                "{asked}"
            );
        }
    }

    #[test]
    fn status_codes_and_header_names_are_lists() {
        let wanted = take(
            None,
            &[
                (ON, "retriable-status-codes,retriable-headers"),
                (STATUS_CODES, "409, x, 418,70000"),
                (HEADER_NAMES, "X-One, not a name ,x-two"),
                (HEDGE, "true"),
            ],
        );
        assert_eq!(wanted.conditions.status_codes, [409, 418]);
        assert_eq!(wanted.conditions.headers, ["x-one", "x-two"]);
        assert!(wanted.conditions.on.has(RetryOn::RETRIABLE_HEADERS));
    }

    #[test]
    fn only_requests_that_are_like_what_the_policy_wants_are_tried_again() {
        let text = |key, text: &str| HeaderMatch::text(key, StringMatch::Exact(text.to_owned()));
        let request = Request::put("/a?b")
            .header(HOST, "one.test")
            .header("x-mine", "no")
            .header("x-mine", "yes")
            .body(())
            .unwrap();
        let mine = || HeaderKey::Header(HeaderName::from_static("x-mine"));
        let other = HeaderKey::Header(HeaderName::from_static("x-other"));
        let mut policy = policy(2, RetryOn::SERVER_ERROR);
        let nothing = |policy: &Retry, request: &Request<()>| {
            let wanted = Wanted::by_policy(Some(policy));
            wanted.only_of(Some(policy), request).is_nothing()
        };
        assert!(!nothing(&policy, &request), "nothing is wanted of it");
        for (want, like) in [
            (text(HeaderKey::Method, "PUT"), true),
            (text(HeaderKey::Method, "GET"), false),
            (text(HeaderKey::Path, "/a?b"), true),
            (text(HeaderKey::Authority, "one.test"), true),
            (text(HeaderKey::Header(HOST), "one.test"), true),
            (text(HeaderKey::Scheme, "http"), true),
            (text(HeaderKey::Scheme, "https"), false),
            (text(mine(), "yes"), true),
            (text(mine(), "no,yes"), false),
            (text(other.clone(), ""), false),
        ] {
            policy.request_headers = vec![want.clone()];
            assert_eq!(!nothing(&policy, &request), like, "{want:?}");
            policy.request_headers.push(text(mine(), "no"));
            assert!(!nothing(&policy, &request), "any of them will do");
        }
        let mut asked = take(Some(&policy), &[(ON, "reset")]);
        policy.request_headers = vec![text(other, "x")];
        asked = asked.only_of(Some(&policy), &request);
        assert!(asked.is_nothing(), "whatever the request asks for");
    }

    proptest! {
        #[test]
        fn no_header_value_upsets_the_parser(bytes in prop::collection::vec(32..=255_u8, 0..40)) {
            prop_assume!(!bytes.contains(&127));
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            let mut headers: HeaderMap = [ON, GRPC_ON, MAX, STATUS_CODES, HEADER_NAMES]
                .into_iter()
                .map(|name| (name, value.clone()))
                .collect();
            Wanted::take(None, &mut headers);
            prop_assert!(headers.is_empty());
        }
    }
}
