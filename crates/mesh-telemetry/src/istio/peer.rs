//! Who the other side is: Istio's metadata exchange.
//!
//! A sidecar says who it is in `x-envoy-peer-metadata`: a `google.protobuf.Struct`, serialised with
//! its keys in order and written in base64, as Istio's own proxies write and read it. What is read
//! comes from anybody, so its size is limited and whatever is malformed is no metadata.
//!
//! The principal is not part of it: that is for TLS to say.
//!
//! Who sends what, as Istio's proxies do it:
//!
//! | listener | request | response |
//! |---|---|---|
//! | outbound, gateway | [`IntroduceLayer`] puts our own on, for upstreams inside the mesh | [`FinishLayer`] reads what the upstream said and takes it off |
//! | inbound | [`FinishLayer`] reads what the caller said and takes it off | [`FinishLayer`] puts our own on, if the request had it |
//!
//! A process that is no workload (one without a name) leaves all headers alone; it reads what
//! callers say.
//!
//! [`FinishLayer`]: crate::FinishLayer
//! [`IntroduceLayer`]: crate::IntroduceLayer
//!
//! ```
//! use mesh_core::model::WorkloadRef;
//! use mesh_telemetry::istio::peer;
//!
//! let mut workload = WorkloadRef::default();
//! workload.name = "productpage-v1".into();
//! workload.namespace = "default".into();
//! let value = peer::encode(&workload);
//! assert_eq!(peer::decode(value.as_bytes()), Some(workload));
//! assert_eq!(peer::decode(b"not base64!"), None);
//! ```

mod introduction;
mod wire;

pub use introduction::Introduction;
pub(crate) use introduction::{Asked, take};

use http::{HeaderName, HeaderValue};
use mesh_core::Name;
use mesh_core::base64;
use mesh_core::model::WorkloadRef;
use wire::{Fields, Value};

/// The header that carries a workload's metadata.
pub const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");

/// The header that carries a proxy's id beside its metadata.
pub const METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// The longest header value that is read, in bytes.
pub const MOST_READ: usize = 8192;

/// The longest field that is written, in bytes: no name or label value of Kubernetes is longer.
const MOST_FIELD: usize = 253;

/// A workload as the value of [`METADATA`]. Empty fields, and fields of more than 253 bytes, are
/// left out. `NAME` would be the pod's; a workload knows only its own.
pub fn encode(workload: &WorkloadRef) -> HeaderValue {
    let mut labels = Vec::new();
    for (key, value) in [
        ("app", &workload.app),
        (
            "service.istio.io/canonical-name",
            &workload.canonical_service,
        ),
        (
            "service.istio.io/canonical-revision",
            &workload.canonical_revision,
        ),
        ("version", &workload.version),
    ] {
        put(key, value, &mut labels);
    }
    let mut fields = Vec::new();
    put("CLUSTER_ID", &workload.cluster, &mut fields);
    wire::put_struct("LABELS", &labels, &mut fields);
    for (key, value) in [
        ("NAME", &workload.name),
        ("NAMESPACE", &workload.namespace),
        ("WORKLOAD_NAME", &workload.name),
    ] {
        put(key, value, &mut fields);
    }
    HeaderValue::try_from(base64::encode(&fields)).expect("base64 is visible ASCII")
}

fn put(key: &str, value: &Name, out: &mut Vec<u8>) {
    if !value.is_empty() && value.len() <= MOST_FIELD {
        wire::put_string(key, value, out);
    }
}

/// Reads the value of [`METADATA`]. None if it is too long or malformed. Fields that are not known
/// are passed over.
pub fn decode(value: &[u8]) -> Option<WorkloadRef> {
    if value.len() > MOST_READ {
        return None;
    }
    let bytes = base64::decode(value)?;
    let mut workload = WorkloadRef::default();
    let mut instance = Name::default();
    for field in Fields::new(&bytes) {
        match field? {
            ("CLUSTER_ID", Value::Text(text)) => workload.cluster = text.into(),
            ("NAMESPACE", Value::Text(text)) => workload.namespace = text.into(),
            ("WORKLOAD_NAME", Value::Text(text)) => workload.name = text.into(),
            ("NAME", Value::Text(text)) => instance = text.into(),
            ("LABELS", Value::Struct(labels)) => read_labels(labels, &mut workload)?,
            _ => {}
        }
    }
    // A pod on its own is its own workload.
    if workload.name.is_empty() {
        workload.name = instance;
    }
    Some(workload)
}

fn read_labels(bytes: &[u8], workload: &mut WorkloadRef) -> Option<()> {
    for field in Fields::new(bytes) {
        match field? {
            ("app", Value::Text(text)) => workload.app = text.into(),
            ("version", Value::Text(text)) => workload.version = text.into(),
            ("service.istio.io/canonical-name", Value::Text(text)) => {
                workload.canonical_service = text.into();
            }
            ("service.istio.io/canonical-revision", Value::Text(text)) => {
                workload.canonical_revision = text.into();
            }
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn workload(parts: [String; 7]) -> WorkloadRef {
        let [name, namespace, app, version, service, revision, cluster] = parts.map(Name::from);
        let mut workload = WorkloadRef::default();
        workload.name = name;
        workload.namespace = namespace;
        workload.app = app;
        workload.version = version;
        workload.canonical_service = service;
        workload.canonical_revision = revision;
        workload.cluster = cluster;
        workload
    }

    #[test]
    fn the_entries_are_those_that_googles_library_writes() {
        // The entries are those of Google's Python library (a struct_pb2.Struct with these five
        // fields, SerializeToString, base64), here in the order of their keys.
        let workload = workload(["w", "ns", "a", "", "", "", "c"].map(str::to_owned));
        assert_eq!(
            encode(&workload),
            "ChEKCkNMVVNURVJfSUQSAxoBYwoYCgZMQUJFTFMSDioMCgoKA2FwcBIDGgFhCgsKBE5BTUUSAxoBdwoRCglO\
             QU1FU1BBQ0USBBoCbnMKFAoNV09SS0xPQURfTkFNRRIDGgF3"
        );
    }

    #[test]
    fn a_pod_without_a_workload_is_known_by_its_own_name() {
        let mut fields = Vec::new();
        wire::put_string("NAME", "pod-1", &mut fields);
        wire::put_string(
            "OWNER",
            "kubernetes://apis/v1/namespaces/default/pods/pod-1",
            &mut fields,
        );
        let read = decode(base64::encode(&fields).as_bytes()).unwrap();
        assert_eq!(read.name, "pod-1");
    }

    #[test]
    fn a_field_that_is_too_long_is_not_written_and_a_value_that_is_too_long_not_read() {
        let long = "x".repeat(254);
        let written = workload([
            long,
            "ns".into(),
            "".into(),
            "".into(),
            "".into(),
            "".into(),
            "".into(),
        ]);
        let read = decode(encode(&written).as_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.namespace.as_str()), ("", "ns"));
        let mut fields = Vec::new();
        wire::put_string("NAMESPACE", &"n".repeat(MOST_READ), &mut fields);
        assert_eq!(decode(base64::encode(&fields).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::array::uniform7("[a-z.é-]{0,40}")) {
            let written = workload(parts);
            prop_assert_eq!(decode(encode(&written).as_bytes()), Some(written));
        }

        #[test]
        fn reading_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&value);
            let _ = decode(base64::encode(&value).as_bytes());
        }

        #[test]
        fn a_damaged_value_never_panics(
            parts in prop::array::uniform7("[a-z]{0,9}"), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let value = encode(&workload(parts));
            let mut bytes = base64::decode(value.as_bytes()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(base64::encode(&bytes).as_bytes());
            let _ = decode(base64::encode(&bytes[..at]).as_bytes());
        }
    }
}
