//! Whole listeners at random.

use crate::tls::server_tls;
use crate::{access_log, manager, name, time};
use mesh_core::model::{
    AcceptProxyProtocol, ChainMatch, Cidr, ClustersOnDemand, ConnectionLimit, Direction, Filter,
    FilterChain, Inspect, Inspector, Listener, OriginalSource, PortRange, SourceKind, TcpProxy,
    TcpSplit, TcpTarget, TransportProtocol, Tunnel,
};
use mesh_core::{Name, Origin};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) fn block() -> BoxedStrategy<Cidr> {
    (any::<IpAddr>(), 0_u8..=32)
        .prop_map(|(address, length)| Cidr::new(address, length).unwrap())
        .boxed()
}

pub(crate) fn matches() -> BoxedStrategy<ChainMatch> {
    let names = prop_oneof!["[a-z]{1,5}\\.example", "\\*\\.[a-z]{1,5}\\.example"];
    let transport = prop_oneof![
        Just(None),
        Just(Some(TransportProtocol::Plain)),
        Just(Some(TransportProtocol::Tls)),
    ];
    let kind = prop_oneof![
        Just(SourceKind::Any),
        Just(SourceKind::SameIpOrLoopback),
        Just(SourceKind::External),
    ];
    let protocol = prop_oneof!["h2", "http/1\\.1", "istio"].prop_map(Name::from);
    let to = (
        option::of(1_u16..),
        vec(block(), 0..3),
        vec(names.prop_map(Name::from), 0..3),
        transport,
        vec(protocol, 0..3),
    );
    let from = (
        vec(block(), 0..3),
        kind,
        vec(block(), 0..3),
        vec(1_u16.., 0..3),
    );
    (to, from)
        .prop_map(|(to, from)| {
            let mut matches = ChainMatch::default();
            matches.destination_port = to.0;
            matches.destinations = to.1;
            matches.server_names = to.2;
            matches.transport = to.3;
            matches.protocols = to.4;
            matches.direct_sources = from.0;
            matches.source_kind = from.1;
            matches.sources = from.2;
            matches.source_ports = from.3;
            matches
        })
        .boxed()
}

pub(crate) fn proxy() -> BoxedStrategy<TcpProxy> {
    let split = (name(), 1_u32..).prop_map(|(cluster, weight)| TcpSplit {
        origin: Origin::NONE,
        cluster,
        weight,
    });
    let target = prop_oneof![
        vec(split, 1..4).prop_map(TcpTarget::Clusters),
        name().prop_map(TcpTarget::ServerName),
    ];
    let tunnel = ("[a-z]{1,5}:[0-9]{1,4}", any::<bool>()).prop_map(|(target, post)| Tunnel {
        target: target.into(),
        post,
    });
    let on_demand = prop_oneof![
        Just(ClustersOnDemand::Off),
        time().prop_map(ClustersOnDemand::Within),
    ];
    let rest = (1_u32.., any::<bool>(), option::of(tunnel), on_demand);
    let times = (option::of(time()), option::of(time()));
    (name(), target, times, vec(access_log(), 0..3), rest)
        .prop_map(|(prefix, target, times, log, rest)| {
            let mut proxy = TcpProxy::new(prefix, target);
            proxy.idle_timeout = times.0;
            proxy.max_duration = times.1;
            proxy.access_log = log;
            proxy.max_connect_attempts = rest.0;
            proxy.hash_source_ip = rest.1;
            proxy.tunnel = rest.2;
            proxy.on_demand = rest.3;
            proxy
        })
        .boxed()
}

fn filter() -> BoxedStrategy<Filter> {
    let direction = prop_oneof![
        Just(Direction::Inbound),
        Just(Direction::Outbound),
        Just(Direction::Gateway),
    ];
    prop_oneof![
        manager().prop_map(|manager| Filter::Http(Arc::new(manager))),
        (proxy(), direction).prop_map(|(mut proxy, direction)| {
            proxy.direction = direction;
            Filter::Tcp(Arc::new(proxy))
        }),
    ]
    .boxed()
}

fn chain(at: usize) -> BoxedStrategy<FilterChain> {
    let tls = option::of(server_tls().prop_map(Arc::new));
    let label = prop_oneof![Just(Name::default()), name()];
    let times = (option::of(time()), option::of(connection_limit()));
    (label, matches(), tls, times, filter())
        .prop_map(move |(label, matches, tls, (limit, connections), filter)| {
            let mut chain = FilterChain::new(filter);
            chain.name = label;
            chain.matches = matches;
            // No two are to match the same.
            chain
                .matches
                .server_names
                .push(format!("chain-{at}.example").into());
            if at == 0 {
                chain.matches.server_names.clear();
                chain.matches.destination_port = None;
            }
            chain.tls = tls;
            chain.handshake_timeout = limit;
            chain.connection_limit = connections;
            chain
        })
        .boxed()
}

fn connection_limit() -> BoxedStrategy<ConnectionLimit> {
    (name(), 1..u64::MAX, time(), any::<bool>())
        .prop_map(|(name, most, delay, enabled)| {
            let mut limit = ConnectionLimit::new(name, most);
            limit.delay = delay;
            limit.enabled = enabled;
            limit
        })
        .boxed()
}

pub(crate) fn inspector() -> BoxedStrategy<Inspector> {
    let range = (0_u32..70_000, 0_u32..70_000).prop_map(|(start, end)| PortRange { start, end });
    vec(range, 0..4)
        .prop_map(|except| Inspector { except })
        .boxed()
}

fn inspected() -> BoxedStrategy<Inspect> {
    let header = any::<bool>().prop_map(|optional| AcceptProxyProtocol { optional });
    let source = any::<u32>().prop_map(|mark| OriginalSource { mark });
    let addresses = (option::of(header), option::of(source));
    let flags = (any::<bool>(), any::<bool>());
    let looks = (option::of(inspector()), option::of(inspector()));
    (addresses, flags, looks, option::of(time()))
        .prop_map(|((header, source), flags, looks, timeout)| {
            let mut inspect = Inspect::default();
            inspect.original_source = source;
            inspect.proxy_protocol = header;
            inspect.original_destination = flags.0;
            inspect.continue_on_timeout = flags.1;
            (inspect.tls, inspect.http) = looks;
            inspect.timeout = timeout;
            inspect
        })
        .boxed()
}

/// A listener with some chains. What Envoy finds out because it is asked about is found out.
pub(crate) fn listener() -> BoxedStrategy<Listener> {
    let address = any::<([u8; 4], u16)>().prop_map(std::net::SocketAddr::from);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let chains = (
        chain(0),
        option::of(chain(1)),
        option::of(chain(2)),
        option::of(filter()),
    );
    let log = vec(access_log(), 0..3);
    (name(), address, flags, inspected(), chains, log)
        .prop_map(|(name, address, flags, inspect, chains, log)| {
            let mut listener = Listener::new(name, address);
            (listener.bind, listener.hand_off, listener.transparent) = flags;
            listener.inspect = inspect;
            listener.inspect.original_destination |= listener.hand_off;
            listener.inspect.tls.get_or_insert_default();
            let some = [Some(chains.0), chains.1, chains.2];
            listener.chains = some.into_iter().flatten().map(Arc::new).collect();
            listener.default_chain = chains.3.map(FilterChain::new).map(Arc::new);
            listener.access_log = log;
            listener
        })
        .boxed()
}
