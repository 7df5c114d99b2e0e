//! What listeners keep of requests.

use crate::{any_of, filter, name, router, with};
use http::HeaderValue;
use mesh_core::model::{
    FilterObjectKind, FilterStateEntry, HeaderTemplate, HttpManager, Piece, SetFilterState,
};
use mesh_xds::pb::envoy::config::core::v3::substitution_format_string::Format;
use mesh_xds::pb::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source::Specifier,
};
use mesh_xds::pb::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue, filter_state_value::Key, filter_state_value::Value,
};
use mesh_xds::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use mesh_xds::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use mesh_xds::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use mesh_xds::read;
use proptest::collection::vec;
use proptest::prelude::*;

const FILTER: &str = "envoy.filters.http.set_filter_state";

/// What may be kept.
pub(crate) fn generated() -> BoxedStrategy<SetFilterState> {
    let kind = prop_oneof![
        Just(FilterObjectKind::Text),
        Just(FilterObjectKind::HashableText),
        Just(FilterObjectKind::Address),
    ];
    let piece = || {
        prop_oneof![
            "[ -~]{1,8}".prop_map(Piece::Text),
            proptest::sample::select(vec![
                "REQ(x-a)",
                "REQ(x-a?:path):7",
                "DOWNSTREAM_REMOTE_ADDRESS",
                "START_TIME",
                "PROTOCOL",
            ])
            .prop_map(|operator| Piece::parse(operator).unwrap()),
        ]
    };
    let value = prop_oneof![
        "[ -~]{0,8}".prop_map(|text| HeaderTemplate::Fixed(HeaderValue::try_from(text).unwrap())),
        // Texts side by side would be read as one, and one alone as a fixed value.
        (piece(), "[a-z]{1,3}").prop_map(|(piece, name)| {
            let header = Piece::RequestHeader(name.parse().unwrap());
            HeaderTemplate::Pieces(vec![piece, header])
        }),
    ];
    let entry = (name(), kind, value, any::<bool>(), any::<bool>());
    let entry = entry.prop_map(
        |(key, kind, value, omit_missing, skip_empty)| FilterStateEntry {
            key,
            kind,
            value,
            omit_missing,
            skip_empty,
        },
    );
    (vec(entry, 0..4), any::<bool>())
        .prop_map(|(entries, for_routes)| {
            let mut set = SetFilterState::default();
            (set.entries, set.for_routes) = (entries, for_routes);
            set
        })
        .boxed()
}

fn value(key: &str, factory: &str, format: &str) -> FilterStateValue {
    let source = DataSource {
        specifier: Some(Specifier::InlineString(format.to_owned())),
        ..DataSource::default()
    };
    FilterStateValue {
        key: Some(Key::ObjectKey(key.to_owned())),
        factory_key: factory.to_owned(),
        value: Some(Value::FormatString(SubstitutionFormatString {
            format: Some(Format::TextFormatSource(source)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn keeps(values: Vec<FilterStateValue>, for_routes: bool) -> hcm::HttpFilter {
    let config = Config {
        on_request_headers: values,
        clear_route_cache: for_routes,
    };
    filter(FILTER, any_of(&config))
}

fn one() -> FilterStateValue {
    value("k", "envoy.string", "%REQ(x-a)%")
}

fn read(filters: Vec<hcm::HttpFilter>) -> Result<HttpManager, String> {
    let proto = with(|manager| manager.http_filters = filters);
    let read = read::listener(&proto).map_err(|error| error.to_string())?;
    Ok(HttpManager::clone(read.listener.managers().next().unwrap()))
}

#[test]
fn a_well_known_key_is_its_own_factory() {
    let values = vec![value("envoy.network.ip", "", "10.0.0.1"), one()];
    let manager = read(vec![keeps(values, true), router()]).unwrap();
    let set = manager.filter_state.unwrap();
    assert!(set.for_routes);
    let kinds: Vec<_> = set.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [FilterObjectKind::Address, FilterObjectKind::Text]);
    assert_eq!(&*set.entries[0].key, "envoy.network.ip");
}

#[test]
fn several_filters_are_as_one() {
    let filters = vec![
        keeps(vec![one()], false),
        keeps(vec![one()], true),
        router(),
    ];
    let set = read(filters).unwrap().filter_state.unwrap();
    assert_eq!((set.entries.len(), set.for_routes), (2, true));
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let of = |value| vec![keeps(vec![value], true), router()];
    let shared = FilterStateValue {
        shared_with_upstream: 1,
        ..one()
    };
    let nameless = value("", "envoy.string", "x");
    let asked = ExtAuthz::default();
    for (filters, expected) in [
        (
            of(value("envoy.tcp_proxy.cluster", "", "x")),
            "on_request_headers[0].object_key: there is no factory \"envoy.tcp_proxy.cluster\"",
        ),
        (
            of(value("k", "mine", "x")),
            "on_request_headers[0].factory_key: there is no factory \"mine\"",
        ),
        (of(nameless), "on_request_headers[0].object_key: is empty"),
        (of(shared), "on_request_headers[0].shared_with_upstream"),
        (
            of(value("k", "envoy.string", "%ROUTE_NAME%")),
            "format_string.text_format_source.inline_string: \"%ROUTE_NAME%\" has an operator for what is not",
        ),
        (
            of(value("k", "envoy.string", "%REQ(a?%")),
            "format_string.text_format_source",
        ),
        (
            vec![
                filter("rules", any_of(&Rbac::default())),
                keeps(vec![one()], true),
                router(),
            ],
            "http_filters[1]: what is kept of requests has to be set before",
        ),
        (
            vec![
                filter("asked", any_of(&asked)),
                keeps(vec![one()], true),
                router(),
            ],
            "http_filters[0]",
        ),
    ] {
        let message = read(filters).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}
