//! What a client asks for first: where its routes are (gRFC A27), and filters (A39).

use mesh_xds::Encoded;
use mesh_xds::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, config_source::ConfigSourceSpecifier,
};
use mesh_xds::pb::envoy::config::listener::v3::{ApiListener, Listener};
use mesh_xds::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use mesh_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
    http_filter::ConfigType,
};

use super::pack;

/// The full name of a connection manager's message.
pub(super) const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The listener that stands for a target. Faults are settings of routes; the filter that applies
/// them has to be there for them to count.
pub(super) fn write(name: &str, routes: &str) -> Listener {
    let fault = Encoded::of("", &HttpFault::default());
    let manager = HttpConnectionManager {
        stat_prefix: routes.to_owned(),
        http_filters: vec![
            filter(
                "envoy.filters.http.fault",
                "envoy.extensions.filters.http.fault.v3.HTTPFault",
                fault,
            ),
            router(),
        ],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ConfigSource {
                resource_api_version: ApiVersion::V3.into(),
                config_source_specifier: Some(ConfigSourceSpecifier::Ads(
                    AggregatedConfigSource::default(),
                )),
                ..ConfigSource::default()
            }),
            route_config_name: routes.to_owned(),
        })),
        ..HttpConnectionManager::default()
    };
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener {
            api_listener: Some(pack(MANAGER, Encoded::of("", &manager))),
        }),
        ..Listener::default()
    }
}

/// The filter that gRPC wants to be the last.
pub(super) fn router() -> HttpFilter {
    filter(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        Encoded::of("", &Router::default()),
    )
}

fn filter(name: &str, kind: &str, config: Encoded) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(kind, config))),
        ..HttpFilter::default()
    }
}
