//! Responses, written to the wire from parts that are already encoded.
//!
//! A resource's bytes are shared by every client that gets it; building a message of generated
//! types would copy them once to build and once more to encode. So the few fields around them are
//! written here by hand, straight into the connection's buffer.

use super::Variant;
use crate::{Encoded, TypeUrl};
use bytes::{BufMut, Bytes};
use mesh_core::Name;
use prost::encoding::WireType::{LengthDelimited, Varint};
use prost::encoding::{encode_key, encode_varint, encoded_len_varint, key_len};
use std::time::Duration;

const RESOURCE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// A `DiscoveryResponse` or `DeltaDiscoveryResponse`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// Which of the two.
    pub variant: Variant,
    /// The URL of its type.
    pub url: Name,
    /// `version_info`, or `system_version_info`.
    pub version: Name,
    /// Its nonce.
    pub nonce: Name,
    /// The resources.
    pub resources: Vec<Item>,
    /// The names of those that are gone (delta only).
    pub removed: Vec<Name>,
    /// `control_plane.identifier`, if any.
    pub control_plane: Option<Name>,
}

/// A resource in a response.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Item {
    /// The resource.
    pub resource: Encoded,
    /// Whether the client is told how long it lives.
    pub with_ttl: bool,
    /// Whether its contents are left out: it only lives longer (a heartbeat), or there is nothing
    /// under its aliases.
    pub heartbeat: bool,
    /// Names that were asked for and that it is the answer to, besides its own (delta only).
    pub aliases: Vec<Name>,
}

/// What a response is written to.
pub(super) trait Sink {
    fn buffer(&mut self) -> &mut impl BufMut;

    /// Writes bytes that may be long and that others have as well.
    fn put_shared(&mut self, bytes: &Bytes);
}

/// Copies everything into one buffer.
struct Copied<'a, B>(&'a mut B);

// === impl Response ===

impl Response {
    /// How long the message is.
    pub fn encoded_len(&self) -> usize {
        let names = self.removed.iter().map(|name| name_len(name));
        let resources = self.resources.iter().map(|item| {
            field_len(
                2,
                match self.variant {
                    Variant::StateOfTheWorld => item.any_len(&self.url),
                    Variant::Delta => item.resource_len(&self.url),
                },
            )
        });
        let plane = self.control_plane.as_ref();
        let plane_tag = self.control_plane_tag();
        text_len(1, &self.version)
            + text_len(4, &self.url)
            + text_len(5, &self.nonce)
            + resources.sum::<usize>()
            + names.sum::<usize>()
            + plane.map_or(0, |id| field_len(plane_tag, text_len(1, id)))
    }

    /// Writes the message.
    pub fn encode(&self, to: &mut impl BufMut) {
        let to = &mut Copied(to);
        self.put_start(to);
        for item in &self.resources {
            self.put_item(item, to);
        }
        self.put_end(to);
    }

    /// Writes what comes before the resources.
    pub(super) fn put_start(&self, to: &mut impl Sink) {
        put_text(1, &self.version, to.buffer());
    }

    /// Writes one of the resources.
    pub(super) fn put_item(&self, item: &Item, to: &mut impl Sink) {
        match self.variant {
            Variant::StateOfTheWorld => {
                put_head(2, item.any_len(&self.url), to.buffer());
                item.put_any(&self.url, to);
            }
            Variant::Delta => {
                put_head(2, item.resource_len(&self.url), to.buffer());
                item.put_resource(&self.url, to);
            }
        }
    }

    /// Writes what comes after the resources.
    pub(super) fn put_end(&self, to: &mut impl Sink) {
        let to = to.buffer();
        put_text(4, &self.url, to);
        put_text(5, &self.nonce, to);
        for name in &self.removed {
            // Not put_text: an empty name in a list is a name.
            put_head(6, name.len(), to);
            to.put_slice(name.as_bytes());
        }
        if let Some(id) = &self.control_plane {
            put_head(self.control_plane_tag(), text_len(1, id), to);
            put_text(1, id, to);
        }
    }

    /// Its type, if it is one of ours.
    pub fn kind(&self) -> Option<TypeUrl> {
        TypeUrl::from_url(&self.url)
    }

    fn control_plane_tag(&self) -> u32 {
        match self.variant {
            Variant::StateOfTheWorld => 6,
            Variant::Delta => 7,
        }
    }
}

// === impl Item ===

impl Item {
    pub(super) fn new(resource: Encoded, with_ttl: bool) -> Self {
        let with_ttl = with_ttl && resource.ttl.is_some();
        Self {
            resource,
            with_ttl,
            heartbeat: false,
            aliases: Vec::new(),
        }
    }

    pub(super) fn heartbeat(resource: Encoded) -> Self {
        Self {
            resource,
            with_ttl: true,
            heartbeat: true,
            aliases: Vec::new(),
        }
    }

    /// Nothing has this name.
    pub(super) fn unknown(name: Name) -> Self {
        let mut nothing = Encoded::new(name.clone(), Bytes::new());
        nothing.version = Name::default();
        Self {
            resource: nothing,
            with_ttl: false,
            heartbeat: true,
            aliases: vec![name],
        }
    }

    /// What a resource takes of a delta response, in bytes.
    pub(super) fn delta_len(&self, url: &str) -> usize {
        field_len(2, self.resource_len(url))
    }

    /// The `Any` of a state-of-the-world response. One with a time to live is wrapped.
    fn any_len(&self, url: &str) -> usize {
        if self.with_ttl {
            text_len(1, RESOURCE_URL) + field_len(2, self.resource_len(url))
        } else {
            any_len(url, &self.resource.bytes)
        }
    }

    fn put_any(&self, url: &str, to: &mut impl Sink) {
        if self.with_ttl {
            put_text(1, RESOURCE_URL, to.buffer());
            put_head(2, self.resource_len(url), to.buffer());
            self.put_resource(url, to);
        } else {
            put_any(url, &self.resource.bytes, to);
        }
    }

    /// `envoy.service.discovery.v3.Resource`.
    fn resource_len(&self, url: &str) -> usize {
        let body = match self.heartbeat {
            true => 0,
            false => field_len(2, any_len(url, &self.resource.bytes)),
        };
        let ttl = self.ttl().map_or(0, |ttl| field_len(6, duration_len(ttl)));
        let aliases = self.aliases.iter().map(|alias| field_len(4, alias.len()));
        text_len(1, &self.resource.version)
            + body
            + text_len(3, &self.resource.name)
            + aliases.sum::<usize>()
            + ttl
    }

    fn put_resource(&self, url: &str, to: &mut impl Sink) {
        put_text(1, &self.resource.version, to.buffer());
        if !self.heartbeat {
            put_head(2, any_len(url, &self.resource.bytes), to.buffer());
            put_any(url, &self.resource.bytes, to);
        }
        let to = to.buffer();
        put_text(3, &self.resource.name, to);
        for alias in &self.aliases {
            put_head(4, alias.len(), to);
            to.put_slice(alias.as_bytes());
        }
        if let Some(ttl) = self.ttl() {
            put_head(6, duration_len(ttl), to);
            put_duration(ttl, to);
        }
    }

    fn ttl(&self) -> Option<Duration> {
        self.resource.ttl.filter(|_| self.with_ttl)
    }
}

// === impl Copied ===

impl<B: BufMut> Sink for Copied<'_, B> {
    fn buffer(&mut self) -> &mut impl BufMut {
        self.0
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        self.0.put_slice(bytes);
    }
}

// --- the wire format --------------------------------------------------------------------------

/// What the name of a removed resource takes of a delta response, in bytes.
pub(super) fn name_len(name: &str) -> usize {
    field_len(6, name.len())
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn text_len(tag: u32, text: &str) -> usize {
    match text.is_empty() {
        true => 0,
        false => field_len(tag, text.len()),
    }
}

fn put_head(tag: u32, len: usize, to: &mut impl BufMut) {
    encode_key(tag, LengthDelimited, to);
    encode_varint(len as u64, to);
}

fn put_text(tag: u32, text: &str, to: &mut impl BufMut) {
    if !text.is_empty() {
        put_head(tag, text.len(), to);
        to.put_slice(text.as_bytes());
    }
}

fn any_len(url: &str, value: &[u8]) -> usize {
    let value = match value.is_empty() {
        true => 0,
        false => field_len(2, value.len()),
    };
    text_len(1, url) + value
}

fn put_any(url: &str, value: &Bytes, to: &mut impl Sink) {
    put_text(1, url, to.buffer());
    if !value.is_empty() {
        put_head(2, value.len(), to.buffer());
        to.put_shared(value);
    }
}

fn duration_len(of: Duration) -> usize {
    let (seconds, nanos) = (of.as_secs(), u64::from(of.subsec_nanos()));
    let number = |value| match value {
        0 => 0,
        value => 1 + encoded_len_varint(value),
    };
    number(seconds) + number(nanos)
}

fn put_duration(of: Duration, to: &mut impl BufMut) {
    for (tag, value) in [(1, of.as_secs()), (2, u64::from(of.subsec_nanos()))] {
        if value != 0 {
            encode_key(tag, Varint, to);
            encode_varint(value, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::service::discovery::v3 as discovery;
    use crate::pb::google::protobuf::Any;
    use proptest::prelude::*;
    use prost::Message;

    fn any_item() -> impl Strategy<Value = Item> {
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        let ttl = prop::option::of(0_u64..1 << 40);
        ("[a-z]{0,200}", bytes, ttl, any::<(bool, bool)>()).prop_map(|(name, bytes, ttl, flags)| {
            let mut resource = Encoded::new(name, bytes);
            if let Some(ttl) = ttl {
                resource = resource.with_ttl(Duration::from_micros(ttl));
            }
            match flags {
                (true, _) if resource.ttl.is_some() => Item::heartbeat(resource),
                (_, with_ttl) => Item::new(resource, with_ttl),
            }
        })
    }

    fn any_response() -> impl Strategy<Value = Response> {
        let items = prop::collection::vec(any_item(), 0..5);
        let removed = prop::collection::vec("[a-z]{0,9}".prop_map(Name::from), 0..4);
        let plane = prop::option::of("[a-z]{0,9}".prop_map(Name::from));
        (
            any::<bool>(),
            "[a-z]{0,9}",
            "[a-z]{0,9}",
            items,
            removed,
            plane,
        )
            .prop_map(
                |(delta, version, nonce, resources, removed, control_plane)| Response {
                    variant: if delta {
                        Variant::Delta
                    } else {
                        Variant::StateOfTheWorld
                    },
                    url: TypeUrl::Cluster.url().into(),
                    version: version.into(),
                    nonce: nonce.into(),
                    resources,
                    removed: if delta { removed } else { Vec::new() },
                    control_plane,
                },
            )
    }

    fn wrapped(item: &Item) -> discovery::Resource {
        let ttl = item.resource.ttl.filter(|_| item.with_ttl);
        discovery::Resource {
            name: item.resource.name.to_string(),
            version: item.resource.version.to_string(),
            resource: (!item.heartbeat).then(|| bare(item)),
            ttl: ttl.map(|ttl| crate::pb::google::protobuf::Duration {
                seconds: ttl.as_secs() as i64,
                nanos: ttl.subsec_nanos() as i32,
            }),
            ..discovery::Resource::default()
        }
    }

    fn bare(item: &Item) -> Any {
        Any {
            type_url: TypeUrl::Cluster.url().into(),
            value: item.resource.bytes.to_vec(),
        }
    }

    fn plane(of: &Response) -> Option<crate::pb::envoy::config::core::v3::ControlPlane> {
        let id = of.control_plane.as_ref()?;
        Some(crate::pb::envoy::config::core::v3::ControlPlane {
            identifier: id.to_string(),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_by_hand_reads_as_the_message(response in any_response()) {
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), response.encoded_len());
            match response.variant {
                Variant::Delta => {
                    let read = discovery::DeltaDiscoveryResponse::decode(&bytes[..]).unwrap();
                    let want = discovery::DeltaDiscoveryResponse {
                        system_version_info: response.version.to_string(),
                        resources: response.resources.iter().map(wrapped).collect(),
                        type_url: response.url.to_string(),
                        removed_resources: response.removed.iter().map(|n| n.to_string()).collect(),
                        nonce: response.nonce.to_string(),
                        control_plane: plane(&response),
                        ..discovery::DeltaDiscoveryResponse::default()
                    };
                    prop_assert_eq!(read, want);
                }
                Variant::StateOfTheWorld => {
                    let read = discovery::DiscoveryResponse::decode(&bytes[..]).unwrap();
                    let resources = response.resources.iter().map(|item| match item.with_ttl {
                        true => Any {
                            type_url: RESOURCE_URL.into(),
                            value: wrapped(item).encode_to_vec(),
                        },
                        false => bare(item),
                    });
                    let want = discovery::DiscoveryResponse {
                        version_info: response.version.to_string(),
                        resources: resources.collect(),
                        type_url: response.url.to_string(),
                        nonce: response.nonce.to_string(),
                        control_plane: plane(&response),
                        ..discovery::DiscoveryResponse::default()
                    };
                    prop_assert_eq!(read, want);
                }
            }
        }
    }
}
