//! Keys do not stay in memory after the last user of what they were encoded in has dropped it.

// An allocator that looks at what is given back cannot be written without it; nothing else here is
// unsafe.
#![allow(unsafe_code)]
#![cfg(feature = "client")]

use mesh_core::model::Secret;
use mesh_xds::client::{Config, Event, Machine, Response, Variant};
use mesh_xds::pb::envoy::config::core::v3::DataSource;
use mesh_xds::pb::envoy::config::core::v3::data_source::Specifier;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use mesh_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource,
};
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::{Node, TypeUrl, read, write};
use prost::Message;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

/// Nothing else in this process says that.
const KEY: &[u8] = b"a key that nobody may ever find again";

struct Looking;

thread_local! {
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`. Zeroed, so that all of it can be read.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block is as long as that, and `alloc` wrote all of it.
        let bytes = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
        if bytes.windows(KEY.len()).any(|window| window == KEY) {
            FOUND.with(|found| found.set(found.get() + 1));
        }
        // SAFETY: `pointer` came from `System.alloc_zeroed` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static LOOKING: Looking = Looking;

/// How many blocks were given back with the key in them.
fn left(work: impl FnOnce()) -> usize {
    let before = FOUND.with(Cell::get);
    work();
    FOUND.with(Cell::get) - before
}

fn certificate() -> Secret {
    let chain = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n";
    Secret::certificate(chain, KEY)
}

#[test]
fn the_allocator_sees_a_key_that_is_left() {
    assert_eq!(left(|| drop(KEY.to_vec())), 1);
}

#[test]
fn an_encoded_secret_is_wiped_with_its_last_copy() {
    let secret = certificate();
    let encoded = write::encode_secret("a", &secret);
    assert_eq!(encoded, write::encode("a", &write::secret("a", &secret)));
    let before = FOUND.with(Cell::get);
    let copy = encoded.clone();
    drop(encoded);
    assert!(copy.bytes.windows(KEY.len()).any(|window| window == KEY));
    drop(copy);
    drop(write::encode_secret("b", &secret));
    drop(secret);
    assert_eq!(FOUND.with(Cell::get), before);
}

#[test]
fn a_secret_that_came_is_wiped_where_it_was_decoded() {
    let secret = certificate();
    let encoded = write::encode_secret("a", &secret);
    let decoded = left(|| drop(read::resource(TypeUrl::Secret, &encoded.bytes).unwrap()));
    assert_eq!(decoded, 0);

    let response = whole(vec![any(&encoded.bytes)]);
    assert_eq!(left(|| assert!(taken(response, asking()).is_some())), 0);
}

fn any(bytes: &[u8]) -> Any {
    Any {
        type_url: TypeUrl::Secret.url().into(),
        value: bytes.to_vec(),
    }
}

fn whole(resources: Vec<Any>) -> Response {
    Response::Sotw(Box::new(DiscoveryResponse {
        type_url: TypeUrl::Secret.url().into(),
        version_info: "1".into(),
        nonce: "1".into(),
        resources,
        ..DiscoveryResponse::default()
    }))
}

fn wrapped(bytes: &[u8]) -> Resource {
    Resource {
        name: "a".into(),
        version: "1".into(),
        resource: Some(any(bytes)),
        ..Resource::default()
    }
}

/// In state of the world, asking for the secret `a`.
fn asking() -> Machine {
    let mut config = Config::new(Node::new("n"));
    config.variant = Variant::Sotw;
    config.keep_bodies = true;
    config.limits.resources = 2;
    let mut machine = Machine::new(config, read::resource);
    machine.subscribe(TypeUrl::Secret, &"a".into());
    machine.opened("server");
    machine
}

/// What a machine says of a response. Nothing is left of either.
fn taken(response: Response, mut machine: Machine) -> Option<Event<read::Resource>> {
    let now = Instant::now();
    while machine.poll_request(now).is_some() {}
    machine.receive(response, now);
    machine.poll_event()
}

/// A secret whose key can be read, and then something that cannot.
fn half_way(field: &str) -> Vec<u8> {
    let mut proto = write::secret("a", &certificate());
    let Some(Type::TlsCertificate(certificate)) = &mut proto.r#type else {
        unreachable!("it is one")
    };
    certificate.password = Some(DataSource {
        specifier: Some(Specifier::Filename("\u{e9}".into())),
        ..DataSource::default()
    });
    let mut bytes = proto.encode_to_vec();
    match field {
        // Its name again, which is no text.
        "name" => bytes.extend([0x0a, 1, 0xff]),
        _ => {
            let at = bytes.windows(2).position(|pair| pair == [0xc3, 0xa9]);
            bytes[at.unwrap()] = 0xff;
        }
    }
    bytes
}

#[test]
fn a_secret_that_is_refused_or_passed_over_is_wiped_like_any_other() {
    let bytes = write::encode_secret("a", &certificate()).bytes;
    let wrapper = |bytes: &[u8], cut: bool| {
        let mut value = wrapped(bytes).encode_to_vec();
        if cut {
            // A field that says it is longer than what is left.
            value.extend([0x0a, 100]);
        }
        Any {
            type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
            value,
        }
    };
    let delta = |resources| {
        Response::Delta(Box::new(DeltaDiscoveryResponse {
            type_url: TypeUrl::Secret.url().into(),
            nonce: "1".into(),
            resources,
            ..DeltaDiscoveryResponse::default()
        }))
    };
    let other = write::encode_secret("b", &certificate()).bytes;
    let idle = || Machine::new(Config::new(Node::new("n")), read::resource);
    let open = || {
        let mut machine = idle();
        machine.opened("server");
        machine
    };
    let full = || {
        let mut config = Config::new(Node::new("n"));
        config.limits.resources = 1;
        let mut machine = Machine::new(config, read::resource);
        machine.subscribe_all(TypeUrl::Secret);
        machine.subscribe(TypeUrl::Secret, &"c".into());
        machine.opened("server");
        machine
    };
    let twice = vec![any(&bytes), any(&bytes)];
    let cases = [
        ("twice", whole(twice), asking()),
        ("too many", whole(vec![any(&bytes); 3]), asking()),
        ("not asked for", whole(vec![any(&bytes)]), open()),
        ("no stream", whole(vec![any(&bytes)]), idle()),
        ("another one", whole(vec![any(&other)]), asking()),
        ("no room", delta(vec![wrapped(&bytes)]), full()),
        ("delta", delta(vec![wrapped(&bytes)]), asking()),
        ("wrapped", whole(vec![wrapper(&bytes, false)]), asking()),
        ("cut off", whole(vec![wrapper(&bytes, true)]), asking()),
        ("half-way", whole(vec![any(&half_way("name"))]), asking()),
        ("inside", whole(vec![any(&half_way("password"))]), asking()),
    ];
    for (what, response, machine) in cases {
        assert_eq!(left(|| drop(taken(response, machine))), 0, "{what}");
    }
    for field in ["name", "password"] {
        let bytes = half_way(field);
        let read = left(|| assert!(read::resource(TypeUrl::Secret, &bytes).is_err()));
        assert_eq!(read, 0, "{field}");
    }
}

#[test]
fn a_secret_that_is_shown_is_wiped_where_it_was_encoded() {
    let proto = write::secret("a", &certificate());
    assert_eq!(left(|| drop(write::redacted(&proto))), 0);
}

#[cfg(feature = "json")]
#[test]
fn the_secrets_of_a_bootstrap_are_wiped_and_are_not_in_what_is_shown_of_it() {
    use mesh_xds::bootstrap::Bootstrap;
    use mesh_xds::pb::envoy::config::bootstrap::v3 as pb;
    let mut proto = pb::Bootstrap {
        static_resources: Some(pb::bootstrap::StaticResources {
            secrets: vec![write::secret("a", &certificate())],
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = proto.encode_to_vec();
    let mut shown = bytes::Bytes::new();
    let read = left(|| {
        let bootstrap = Bootstrap::from_bytes(&bytes).unwrap();
        assert_eq!(bootstrap.secrets.len(), 1);
        shown = bootstrap.encoded;
    });
    assert_eq!(read, 0);
    assert!(!shown.windows(KEY.len()).any(|window| window == KEY));
    assert!(
        pb::Bootstrap::decode(shown)
            .unwrap()
            .static_resources
            .is_some()
    );

    proto.flags_path = "not supported".into();
    let bytes = proto.encode_to_vec();
    assert_eq!(left(|| assert!(Bootstrap::from_bytes(&bytes).is_err())), 0);
}
