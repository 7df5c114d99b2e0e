//! Listener filters: what is found out about a connection before a chain is chosen.

use crate::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use crate::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use crate::pb::envoy::config::listener::v3::{ListenerFilter, ListenerFilterChainMatchPredicate};
use crate::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use crate::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use crate::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use crate::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use crate::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use crate::pb::google::protobuf::{Any, Duration as Wire};
use crate::read::extension;
use crate::wire::{
    At, boolean, maybe_duration, pass_over, refuse, required, type_name, unpack, unsupported,
};
use mesh_core::Invalid;
use mesh_core::model::{
    AcceptProxyProtocol, Inspect, Inspector, Listener, OriginalSource, PortRange, TransportProtocol,
};
use prost::Name as _;

/// How deep conditions may be nested.
const DEPTH: usize = 8;

/// What the filters find out. They always work in the order of the model, so one that looks at
/// bytes must not stand before the one that takes the PROXY protocol's header away.
pub(super) fn inspect(filters: &[ListenerFilter]) -> Result<Inspect, Invalid> {
    let mut inspect = Inspect::default();
    for (at, value) in filters.iter().enumerate() {
        filter(value, &mut inspect).at(format_args!("listener_filters[{at}]"))?;
    }
    Ok(inspect)
}

/// How long they may take.
pub(super) fn time(
    timeout: Option<&Wire>,
    go_on: bool,
    inspect: &mut Inspect,
) -> Result<(), Invalid> {
    if let Some(limit) = maybe_duration("listener_filters_timeout", timeout)? {
        // Zero is no limit.
        inspect.timeout = (!limit.is_zero()).then_some(limit);
    }
    inspect.continue_on_timeout = go_on;
    Ok(())
}

/// Adds the filters that Envoy adds by itself: TLS is looked for where a chain asks about it, and
/// the original destination where connections are handed over to its listener.
pub(super) fn add_what_is_needed(listener: &mut Listener) {
    let asks = listener.chains.iter().any(|chain| {
        let asked = &chain.matches;
        let names = !asked.server_names.is_empty() || !asked.protocols.is_empty();
        match asked.transport {
            Some(TransportProtocol::Tls) => true,
            None => names,
            Some(TransportProtocol::Plain) => false,
        }
    });
    if asks && listener.inspect.tls.is_none() {
        listener.inspect.tls = Some(Inspector::default());
    }
    listener.inspect.original_destination |= listener.hand_off;
}

fn filter(value: &ListenerFilter, inspect: &mut Inspect) -> Result<(), Invalid> {
    let ListenerFilter {
        // A name without a meaning: Envoy goes by the type of the message.
        name: _,
        filter_disabled,
        config_type,
    } = value;
    let any = match required("typed_config", config_type)? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => return Err(unsupported("config_discovery")),
    };
    let mut except = Vec::new();
    if let Some(predicate) = filter_disabled {
        ports(predicate, DEPTH, &mut except).at("filter_disabled")?;
    }
    let name = type_name(any);
    let inspector = if name == TlsInspector::full_name() {
        tls(any).at("typed_config")?;
        &mut inspect.tls
    } else if name == HttpInspector::full_name() {
        unpack::<HttpInspector>(any).at("typed_config")?;
        &mut inspect.http
    } else {
        // The others work for all connections, or not at all.
        refuse!(filter_disabled);
        return of_all(any, inspect);
    };
    match inspector {
        Some(_) => Err(twice()),
        none => {
            *none = Some(Inspector { except });
            Ok(())
        }
    }
}

fn of_all(any: &Any, inspect: &mut Inspect) -> Result<(), Invalid> {
    let name = type_name(any);
    if name == OriginalDst::full_name() {
        let OriginalDst {} = unpack(any).at("typed_config")?;
        if inspect.original_destination {
            return Err(twice());
        }
        inspect.original_destination = true;
    } else if name == OriginalSrc::full_name() {
        let source = source(&unpack(any).at("typed_config")?).at("typed_config")?;
        if inspect.original_source.replace(source).is_some() {
            return Err(twice());
        }
    } else if name == ProxyProtocol::full_name() {
        if inspect.proxy_protocol.is_some() {
            return Err(twice());
        }
        if inspect.original_source.is_some() {
            let message = "has to stand before the filter that keeps the caller's address";
            return Err(Invalid::new("", message));
        }
        if inspect.tls.is_some() || inspect.http.is_some() {
            let message = "has to stand before filters that look at what comes after its header";
            return Err(Invalid::new("", message));
        }
        inspect.proxy_protocol = Some(header(&unpack(any).at("typed_config")?)?);
    } else {
        extension::passed_over(any).at("typed_config")?;
    }
    Ok(())
}

fn tls(any: &Any) -> Result<(), Invalid> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = &unpack(any)?;
    refuse!(
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size
    );
    if boolean(enable_ja3_fingerprinting.as_ref(), false) {
        refuse!(enable_ja3_fingerprinting);
    }
    if boolean(enable_ja4_fingerprinting.as_ref(), false) {
        refuse!(enable_ja4_fingerprinting);
    }
    pass_over!("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
        initial_read_buffer_size);
    Ok(())
}

fn source(value: &OriginalSrc) -> Result<OriginalSource, Invalid> {
    let OriginalSrc { bind_port, mark } = value;
    // Envoy has the field and does nothing with it.
    refuse!(bind_port);
    Ok(OriginalSource { mark: *mark })
}

fn header(value: &ProxyProtocol) -> Result<AcceptProxyProtocol, Invalid> {
    let ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = value;
    let read = || {
        refuse!(
            rules,
            pass_through_tlvs,
            disallowed_versions,
            stat_prefix,
            tlv_location
        );
        Ok(AcceptProxyProtocol {
            optional: *allow_requests_without_proxy_protocol,
        })
    };
    read().at("typed_config")
}

/// The ports that a condition holds for. Only ports, and any of several, can be said.
fn ports(
    value: &ListenerFilterChainMatchPredicate,
    depth: usize,
    out: &mut Vec<PortRange>,
) -> Result<(), Invalid> {
    let ListenerFilterChainMatchPredicate { rule } = value;
    let Some(depth) = depth.checked_sub(1) else {
        let message = format!("conditions are nested more than {DEPTH} deep");
        return Err(Invalid::new("", message));
    };
    match required("rule", rule)? {
        Rule::DestinationPortRange(range) => {
            let port = |value: i32| u32::try_from(value).unwrap_or(0);
            out.push(PortRange {
                start: port(range.start),
                end: port(range.end),
            });
            Ok(())
        }
        Rule::OrMatch(set) => {
            for (at, rule) in set.rules.iter().enumerate() {
                let read = ports(rule, depth, out);
                read.at(format_args!("rules[{at}]")).at("or_match")?;
            }
            Ok(())
        }
        Rule::AndMatch(_) => Err(unsupported("and_match")),
        Rule::NotMatch(_) => Err(unsupported("not_match")),
        Rule::AnyMatch(_) => Err(unsupported("any_match")),
    }
}

fn twice() -> Invalid {
    Invalid::new("", "the same filter a second time has no effect")
}
