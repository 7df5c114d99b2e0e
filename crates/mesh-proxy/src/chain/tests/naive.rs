//! What [`Matcher`](super::Matcher) is compared with, here and by fuzzing.

use super::Traits;
use mesh_core::model::{ChainMatch, Cidr, SourceKind};
use std::net::IpAddr;

/// The algorithm as Envoy's documentation tells it: at each step only the chains that ask for the
/// closest value are left.
pub(super) fn naive(chains: &[ChainMatch], traits: &Traits<'_>) -> Option<usize> {
    type Step = fn(&ChainMatch, &Traits<'_>) -> Option<u32>;
    /// How closely a chain asks for what the connection has; 0 where it asks for nothing, None
    /// where for something else.
    fn closest<T>(values: &[T], close: impl Fn(&T) -> Option<u32>) -> Option<u32> {
        if values.is_empty() {
            return Some(0);
        }
        values.iter().filter_map(close).max()
    }
    fn block(blocks: &[Cidr], address: IpAddr) -> Option<u32> {
        let close = |block: &Cidr| {
            let length = u32::from(block.length());
            block.contains(address).then_some(1 + length)
        };
        closest(blocks, close)
    }
    let steps: [Step; 9] = [
        |m, t| {
            closest(m.destination_port.as_slice(), |p| {
                (*p == t.destination.port()).then_some(1)
            })
        },
        |m, t| block(&m.destinations, t.destination.ip()),
        |m, t| {
            closest(&m.server_names, |name| match name.strip_prefix("*.") {
                None => (&**name == t.server_name).then_some(1000),
                Some(suffix) => t
                    .server_name
                    .strip_suffix(suffix)
                    .filter(|rest| rest.len() > 1 && rest.ends_with('.'))
                    .map(|_| 1 + u32::try_from(suffix.len()).unwrap()),
            })
        },
        |m, t| {
            closest(m.transport.as_slice(), |kind| {
                (*kind == t.transport).then_some(1)
            })
        },
        |m, t| {
            closest(&m.protocols, |name| {
                let at = t.protocols.iter().position(|offered| offered == name)?;
                Some(100 - u32::try_from(at).unwrap())
            })
        },
        |m, t| block(&m.direct_sources, t.direct_source.ip()),
        |m, t| match m.source_kind {
            SourceKind::Any => Some(0),
            kind => {
                let (from, to) = (t.source.ip(), t.destination.ip());
                let here =
                    from.to_string() == "127.0.0.1" || from.to_string() == "::1" || from == to;
                (here == (kind == SourceKind::SameIpOrLoopback)).then_some(1)
            }
        },
        |m, t| block(&m.sources, t.source.ip()),
        |m, t| {
            closest(&m.source_ports, |port| {
                (*port == t.source.port()).then_some(1)
            })
        },
    ];
    let mut left: Vec<usize> = (0..chains.len()).collect();
    for step in steps {
        let close = |at: &usize| step(&chains[*at], traits);
        let best = left.iter().filter_map(close).max()?;
        left.retain(|at| close(at) == Some(best));
    }
    left.first().copied()
}
