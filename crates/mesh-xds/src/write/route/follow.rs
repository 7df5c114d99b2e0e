//! Redirects that are followed, as `InternalRedirectPolicy`.

use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use crate::pb::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use crate::pb::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use crate::wire::names::{ALLOW_LISTED_ROUTES, PREVIOUS_ROUTES, SAFE_CROSS_SCHEME};
use crate::wire::{pack, to_number};
use http::StatusCode;
use mesh_core::model::{FollowRedirects, RedirectTarget};

/// A code that redirects nowhere: stands for no codes at all, where an empty list means 302.
const NONE: u32 = 304;

pub(super) fn write(follow: &FollowRedirects) -> pb::InternalRedirectPolicy {
    let redirect_response_codes = match &follow.statuses[..] {
        [StatusCode::FOUND] => Vec::new(),
        [] => vec![NONE],
        statuses => statuses.iter().map(|it| it.as_u16().into()).collect(),
    };
    pb::InternalRedirectPolicy {
        max_internal_redirects: to_number(follow.most),
        redirect_response_codes,
        predicates: follow.targets.iter().filter_map(target).collect(),
        allow_cross_scheme_redirect: follow.other_scheme,
        response_headers_to_copy: follow
            .copy_headers
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn target(target: &RedirectTarget) -> Option<TypedExtensionConfig> {
    let (name, config) = match target {
        RedirectTarget::NotPrevious => (PREVIOUS_ROUTES, pack(&PreviousRoutesConfig {})),
        RedirectTarget::SafeScheme => (SAFE_CROSS_SCHEME, pack(&SafeCrossSchemeConfig {})),
        RedirectTarget::Named(names) => {
            let allowed_route_names = names.iter().map(ToString::to_string).collect();
            let config = AllowListedRoutesConfig {
                allowed_route_names,
            };
            (ALLOW_LISTED_ROUTES, pack(&config))
        }
        // One that is not known here.
        _ => return None,
    };
    Some(TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(config),
    })
}
