//! What a client was told, in Envoy's terms.

use super::builder::{Builder, Wanted};
use crate::client::Server;
use crate::client::machine::Variant;
use crate::pb::envoy::config::bootstrap::v3::Bootstrap;
use crate::pb::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use crate::pb::envoy::config::cluster::v3::Cluster;
use crate::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::api_config_source::ApiType;
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::pb::envoy::config::endpoint::v3 as endpoint;
use crate::pb::envoy::extensions::upstreams::http::v3 as upstreams;
use crate::wire::{pack, to_duration};
use crate::write::to_address;
use mesh_core::model::{Address, UnixPath};
use prost::Name as _;
use std::net::IpAddr;
use upstreams::http_protocol_options::explicit_http_config::ProtocolConfig;
use upstreams::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};

/// The cluster of the servers, as Istio's bootstrap calls it.
const SERVERS: &str = "xds-grpc";

// === impl Builder ===

impl Builder {
    /// The bootstrap with which Envoy would do the same, to be shown: the node, the servers as a
    /// cluster (`xds-grpc`) whose priorities are their order, and where listeners and clusters come
    /// from. [Fixed](Builder::fixed) resources are not in it, nor is what only one server is told:
    /// TLS is that of the first, and metadata is left out.
    pub fn bootstrap(&self) -> Bootstrap {
        let node = Some(self.config.node.to_proto());
        if self.servers.is_empty() {
            return Bootstrap {
                node,
                ..Bootstrap::default()
            };
        }
        let wait = self.initial_fetch_timeout;
        // Zero waits for ever there; here nothing is waited for.
        let clusters = core::ConfigSource {
            initial_fetch_timeout: wait.map(to_duration),
            ..from_ads()
        };
        let dynamic = DynamicResources {
            ads_config: Some(self.ads()),
            cds_config: (self.clusters != Wanted::Nothing).then_some(clusters),
            lds_config: (self.listeners != Wanted::Nothing).then(from_ads),
            ..DynamicResources::default()
        };
        Bootstrap {
            node,
            dynamic_resources: Some(dynamic),
            static_resources: Some(StaticResources {
                clusters: vec![self.cluster()],
                ..StaticResources::default()
            }),
            ..Bootstrap::default()
        }
    }

    fn ads(&self) -> core::ApiConfigSource {
        let kind = match self.config.variant {
            Variant::Delta => ApiType::DeltaGrpc,
            Variant::Sotw => ApiType::Grpc,
        };
        let target = TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: SERVERS.to_owned(),
            ..EnvoyGrpc::default()
        });
        core::ApiConfigSource {
            api_type: kind.into(),
            transport_api_version: core::ApiVersion::V3.into(),
            set_node_on_first_message_only: true,
            grpc_services: vec![core::GrpcService {
                target_specifier: Some(target),
                ..core::GrpcService::default()
            }],
            ..core::ApiConfigSource::default()
        }
    }

    fn cluster(&self) -> Cluster {
        let addresses: Vec<Address> = self.servers.iter().map(|one| address(one.uri())).collect();
        let is_name = |address: &Address| matches!(address, Address::Host(..));
        let discovery = match !addresses.iter().any(is_name) {
            true => DiscoveryType::Static,
            false => DiscoveryType::StrictDns,
        };
        let localities = addresses.into_iter().zip(0..).map(|(address, priority)| {
            endpoint::LocalityLbEndpoints {
                priority,
                lb_endpoints: vec![lb_endpoint(&address)],
                ..endpoint::LocalityLbEndpoints::default()
            }
        });
        let http2 = upstreams::HttpProtocolOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
                ExplicitHttpConfig {
                    protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                        core::Http2ProtocolOptions::default(),
                    )),
                },
            )),
            ..upstreams::HttpProtocolOptions::default()
        };
        let options = [(upstreams::HttpProtocolOptions::full_name(), pack(&http2))];
        Cluster {
            name: SERVERS.to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
            connect_timeout: Some(to_duration(self.connect_timeout)),
            transport_socket: self.servers.first().and_then(transport_socket),
            typed_extension_protocol_options: options.into(),
            load_assignment: Some(endpoint::ClusterLoadAssignment {
                cluster_name: SERVERS.to_owned(),
                endpoints: localities.collect(),
                ..endpoint::ClusterLoadAssignment::default()
            }),
            ..Cluster::default()
        }
    }
}

/// TLS with a server, if it is spoken to so.
fn transport_socket(server: &Server) -> Option<core::TransportSocket> {
    let tls = server.effective_tls()?;
    let mut cluster = mesh_core::model::Cluster::new(SERVERS);
    cluster.tls = Some(tls);
    crate::write::cluster(&cluster, None).transport_socket
}

fn from_ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..core::ConfigSource::default()
    }
}

/// What is no address is refused when the client is built.
fn address(uri: &str) -> Address {
    if let Some(Ok(path)) = UnixPath::from_url(uri) {
        return Address::Unix(path);
    }
    let uri: http::Uri = uri.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or_default();
    match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Host(host.into(), port),
    }
}

fn lb_endpoint(address: &Address) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(to_address(address)),
                ..endpoint::Endpoint::default()
            },
        )),
        ..endpoint::LbEndpoint::default()
    }
}
