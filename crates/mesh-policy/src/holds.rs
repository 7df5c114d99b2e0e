//! Whether a condition holds. Pure; nothing here allocates.
//!
//! The rules are those of Envoy's `rbac/matchers.cc` and, for headers, of its `HeaderMatcher`.

use crate::facts::{Facts, RequestFacts};
use http::header::HOST;
use mesh_core::Invalid;
use mesh_core::exchange::PeerCertificate;
use mesh_core::model::{Fact, HeaderKey, HeaderMatch, Predicate, StringMatch, ValueMatch};

/// How deep conditions may be in each other.
const MAX_DEPTH: usize = 64;

/// Whether a condition is one that this version can judge.
pub(crate) fn check(predicate: &Predicate) -> Result<(), Invalid> {
    at_depth(predicate, 0)
}

fn at_depth(predicate: &Predicate, depth: usize) -> Result<(), Invalid> {
    if depth > MAX_DEPTH {
        let message = format!("conditions are more than {MAX_DEPTH} deep in each other");
        return Err(Invalid::new("", message));
    }
    match predicate {
        Predicate::Always => Ok(()),
        Predicate::All(list) | Predicate::Any(list) => {
            for (at, one) in list.iter().enumerate() {
                at_depth(one, depth + 1).map_err(|error| error.within(format!("[{at}]")))?;
            }
            Ok(())
        }
        Predicate::Not(other) => at_depth(other, depth + 1).map_err(|error| error.within("not")),
        Predicate::Fact(
            Fact::Header(_)
            | Fact::Path(_)
            | Fact::PathTemplate(_)
            | Fact::Destination(_)
            | Fact::DestinationPort(_)
            | Fact::ServerName(_)
            | Fact::Peer(_)
            | Fact::Direct(_)
            | Fact::Source(_)
            | Fact::Remote(_)
            | Fact::Claim(_),
        ) => Ok(()),
        // Its opposite would hold always.
        _ => Err(Invalid::new("", "is a kind of condition that is not known")),
    }
}

pub(crate) fn holds(predicate: &Predicate, facts: &Facts<'_>) -> bool {
    match predicate {
        Predicate::Always => true,
        Predicate::All(list) => list.iter().all(|one| holds(one, facts)),
        Predicate::Any(list) => list.iter().any(|one| holds(one, facts)),
        Predicate::Not(other) => !holds(other, facts),
        Predicate::Fact(fact) => is(fact, facts),
        _ => false,
    }
}

fn is(fact: &Fact, facts: &Facts<'_>) -> bool {
    match fact {
        Fact::Header(want) => match &facts.request {
            Some(request) => header(want, request),
            None => without_headers(want),
        },
        Fact::Path(want) => path(facts).is_some_and(|path| want.matches(path)),
        Fact::PathTemplate(want) => path(facts).is_some_and(|path| want.matches(path)),
        Fact::Destination(block) => {
            let address = facts.destination.map(|address| address.ip());
            address.is_some_and(|address| block.contains(address))
        }
        Fact::DestinationPort(ports) => {
            let port = facts.destination.map(|address| address.port());
            port.is_some_and(|port| ports.contains(port))
        }
        Fact::ServerName(want) => want.matches(facts.server_name().as_bytes()),
        Fact::Peer(want) => peer(want.as_ref(), facts),
        Fact::Direct(block) => facts.direct.is_some_and(|ip| block.contains(ip)),
        Fact::Source(block) => facts.source.is_some_and(|ip| block.contains(ip)),
        Fact::Remote(block) => facts.remote.is_some_and(|ip| block.contains(ip)),
        Fact::Claim(want) => want.holds(facts.claims),
        _ => false,
    }
}

fn path<'a>(facts: &Facts<'a>) -> Option<&'a [u8]> {
    let request = facts.request?;
    request.path().map(str::as_bytes)
}

fn peer(want: Option<&StringMatch>, facts: &Facts<'_>) -> bool {
    if facts.tls.is_none_or(|tls| tls.version.is_none()) {
        return false;
    }
    let Some(want) = want else {
        return true;
    };
    match certificate(facts) {
        Some(peer) => names(peer).any(|name| want.matches(name.as_bytes())),
        None => want.matches(b""),
    }
}

/// The certificate of the peer, if it was checked.
pub(crate) fn certificate<'a>(facts: &Facts<'a>) -> Option<&'a PeerCertificate> {
    let tls = facts.tls.filter(|tls| tls.version.is_some())?;
    tls.peer.as_ref().filter(|peer| peer.validated)
}

/// By what a peer may be called.
pub(crate) fn names(peer: &PeerCertificate) -> impl Iterator<Item = &str> {
    let alternative = peer.uris.iter().chain(&peer.dns_names);
    alternative
        .map(|name| name.as_str())
        .chain(std::iter::once(peer.subject.as_str()))
}

fn header(want: &HeaderMatch, request: &RequestFacts<'_>) -> bool {
    let headers = request.headers();
    let value = match &want.key {
        HeaderKey::Method => Some(request.method().as_bytes()),
        HeaderKey::Scheme => Some(request.scheme().as_bytes()),
        HeaderKey::Path => request.path_and_query().map(str::as_bytes),
        HeaderKey::Authority => request.authority(),
        // There is one authority, whichever of its two names is asked for.
        HeaderKey::Header(name) if name == HOST => request.authority(),
        HeaderKey::Header(name) => {
            // Envoy looks at each line of a header that comes more than once.
            let mut lines = headers.get_all(name).iter();
            if let ValueMatch::Text(_) | ValueMatch::Range(..) = want.value
                && headers.contains_key(name)
            {
                return lines.any(|line| text(&want.value, line.as_bytes())) != want.invert;
            }
            lines.next().map(|line| line.as_bytes())
        }
    };
    single(want, value)
}

/// A header match where there are no headers at all.
fn without_headers(want: &HeaderMatch) -> bool {
    single(want, None)
}

fn single(want: &HeaderMatch, value: Option<&[u8]>) -> bool {
    let value = match value {
        None if want.missing_is_empty => Some(&b""[..]),
        given => given,
    };
    match (&want.value, value) {
        (ValueMatch::Present(present), value) => (value.is_some() == *present) != want.invert,
        (_, None) => false,
        (match_, Some(value)) => text(match_, value) != want.invert,
    }
}

fn text(want: &ValueMatch, value: &[u8]) -> bool {
    match want {
        ValueMatch::Text(text) => text.matches(value),
        ValueMatch::Range(start, end) => std::str::from_utf8(value)
            .ok()
            .and_then(|value| value.trim().parse::<i64>().ok())
            .is_some_and(|value| (*start..*end).contains(&value)),
        ValueMatch::Present(present) => *present,
    }
}
