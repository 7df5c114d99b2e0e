//! What is kept of a request for routes and balancing, as the HTTP filter `set_filter_state`, and
//! conditions on it.

use super::route::edits::template;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::core::v3::substitution_format_string::Format;
use crate::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use crate::pb::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue, filter_state_value::Key, filter_state_value::Value,
};
use crate::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use crate::pb::envoy::r#type::matcher::v3::filter_state_matcher::Matcher;
use crate::pb::envoy::r#type::matcher::v3::{AddressMatcher, FilterStateMatcher};
use crate::pb::google::protobuf::UInt32Value;
use crate::pb::xds::core::v3::CidrRange;
use crate::wire::names::{HASHABLE_STRING, IP, STRING};
use crate::wire::text::to_string_match;
use mesh_core::model::{
    Cidr, FilterObjectKind, FilterObjectMatch, FilterStateEntry, FilterStateMatch, SetFilterState,
};

/// The filter's configuration.
pub(super) fn filter(set: &SetFilterState) -> Config {
    Config {
        on_request_headers: set.entries.iter().map(entry).collect(),
        clear_route_cache: set.for_routes,
    }
}

fn entry(entry: &FilterStateEntry) -> FilterStateValue {
    let factory = match entry.kind {
        FilterObjectKind::Text => STRING,
        FilterObjectKind::HashableText => HASHABLE_STRING,
        FilterObjectKind::Address => IP,
        // Refused by whoever reads it.
        _ => "",
    };
    let text = String::from_utf8_lossy(&template(&entry.value)).into_owned();
    let source = DataSource {
        specifier: Some(Specifier::InlineString(text)),
        ..DataSource::default()
    };
    FilterStateValue {
        key: Some(Key::ObjectKey(entry.key.to_string())),
        factory_key: factory.to_owned(),
        skip_if_empty: entry.skip_empty,
        value: Some(Value::FormatString(SubstitutionFormatString {
            omit_empty_values: entry.omit_missing,
            format: Some(Format::TextFormatSource(source)),
            ..SubstitutionFormatString::default()
        })),
        ..FilterStateValue::default()
    }
}

/// A condition of a route.
pub(super) fn condition(condition: &FilterStateMatch) -> FilterStateMatcher {
    let address = |blocks: &[Cidr], invert_match| {
        Matcher::AddressMatch(AddressMatcher {
            ranges: blocks.iter().map(block).collect(),
            invert_match,
        })
    };
    let matcher = match &condition.value {
        FilterObjectMatch::Text(text) => Some(Matcher::StringMatch(to_string_match(text))),
        FilterObjectMatch::In(blocks) => Some(address(blocks, false)),
        FilterObjectMatch::NotIn(blocks) => Some(address(blocks, true)),
        // Refused by whoever reads it.
        _ => None,
    };
    FilterStateMatcher {
        key: condition.key.to_string(),
        matcher,
    }
}

fn block(block: &Cidr) -> CidrRange {
    CidrRange {
        address_prefix: block.address().to_string(),
        prefix_len: Some(UInt32Value {
            value: block.length().into(),
        }),
    }
}
