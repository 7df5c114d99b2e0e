//! Encoded messages of any type: Envoy's constraints, the order of maps, and JSON.

use crate::{Input, Target};
use mesh_xds::json::Codec;
use mesh_xds::pb::envoy::config;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::schema;
use prost::Message as _;

/// `schema`
pub(crate) const SCHEMA: Target = Target {
    name: "schema",
    run: anything,
    input: Input::AnyProtobuf,
};

/// The messages that are looked at from outside: resources, what travels with them, files.
pub(crate) const MESSAGES: [&str; 8] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.route.v3.VirtualHost",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.service.discovery.v3.DiscoveryResponse",
];

fn anything(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let message = MESSAGES[usize::from(*which) % MESSAGES.len()];
    let before = schema::check(message, bytes);
    let canonical = schema::canonical(message, bytes.to_vec());
    let twice = schema::canonical(message, canonical.clone());
    assert_eq!(
        canonical, twice,
        "{message}: canonical twice is something else"
    );
    let codec = Codec::new();
    let one = codec.to_json(message, bytes);
    let two = codec.to_json(message, &canonical);
    // What is cut short here may go on there, so only what decodes says the same in order.
    if decodes(message, bytes) {
        let after = schema::check(message, &canonical);
        assert_eq!(
            before.is_ok(),
            after.is_ok(),
            "{message}: {before:?}, but {after:?} in order"
        );
        if before.is_ok() {
            assert!(decodes(message, &canonical), "{message}: damaged by order");
            assert_eq!(one, two, "{message}: the order of maps is seen");
        }
    }
    if let Ok(text) = one {
        // Not all that can be printed can be read: an `Any` of an unknown type.
        if let Ok(read) = codec.from_json(message, &text) {
            let back = codec.to_json(message, &read).expect("it was just encoded");
            assert_eq!(text, back, "{message}: JSON is not what it was");
        }
    }
}

fn decodes(message: &str, bytes: &[u8]) -> bool {
    match message {
        "envoy.config.bootstrap.v3.Bootstrap" => {
            config::bootstrap::v3::Bootstrap::decode(bytes).is_ok()
        }
        "envoy.config.cluster.v3.Cluster" => config::cluster::v3::Cluster::decode(bytes).is_ok(),
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => {
            config::endpoint::v3::ClusterLoadAssignment::decode(bytes).is_ok()
        }
        "envoy.config.listener.v3.Listener" => {
            config::listener::v3::Listener::decode(bytes).is_ok()
        }
        "envoy.config.route.v3.RouteConfiguration" => {
            config::route::v3::RouteConfiguration::decode(bytes).is_ok()
        }
        "envoy.config.route.v3.VirtualHost" => {
            config::route::v3::VirtualHost::decode(bytes).is_ok()
        }
        "envoy.service.discovery.v3.DiscoveryResponse" => {
            discovery::DiscoveryResponse::decode(bytes).is_ok()
        }
        _ => tls::Secret::decode(bytes).is_ok(),
    }
}

/// YAML as a message's bytes.
pub(crate) fn encode(message: &str, text: &str) -> Result<Vec<u8>, String> {
    let bytes = Codec::new().from_yaml(message, text);
    bytes.map_err(|error| error.to_string())
}

/// YAML after a line `# MESSAGE` as bytes after the message's place in [`MESSAGES`].
pub(crate) fn encode_named(text: &str) -> Result<Vec<u8>, String> {
    let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let place = MESSAGES.iter().position(|message| Some(*message) == name);
    let (Some(name), Some(place)) = (name, place) else {
        return Err(format!(
            "the first line is not `# ` and one of {MESSAGES:?}"
        ));
    };
    let mut input = vec![place as u8];
    input.extend(encode(name, text)?);
    Ok(input)
}
