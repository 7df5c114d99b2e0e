//! Redirects and fixed responses, as `RedirectAction` and `DirectResponseAction`.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use crate::wire::text::to_substitution;
use mesh_core::Name;
use mesh_core::model::{DirectResponse, Redirect, RedirectPath};

pub(super) fn redirect(redirect: &Redirect) -> pb::RedirectAction {
    let code = match redirect.code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let scheme = redirect.scheme.as_ref();
    pb::RedirectAction {
        host_redirect: redirect
            .host
            .as_ref()
            .map(Name::to_string)
            .unwrap_or_default(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        response_code: code.into(),
        strip_query: redirect.strip_query,
        scheme_rewrite_specifier: scheme
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        path_rewrite_specifier: match &redirect.path {
            RedirectPath::Keep => None,
            RedirectPath::Full(path) => Some(PathRewriteSpecifier::PathRedirect(path.clone())),
            RedirectPath::Prefix(with) => Some(PathRewriteSpecifier::PrefixRewrite(with.clone())),
            RedirectPath::Regex(pattern, with) => Some(PathRewriteSpecifier::RegexRewrite(
                to_substitution(pattern, with),
            )),
        },
    }
}

pub(super) fn direct_response(answer: &DirectResponse) -> pb::DirectResponseAction {
    let specifier = match std::str::from_utf8(&answer.body) {
        Ok(text) => Specifier::InlineString(text.to_owned()),
        Err(_) => Specifier::InlineBytes(answer.body.to_vec()),
    };
    pb::DirectResponseAction {
        status: answer.status.as_u16().into(),
        body: (!answer.body.is_empty()).then_some(DataSource {
            watched_directory: None,
            specifier: Some(specifier),
        }),
        body_format: None,
    }
}
