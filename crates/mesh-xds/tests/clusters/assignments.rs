//! What endpoints say of balancing: shares that are refused, keys to hash by, subsets.

use mesh_core::model::EndpointSet;
use mesh_xds::pb::envoy::config::endpoint::v3::cluster_load_assignment::{
    Policy, policy::DropOverload,
};
use mesh_xds::pb::envoy::r#type::v3::FractionalPercent;
use mesh_xds::pb::google::protobuf::{Duration as Wire, Struct, UInt32Value, Value, value::Kind};
use mesh_xds::{read, write};

fn is(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[test]
fn what_endpoints_say_that_cannot_be_done_is_refused_by_its_field() {
    type Change = fn(&mut Policy);
    let changes: [(&str, Change); 5] = [
        ("weighted_priority_health: not supported", |p| {
            p.weighted_priority_health = true
        }),
        ("endpoint_stale_after: not supported", |p| {
            p.endpoint_stale_after = Some(Wire {
                seconds: 1,
                nanos: 0,
            });
        }),
        ("overprovisioning_factor: must be 1 or more", |p| {
            p.overprovisioning_factor = is(0)
        }),
        ("drop_overloads[0].category: required, but missing", |p| {
            p.drop_overloads.push(Default::default());
        }),
        (
            "drop_overloads[0].drop_percentage: 150 of 100 is more than all",
            |p| {
                p.drop_overloads.push(DropOverload {
                    category: "a".to_owned(),
                    drop_percentage: Some(FractionalPercent {
                        numerator: 150,
                        denominator: 0,
                    }),
                });
            },
        ),
    ];
    for (message, change) in changes {
        let mut proto = write::endpoints("c", &EndpointSet::default());
        change(proto.policy.get_or_insert_default());
        let error = read::endpoints(&proto).unwrap_err().to_string();
        assert_eq!(error, format!("policy.{message}"));
    }
}

#[test]
fn a_key_to_hash_by_is_text_and_everything_else_is_for_subsets() {
    let of = |kind| Value { kind: Some(kind) };
    let fields = [
        ("hash_key".to_owned(), of(Kind::StringValue("a".to_owned()))),
        ("canary".to_owned(), of(Kind::BoolValue(true))),
    ];
    let mut set = EndpointSet::of(["10.0.0.1:80".parse::<mesh_core::model::Address>().unwrap()]);
    set.overprovisioning = Some(200);
    let mut proto = write::endpoints("c", &set);
    let one = &mut proto.endpoints[0].lb_endpoints[0];
    let metadata = one.metadata.get_or_insert_default();
    let fields = Struct {
        fields: fields.into_iter().collect(),
    };
    metadata
        .filter_metadata
        .insert("envoy.lb".to_owned(), fields);
    let read = |proto: &_| read::endpoints(proto).unwrap().endpoints;
    let endpoint = read(&proto).localities[0].endpoints[0].clone();
    assert_eq!(endpoint.hash_key, "a");
    assert_eq!(endpoint.subset.len(), 1);
    assert_eq!(endpoint.subset["canary"], "true");
    assert_eq!(read(&proto).overprovisioning, Some(200));

    let one = &mut proto.endpoints[0].lb_endpoints[0];
    let metadata = one.metadata.as_mut().unwrap();
    let fields = metadata.filter_metadata.get_mut("envoy.lb").unwrap();
    fields
        .fields
        .insert("hash_key".to_owned(), of(Kind::NumberValue(7.0)));
    let endpoint = read(&proto).localities[0].endpoints[0].clone();
    assert_eq!(endpoint.hash_key, "");
    assert_eq!(endpoint.subset["hash_key"], "7");
}
