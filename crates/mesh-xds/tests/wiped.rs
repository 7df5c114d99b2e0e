//! Keys do not stay in memory after the last user of what they were encoded in has dropped it.

// An allocator that looks at what is given back cannot be written without it; nothing else here is
// unsafe.
#![allow(unsafe_code)]
#![cfg(feature = "client")]

use mesh_core::model::Secret;
use mesh_xds::client::{Config, Machine, Response};
use mesh_xds::pb::envoy::service::discovery::v3::DiscoveryResponse;
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::{Node, TypeUrl, read, write};
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

    let response = DiscoveryResponse {
        type_url: TypeUrl::Secret.url().into(),
        version_info: "1".into(),
        nonce: "1".into(),
        resources: vec![Any {
            type_url: TypeUrl::Secret.url().into(),
            value: encoded.bytes.to_vec(),
        }],
        ..DiscoveryResponse::default()
    };
    let taken = left(|| {
        let now = Instant::now();
        let mut config = Config::new(Node::new("n"));
        config.keep_bodies = true;
        let mut machine = Machine::new(config, read::resource);
        machine.subscribe(TypeUrl::Secret, &"a".into());
        machine.opened("server");
        while machine.poll_request(now).is_some() {}
        machine.receive(Response::Sotw(Box::new(response)), now);
        let event = machine.poll_event();
        assert!(event.is_some());
    });
    assert_eq!(taken, 0);
}
