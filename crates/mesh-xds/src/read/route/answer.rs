//! Redirects and fixed responses, from `RedirectAction` and `DirectResponseAction`.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use crate::wire::text::substitution;
use crate::wire::{At, enumeration, refuse, required, unsupported};
use bytes::Bytes;
use http::StatusCode;
use mesh_core::model::{DirectResponse, Redirect, RedirectPath};
use mesh_core::{Invalid, Name};

/// Reads a redirect. A host may bring its port along; `port_redirect` goes before it.
pub(super) fn redirect(proto: &pb::RedirectAction) -> Result<Redirect, Invalid> {
    let pb::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = proto;
    let mut redirect = Redirect::default();
    redirect.code = match enumeration("response_code", *response_code)? {
        RedirectResponseCode::MovedPermanently => 301,
        RedirectResponseCode::Found => 302,
        RedirectResponseCode::SeeOther => 303,
        RedirectResponseCode::TemporaryRedirect => 307,
        RedirectResponseCode::PermanentRedirect => 308,
    };
    redirect.scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Name::from("https")),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => text(scheme),
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
    };
    let (host, own_port) = split(host_redirect);
    redirect.host = text(host);
    redirect.port = match port_redirect {
        0 => own_port,
        port => Some(u16::try_from(*port).map_err(|_| {
            let message = format!("{port} is not a port from 1 to 65535");
            Invalid::new("port_redirect", message)
        })?),
    };
    redirect.path = match path_rewrite_specifier {
        None => RedirectPath::Keep,
        // Envoy takes the empty text for "not set"; istiod sends it.
        Some(
            PathRewriteSpecifier::PathRedirect(empty) | PathRewriteSpecifier::PrefixRewrite(empty),
        ) if empty.is_empty() => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => RedirectPath::Full(path.clone()),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.clone()),
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            let (pattern, with) = substitution(regex).at("regex_rewrite")?;
            RedirectPath::Regex(pattern, with)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(unsupported("path_rewrite")),
    };
    redirect.strip_query = *strip_query;
    Ok(redirect)
}

fn text(value: &str) -> Option<Name> {
    (!value.is_empty()).then(|| Name::from(value))
}

/// The host and the port of `host:port`. A bare IPv6 address is all host.
fn split(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            match port.parse::<u16>() {
                Ok(port) if port > 0 => (host, Some(port)),
                _ => (authority, None),
            }
        }
        _ => (authority, None),
    }
}

/// Reads a fixed response. Its body has to come along.
pub(super) fn direct_response(proto: &pb::DirectResponseAction) -> Result<DirectResponse, Invalid> {
    let pb::DirectResponseAction {
        status: code,
        body,
        body_format,
    } = proto;
    refuse!(body_format);
    let mut answer = DirectResponse::default();
    answer.status = status("status", *code)?;
    if let Some(source) = body {
        answer.body = inline(source).at("body")?;
    }
    Ok(answer)
}

/// The status of an answer that ends an exchange.
pub(super) fn status(field: &str, code: u32) -> Result<StatusCode, Invalid> {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Invalid::new(field, format!("{code} is not a status from 200 to 599")))
}

fn inline(source: &DataSource) -> Result<Bytes, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = source;
    refuse!(watched_directory);
    match required("specifier", specifier)? {
        Specifier::InlineBytes(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        Specifier::InlineString(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Specifier::Filename(_) => Err(unsupported("filename")),
        Specifier::EnvironmentVariable(_) => Err(unsupported("environment_variable")),
    }
}
