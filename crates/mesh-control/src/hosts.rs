//! Route tables in bytes, put together from those of their virtual hosts.
//!
//! A table of ten thousand hosts is one resource, and one of its hosts is what changes. A host
//! that is the very same is not written again.

use bytes::Bytes;
use mesh_core::model::{Action, RouteTable, VirtualHost};
use mesh_xds::{Encoded, write};
use std::collections::HashMap;
use std::sync::Arc;

/// The bytes of virtual hosts, by where these are.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    known: HashMap<usize, Host>,
    round: u64,
}

/// Holding the virtual host keeps its place from being used for another.
#[derive(Debug)]
struct Host {
    _host: Arc<VirtualHost>,
    bytes: Bytes,
    round: u64,
}

/// How many rounds the bytes of a host are kept that no table needs.
const KEPT: u64 = 2;

/// `RouteConfiguration.name`, as a field of bytes.
const NAME: u8 = 1 << 3 | 2;

/// `RouteConfiguration.virtual_hosts`, as a field of bytes.
const VIRTUAL_HOSTS: u8 = 2 << 3 | 2;

// === impl Hosts ===

impl Hosts {
    /// Writes a table, to the bytes that [`write::route::table`] leads to.
    pub(crate) fn table(&mut self, table: &RouteTable) -> Encoded {
        let (head, tail) = around(table);
        let mut bytes = head;
        for host in &table.virtual_hosts {
            let host = self.host(host);
            bytes.push(VIRTUAL_HOSTS);
            length(&mut bytes, host.len());
            bytes.extend_from_slice(&host);
        }
        bytes.extend_from_slice(&tail);
        Encoded::new(table.name.clone(), bytes)
    }

    /// Forgets what was not needed of late.
    pub(crate) fn sweep(&mut self) {
        let round = self.round;
        self.known.retain(|_, host| host.round + KEPT > round);
        self.round += 1;
    }

    fn host(&mut self, host: &Arc<VirtualHost>) -> Bytes {
        let round = self.round;
        let known = self.known.entry(Arc::as_ptr(host).addr());
        let known = known.or_insert_with(|| Host {
            bytes: write::encode("", &write::route::virtual_host(host)).bytes,
            _host: host.clone(),
            round,
        });
        known.round = round;
        known.bytes.clone()
    }
}

/// The fields before the virtual hosts, and those behind.
fn around(table: &RouteTable) -> (Vec<u8>, Vec<u8>) {
    let mut rest = table.clone();
    // Of the hosts, the largest answers count in the table's own fields.
    rest.virtual_hosts.retain(|host| {
        let mut rules = host.rules.iter();
        rules.any(|rule| matches!(rule.action, Action::Respond(_)))
    });
    let mut proto = write::route::table(&rest);
    proto.virtual_hosts.clear();
    let bytes = write::encode("", &proto).bytes;
    let mut head = Vec::new();
    if !table.name.is_empty() {
        head.push(NAME);
        length(&mut head, table.name.len());
        head.extend_from_slice(table.name.as_bytes());
    }
    let tail = bytes.get(head.len()..).unwrap_or_default().to_vec();
    (head, tail)
}

/// A length as protobuf writes it: seven bits a byte, the least first.
fn length(bytes: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Condition, DirectResponse, Rule};
    use proptest::prelude::*;

    fn host() -> impl Strategy<Value = VirtualHost> {
        let body = prop_oneof![Just(None), Just(Some(3)), Just(Some(2_000_000))];
        ("[a-z]{1,200}", body).prop_map(|(name, body)| {
            let rule = match body {
                None => Rule::prefix_to("/", name.clone()),
                Some(size) => {
                    let mut answer = DirectResponse::default();
                    answer.body = vec![b'x'; size].into();
                    Rule::new(Condition::default(), Action::Respond(answer))
                }
            };
            VirtualHost::new(name.clone(), [name]).rule(rule)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_bytes_are_those_of_the_whole(
            name in "[a-z]{0,150}",
            hosts in prop::collection::vec(host(), 0..6),
            ignore_port: bool,
        ) {
            let mut table = RouteTable::new(name.as_str());
            table.ignore_port = ignore_port;
            table.validate_clusters = !ignore_port;
            let mut known = Hosts::default();
            for host in hosts {
                table = table.host(host);
                let whole = write::encode(&table.name, &write::route::table(&table));
                let made = known.table(&table);
                known.sweep();
                prop_assert_eq!(made, whole);
            }
        }
    }

    #[test]
    fn a_host_that_is_the_very_same_is_written_once_and_forgotten_when_it_is_gone() {
        let table = RouteTable::new("t").host(VirtualHost::new("a", ["a"]));
        let mut known = Hosts::default();
        known.table(&table);
        let bytes = known.host(&table.virtual_hosts[0]);
        known.sweep();
        known.table(&table);
        let again = known.host(&table.virtual_hosts[0]);
        assert_eq!(bytes.as_ptr(), again.as_ptr());
        for _ in 0..=KEPT {
            known.sweep();
        }
        assert!(known.known.is_empty());
    }
}
