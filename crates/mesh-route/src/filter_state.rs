//! Keeps objects of a request for routes and balancing (Envoy's HTTP filter `set_filter_state`).
//!
//! [`decide`] works them out; whoever serves a listener puts them into the [`Exchange`] before the
//! request is routed, as mesh-proxy does:
//!
//! ```
//! use http::Request;
//! use mesh_core::model::{FilterObjectKind, FilterStateEntry, HeaderTemplate, Piece, SetFilterState};
//! use mesh_core::{Caller, Exchange, WallClock};
//! use mesh_route::filter_state::decide;
//! use std::time::Instant;
//!
//! let mut set = SetFilterState::default();
//! set.for_routes = true;
//! set.entries.push(FilterStateEntry {
//!     key: "tenant".into(),
//!     kind: FilterObjectKind::Text,
//!     value: HeaderTemplate::Pieces(vec![Piece::parse("REQ(x-tenant)").unwrap()]),
//!     omit_missing: false,
//!     skip_empty: false,
//! });
//! let request = Request::get("/").header("x-tenant", "blue").body(())?;
//! let exchange = Exchange::new(Instant::now(), Caller::default());
//! exchange.set_filter_state(decide(&set, &request, &exchange, &WallClock::system()));
//! let kept = exchange.filter_state().and_then(|state| state.get("tenant"));
//! assert_eq!(kept.unwrap().text(), &b"blue"[..]);
//! # Ok::<(), http::Error>(())
//! ```

use crate::template::{Asked, Facts, Response};
use http::Request;
use mesh_core::model::{FilterState, FilterStateEntry, HeaderTemplate, Piece, SetFilterState};
use mesh_core::{Exchange, WallClock};

/// What stands for an operator without a value, as in Envoy.
const MISSING: &[u8] = b"-";

/// What is kept of a request.
pub fn decide<B>(
    set: &SetFilterState,
    request: &Request<B>,
    exchange: &Exchange,
    clock: &WallClock,
) -> FilterState {
    let facts = Facts {
        exchange: Some(exchange),
        version: request.version(),
        clock,
        response: Response::None,
    };
    let asked = Asked::Request(request.method(), request.uri(), request.headers());
    let mut state = FilterState::new(set.for_routes);
    for entry in &set.entries {
        let value = value(entry, &facts, asked);
        if value.is_empty() && entry.skip_empty {
            continue;
        }
        if let Some(object) = entry.kind.make(value) {
            state.set(entry.key.clone(), object);
        }
    }
    state
}

fn value(entry: &FilterStateEntry, facts: &Facts<'_>, asked: Asked<'_>) -> Vec<u8> {
    let pieces = match &entry.value {
        HeaderTemplate::Fixed(value) => return value.as_bytes().to_vec(),
        HeaderTemplate::Pieces(pieces) => pieces,
    };
    let mut text = Vec::new();
    for piece in pieces {
        let start = text.len();
        let there = facts.write(piece, asked, None, &mut text);
        // An address that is not there is written as nothing.
        let is_text = matches!(piece, Piece::Text(_));
        let there = there && (is_text || named(piece) || text.len() > start);
        if !there && !entry.omit_missing {
            text.truncate(start);
            text.extend_from_slice(MISSING);
        }
    }
    text
}

/// Whether a piece names a header, which may be there and be empty.
fn named(piece: &Piece) -> bool {
    match piece {
        Piece::RequestHeader(_) | Piece::RequestPart(_) | Piece::FirstOf(..) => true,
        Piece::Shortened(piece, _) => named(piece),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use mesh_core::Caller;
    use mesh_core::model::{FilterObject, FilterObjectKind};

    fn entry(value: &str) -> FilterStateEntry {
        let pieces = value.split('|').map(|piece| match Piece::parse(piece) {
            Some(piece) => piece,
            None => Piece::Text(piece.into()),
        });
        FilterStateEntry {
            key: "k".into(),
            kind: FilterObjectKind::Text,
            value: HeaderTemplate::Pieces(pieces.collect()),
            omit_missing: false,
            skip_empty: false,
        }
    }

    fn kept(entries: Vec<FilterStateEntry>) -> Option<FilterObject> {
        let mut set = SetFilterState::default();
        set.entries = entries;
        let request = Request::get("http://a.test/x?y")
            .header("x-a", "1")
            .header("x-empty", "")
            .body(())
            .unwrap();
        let now = tokio::time::Instant::now().into_std();
        let exchange = Exchange::new(now, Caller::default());
        let state = decide(&set, &request, &exchange, &WallClock::system());
        state.get("k").cloned()
    }

    fn text(entry: FilterStateEntry) -> Option<String> {
        kept(vec![entry]).map(|object| String::from_utf8(object.text().into_owned()).unwrap())
    }

    #[test]
    fn an_operator_without_a_value_is_a_dash_unless_it_is_to_be_nothing() {
        for (value, expected, omitting) in [
            ("<|REQ(x-a)|>", "<1>", "<1>"),
            ("<|REQ(x-empty)|>", "<>", "<>"),
            ("<|REQ(x-none)|>", "<->", "<>"),
            ("REQ(x-none?:path):3", "/x?", "/x?"),
            ("REQ(x-none?x-no):3", "-", ""),
            ("DOWNSTREAM_LOCAL_ADDRESS", "-", ""),
            ("PROTOCOL", "HTTP/1.1", "HTTP/1.1"),
        ] {
            assert_eq!(text(entry(value)).as_deref(), Some(expected), "{value}");
            let mut omits = entry(value);
            omits.omit_missing = true;
            assert_eq!(text(omits).as_deref(), Some(omitting), "{value}");
        }
    }

    #[test]
    fn an_empty_value_is_kept_or_leaves_what_was_kept_before() {
        let mut skips = entry("REQ(x-empty)");
        skips.skip_empty = true;
        let of = |last: FilterStateEntry| {
            let object = kept(vec![entry("before"), last]).unwrap();
            object.text().into_owned()
        };
        assert_eq!(of(skips), b"before");
        assert_eq!(of(entry("REQ(x-empty)")), b"");
    }

    #[test]
    fn what_is_no_address_is_not_kept_as_one() {
        let of = |value: &str| {
            let mut address = entry("");
            address.kind = FilterObjectKind::Address;
            address.value = HeaderTemplate::Fixed(HeaderValue::try_from(value).unwrap());
            kept(vec![address])
        };
        assert_eq!(of("::1").unwrap().text(), &b"::1"[..]);
        assert_eq!(of("a.test"), None);
        assert_eq!(of(""), None);
    }
}
