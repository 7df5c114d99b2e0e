//! What a bootstrap may say although nothing here acts on it, and why that is right.
//!
//! One line per entry, sorted. For what is inside of resources there is
//! [`crate::read::ignored`].

pub use crate::read::ignored::{Extension, Field};
use crate::read::ignored::{extension, field};

const GRPC: &str = "for other ways to a control plane than one stream";
const NO_RUNTIME: &str = "nothing here looks at runtime keys; the defaults hold";
const NO_STATS: &str = "names, delays or limits statistics; those that are kept are kept";
const TUNING: &str = "tunes Envoy's threads and memory";

/// Every field that is read over.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    field("envoy.config.bootstrap.v3.Admin", "access_log", "requests to the admin interface are not logged"),
    field("envoy.config.bootstrap.v3.Admin", "access_log_path", "requests to the admin interface are not logged"),
    field("envoy.config.bootstrap.v3.Admin", "ignore_global_conn_limit", "connections to the admin interface are never counted among those of callers"),
    field("envoy.config.bootstrap.v3.Admin", "profile_path", "there is no profiler in the admin interface"),
    field("envoy.config.bootstrap.v3.Bootstrap", "application_log_config", "the log has a form of its own"),
    field("envoy.config.bootstrap.v3.Bootstrap", "deferred_stat_options", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "enable_dispatcher_stats", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "enable_worker_cpu_affinity", TUNING),
    field("envoy.config.bootstrap.v3.Bootstrap", "grpc_async_client_manager_config", TUNING),
    field("envoy.config.bootstrap.v3.Bootstrap", "inline_headers", TUNING),
    field("envoy.config.bootstrap.v3.Bootstrap", "memory_allocator_manager", TUNING),
    field("envoy.config.bootstrap.v3.Bootstrap", "stats_config", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "stats_eviction", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "stats_flush", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "stats_flush_interval", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "stats_server_version_override", NO_STATS),
    field("envoy.config.bootstrap.v3.Bootstrap", "watchdog", TUNING),
    field("envoy.config.bootstrap.v3.Bootstrap", "watchdogs", TUNING),
    field("envoy.config.bootstrap.v3.ClusterManager", "enable_deferred_cluster_creation", "what a cluster needs is always made on first use"),
    field("envoy.config.bootstrap.v3.RuntimeLayer", "admin_layer", NO_RUNTIME),
    field("envoy.config.bootstrap.v3.RuntimeLayer", "static_layer", NO_RUNTIME),
    field("envoy.config.core.v3.ApiConfigSource", "refresh_delay", GRPC),
    field("envoy.config.core.v3.ApiConfigSource", "request_timeout", GRPC),
    field("envoy.config.core.v3.ApiConfigSource", "set_node_on_first_message_only", "the node is always sent with the first message only"),
    field("envoy.config.core.v3.GrpcService", "timeout", "a stream has no end that could be waited for"),
    field("envoy.config.core.v3.GrpcService.EnvoyGrpc", "skip_envoy_headers", "no such headers are sent to a control plane"),
];

/// Every extension that may stand in a bootstrap, without settings of its own.
#[rustfmt::skip]
pub const EXTENSIONS: &[Extension] = &[
    extension("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "the system's resolver is used"),
    extension("envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig", "it is what is used here"),
    extension("envoy.extensions.regex_engines.v3.GoogleRE2", "there is one engine, with limits of its own"),
];

/// Passes over these fields of a message. Compiles only if [`FIELDS`] lists them.
macro_rules! pass_over {
    ($message:literal: $($field:ident),+ $(,)?) => {
        $(
            const {
                assert!(
                    $crate::read::ignored::lists(
                        $crate::bootstrap::ignored::FIELDS,
                        $message,
                        stringify!($field),
                    ),
                    "this field is not on the list bootstrap::ignored::FIELDS"
                );
            }
            let _ = $field;
        )+
    };
}
pub(super) use pass_over;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_have_nothing_twice() {
        let key = |field: &Field| (field.message, field.field);
        assert!(FIELDS.is_sorted_by(|a, b| key(a) < key(b)));
        assert!(EXTENSIONS.is_sorted_by(|a, b| a.message < b.message));
    }
}
