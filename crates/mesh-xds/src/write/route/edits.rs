//! Header changes, as lists of `HeaderValueOption` and of names to remove.

use crate::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use crate::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use crate::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use mesh_core::model::{AddMode, HeaderAdd, HeaderEdits, HeaderKey, HeaderTemplate, Piece};

/// What is added, and the names of what is removed.
pub(in crate::write) fn write(edits: &HeaderEdits) -> (Vec<HeaderValueOption>, Vec<String>) {
    let add = edits.add.iter().map(one).collect();
    let remove = edits.remove.iter().map(ToString::to_string).collect();
    (add, remove)
}

/// The same one after the other, removals last.
pub(super) fn one_by_one(edits: &HeaderEdits) -> Vec<HeaderMutation> {
    let add = edits.add.iter().map(|edit| Action::Append(one(edit)));
    let remove = edits.remove.iter();
    let all = add.chain(remove.map(|name| Action::Remove(name.to_string())));
    all.map(|action| HeaderMutation {
        action: Some(action),
    })
    .collect()
}

fn one(edit: &HeaderAdd) -> HeaderValueOption {
    let action = match edit.mode {
        AddMode::Append => HeaderAppendAction::AppendIfExistsOrAdd,
        AddMode::Overwrite => HeaderAppendAction::OverwriteIfExistsOrAdd,
        AddMode::IfAbsent => HeaderAppendAction::AddIfAbsent,
        AddMode::OverwriteIfPresent => HeaderAppendAction::OverwriteIfExists,
    };
    // Text goes into `value`; `raw_value` is for what a protobuf string cannot hold.
    let (value, raw_value) = match String::from_utf8(template(&edit.value)) {
        Ok(text) => (text, Vec::new()),
        Err(error) => (String::new(), error.into_bytes()),
    };
    HeaderValueOption {
        header: Some(HeaderValue {
            key: edit.name.to_string(),
            value,
            raw_value,
        }),
        append_action: action.into(),
        keep_empty_value: edit.keep_empty,
        ..Default::default()
    }
}

/// A value with format operators; a percent sign is written twice.
pub(in crate::write) fn template(template: &HeaderTemplate) -> Vec<u8> {
    let mut out = Vec::new();
    match template {
        HeaderTemplate::Fixed(value) => text(value.as_bytes(), &mut out),
        HeaderTemplate::Pieces(pieces) => {
            for each in pieces {
                piece(each, &mut out);
            }
        }
    }
    out
}

fn text(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if *byte == b'%' {
            out.push(b'%');
        }
        out.push(*byte);
    }
}

fn piece(piece: &Piece, out: &mut Vec<u8>) {
    if let Piece::Text(plain) = piece {
        return text(plain.as_bytes(), out);
    }
    let (piece, length) = match piece {
        Piece::Shortened(piece, length) => (&**piece, format!(":{length}")),
        piece => (piece, String::new()),
    };
    // An operator that is not known here leaves nothing, as one without a value does.
    if let Some(operator) = operator(piece) {
        out.extend_from_slice(format!("%{operator}{length}%").as_bytes());
    }
}

fn operator(piece: &Piece) -> Option<String> {
    if let Some((from, name)) = field(piece) {
        return Some(format!("{from}({name})"));
    }
    if let Piece::FirstOf(first, second) = piece {
        let ((from, first), (_, second)) = (field(first)?, field(second)?);
        return Some(format!("{from}({first}?{second})"));
    }
    let operator = match piece {
        Piece::DownstreamRemoteAddress => "DOWNSTREAM_REMOTE_ADDRESS",
        Piece::DownstreamRemoteAddressWithoutPort => "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Piece::DownstreamLocalAddress => "DOWNSTREAM_LOCAL_ADDRESS",
        Piece::Protocol => "PROTOCOL",
        Piece::ResponseCode => "RESPONSE_CODE",
        Piece::ResponseFlags => "RESPONSE_FLAGS",
        Piece::ResponseCodeDetails => "RESPONSE_CODE_DETAILS",
        Piece::RouteName => "ROUTE_NAME",
        Piece::UpstreamHost => "UPSTREAM_HOST",
        Piece::UpstreamCluster => "UPSTREAM_CLUSTER",
        Piece::UpstreamRequestAttemptCount => "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        Piece::StartTime => "START_TIME",
        _ => return None,
    };
    Some(operator.to_owned())
}

/// A header or pseudo-header, and whose it is.
fn field(piece: &Piece) -> Option<(&'static str, &str)> {
    Some(match piece {
        Piece::RequestHeader(name) => ("REQ", name.as_str()),
        Piece::ResponseHeader(name) => ("RESP", name.as_str()),
        Piece::RequestPart(HeaderKey::Method) => ("REQ", ":method"),
        Piece::RequestPart(HeaderKey::Authority) => ("REQ", ":authority"),
        Piece::RequestPart(HeaderKey::Scheme) => ("REQ", ":scheme"),
        Piece::RequestPart(HeaderKey::Path) => ("REQ", ":path"),
        Piece::RequestPart(HeaderKey::Header(name)) => ("REQ", name.as_str()),
        _ => return None,
    })
}
