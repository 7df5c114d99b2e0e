//! What a condition asks for and what a request has instead, in words.

use super::Unmet;
use crate::cookies;
use crate::head::Head;
use crate::matches::{Predicate, query_value, with_value};
use mesh_core::model::{
    Cidr, ClaimCondition, Condition, CookieMatch, FilterObjectMatch, FilterStateMatch, HeaderKey,
    HeaderMatch, PathMatch, QueryMatch, TlsCondition, ValueMatch,
};
use std::fmt::Write;

/// Of what a request brings, so much is repeated, in bytes.
const LONGEST: usize = 256;

/// Everything that a condition asks for.
pub(super) fn all(condition: &Condition) -> Vec<String> {
    let mut all = vec![path(&condition.path)];
    all.extend(condition.headers.iter().map(header));
    all.extend(condition.query.iter().map(query));
    all.extend(condition.cookies.iter().map(cookie));
    all.extend(condition.tls.map(certificate));
    all.extend(condition.claims.iter().map(claim));
    all.extend(condition.filter_state.iter().map(filter_state));
    if condition.grpc {
        all.push(GRPC.to_owned());
    }
    all.extend(condition.share.map(|share| format!("share of {share}")));
    all
}

const GRPC: &str = "content-type of gRPC";

pub(super) fn describe(condition: &Condition, predicate: Predicate, head: &Head<'_>) -> Unmet {
    match predicate {
        Predicate::Path => Unmet {
            wanted: path(&condition.path),
            had: match condition.path {
                PathMatch::Connect => Some(head.method().to_string()),
                _ => head.path().map(|path| cut(path.as_bytes())),
            },
        },
        Predicate::Header(at) => {
            let want = &condition.headers[at];
            Unmet {
                wanted: header(want),
                had: with_value(&want.key, head, |value| value.map(cut)),
            }
        }
        Predicate::Query(at) => {
            let want = &condition.query[at];
            Unmet {
                wanted: query(want),
                had: query_value(head, &want.name).map(|value| cut(value.as_bytes())),
            }
        }
        Predicate::Cookie(at) => {
            let want = &condition.cookies[at];
            Unmet {
                wanted: cookie(want),
                had: cookies::find(head.headers(), &want.name).map(cut),
            }
        }
        Predicate::Tls => Unmet {
            wanted: condition.tls.map(certificate).unwrap_or_default(),
            had: head.tls().and_then(|tls| tls.peer.as_ref()).map(|peer| {
                let found = if peer.validated { "valid" } else { "not valid" };
                format!("one that was found {found}")
            }),
        },
        Predicate::Claim(at) => {
            let want = &condition.claims[at];
            let had = head.claims().and_then(|claims| claims.at(&want.claim.path));
            Unmet {
                wanted: claim(want),
                // What callers say of themselves is told to nobody else.
                had: had.map(|_| "another".to_owned()),
            }
        }
        Predicate::FilterState(at) => {
            let want = &condition.filter_state[at];
            let had = head.filter_state().and_then(|state| state.get(&want.key));
            Unmet {
                wanted: filter_state(want),
                had: had.map(|object| cut(&object.text())),
            }
        }
        Predicate::Grpc => Unmet {
            wanted: GRPC.to_owned(),
            had: head
                .headers()
                .get(http::header::CONTENT_TYPE)
                .map(|value| cut(value.as_bytes())),
        },
        Predicate::Share => Unmet {
            wanted: condition
                .share
                .map(|share| format!("share of {share}"))
                .unwrap_or_default(),
            had: Some("a draw outside of it".to_owned()),
        },
    }
}

fn claim(want: &ClaimCondition) -> String {
    let way: Vec<_> = want.claim.path.iter().map(|name| name.as_str()).collect();
    let values: Vec<_> = want.claim.values.iter().map(ToString::to_string).collect();
    let not = if want.invert { "not " } else { "" };
    format!("claim {} {not}{}", way.join("."), values.join(" or "))
}

fn filter_state(want: &FilterStateMatch) -> String {
    let blocks = |blocks: &[Cidr]| {
        let texts: Vec<_> = blocks.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    let value = match &want.value {
        FilterObjectMatch::Text(text) => text.to_string(),
        FilterObjectMatch::In(all) => format!("an address in {}", blocks(all)),
        FilterObjectMatch::NotIn(all) => format!("an address not in {}", blocks(all)),
        _ => "a match that this version does not know".to_owned(),
    };
    format!("filter state {}: {value}", want.key)
}

fn cookie(want: &CookieMatch) -> String {
    let not = if want.invert { " not" } else { "" };
    format!("cookie {}{not}: {}", want.name, want.value)
}

fn certificate(want: TlsCondition) -> String {
    let both = [
        want.presented.map(|it| (it, "shown")),
        want.validated.map(|it| (it, "found valid")),
    ];
    let both = both.into_iter().flatten();
    let words: Vec<_> = both
        .map(|(it, word)| format!("{}{word}", if it { "" } else { "not " }))
        .collect();
    match words.is_empty() {
        true => "certificate of the caller: any".to_owned(),
        false => format!("certificate of the caller: {}", words.join(", ")),
    }
}

fn path(want: &PathMatch) -> String {
    match want {
        PathMatch::Prefix(text) => format!("path prefix {text:?}"),
        PathMatch::Exact(text) => format!("path exact {text:?}"),
        PathMatch::SeparatedPrefix(text) => format!("path prefix {text:?} (whole segments)"),
        PathMatch::PrefixIgnoreCase(text) => format!("path prefix {text:?} (any case)"),
        PathMatch::ExactIgnoreCase(text) => format!("path exact {text:?} (any case)"),
        PathMatch::SeparatedPrefixIgnoreCase(text) => {
            format!("path prefix {text:?} (whole segments, any case)")
        }
        PathMatch::Regex(pattern) => format!("path regex {:?}", pattern.source()),
        PathMatch::Connect => "method CONNECT".to_owned(),
        PathMatch::Template(template) => format!("path template {:?}", template.as_str()),
        _ => "a path match that this version does not know".to_owned(),
    }
}

fn header(want: &HeaderMatch) -> String {
    let mut text = match &want.key {
        HeaderKey::Method => "method".to_owned(),
        HeaderKey::Authority => "authority".to_owned(),
        HeaderKey::Scheme => "scheme".to_owned(),
        HeaderKey::Path => "path and query".to_owned(),
        HeaderKey::Header(name) => format!("header {name}"),
    };
    if want.invert {
        text.push_str(" not");
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "{}", value(&want.value));
    if want.missing_is_empty {
        text.push_str(" (missing counts as empty)");
    }
    text
}

fn query(want: &QueryMatch) -> String {
    format!("query {}{}", want.name, value(&want.value))
}

fn value(want: &ValueMatch) -> String {
    match want {
        ValueMatch::Text(text) => format!(": {text}"),
        ValueMatch::Present(true) => " present".to_owned(),
        ValueMatch::Present(false) => " absent".to_owned(),
        ValueMatch::Range(start, end) => format!(": a number from {start} up to but not {end}"),
    }
}

/// The beginning of what a request brought.
fn cut(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(LONGEST)]);
    match value.len() > LONGEST {
        true => format!("{text}…"),
        false => text.into_owned(),
    }
}
