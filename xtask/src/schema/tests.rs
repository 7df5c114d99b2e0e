use super::{extra, select, table};
use crate::workspace::Workspace;
use prost_reflect::DescriptorPool;

#[test]
fn the_committed_table_is_what_the_locked_envoy_types_give() {
    let workspace = Workspace::load().unwrap();
    super::run(&workspace, &super::Options { check: true }).unwrap();
}

#[test]
fn messages_that_envoy_types_lack_are_added() {
    let mut pool = DescriptorPool::new();
    assert!(
        extra::add(&mut pool).is_err(),
        "google.protobuf.Struct is not there"
    );

    let workspace = Workspace::load().unwrap();
    let bytes = std::fs::read(super::source(&workspace).unwrap()).unwrap();
    let mut pool = DescriptorPool::decode(bytes.as_slice()).unwrap();
    extra::add(&mut pool).unwrap();
    let messages = select::needed(&pool).unwrap();
    assert!(messages.contains_key("xds.type.v3.TypedStruct"));
    assert!(messages.contains_key("udpa.type.v1.TypedStruct"));
    assert!(messages.contains_key("envoy.config.cluster.v3.Cluster"));
    assert!(!messages.contains_key("google.protobuf.FileDescriptorSet"));
}

#[test]
fn json_names_are_those_of_the_proto3_mapping() {
    assert_eq!(table::json_name("typed_config"), "typedConfig");
    assert_eq!(table::json_name("a_1_b"), "a1B");
    assert_eq!(table::json_name("plain"), "plain");
}
