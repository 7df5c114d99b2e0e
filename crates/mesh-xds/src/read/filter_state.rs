//! What is kept of a request for routes and balancing, from the HTTP filter `set_filter_state`, and
//! conditions on it.

use super::route::template;
use super::{access_log, listener};
use crate::pb::envoy::config::core::v3::CidrRange;
use crate::pb::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue, filter_state_value::Key, filter_state_value::Value,
};
use crate::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use crate::pb::envoy::r#type::matcher::v3::filter_state_matcher::Matcher;
use crate::pb::envoy::r#type::matcher::v3::{AddressMatcher, FilterStateMatcher};
use crate::pb::xds;
use crate::wire::names::{HASHABLE_STRING, IP, STRING};
use crate::wire::text::string_match;
use crate::wire::{At, each, refuse, required};
use mesh_core::model::{
    Cidr, FilterObjectKind, FilterObjectMatch, FilterStateEntry, FilterStateMatch, HeaderTemplate,
    Piece, SetFilterState,
};
use mesh_core::{Invalid, Name};

/// The filter's configuration.
pub(super) fn filter(proto: &Config) -> Result<SetFilterState, Invalid> {
    let Config {
        on_request_headers,
        clear_route_cache,
    } = proto;
    let mut set = SetFilterState::default();
    set.entries = each("on_request_headers", on_request_headers, entry)?;
    set.for_routes = *clear_route_cache;
    Ok(set)
}

#[expect(deprecated, reason = "`read_only` has no effect in Envoy either")]
fn entry(proto: &FilterStateValue) -> Result<FilterStateEntry, Invalid> {
    let FilterStateValue {
        factory_key,
        read_only: _,
        shared_with_upstream,
        skip_if_empty,
        key,
        value,
    } = proto;
    // There are no listeners within the process that it could be shared with.
    refuse!(shared_with_upstream);
    let Key::ObjectKey(key) = required("object_key", key)?;
    if key.is_empty() {
        return Err(Invalid::new("object_key", "is empty"));
    }
    let (field, factory) = match &**factory_key {
        "" => ("object_key", key),
        _ => ("factory_key", factory_key),
    };
    let kind = match &**factory {
        STRING => FilterObjectKind::Text,
        HASHABLE_STRING => FilterObjectKind::HashableText,
        IP => FilterObjectKind::Address,
        other => {
            let message = format!(
                "there is no factory {other:?} here, but {STRING}, {HASHABLE_STRING} and {IP}"
            );
            return Err(Invalid::new(field, message));
        }
    };
    let Value::FormatString(format) = required("format_string", value)?;
    let value = access_log::text_of(format, known_before).at("format_string")?;
    Ok(FilterStateEntry {
        key: Name::from(key),
        kind,
        value,
        omit_missing: format.omit_empty_values,
        skip_empty: *skip_if_empty,
    })
}

/// A value of what is known before a route is.
fn known_before(text: &str) -> Result<HeaderTemplate, Invalid> {
    let template = template::parse(text.as_bytes())?;
    if let HeaderTemplate::Pieces(pieces) = &template
        && !pieces.iter().all(is_known_before)
    {
        let message = format!("{text:?} has an operator for what is not known yet");
        return Err(Invalid::new("", message));
    }
    Ok(template)
}

fn is_known_before(piece: &Piece) -> bool {
    match piece {
        Piece::FirstOf(first, second) => is_known_before(first) && is_known_before(second),
        Piece::Shortened(piece, _) => is_known_before(piece),
        Piece::Text(_)
        | Piece::RequestHeader(_)
        | Piece::RequestPart(_)
        | Piece::DownstreamRemoteAddress
        | Piece::DownstreamRemoteAddressWithoutPort
        | Piece::DownstreamLocalAddress
        | Piece::Protocol
        | Piece::StartTime => true,
        _ => false,
    }
}

/// A condition of a route.
pub(super) fn condition(proto: &FilterStateMatcher) -> Result<FilterStateMatch, Invalid> {
    let FilterStateMatcher { key, matcher } = proto;
    if key.is_empty() {
        return Err(Invalid::new("key", "is empty"));
    }
    let value = match required("matcher", matcher)? {
        Matcher::StringMatch(text) => {
            FilterObjectMatch::Text(string_match(text).at("string_match")?)
        }
        Matcher::AddressMatch(AddressMatcher {
            ranges,
            invert_match,
        }) => {
            let blocks = each("ranges", ranges, block).at("address_match")?;
            match invert_match {
                false => FilterObjectMatch::In(blocks),
                true => FilterObjectMatch::NotIn(blocks),
            }
        }
    };
    Ok(FilterStateMatch {
        key: Name::from(key),
        value,
    })
}

/// The same message in another package.
fn block(proto: &xds::core::v3::CidrRange) -> Result<Cidr, Invalid> {
    let xds::core::v3::CidrRange {
        address_prefix,
        prefix_len,
    } = proto.clone();
    listener::block(&CidrRange {
        address_prefix,
        prefix_len,
    })
}
