//! New paths, authorities and redirect targets. Pure; checked against Envoy 1.40.

use crate::head::{Head, port_start};
use crate::list;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use mesh_core::model::{PathMatch, PathRewrite, Pattern, Redirect, RedirectPath, TemplateRewrite};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The path and query after a rewrite, or none where there is nothing to rewrite.
///
/// The query stays as it is. [`PathRewrite::Prefix`] replaces what `matched` matched: the prefix,
/// or the whole path where the match is exact or a regular expression; an empty one changes
/// nothing (Envoy `RouteAction.prefix_rewrite`). Where the path is no longer of the template that
/// matched, [`PathRewrite::Template`] makes it what it was (Envoy).
pub fn path(rewrite: &PathRewrite, matched: &PathMatch, path_and_query: &str) -> Option<String> {
    match rewrite {
        PathRewrite::Prefix(new) => prefix(new, matched, path_and_query),
        PathRewrite::Regex(pattern, with) => Some(regex(pattern, with, path_and_query)),
        PathRewrite::Template(with) => Some(template(with, matched, path_and_query)),
        _ => None,
    }
}

/// The value of `location` for a redirect (Envoy `RedirectAction`).
///
/// Parts that are not set stay as requested. The port of the request's authority goes where a new
/// port is given, and where the scheme changes and it was the old scheme's default: `http://a:80`
/// becomes `https://a`. A port that the redirect gives is always written out, default or not.
pub fn location(redirect: &Redirect, matched: &PathMatch, head: &Head<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or_else(|| head.scheme());
    let port = redirect
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let host = match &redirect.host {
        Some(host) => host,
        None => kept_host(head, scheme, redirect.port.is_some()),
    };
    format!("{scheme}://{host}{port}{}", target(redirect, matched, head))
}

/// The path and query of a request that is redirected, as templates and logs know it from then on:
/// a new prefix or pattern is put on the request itself (Envoy
/// `DirectResponseEntry::rewritePathHeader`). None where it stays.
pub(crate) fn redirected(
    redirect: &Redirect,
    matched: &PathMatch,
    path_and_query: &str,
) -> Option<String> {
    match &redirect.path {
        RedirectPath::Prefix(new) => prefix(new, matched, path_and_query),
        RedirectPath::Regex(pattern, with) => Some(regex(pattern, with, path_and_query)),
        RedirectPath::Keep | RedirectPath::Full(_) => None,
    }
}

/// The value of `location` for a host that only speaks https: authority and path as they were
/// (Envoy `VirtualHost.require_tls`).
pub fn location_with_tls(head: &Head<'_>) -> String {
    let authority = head.authority().unwrap_or_default();
    let path = head.path_and_query().unwrap_or_default();
    format!("https://{authority}{path}")
}

/// Puts a new path and query on a URI. What may not stand in a path is percent-encoded, and a
/// missing `/` is put in front: where Envoy would send a request line that servers refuse, this
/// sends one that they understand.
///
/// # Errors
/// If the path is longer than a URI can be (65,534 bytes), or the URI is the target of a plain
/// `CONNECT` and has no path. The URI is unchanged then.
pub fn set_path(uri: &mut Uri, path_and_query: &str) -> Result<(), http::Error> {
    let slash = if path_and_query.starts_with('/') {
        ""
    } else {
        "/"
    };
    let text = format!("{slash}{path_and_query}");
    // A fragment would be cut off silently, so a `#` is never plain.
    let plain = (!text.contains('#')).then(|| PathAndQuery::try_from(&text));
    let path = match plain {
        Some(Ok(path)) => path,
        _ => PathAndQuery::try_from(utf8_percent_encode(&text, UNSAFE).to_string())?,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    *uri = Uri::from_parts(parts)?;
    Ok(())
}

/// Makes `authority` the authority of a request: in the URI where it has one, and in the `host`
/// header where there is one or where the URI has none. False, and nothing changed, if it cannot
/// be an authority.
pub fn set_authority(uri: &mut Uri, headers: &mut HeaderMap, authority: &str) -> bool {
    let (Ok(parsed), Ok(value)) = (
        Authority::try_from(authority),
        HeaderValue::try_from(authority),
    ) else {
        return false;
    };
    let in_uri = uri.authority().is_some();
    if in_uri {
        let mut parts = uri.clone().into_parts();
        parts.authority = Some(parsed);
        let Ok(changed) = Uri::from_parts(parts) else {
            return false;
        };
        *uri = changed;
    }
    if !in_uri || headers.contains_key(HOST) {
        headers.insert(HOST, value);
    }
    true
}

/// Appends an authority to `x-forwarded-host`, unless it is the last that was (Envoy
/// `RouteAction.append_x_forwarded_host`). It is one list, on however many lines.
pub(crate) fn append_forwarded_host(headers: &mut HeaderMap, authority: &HeaderValue) {
    let list = list::whole(headers, &FORWARDED_HOST, ",");
    let last = list.rsplit(|byte| *byte == b',').find(|it| !it.is_empty());
    if authority.is_empty() || last == Some(authority.as_bytes()) {
        return;
    }
    list::append(headers, FORWARDED_HOST, authority, ",");
}

/// The host of a mirror's copy: `-shadow` in front of the port (Envoy appends it unless
/// `disable_shadow_host_suffix_append`).
pub fn shadow_authority(authority: &str) -> String {
    let (host, port) = authority.split_at(port_start(authority).unwrap_or(authority.len()));
    format!("{host}-shadow{port}")
}

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Everything but what RFC 3986 allows in a path or query, and `%`.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b']')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn prefix(new: &str, matched: &PathMatch, path_and_query: &str) -> Option<String> {
    if new.is_empty() {
        return None;
    }
    let (path, _) = cut(path_and_query);
    let length = match matched {
        PathMatch::Prefix(prefix)
        | PathMatch::SeparatedPrefix(prefix)
        | PathMatch::PrefixIgnoreCase(prefix)
        | PathMatch::SeparatedPrefixIgnoreCase(prefix) => prefix.len(),
        // Of a template Envoy takes the length of its text for that of what it matched, query
        // included. A redirect alone gets here with one.
        PathMatch::Template(template) => template.as_str().len(),
        _ => path.len(),
    };
    // A path that the match does not fit was changed in between: all of it is replaced.
    let rest = path_and_query.get(length..).unwrap_or_default();
    Some(format!("{new}{rest}"))
}

fn regex(pattern: &Pattern, with: &str, path_and_query: &str) -> String {
    let (path, query) = cut(path_and_query);
    let path = pattern.replace_all(path.as_bytes(), with);
    format!("{}{query}", String::from_utf8_lossy(&path))
}

fn template(with: &TemplateRewrite, matched: &PathMatch, path_and_query: &str) -> String {
    let (path, query) = cut(path_and_query);
    let new = match matched {
        PathMatch::Template(template) => with.rewrite(template, path),
        _ => None,
    };
    format!("{}{query}", new.as_deref().unwrap_or(path))
}

/// Path, and query with its `?`.
fn cut(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

fn kept_host<'a>(head: &Head<'a>, scheme: &str, new_port: bool) -> &'a str {
    let authority = head.authority().unwrap_or_default();
    let Some(port) = port_start(authority) else {
        return authority;
    };
    let (old, default) = match head.is_secure() {
        true => ("https", ":443"),
        false => ("http", ":80"),
    };
    if new_port || (scheme != old && &authority[port..] == default) {
        &authority[..port]
    } else {
        authority
    }
}

fn target(redirect: &Redirect, matched: &PathMatch, head: &Head<'_>) -> String {
    let requested = head.path_and_query().unwrap_or_default();
    let target = match &redirect.path {
        RedirectPath::Keep => requested.to_owned(),
        RedirectPath::Full(path) if path.contains('?') => path.clone(),
        RedirectPath::Full(path) => format!("{path}{}", cut(requested).1),
        RedirectPath::Prefix(new) => {
            prefix(new, matched, requested).unwrap_or_else(|| requested.to_owned())
        }
        RedirectPath::Regex(pattern, with) => regex(pattern, with, requested),
    };
    let own_query = matches!(&redirect.path, RedirectPath::Full(path) if path.contains('?'));
    let kept = match redirect.strip_query && !own_query {
        true => cut(&target).0,
        false => &target,
    };
    let slash = if kept.starts_with('/') { "" } else { "/" };
    format!("{slash}{kept}")
}

#[cfg(test)]
mod tests;
