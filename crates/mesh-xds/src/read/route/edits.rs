//! Header changes, from lists of `HeaderValueOption` and of names to remove.

use super::template;
use crate::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use crate::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use crate::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::wire::text::header_name;
use crate::wire::{At, each, enumeration, required, unsupported};
use http::HeaderName;
use http::header::HOST;
use mesh_core::Invalid;
use mesh_core::model::{AddMode, HeaderAdd, HeaderChanges, HeaderEdits, HeaderTemplate};

/// The changes of requests.
pub(in crate::read) fn request(
    add: &[HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdits, Invalid> {
    Ok(HeaderChanges {
        remove: each("request_headers_to_remove", remove, |name| {
            editable("", name)
        })?,
        add: each("request_headers_to_add", add, one)?,
    }
    .into())
}

/// What is put on a call.
pub(in crate::read) fn metadata(add: &[HeaderValueOption]) -> Result<HeaderEdits, Invalid> {
    Ok(HeaderChanges {
        remove: Vec::new(),
        add: each("initial_metadata", add, one)?,
    }
    .into())
}

/// The changes of responses.
pub(super) fn response(
    add: &[HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdits, Invalid> {
    Ok(HeaderChanges {
        remove: each("response_headers_to_remove", remove, |name| {
            editable("", name)
        })?,
        add: each("response_headers_to_add", add, one)?,
    }
    .into())
}

/// Changes that are made one after the other. Removals come last in the model: one in front of a
/// value that may be made of what it removes is refused, as are two of one header.
pub(super) fn one_by_one(
    field: &str,
    mutations: &[HeaderMutation],
) -> Result<HeaderEdits, Invalid> {
    let mut edits = HeaderEdits::default();
    for (at, mutation) in mutations.iter().enumerate() {
        let path = format!("{field}[{at}]");
        let HeaderMutation { action } = mutation;
        let changed = |edits: &HeaderEdits, name: &HeaderName| {
            edits.remove.contains(name) || edits.add.iter().any(|edit| edit.name == *name)
        };
        let twice = |name: &HeaderName| Invalid::new(path.clone(), format!("changes {name} again"));
        match required("action", action).at(path.clone())? {
            Action::Remove(name) => {
                let name = editable("remove", name).at(path.clone())?;
                if changed(&edits, &name) {
                    return Err(twice(&name));
                }
                edits.remove.push(name);
            }
            Action::Append(option) => {
                let edit = one(option).at("append").at(path.clone())?;
                if changed(&edits, &edit.name) {
                    return Err(twice(&edit.name));
                }
                if !edits.remove.is_empty() && matches!(edit.value, HeaderTemplate::Pieces(_)) {
                    let message = "a value with operators is not supported behind a removal";
                    return Err(Invalid::new(format!("{path}.append"), message));
                }
                edits.add.push(edit);
            }
            Action::RemoveOnMatch(_) => return Err(unsupported("remove_on_match")).at(path),
        }
    }
    Ok(edits)
}

#[expect(deprecated, reason = "the old spelling of `append_action` is read too")]
fn one(proto: &HeaderValueOption) -> Result<HeaderAdd, Invalid> {
    let HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = proto;
    let mode = match enumeration("append_action", *append_action)? {
        HeaderAppendAction::AppendIfExistsOrAdd => AddMode::Append,
        HeaderAppendAction::AddIfAbsent => AddMode::IfAbsent,
        HeaderAppendAction::OverwriteIfExistsOrAdd => AddMode::Overwrite,
        HeaderAppendAction::OverwriteIfExists => AddMode::OverwriteIfPresent,
    };
    let mode = match append {
        None => mode,
        Some(_) if mode != AddMode::Append => {
            return Err(Invalid::new(
                "append",
                "not possible together with append_action",
            ));
        }
        Some(append) if append.value => AddMode::Append,
        Some(_) => AddMode::Overwrite,
    };
    let HeaderValue {
        key,
        value,
        raw_value,
    } = required("header", header)?;
    let (field, text) = match (value.as_str(), raw_value.as_slice()) {
        (text, []) => ("header.value", text.as_bytes()),
        ("", raw) => ("header.raw_value", raw),
        _ => {
            let message = "not possible together with value";
            return Err(Invalid::new("header.raw_value", message));
        }
    };
    Ok(HeaderAdd {
        name: editable("header.key", key)?,
        value: template::parse(text).at(field)?,
        mode,
        keep_empty: *keep_empty_value,
    })
}

/// The name of a header that may be changed. Envoy refuses the others too.
fn editable(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    let header = header_name(field, name)?;
    if header == HOST {
        let message = "host cannot be edited; host_rewrite_literal sets it";
        return Err(Invalid::new(field, message));
    }
    Ok(header)
}
