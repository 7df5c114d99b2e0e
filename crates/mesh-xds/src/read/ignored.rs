//! What is accepted although nothing here acts on it, and why that is right.
//!
//! Everything else that is set and cannot be expressed in the model is refused by name. One line
//! per entry, sorted.

/// A field that is read over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// The full name of the message.
    pub message: &'static str,
    /// The field.
    pub field: &'static str,
    /// Why it changes nothing here.
    pub why: &'static str,
}

const NO_DNS: &str = "names are looked up for each new connection; there is no cache";
const NO_CARES: &str = "the resolver here is another one, with settings of its own";
const NO_RUNTIME: &str = "there is no runtime that could hold the key; the default holds";
const NO_STATS: &str = "names or switches off statistics that are not kept here";
const NO_TRACING: &str = "matters to traces only, which are not made here";
const WATCHED: &str = "files are watched with the directories and links that lead to them";
const OPAQUE: &str = "information for the control plane and for people; nothing matches on it";

/// Every field that is read over.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    field("envoy.config.cluster.v3.Cluster", "cleanup_interval", "nothing is remembered of hosts that requests name"),
    field("envoy.config.cluster.v3.Cluster", "wait_for_warm_on_init", "clusters always wait for their endpoints"),
    field("envoy.config.cluster.v3.Cluster.CommonLbConfig", "update_merge_window", "endpoints are published as they come"),
    field("envoy.config.core.v3.ApiConfigSource", "set_node_on_first_message_only", "the node is always sent with the first message only"),
    field("envoy.config.core.v3.DataSource", "watched_directory", WATCHED),
    field("envoy.config.core.v3.GrpcService.EnvoyGrpc", "skip_envoy_headers", "no such headers are sent to a service"),
    field("envoy.config.core.v3.Http1ProtocolOptions", "use_balsa_parser", "chooses among parsers of Envoy's"),
    field("envoy.config.core.v3.Http2ProtocolOptions", "use_oghttp2_codec", "chooses among codecs of Envoy's"),
    field("envoy.config.core.v3.Metadata", "typed_filter_metadata", OPAQUE),
    field("envoy.config.core.v3.RuntimeDouble", "runtime_key", NO_RUNTIME),
    field("envoy.config.core.v3.RuntimeFractionalPercent", "runtime_key", NO_RUNTIME),
    field("envoy.config.endpoint.v3.LocalityLbEndpoints", "metadata", OPAQUE),
    field("envoy.config.listener.v3.FilterChain", "metadata", OPAQUE),
    field("envoy.config.listener.v3.Listener", "max_connections_to_accept_per_socket_event", "tunes Envoy's event loop"),
    field("envoy.config.listener.v3.Listener", "reuse_port", "deprecated without effect; every worker has a socket of its own"),
    field("envoy.config.route.v3.Decorator", "propagate", NO_TRACING),
    field("envoy.config.route.v3.HedgePolicy", "additional_request_chance", "Envoy does nothing with it either"),
    field("envoy.config.route.v3.HedgePolicy", "initial_requests", "Envoy does nothing with it either"),
    field("envoy.config.route.v3.Route", "metadata", OPAQUE),
    field("envoy.config.route.v3.RouteAction", "include_vh_rate_limits", "matters with rate limits only, which are refused"),
    field("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "trace_sampled", NO_TRACING),
    field("envoy.config.route.v3.RouteConfiguration", "metadata", OPAQUE),
    field("envoy.config.route.v3.VirtualHost", "metadata", OPAQUE),
    field("envoy.config.route.v3.WeightedCluster", "runtime_key_prefix", NO_RUNTIME),
    field("envoy.extensions.clusters.dns.v3.DnsCluster", "dns_min_refresh_rate", NO_CARES),
    field("envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig", "allow_insecure_cluster_options", "what is checked of a certificate, its own settings say"),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "disable_dns_refresh_on_failure", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "dns_failure_refresh_rate", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "dns_min_refresh_rate", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "dns_refresh_rate", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "host_ttl", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "max_hosts", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "name", NO_DNS),
    field("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", "preresolve_hostnames", NO_DNS),
    field("envoy.extensions.filters.http.cors.v3.CorsPolicy", "shadow_enabled", "counts only, where the filter is off"),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "abort_grpc_status_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "abort_http_status_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "abort_percent_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "delay_duration_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "delay_percent_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "disable_downstream_cluster_stats", NO_STATS),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "filter_metadata", OPAQUE),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "max_active_faults_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.fault.v3.HTTPFault", "response_rate_limit_percent_runtime", NO_RUNTIME),
    field("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "always_consume_default_token_bucket", "matters with descriptors only, which are refused"),
    field("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "max_dynamic_descriptors", "matters with descriptors only, which are refused"),
    field("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix", NO_STATS),
    field("envoy.extensions.filters.http.router.v3.Router", "dynamic_stats", NO_STATS),
    field("envoy.extensions.filters.http.router.v3.Router", "start_child_span", NO_TRACING),
    field("envoy.extensions.filters.http.router.v3.Router", "suppress_grpc_request_failure_code_stats", NO_STATS),
    field("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", "initial_read_buffer_size", "as much is looked at as is needed, up to 16 KiB"),
    field("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "add_proxy_protocol_connection_state", "nothing that is read afterwards looks at it"),
    field("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "proxy_100_continue", "the answer 100 is given here, when the body is first wanted"),
    field("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "tracing", "there is no tracer; one that is named here is refused"),
    field("envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", "oob_reporting_config", "matters with enable_oob_load_report only, which is refused"),
    field("envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", "oob_reporting_period", "matters with enable_oob_load_report only, which is refused"),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "edns0_max_payload_size", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "filter_unroutable_families", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "max_udp_channel_duration", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "qcache_max_ttl", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "query_timeout_seconds", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "query_tries", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "reinit_channel_on_timeout", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "rotate_nameservers", NO_CARES),
    field("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "udp_max_queries", NO_CARES),
    field("envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "update_frequency", "every attempt counts, whatever the interval"),
    field("envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext", "watched_directory", WATCHED),
    field("envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "watched_directory", WATCHED),
    field("envoy.type.matcher.v3.RegexMatcher", "engine_type", "deprecated; there is one engine, with limits of its own"),
];

/// An extension that is read over, whatever its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extension {
    /// The full name of the message that configures it.
    pub message: &'static str,
    /// Why it changes nothing here.
    pub why: &'static str,
}

/// Every extension that is read over.
#[rustfmt::skip]
pub const EXTENSIONS: &[Extension] = &[
    extension("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", NO_STATS),
    extension("envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig", "it is what is used here"),
    extension("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", "request ids are UUIDs here"),
    extension("envoy.tcp.metadataexchange.config.MetadataExchange", "peers say who they are in any case"),
    extension("io.istio.http.peer_metadata.Config", "peers say who they are in any case"),
    extension("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", "protocols that TLS offers are those of the cluster"),
    extension("stats.PluginConfig", "Istio's metrics are kept in any case"),
];

pub(crate) const fn extension(message: &'static str, why: &'static str) -> Extension {
    Extension { message, why }
}

pub(crate) const fn field(message: &'static str, field: &'static str, why: &'static str) -> Field {
    Field {
        message,
        field,
        why,
    }
}

/// Whether a list of fields has this field of this message.
pub(crate) const fn lists(fields: &[Field], message: &str, field: &str) -> bool {
    let mut at = 0;
    while at < fields.len() {
        if same(fields[at].message, message) && same(fields[at].field, field) {
            return true;
        }
        at += 1;
    }
    false
}

// Comparing strings with `==` is not possible in a constant yet.
const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_nothing_twice() {
        let key = |field: &Field| (field.message, field.field);
        assert!(FIELDS.is_sorted_by(|a, b| key(a) < key(b)));
    }

    #[test]
    fn the_extensions_are_sorted_and_have_nothing_twice() {
        assert!(EXTENSIONS.is_sorted_by(|a, b| a.message < b.message));
    }

    #[test]
    fn a_field_is_listed_by_message_and_name_together() {
        assert!(lists(FIELDS, "envoy.config.route.v3.Route", "metadata"));
        assert!(!lists(FIELDS, "envoy.config.route.v3.Route", "propagate"));
        assert!(!lists(FIELDS, "envoy.config.route.v3.Rout", "metadata"));
    }
}
