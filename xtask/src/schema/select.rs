//! Which messages the table holds.

use std::collections::BTreeMap;

use anyhow::bail;
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// Every message in these packages, and in what lies below them, is in the table; and so is
/// whatever they refer to.
const PACKAGES: &[&str] = &[
    "envoy.admin.v3",
    "envoy.config",
    "envoy.data.accesslog.v3",
    "envoy.data.cluster.v3",
    "envoy.data.core.v3",
    "envoy.extensions",
    "envoy.service.discovery.v3",
    "envoy.service.load_stats.v3",
    "envoy.service.runtime.v3",
    "envoy.service.status.v3",
    "envoy.type",
    "google.rpc",
    "udpa.type",
    "xds.core",
    "xds.type",
];

/// What anything may be wrapped in.
const WELL_KNOWN: &[&str] = &[
    "google.protobuf.Any",
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.Empty",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.ListValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Value",
];

/// The needed messages by their full names.
pub(crate) type Messages = BTreeMap<String, MessageDescriptor>;

/// Everything that the table has to hold.
///
/// # Errors
///
/// If a package or a message of the lists above does not exist.
pub(crate) fn needed(pool: &DescriptorPool) -> anyhow::Result<Messages> {
    let mut messages = Messages::new();
    for package in PACKAGES {
        let mut inside = pool
            .all_messages()
            .filter(|message| lies_in(message.package_name(), package))
            .peekable();
        if inside.peek().is_none() {
            bail!("package {package} has no message");
        }
        for message in inside {
            add(message, &mut messages);
        }
    }
    for name in WELL_KNOWN {
        match pool.get_message_by_name(name) {
            Some(message) => add(message, &mut messages),
            None => bail!("there is no message {name}"),
        }
    }
    Ok(messages)
}

fn lies_in(package: &str, outer: &str) -> bool {
    package
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Adds a message and all that it refers to.
fn add(message: MessageDescriptor, messages: &mut Messages) {
    let mut waiting = vec![message];
    while let Some(message) = waiting.pop() {
        let name = message.full_name().to_owned();
        if messages.contains_key(&name) {
            continue;
        }
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                waiting.push(inner);
            }
        }
        messages.insert(name, message);
    }
}
