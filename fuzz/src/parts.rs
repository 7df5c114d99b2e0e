//! Small languages inside of configuration: access log formats, and values of header templates.

use crate::{Input, Target, resource};
use bytes::BytesMut;
use mesh_core::{Caller, Exchange};
use mesh_telemetry::access_log::{Entry, Format};
use mesh_xds::TypeUrl;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::route::v3 as route;
use mesh_xds::pb::envoy::r#type::matcher::v3 as matcher;
use prost::Message;
use std::time::Instant;

/// `access_log`
pub(crate) const ACCESS_LOG: Target = Target {
    name: "access_log",
    run: access_log,
    input: Input::Text,
};

/// `header`: a header's value in a line, then a path and a regular expression.
pub(crate) const HEADER: Target = Target {
    name: "header",
    run: header,
    input: Input::Text,
};

fn access_log(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(format) = Format::parse(text) else {
        return;
    };
    assert_eq!(format.source(), text);
    let exchange = Exchange::new(Instant::now(), Caller::default());
    let mut line = Vec::new();
    format.write(&exchange, &Entry::default(), "host", &mut line);
    // A length of 0 leaves nothing; without lengths, what has no value leaves a dash.
    let bare = !text.contains(':') && !text.is_empty();
    assert!(
        !(bare && line.is_empty()),
        "{text:?} leaves nothing, not even a dash"
    );
}

/// A table with these in it, in bytes, so that all of them are read as they are from a server.
fn header(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (value, path, regex) = (next(), next(), next());
    let option = core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: "x-value".to_owned(),
            value,
            ..Default::default()
        }),
        ..Default::default()
    };
    let regex = matcher::RegexMatcher {
        regex,
        ..Default::default()
    };
    let rules = [
        route::route_match::PathSpecifier::Prefix(path),
        route::route_match::PathSpecifier::SafeRegex(regex),
    ];
    for path_specifier in rules {
        let rule = route::Route {
            r#match: Some(route::RouteMatch {
                path_specifier: Some(path_specifier),
                ..Default::default()
            }),
            action: Some(route::route::Action::DirectResponse(
                route::DirectResponseAction {
                    status: 200,
                    ..Default::default()
                },
            )),
            response_headers_to_add: vec![option.clone()],
            ..Default::default()
        };
        let table = route::RouteConfiguration {
            name: "table".to_owned(),
            virtual_hosts: vec![route::VirtualHost {
                name: "host".to_owned(),
                domains: vec!["*".to_owned()],
                routes: vec![rule],
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut bytes = BytesMut::new();
        table.encode(&mut bytes).expect("it grows");
        resource::again(TypeUrl::Routes, &bytes);
    }
}
