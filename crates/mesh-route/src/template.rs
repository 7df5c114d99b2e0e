//! Values of header templates: `%OPERATOR%`s filled in from the exchange and the messages.
//!
//! An operator without a value leaves nothing in a longer text, and a header that comes out empty
//! is not put on at all (Envoy 1.40; its access log prints `-` instead). `%RESPONSE_CODE%` is 0
//! and the flags are `-` as long as there is no response.

mod asked;

pub(crate) use asked::{Asked, Kept};

use http::{HeaderMap, HeaderValue, StatusCode, Version};
use mesh_core::model::{HeaderAdd, HeaderTemplate, Piece};
use mesh_core::{Caller, Exchange, Matched, WallClock};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What templates are filled in from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) exchange: Option<&'a Exchange>,
    /// The version of the request.
    pub(crate) version: Version,
    pub(crate) clock: &'a WallClock,
    /// What is known of the response.
    pub(crate) response: Response,
}

/// What is known of the response.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Response {
    /// Nothing yet.
    None,
    /// It came from upstream.
    Upstream(StatusCode),
    /// We make it ourselves. Its status is not known to Envoy's templates.
    Local,
}

// === impl Facts ===

impl Facts<'_> {
    /// The value of a header; none if it is empty and need not be kept, or cannot stand in one.
    pub(crate) fn value(
        &self,
        edit: &HeaderAdd,
        asked: Asked<'_>,
        response: Option<&HeaderMap>,
    ) -> Option<HeaderValue> {
        let pieces = match &edit.value {
            HeaderTemplate::Fixed(value) => {
                return (edit.keep_empty || !value.is_empty()).then(|| value.clone());
            }
            HeaderTemplate::Pieces(pieces) => pieces,
        };
        let mut text = Vec::new();
        for piece in pieces {
            self.write(piece, asked, response, &mut text);
        }
        (edit.keep_empty || !text.is_empty())
            .then(|| HeaderValue::from_bytes(&text).ok())
            .flatten()
    }

    /// Writes the value of a piece. False where it names a header that is not there.
    pub(crate) fn write(
        &self,
        piece: &Piece,
        asked: Asked<'_>,
        response: Option<&HeaderMap>,
        out: &mut Vec<u8>,
    ) -> bool {
        match piece {
            Piece::RequestHeader(name) => asked.header(name, out),
            Piece::RequestPart(key) => asked.part(key, self.exchange, out),
            Piece::ResponseHeader(name) => {
                let value = response.and_then(|response| response.get(name));
                out.extend_from_slice(value.map_or(b"", HeaderValue::as_bytes));
                value.is_some()
            }
            Piece::FirstOf(first, second) => {
                self.write(first, asked, response, out) || self.write(second, asked, response, out)
            }
            Piece::Shortened(piece, length) => {
                let start = out.len();
                let there = self.write(piece, asked, response, out);
                out.truncate(start.saturating_add(*length));
                there
            }
            other => {
                out.extend_from_slice(self.text(other).as_bytes());
                true
            }
        }
    }

    fn text(&self, piece: &Piece) -> String {
        let caller = self.exchange.map(Exchange::caller);
        let matched = self.exchange.and_then(Exchange::matched);
        match piece {
            Piece::Text(text) => text.clone(),
            Piece::DownstreamRemoteAddress => {
                address(caller, |_| self.remote().map(|remote| remote.to_string()))
            }
            Piece::DownstreamRemoteAddressWithoutPort => address(caller, |_| {
                self.remote().map(|remote| remote.ip().to_string())
            }),
            Piece::DownstreamLocalAddress => {
                address(caller, |caller| caller.local.map(|local| local.to_string()))
            }
            Piece::Protocol => protocol(self.version).to_owned(),
            Piece::ResponseCode => match self.response {
                Response::Upstream(status) => status.as_str().to_owned(),
                Response::None | Response::Local => "0".to_owned(),
            },
            Piece::ResponseFlags => self
                .exchange
                .map(Exchange::flags)
                .unwrap_or_default()
                .to_string(),
            Piece::ResponseCodeDetails => self.details(),
            Piece::RouteName => shown(matched.map(|matched| &matched.rule().name)),
            Piece::UpstreamHost => self.upstream(),
            Piece::UpstreamCluster => matched.map(cluster).unwrap_or_default(),
            Piece::UpstreamRequestAttemptCount => {
                let told = |exchange: &Exchange| {
                    exchange.with_notes(|notes| exchange.attempts_told(notes))
                };
                let told = self.exchange.map(told).unwrap_or_default();
                // A request is written with the first of them in mind.
                let least = u32::from(matches!(self.response, Response::None));
                told.max(least).to_string()
            }
            Piece::StartTime => rfc3339(self.started()),
            _ => String::new(),
        }
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.exchange.and_then(Exchange::remote)
    }

    fn details(&self) -> String {
        let noted = self
            .exchange
            .and_then(|exchange| exchange.with_notes(|notes| notes.details.clone()));
        match (noted, self.response) {
            (Some(details), _) => details.into_owned(),
            (None, Response::Upstream(_)) => "via_upstream".to_owned(),
            (None, _) => String::new(),
        }
    }

    fn upstream(&self) -> String {
        let Some(exchange) = self.exchange else {
            return String::new();
        };
        exchange.with_notes(|notes| match &notes.upstream {
            Some(upstream) => match upstream.remote {
                Some(remote) => remote.to_string(),
                None => upstream.endpoint.address.as_envoy().to_string(),
            },
            None => String::new(),
        })
    }

    fn started(&self) -> SystemTime {
        let now = self.clock.now();
        let Some(exchange) = self.exchange else {
            return now;
        };
        let age = tokio::time::Instant::now()
            .into_std()
            .saturating_duration_since(exchange.started());
        now.checked_sub(age).unwrap_or(now)
    }
}

/// The name that statistics know the cluster by. Nothing for one that is not there, as in Envoy,
/// which tells what it found and not what a route asked for.
fn cluster(matched: &Matched) -> String {
    let Some(known) = matched.cluster() else {
        return String::new();
    };
    let stat_name = known.config().stat_name.as_ref();
    shown(stat_name.or_else(|| matched.cluster_name()))
}

/// An address of the caller's connection. Where there is none, the path of the Unix domain socket
/// that it came in on, as in Envoy.
fn address(caller: Option<&Caller>, of: impl FnOnce(&Caller) -> Option<String>) -> String {
    let Some(caller) = caller else {
        return String::new();
    };
    of(caller).unwrap_or_else(|| shown(caller.unix.as_ref()))
}

fn shown(value: Option<impl fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// A time in UTC with milliseconds, e.g. `2026-11-21T02:59:27.720Z`. Before 1970 it is 1970.
fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (mut year, mut day) = (1970, days);
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let february = days_of_year(year) - 337;
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let mut text = String::with_capacity(24);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        day + 1,
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    );
    text
}

fn days_of_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use mesh_core::exchange::Upstream;
    use mesh_core::model::{
        Action, AddMode, Cluster, Condition, Endpoint, EndpointSet, Forward, Rule,
    };
    use mesh_core::{Caller, Error, Failure, Pinned};
    use mesh_test::fixture;

    fn facts<'a>(exchange: Option<&'a Exchange>, clock: &'a WallClock) -> Facts<'a> {
        Facts {
            exchange,
            version: Version::HTTP_2,
            clock,
            response: Response::None,
        }
    }

    fn edit(value: HeaderTemplate) -> HeaderAdd {
        HeaderAdd {
            name: HeaderName::from_static("x-a"),
            value,
            mode: AddMode::Append,
            keep_empty: false,
        }
    }

    fn filled(facts: &Facts<'_>, piece: Piece) -> Option<String> {
        let around = [Piece::Text("[".into()), piece, Piece::Text("]".into())];
        let edit = edit(HeaderTemplate::Pieces(around.to_vec()));
        let value = facts.value(&edit, Asked::Nothing, None)?;
        value.to_str().ok().map(str::to_owned)
    }

    #[test]
    fn a_cluster_that_is_not_there_has_no_name() {
        let clock = WallClock::fixed(Duration::from_secs(1));
        let forward = || {
            let to = Action::Forward(Forward::to("wanted"));
            Rule::new(Condition::default(), to)
        };
        let missing = fixture::exchange(forward(), None);
        assert_eq!(
            filled(&facts(Some(&missing), &clock), Piece::UpstreamCluster).as_deref(),
            Some("[]")
        );
        let there = fixture::exchange(forward(), Some(Cluster::new("wanted")));
        assert_eq!(
            filled(&facts(Some(&there), &clock), Piece::UpstreamCluster).as_deref(),
            Some("[wanted]")
        );
    }

    #[test]
    fn a_request_tells_of_one_attempt_and_an_answer_of_those_that_there_were() {
        let clock = WallClock::default();
        let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
        let number = |response| {
            let facts = Facts {
                response,
                ..facts(Some(&exchange), &clock)
            };
            filled(&facts, Piece::UpstreamRequestAttemptCount)
        };
        assert_eq!(number(Response::None).as_deref(), Some("[1]"));
        assert_eq!(number(Response::Local).as_deref(), Some("[0]"));
        exchange.set_answer_is_counted();
        let _ = exchange.for_attempt();
        assert_eq!(number(Response::Local).as_deref(), Some("[2]"));
        let fine = Response::Upstream(StatusCode::OK);
        assert_eq!(number(fine).as_deref(), Some("[2]"));
    }

    #[test]
    fn without_an_exchange_operators_leave_nothing_in_a_text() {
        let clock = WallClock::fixed(Duration::from_millis(1_795_229_967_720));
        let facts = facts(None, &clock);
        for (piece, expected) in [
            (Piece::RequestHeader(http::header::HOST), "[]"),
            (Piece::ResponseHeader(http::header::HOST), "[]"),
            (Piece::DownstreamRemoteAddress, "[]"),
            (Piece::DownstreamRemoteAddressWithoutPort, "[]"),
            (Piece::DownstreamLocalAddress, "[]"),
            (Piece::Protocol, "[HTTP/2]"),
            (Piece::ResponseCode, "[0]"),
            (Piece::ResponseFlags, "[-]"),
            (Piece::ResponseCodeDetails, "[]"),
            (Piece::RouteName, "[]"),
            (Piece::UpstreamHost, "[]"),
            (Piece::UpstreamCluster, "[]"),
            (Piece::UpstreamRequestAttemptCount, "[1]"),
            (Piece::StartTime, "[2026-11-21T02:59:27.720Z]"),
        ] {
            assert_eq!(
                filled(&facts, piece.clone()).as_deref(),
                Some(expected),
                "{piece:?}"
            );
        }
    }

    #[test]
    fn a_header_that_comes_out_empty_or_cannot_be_sent_is_none() {
        let clock = WallClock::default();
        let facts = facts(None, &clock);
        let value = |template| facts.value(&edit(template), Asked::Nothing, None);
        let missing = vec![Piece::RequestHeader(http::header::HOST)];
        assert_eq!(value(HeaderTemplate::Pieces(missing)), None);
        assert_eq!(
            value(HeaderTemplate::Fixed(HeaderValue::from_static(""))),
            None
        );
        let broken = vec![Piece::Text("a\nb".into())];
        assert_eq!(value(HeaderTemplate::Pieces(broken.clone())), None);

        let kept = |template| {
            let keep = HeaderAdd {
                keep_empty: true,
                ..edit(template)
            };
            facts.value(&keep, Asked::Nothing, None)
        };
        let empty = Some(HeaderValue::from_static(""));
        let missing = vec![Piece::RequestHeader(http::header::HOST)];
        assert_eq!(kept(HeaderTemplate::Pieces(missing)), empty);
        assert_eq!(
            kept(HeaderTemplate::Fixed(HeaderValue::from_static(""))),
            empty
        );
        assert_eq!(kept(HeaderTemplate::Pieces(broken)), None);
    }

    #[test]
    fn a_caller_on_a_unix_socket_is_called_as_the_socket_is() {
        let mut caller = Caller::default();
        caller.unix = Some(mesh_core::model::UnixPath::new("/run/a.sock").unwrap());
        let text = |caller: &Caller, piece| {
            let now = tokio::time::Instant::now().into_std();
            let exchange = Exchange::new(now, caller.clone());
            let clock = WallClock::default();
            let facts = facts(Some(&exchange), &clock);
            let edit = edit(HeaderTemplate::Pieces(vec![piece]));
            let value = facts.value(&edit, Asked::Nothing, None);
            value.unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(text(&caller, Piece::DownstreamRemoteAddress), "/run/a.sock");
        assert_eq!(text(&caller, Piece::DownstreamLocalAddress), "/run/a.sock");
        // Where the PROXY protocol says who calls, that is said.
        caller.peer = Some("10.0.0.1:1".parse().unwrap());
        let alone = Piece::DownstreamRemoteAddressWithoutPort;
        assert_eq!(text(&caller, alone), "10.0.0.1");
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_fills_in_what_it_knows() {
        let mut rule = Rule::prefix_to("/", "a");
        rule.name = "the-rule".into();
        let mut config = Cluster::new("a");
        config.stat_name = Some("short".into());
        let snapshot = fixture::snapshot(vec![rule], vec![config]);
        let mut caller = Caller::default();
        caller.peer = Some("10.0.0.1:1234".parse().unwrap());
        caller.local = Some("10.0.0.2:80".parse().unwrap());
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0).to(None, Some(0));
        exchange.set_matched(matched);
        let set = EndpointSet::of([fixture::address("10.0.0.3:9080")]);
        let endpoint: &std::sync::Arc<Endpoint> = &set.localities[0].endpoints[0];
        exchange.set_upstream(Upstream::new(endpoint.clone()));
        tokio::time::advance(Duration::from_millis(720)).await;

        let clock = WallClock::fixed(Duration::from_millis(1_720));
        let mut facts = facts(Some(&exchange), &clock);
        facts.response = Response::Upstream(StatusCode::CREATED);
        for (piece, expected) in [
            (Piece::DownstreamRemoteAddress, "[10.0.0.1:1234]"),
            (Piece::DownstreamRemoteAddressWithoutPort, "[10.0.0.1]"),
            (Piece::DownstreamLocalAddress, "[10.0.0.2:80]"),
            (Piece::ResponseCode, "[201]"),
            (Piece::ResponseFlags, "[-]"),
            (Piece::ResponseCodeDetails, "[via_upstream]"),
            (Piece::RouteName, "[the-rule]"),
            (Piece::UpstreamHost, "[10.0.0.3:9080]"),
            (Piece::UpstreamCluster, "[short]"),
            (Piece::StartTime, "[1970-01-01T00:00:01.000Z]"),
        ] {
            assert_eq!(
                filled(&facts, piece.clone()).as_deref(),
                Some(expected),
                "{piece:?}"
            );
        }
        exchange.note_error(&Error::new(Failure::NoHealthyHost));
        facts.response = Response::Local;
        let details = filled(&facts, Piece::ResponseCodeDetails);
        assert_eq!(details.as_deref(), Some("[no_healthy_upstream]"));
        assert_eq!(
            filled(&facts, Piece::ResponseFlags).as_deref(),
            Some("[UH]")
        );
        assert_eq!(filled(&facts, Piece::ResponseCode).as_deref(), Some("[0]"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339(time), expected);
        }
    }
}
