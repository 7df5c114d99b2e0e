//! Istio's table of names (`istio.networking.nds.v1.NameTable`), of which each node has one.

use crate::Encoded;
use mesh_core::discovery::{NameInfo, NameTable};
use mesh_core::{Invalid, Name};
use prost::Message;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the table is called where it needs a name: Istio gives it none.
pub(crate) const NAME: &str = "NameTable";

/// The registry whose services have short names.
const KUBERNETES: &str = "Kubernetes";
/// That of service entries.
const EXTERNAL: &str = "External";

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, Message)]
struct Table {
    // Sorted, so that the same table has the same bytes.
    #[prost(btree_map = "string, message", tag = "1")]
    table: BTreeMap<String, Info>,
}

/// `istio.networking.nds.v1.NameTable.NameInfo`.
#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, repeated, tag = "1")]
    ips: Vec<String>,
    #[prost(string, tag = "2")]
    registry: String,
    #[prost(string, tag = "3")]
    shortname: String,
    #[prost(string, tag = "4")]
    namespace: String,
    #[prost(string, repeated, tag = "5")]
    alt_hosts: Vec<String>,
}

pub(crate) fn encode(table: &NameTable) -> Encoded {
    let each = table.names.iter().map(|(name, info)| {
        let mut proto = Info {
            ips: info.addresses.iter().map(ToString::to_string).collect(),
            registry: EXTERNAL.to_owned(),
            ..Info::default()
        };
        if let Some(short) = &info.short {
            proto.registry = KUBERNETES.to_owned();
            proto.shortname = short.name.to_string();
            proto.namespace = short.namespace.to_string();
        }
        (name.to_string(), proto)
    });
    let proto = Table {
        table: each.collect(),
    };
    Encoded::new(NAME, proto.encode_to_vec())
}

/// What is no address is left out, as in Istio's agent.
pub(crate) fn decode(bytes: &[u8]) -> Result<NameTable, Invalid> {
    let proto = Table::decode(bytes);
    let proto = proto.map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))?;
    let mut names = BTreeMap::new();
    for (name, proto) in proto.table {
        let addresses = proto.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let mut info = NameInfo::new(addresses);
        if proto.registry == KUBERNETES && !proto.shortname.is_empty() {
            info = info.short(proto.shortname, proto.namespace);
        }
        for other in proto.alt_hosts {
            let plain = NameInfo::new(info.addresses.iter().copied());
            names.entry(Name::from(other)).or_insert(plain);
        }
        names.insert(Name::from(name), info);
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_table() -> impl Strategy<Value = NameTable> {
        let short = proptest::option::of(("[a-z]{1,5}", "[a-z]{0,5}"));
        let info = (proptest::collection::vec(any::<IpAddr>(), 0..4), short);
        let info = info.prop_map(|(addresses, short)| {
            let info = NameInfo::new(addresses);
            match short {
                Some((name, namespace)) => info.short(name, namespace),
                None => info,
            }
        });
        let names = proptest::collection::btree_map("[a-z.*]{1,20}", info, 0..5);
        names.prop_map(|names| {
            let each = names.into_iter();
            each.map(|(name, info)| (Name::from(name), info)).collect()
        })
    }

    proptest! {
        #[test]
        fn a_table_that_is_written_reads_as_it_was(table in any_table()) {
            prop_assert_eq!(decode(&encode(&table).bytes), Ok(table));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    /// Written down from Istio's proto file.
    #[test]
    fn the_bytes_are_istios() {
        let short = NameInfo::new(["10.1.0.1".parse().unwrap()]).short("a", "b");
        let table = [(Name::from("a.b"), short)].into_iter().collect();
        let info = b"\x0a\x0810.1.0.1\x12\x0aKubernetes\x1a\x01a\x22\x01b";
        let mut entry = b"\x0a\x03a.b\x12".to_vec();
        entry.push(u8::try_from(info.len()).unwrap());
        entry.extend(info);
        let mut bytes = vec![0x0a, u8::try_from(entry.len()).unwrap()];
        bytes.extend(entry);
        assert_eq!(encode(&table).bytes, bytes);
    }

    #[test]
    fn what_an_old_istiod_adds_is_read_too() {
        let proto = Table {
            table: [(
                "a".to_owned(),
                Info {
                    ips: vec!["10.0.0.1".to_owned(), "10.0.0.0/8".to_owned()],
                    alt_hosts: vec!["b".to_owned()],
                    ..Info::default()
                },
            )]
            .into(),
        };
        let table = decode(&proto.encode_to_vec()).unwrap();
        assert_eq!(table.names.len(), 2);
        assert_eq!(table.names["b"].addresses, table.names["a"].addresses);
        assert_eq!(table.names["a"].addresses.len(), 1);
    }
}
