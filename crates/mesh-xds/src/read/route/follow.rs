//! Redirects that are followed, from `InternalRedirectPolicy` and from what was in its place before.

use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::route_action::InternalRedirectAction;
use crate::pb::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use crate::pb::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use crate::pb::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use crate::pb::google::protobuf::UInt32Value;
use crate::wire::text::header_name;
use crate::wire::{At, each, enumeration, number, required, type_name, unpack};
use http::StatusCode;
use http::header::HOST;
use mesh_core::model::{FollowRedirects, RedirectTarget};
use mesh_core::{Invalid, Name};
use prost::Name as _;
use std::sync::Arc;

/// What Envoy takes for a redirect; other codes are passed over there, too.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Reads the policy of a route. The older fields count where there is no policy.
pub(super) fn read(
    policy: Option<&pb::InternalRedirectPolicy>,
    action: i32,
    most: Option<&UInt32Value>,
) -> Result<Option<Arc<FollowRedirects>>, Invalid> {
    let action: InternalRedirectAction = enumeration("internal_redirect_action", action)?;
    let mut follow = match policy {
        Some(policy) => self::policy(policy).at("internal_redirect_policy")?,
        None if action == InternalRedirectAction::HandleInternalRedirect => {
            FollowRedirects::default()
        }
        None => return Ok(None),
    };
    if policy.is_none()
        && let Some(most) = number(most)
    {
        follow.most = most;
    }
    Ok(Some(Arc::new(follow)))
}

fn policy(proto: &pb::InternalRedirectPolicy) -> Result<FollowRedirects, Invalid> {
    let pb::InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = proto;
    let mut follow = FollowRedirects::default();
    if let Some(most) = number(max_internal_redirects.as_ref()) {
        follow.most = most;
    }
    if !redirect_response_codes.is_empty() {
        let known = redirect_response_codes
            .iter()
            .filter(|code| REDIRECTS.contains(code));
        let statuses =
            known.filter_map(|code| StatusCode::from_u16(u16::try_from(*code).ok()?).ok());
        follow.statuses = statuses.collect();
    }
    follow.other_scheme = *allow_cross_scheme_redirect;
    follow.targets = each("predicates", predicates, target)?;
    follow.copy_headers = each(
        "response_headers_to_copy",
        response_headers_to_copy,
        |name| {
            let name = header_name("", name)?;
            if name == HOST {
                return Err(Invalid::new("", "the host is what the location says"));
            }
            Ok(name)
        },
    )?;
    Ok(follow)
}

fn target(proto: &TypedExtensionConfig) -> Result<RedirectTarget, Invalid> {
    let TypedExtensionConfig {
        name: _,
        typed_config,
    } = proto;
    let config = required("typed_config", typed_config)?;
    let kind = type_name(config);
    if kind == PreviousRoutesConfig::full_name() {
        let PreviousRoutesConfig {} = unpack(config).at("typed_config")?;
        return Ok(RedirectTarget::NotPrevious);
    }
    if kind == SafeCrossSchemeConfig::full_name() {
        let SafeCrossSchemeConfig {} = unpack(config).at("typed_config")?;
        return Ok(RedirectTarget::SafeScheme);
    }
    if kind == AllowListedRoutesConfig::full_name() {
        let AllowListedRoutesConfig {
            allowed_route_names,
        } = unpack(config).at("typed_config")?;
        let names = each(
            "typed_config.allowed_route_names",
            &allowed_route_names,
            |name| match name.as_str() {
                "" => Err(Invalid::new("", "must not be empty")),
                name => Ok(Name::from(name)),
            },
        )?;
        return Ok(RedirectTarget::Named(names));
    }
    Err(Invalid::new(
        "typed_config",
        format!("{kind} is not supported"),
    ))
}
