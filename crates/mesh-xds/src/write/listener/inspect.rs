//! Listener filters.

use crate::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use crate::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use crate::pb::envoy::config::listener::v3::{ListenerFilter, ListenerFilterChainMatchPredicate};
use crate::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use crate::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use crate::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use crate::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use crate::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use crate::pb::envoy::r#type::v3::Int32Range;
use crate::wire::pack;
use mesh_core::model::{Inspect, Inspector, PortRange};
use prost::Name;

/// In the order in which they work.
pub(super) fn filters(inspect: &Inspect) -> Vec<ListenerFilter> {
    let mut all = Vec::new();
    if let Some(header) = &inspect.proxy_protocol {
        let config = ProxyProtocol {
            allow_requests_without_proxy_protocol: header.optional,
            ..ProxyProtocol::default()
        };
        all.push(filter("proxy_protocol", &config, None));
    }
    if inspect.original_destination {
        all.push(filter("original_dst", &OriginalDst::default(), None));
    }
    if let Some(source) = inspect.original_source {
        let config = OriginalSrc {
            mark: source.mark,
            ..OriginalSrc::default()
        };
        all.push(filter("original_src", &config, None));
    }
    if let Some(inspector) = &inspect.tls {
        all.push(filter(
            "tls_inspector",
            &TlsInspector::default(),
            except(inspector),
        ));
    }
    if let Some(inspector) = &inspect.http {
        all.push(filter(
            "http_inspector",
            &HttpInspector::default(),
            except(inspector),
        ));
    }
    all
}

fn filter(
    name: &str,
    config: &impl Name,
    filter_disabled: Option<ListenerFilterChainMatchPredicate>,
) -> ListenerFilter {
    ListenerFilter {
        name: format!("envoy.filters.listener.{name}"),
        filter_disabled,
        config_type: Some(ConfigType::TypedConfig(pack(config))),
    }
}

/// Envoy wants at least two for "any of".
fn except(inspector: &Inspector) -> Option<ListenerFilterChainMatchPredicate> {
    let rule = match inspector.except.as_slice() {
        [] => return None,
        [one] => return Some(ports(one)),
        all => Rule::OrMatch(MatchSet {
            rules: all.iter().map(ports).collect(),
        }),
    };
    Some(ListenerFilterChainMatchPredicate { rule: Some(rule) })
}

fn ports(range: &PortRange) -> ListenerFilterChainMatchPredicate {
    let port = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: port(range.start),
            end: port(range.end),
        })),
    }
}
