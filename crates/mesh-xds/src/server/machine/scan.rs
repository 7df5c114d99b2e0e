//! The one thing that the server has to know of a resource's contents.

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// `Cluster.type` and its value for clusters with endpoints of their own (EDS).
const TYPE: (u32, u64) = (2, 3);
/// `Cluster.eds_cluster_config` and, in it, `service_name`.
const EDS_CONFIG: u32 = 3;
const SERVICE_NAME: u32 = 2;

/// The name of the endpoints that a cluster asks for, if it does.
pub(super) fn endpoints_of<'a>(name: &'a str, cluster: &'a [u8]) -> Option<&'a str> {
    let (mut eds, mut service) = (false, "");
    fields(cluster, |tag, value| match value {
        Value::Number(number) if tag == TYPE.0 => eds = number == TYPE.1,
        Value::Bytes(config) if tag == EDS_CONFIG => {
            fields(config, |tag, value| {
                if let (SERVICE_NAME, Value::Bytes(text)) = (tag, value) {
                    service = std::str::from_utf8(text).unwrap_or_default();
                }
            });
        }
        _ => {}
    });
    eds.then_some(if service.is_empty() { name } else { service })
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Visits the fields up to the first that makes no sense.
fn fields<'a>(mut from: &'a [u8], mut visit: impl FnMut(u32, Value<'a>)) {
    while from.has_remaining() {
        let Ok((tag, wire)) = decode_key(&mut from) else {
            return;
        };
        match wire {
            WireType::Varint => {
                let Ok(number) = decode_varint(&mut from) else {
                    return;
                };
                visit(tag, Value::Number(number));
            }
            WireType::LengthDelimited => {
                let Ok(len) = decode_varint(&mut from) else {
                    return;
                };
                let Some((bytes, rest)) = usize::try_from(len)
                    .ok()
                    .and_then(|len| from.split_at_checked(len))
                else {
                    return;
                };
                from = rest;
                visit(tag, Value::Bytes(bytes));
            }
            other => {
                if skip_field(other, tag, &mut from, DecodeContext::default()).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::cluster::v3 as cluster;
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn a_cluster_names_its_endpoints_or_has_their_name() {
        let mut eds = cluster::Cluster {
            name: "c".into(),
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(3)),
            ..cluster::Cluster::default()
        };
        assert_eq!(endpoints_of("c", &eds.encode_to_vec()), Some("c"));
        eds.eds_cluster_config = Some(cluster::cluster::EdsClusterConfig {
            service_name: "s".into(),
            ..cluster::cluster::EdsClusterConfig::default()
        });
        assert_eq!(endpoints_of("c", &eds.encode_to_vec()), Some("s"));
        eds.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(0));
        assert_eq!(endpoints_of("c", &eds.encode_to_vec()), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_no_cluster_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = endpoints_of("c", &bytes);
        }
    }
}
