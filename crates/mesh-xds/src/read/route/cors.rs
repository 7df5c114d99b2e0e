//! Cross-origin rules, from the filter's `CorsPolicy` and from the older one of routes.

use super::filters::Setting;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use crate::wire::share::switch;
use crate::wire::text::string_match;
use crate::wire::{boolean, each, pass_over, unsupported};
use mesh_core::Invalid;
use mesh_core::model::{Cors, Fraction, StringMatch};
use std::sync::Arc;

/// Reads cross-origin rules.
pub(super) fn read(proto: &CorsPolicy) -> Result<Setting<Arc<Cors>>, Invalid> {
    let CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = proto;
    pass_over!("envoy.extensions.filters.http.cors.v3.CorsPolicy": shadow_enabled);
    if boolean(allow_private_network_access.as_ref(), false) {
        return Err(unsupported("allow_private_network_access"));
    }
    let mut cors = Cors::default();
    cors.allow_origins = each(
        "allow_origin_string_match",
        allow_origin_string_match,
        |matcher| {
            // The exact `*` is every origin, in Envoy as for everybody who writes it.
            Ok(match string_match(matcher)? {
                StringMatch::Exact(text) if text == "*" => StringMatch::Prefix(String::new()),
                other => other,
            })
        },
    )?;
    cors.allow_methods.clone_from(allow_methods);
    cors.allow_headers.clone_from(allow_headers);
    cors.expose_headers.clone_from(expose_headers);
    cors.max_age.clone_from(max_age);
    cors.allow_credentials = allow_credentials.as_ref().map(|it| it.value);
    cors.forward_unmatched_preflights = forward_not_matching_preflights.as_ref().map(|it| it.value);
    match switch("filter_enabled", filter_enabled.as_ref(), Fraction::ALL)? {
        true => Ok(Setting::On(Arc::new(cors))),
        false => Ok(Setting::Off),
    }
}

/// Reads the cross-origin rules that virtual hosts and routes had themselves once.
pub(super) fn deprecated(proto: Option<&pb::CorsPolicy>) -> Result<Setting<Arc<Cors>>, Invalid> {
    let Some(proto) = proto else {
        return Ok(Setting::Unset);
    };
    let pb::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = proto.clone();
    read(&CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled: enabled_specifier
            .map(|pb::cors_policy::EnabledSpecifier::FilterEnabled(share)| share),
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    })
}
