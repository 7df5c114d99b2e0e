//! Messages that Envoy knows and envoy-types leaves out.

use anyhow::Context as _;
use prost_reflect::{
    DescriptorPool,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
        field_descriptor_proto::{Label, Type},
    },
};

/// Both names of the message that carries an extension's configuration as a `Struct`. istiod
/// sends its own filters in it.
const TYPED_STRUCTS: [(&str, &str); 2] = [
    ("xds/type/v3/typed_struct.proto", "xds.type.v3"),
    ("udpa/type/v1/typed_struct.proto", "udpa.type.v1"),
];

/// Adds them.
///
/// # Errors
///
/// If the pool has them by now: then remove them here.
pub(crate) fn add(pool: &mut DescriptorPool) -> anyhow::Result<()> {
    for (file, package) in TYPED_STRUCTS {
        pool.add_file_descriptor_proto(typed_struct(file, package))
            .with_context(|| format!("cannot add {package}.TypedStruct"))?;
    }
    Ok(())
}

fn typed_struct(file: &str, package: &str) -> FileDescriptorProto {
    let url = field("type_url", 1, Type::String);
    let value = FieldDescriptorProto {
        type_name: Some(".google.protobuf.Struct".into()),
        ..field("value", 2, Type::Message)
    };
    FileDescriptorProto {
        name: Some(file.into()),
        package: Some(package.into()),
        dependency: vec!["google/protobuf/struct.proto".into()],
        message_type: vec![DescriptorProto {
            name: Some("TypedStruct".into()),
            field: vec![url, value],
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    }
}
