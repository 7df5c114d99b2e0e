//! Which time limits a request has: its rule's, unless its headers say otherwise. Pure.
//!
//! The rules are those of Envoy's router (`FilterUtility::finalTimeout` and
//! `FilterUtility::setTimeoutHeaders` in `source/common/router/router.cc`); zero always means
//! "no limit".

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use mesh_core::model::{Retry, Rule};
use mesh_core::{Exchange, Matched, reply};
use std::sync::Arc;
use std::time::Duration;

/// The caller's own limit for the whole request, in milliseconds.
const TOTAL: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// The caller's own limit for one attempt, in milliseconds.
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
/// What the upstream is told: the time that it has, in milliseconds.
pub(crate) const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time limits of one request.
///
/// Lies in the request's extensions where headers changed what the rule says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For everything from the end of the request to the end of the response.
    pub(crate) total: Option<Duration>,
    /// For the response head of one attempt. Less than `total`.
    pub(crate) per_try: Option<Duration>,
    /// The upstream learns its time from `grpc-timeout` too.
    pub(crate) grpc: bool,
    /// Attempts may overlap: each has as long as the whole.
    pub(crate) hedged: bool,
}

/// Whether a request carries any of Envoy's own headers that `asks` knows by what comes behind
/// `x-envoy-`: one walk over the names instead of a search for each. Most requests upstream have
/// some of the others, which we write ourselves.
pub(crate) fn has_envoy_headers(headers: &HeaderMap, asks: impl Fn(&str) -> bool) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().strip_prefix("x-envoy-").is_some_and(&asks))
}

/// Whether this is one of the headers that ask for a timeout.
pub(crate) fn is_about_timeouts(rest: &str) -> bool {
    rest.starts_with("upstream-rq-")
}

/// How long the stream may last from its arrival: as the rule says, or as the caller of gRPC asks
/// where the rule lets it. The upstream is told (Envoy `refreshDurationTimeout`).
pub(crate) fn stream_limit(rule: &Rule, headers: &mut HeaderMap) -> Option<Duration> {
    let own = rule.max_stream_duration?;
    let asked = rule.max_grpc_timeout.and_then(|most| {
        let asked = headers.get(GRPC).and_then(parse_grpc)?;
        let asked = some(Some(most)).map_or(asked, |most| asked.min(most));
        Some(asked.saturating_sub(rule.grpc_timeout_offset))
    });
    // A caller that asks for no time at all gets none.
    let limit = asked.or_else(|| some(Some(own)))?;
    if reply::is_grpc(headers) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        if let Ok(value) = HeaderValue::try_from(format_grpc(millis)) {
            headers.insert(GRPC, value);
        }
    }
    Some(limit)
}

/// The retry policy in force: the rule's, else its virtual host's.
pub(crate) fn retry_of(matched: &Matched) -> Option<&Arc<Retry>> {
    matched
        .rule()
        .retry
        .as_ref()
        .or(matched.host().retry.as_ref())
}

// === impl Limits ===

impl Limits {
    /// The limits of a request that went through the deadline layer, or else its rule's.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let extensions = request.extensions();
        let exchange = Exchange::of(request);
        // Mostly the exchange is all that there is.
        if extensions.len() > usize::from(exchange.is_some())
            && let Some(limits) = extensions.get()
        {
            return *limits;
        }
        exchange
            .and_then(Exchange::matched)
            .map(|matched| {
                let limits = Self::of_rule(matched.rule(), retry_of(matched).map(|retry| &**retry));
                limits.with_hedge(matched)
            })
            .unwrap_or_default()
    }

    /// With overlapping attempts where the rule or its virtual host has them.
    pub(crate) fn with_hedge(mut self, matched: &Matched) -> Self {
        let hedge = matched.rule().hedge.or(matched.host().hedge);
        self.hedged |= hedge.is_some_and(|hedge| hedge.on_try_timeout);
        self
    }

    /// What the rule says.
    pub(crate) fn of_rule(rule: &Rule, retry: Option<&Retry>) -> Self {
        let limits = Self {
            total: rule.timeout.filter(|_| rule.max_stream_duration.is_none()),
            per_try: retry.and_then(|retry| retry.per_try_timeout),
            grpc: false,
            hedged: false,
        };
        limits.settled()
    }

    /// What the rule and the request's headers say. The headers that ask for a timeout are taken
    /// out, whether they can be read or not.
    pub(crate) fn take(rule: &Rule, retry: Option<&Retry>, headers: &mut HeaderMap) -> Self {
        let mut limits = Self::of_rule(rule, retry);
        // A limit that `of_rule` dropped for being as long as the whole may fit a longer whole.
        limits.per_try = retry.and_then(|retry| retry.per_try_timeout);
        if let Some(most) = rule.max_grpc_timeout
            && rule.max_stream_duration.is_none()
            && reply::is_grpc(headers)
        {
            let asked = headers.get(GRPC).and_then(parse_grpc).map(|asked| {
                // Zero would be for ever.
                let early = Some(rule.grpc_timeout_offset).filter(|offset| *offset < asked);
                asked - early.unwrap_or_default()
            });
            // A call without a timeout may last for ever, unless there is a limit to that.
            limits.total = match (some(asked), some(Some(most))) {
                (Some(asked), Some(most)) => Some(asked.min(most)),
                (asked, most) => asked.or(most),
            };
            limits.grpc = true;
        }
        if !has_envoy_headers(headers, is_about_timeouts) {
            return limits.settled();
        }
        // Only whoever makes attempts takes it out; nothing but `true` says anything, as in Envoy.
        limits.hedged = headers.get(HEDGE).is_some_and(|value| value == "true");
        if let Some(value) = headers.remove(TOTAL)
            && let Some(total) = parse_millis(&value)
        {
            limits.total = Some(total);
        }
        if let Some(value) = headers.remove(PER_TRY)
            && let Some(per_try) = parse_millis(&value)
        {
            limits.per_try = Some(per_try);
        }
        limits.settled()
    }

    /// Zero is no limit, and an attempt's limit has to be shorter than the whole.
    fn settled(self) -> Self {
        let total = some(self.total);
        let per_try = some(self.per_try).filter(|one| total.is_none_or(|all| *one < all));
        Self {
            total,
            per_try,
            ..self
        }
    }

    /// The milliseconds that the upstream has, when `elapsed` have passed since the request ended.
    pub(crate) fn expected(&self, elapsed: Duration) -> Option<u64> {
        let per_try = self.per_try.filter(|_| !self.hedged);
        let expected = per_try.or(self.total)?;
        let left = match self.total {
            None => expected,
            Some(total) => expected.min(total.saturating_sub(elapsed)),
        };
        // Zero would read as "no limit", so the last moment is one millisecond.
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    /// Tells the upstream how much time it has.
    pub(crate) fn write(&self, elapsed: Duration, headers: &mut HeaderMap) {
        self.write_with(elapsed, headers, &mut None);
    }

    /// As `write`; `last` is the value that was written last, which is usually the next one too.
    pub(crate) fn write_with(
        &self,
        elapsed: Duration,
        headers: &mut HeaderMap,
        last: &mut Option<(u64, HeaderValue)>,
    ) {
        let Some(millis) = self.expected(elapsed) else {
            return;
        };
        let (_, value) = match last {
            Some(known) if known.0 == millis => known,
            other => other.insert((millis, HeaderValue::from(millis))),
        };
        headers.insert(EXPECTED, value.clone());
        if self.grpc
            && let Ok(value) = HeaderValue::try_from(format_grpc(millis))
        {
            headers.insert(GRPC, value);
        }
    }
}

fn some(limit: Option<Duration>) -> Option<Duration> {
    limit.filter(|limit| !limit.is_zero())
}

fn parse_millis(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    text.parse().ok().map(Duration::from_millis)
}

/// gRPC's `Timeout`: one to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn parse_grpc(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    // Eight digits of hours are far below what a Duration holds.
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The finest unit in which the number has at most eight digits.
fn format_grpc(millis: u64) -> String {
    const MOST: u64 = 99_999_999;
    let seconds = millis / 1000;
    match millis {
        0..=MOST => format!("{millis}m"),
        _ if seconds <= MOST => format!("{seconds}S"),
        _ if seconds / 60 <= MOST => format!("{}M", seconds / 60),
        _ => format!("{}H", (seconds / 3600).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    fn rule(timeout: Option<Duration>, max_grpc: Option<Duration>) -> Rule {
        let mut rule = Rule::prefix_to("/", "a");
        rule.timeout = timeout;
        rule.max_grpc_timeout = max_grpc;
        rule
    }

    fn retry(per_try: Option<Duration>) -> Retry {
        let mut retry = Retry::default();
        retry.per_try_timeout = per_try;
        retry
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn zero_is_no_limit_and_a_per_try_limit_as_long_as_the_whole_is_ignored() {
        for (total, per_try, expected) in [
            (None, None, (None, None)),
            (ms(0), ms(0), (None, None)),
            (ms(100), ms(30), (ms(100), ms(30))),
            (ms(100), ms(100), (ms(100), None)),
            (ms(100), ms(101), (ms(100), None)),
            (ms(0), ms(101), (None, ms(101))),
        ] {
            let limits = Limits::of_rule(&rule(total, None), Some(&retry(per_try)));
            assert_eq!((limits.total, limits.per_try), expected);
        }
    }

    #[test]
    fn headers_win_over_the_rule_and_are_taken_out() {
        for (total, per_try, expected) in [
            ("50", "10", (ms(50), ms(10))),
            ("0", "10", (None, ms(10))),
            ("500", "", (ms(500), ms(200))),
            ("soon", "later", (ms(100), None)),
            ("-1", "20", (ms(100), ms(20))),
            ("100", "0", (ms(100), None)),
        ] {
            let mut headers = headers(&[(TOTAL, total), (PER_TRY, per_try)]);
            let limits = Limits::take(&rule(ms(100), None), Some(&retry(ms(200))), &mut headers);
            assert_eq!(
                (limits.total, limits.per_try),
                expected,
                "{total} {per_try}"
            );
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn a_grpc_timeout_counts_where_the_rule_allows_it_and_up_to_its_limit() {
        for (most, asked, expected) in [
            (None, Some("1S"), ms(100)),
            (ms(5000), Some("1S"), ms(1000)),
            (ms(5000), Some("9S"), ms(5000)),
            (ms(5000), None, ms(5000)),
            (ms(5000), Some("0S"), ms(5000)),
            (ms(0), Some("9S"), ms(9000)),
            (ms(0), None, None),
            (ms(0), Some("nonsense"), None),
        ] {
            let mut headers = headers(&[(CONTENT_TYPE, "application/grpc")]);
            if let Some(asked) = asked {
                headers.insert(GRPC, HeaderValue::from_static(asked));
            }
            let limits = Limits::take(&rule(ms(100), most), None, &mut headers);
            assert_eq!(limits.total, expected, "{most:?} {asked:?}");
            assert_eq!(limits.grpc, most.is_some());
        }
        let mut plain = headers(&[(GRPC, "1S")]);
        let limits = Limits::take(&rule(ms(100), ms(0)), None, &mut plain);
        assert_eq!(limits.total, ms(100), "not a gRPC request");
    }

    #[test]
    fn a_grpc_timeout_ends_earlier_by_the_offset() {
        let with = |max_stream, most, offset: u64| {
            let mut rule = rule(ms(100), ms(most));
            rule.max_stream_duration = max_stream;
            rule.grpc_timeout_offset = Duration::from_millis(offset);
            rule
        };
        let asking = |asked| headers(&[(CONTENT_TYPE, "application/grpc"), (GRPC, asked)]);
        for (most, offset, asked, expected) in [
            (0, 50, "200m", 150),
            (100, 50, "200m", 100),
            (100, 150, "200m", 50),
            (0, 200, "200m", 200),
            (0, 300, "200m", 200),
        ] {
            let rule = with(None, most, offset);
            let limits = Limits::take(&rule, None, &mut asking(asked));
            assert_eq!(limits.total, ms(expected), "{most} {offset}");
        }
        for (most, offset, asked, expected) in [
            (0, 50, "200m", 150),
            (100, 50, "200m", 50),
            (0, 200, "200m", 0),
            (0, 300, "200m", 0),
        ] {
            let rule = with(ms(0), most, offset);
            let mut headers = asking(asked);
            let limit = stream_limit(&rule, &mut headers);
            assert_eq!(limit, ms(expected), "{most} {offset}");
            assert_eq!(
                headers[GRPC],
                format!("{expected}m"),
                "the upstream is told"
            );
        }
        let mut none = headers(&[(CONTENT_TYPE, "application/grpc")]);
        let own = stream_limit(&with(ms(70), 0, 50), &mut none);
        assert_eq!(own, ms(70), "it is about what the caller asks for");
    }

    #[test]
    fn the_upstream_is_told_the_shorter_limit_less_the_time_that_has_passed() {
        let limits = |total, per_try| Limits {
            hedged: false,
            total,
            per_try,
            grpc: true,
        };
        for (limits, elapsed, expected) in [
            (limits(None, None), 0, None),
            (limits(ms(100), None), 0, Some("100")),
            (limits(ms(100), None), 30, Some("70")),
            (limits(ms(100), None), 100, Some("1")),
            (limits(ms(100), ms(40)), 30, Some("40")),
            (limits(ms(100), ms(40)), 90, Some("10")),
            (limits(None, ms(40)), 9000, Some("40")),
        ] {
            let mut headers = HeaderMap::new();
            limits.write(Duration::from_millis(elapsed), &mut headers);
            let written = headers.get(EXPECTED).map(|value| value.to_str().unwrap());
            assert_eq!(written, expected);
            let grpc = expected.map(|millis| format!("{millis}m"));
            let written = headers.get(GRPC).map(|value| value.to_str().unwrap());
            assert_eq!(written, grpc.as_deref());
        }
    }

    #[test]
    fn what_was_written_last_is_not_told_of_another_limit() {
        let (mut last, mut written) = (None, Vec::new());
        for millis in [100, 100, 70, 100] {
            let limits = Limits {
                total: ms(millis),
                ..Limits::default()
            };
            let mut headers = HeaderMap::new();
            limits.write_with(Duration::ZERO, &mut headers, &mut last);
            written.push(headers[EXPECTED].to_str().unwrap().to_owned());
        }
        assert_eq!(written, ["100", "100", "70", "100"]);
    }

    #[test]
    fn grpc_timeouts_have_at_most_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("999999999S", None),
            ("S", None),
            ("", None),
            ("+1S", None),
            ("1s", None),
            ("1", None),
        ] {
            assert_eq!(
                parse_grpc(&HeaderValue::from_static(text)),
                expected,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_as_a_grpc_timeout_can_be_read_and_is_never_longer(millis: u64) {
            let text = format_grpc(millis);
            prop_assert!(text.len() <= 9);
            let read = parse_grpc(&HeaderValue::from_str(&text).unwrap()).unwrap();
            prop_assert!(read <= Duration::from_millis(millis));
            // Nothing coarser than an hour is lost, up to what eight digits of hours can say.
            if millis < 99_999_999 * 3_600_000 {
                prop_assert!(Duration::from_millis(millis) - read < Duration::from_secs(3600));
            }
        }

        #[test]
        fn no_header_value_upsets_the_parsers(bytes in prop::collection::vec(32..=255_u8, 0..12)) {
            prop_assume!(!bytes.contains(&127));
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            let _ = parse_grpc(&value);
            let _ = parse_millis(&value);
        }
    }
}
