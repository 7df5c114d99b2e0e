//! The HTTP filters of a connection manager.
//!
//! What they do is configured on routes, by the names of filters. So of the filters only the limit
//! for a whole listener and its sessions are read, and which of them are there: what a route says for one that is not
//! there, or is there by another name, has no effect, as in Envoy. They must not ask for anything
//! by themselves.

use crate::pb::envoy::extensions::filters::http::cors::v3::Cors;
use crate::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::ImplementationSpecifier,
};
use crate::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use crate::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use crate::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use crate::pb::envoy::extensions::filters::http::on_demand::v3::OnDemand;
use crate::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use crate::pb::envoy::extensions::filters::http::router::v3::Router;
use crate::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use crate::pb::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter::ConfigType,
};
use crate::pb::google::protobuf::Any;
use crate::read::{authn, authz, cluster, extension, external, filter_state, session};
use crate::wire::{
    At, boolean, limit, names, on_demand, pass_over, refuse, required, type_name, unpack,
    unsupported,
};
use mesh_core::model::{Authn, Authz, ClustersOnDemand, RateLimit, Session, SetFilterState};
use mesh_core::{Invalid, Name};
use prost::Name as _;
use std::sync::Arc;

/// The filters that routes may configure, each with its message.
const CONFIGURABLE: [(&str, &str); 3] = [
    (names::CORS, "envoy.extensions.filters.http.cors.v3.Cors"),
    (
        names::FAULT,
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
    (
        names::RATE_LIMIT,
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    ),
];

/// What a filter means here.
enum Known {
    Router,
    Limit(RateLimit),
    OnDemand(ClustersOnDemand),
    FilterState(SetFilterState),
    Authn(Box<Authn>),
    Authz(Box<Authz>),
    External(Box<external::Read>),
    Session(Box<Session>),
    /// It may answer, or change what comes after it.
    Acts,
    Nothing,
}

/// What the filters of a listener mean here.
#[derive(Debug)]
pub(super) struct Filters {
    /// The limit for everything on the listener, if there is one.
    pub(super) limit: Option<RateLimit>,
    /// What is asked for on demand, if the filter is there.
    pub(super) on_demand: Option<ClustersOnDemand>,
    /// What is kept of requests.
    pub(super) filter_state: Option<SetFilterState>,
    /// The tokens that are asked for.
    pub(super) authn: Option<Arc<Authn>>,
    /// How many of the rules judge before that.
    pub(super) authn_at: usize,
    /// The rules that judge, in order.
    pub(super) authz: Vec<Arc<Authz>>,
    /// How requests are kept at an endpoint.
    pub(super) session: Option<Arc<Session>>,
    /// Those that routes may configure and that are not there.
    pub(super) missing: Vec<Name>,
}

pub(super) fn read(filters: &[HttpFilter]) -> Result<Filters, Invalid> {
    let mut limit = None;
    let mut on_demand = None;
    let mut filter_state: Option<SetFilterState> = None;
    let mut authn = None;
    let mut authn_at = 0;
    let mut authz = Vec::new();
    let mut session = None;
    let mut acted = false;
    // The filter before is one that judges.
    let mut judged = false;
    let last = filters.len().saturating_sub(1);
    if filters.is_empty() {
        let message = "required, but missing: the last one is envoy.filters.http.router";
        return Err(Invalid::new("http_filters", message));
    }
    for (at, value) in filters.iter().enumerate() {
        let place = format!("http_filters[{at}]");
        let behind = std::mem::take(&mut judged);
        match filter(value).at(&place)? {
            Known::Router if at == last => {}
            Known::Router => return Err(Invalid::new(place, "the router has to be the last")),
            _ if at == last => {
                let message = "the last filter has to be envoy.filters.http.router";
                return Err(Invalid::new(place, message));
            }
            Known::Limit(_) if limit.is_some() => {
                return Err(Invalid::new(place, "a second rate limit is not supported"));
            }
            Known::Limit(found) => {
                acted = true;
                limit = Some(found);
            }
            Known::OnDemand(_) if on_demand.is_some() => {
                let message = "a second filter for what is missing is not supported";
                return Err(Invalid::new(place, message));
            }
            Known::OnDemand(_) if value.name != names::ON_DEMAND => {
                let message = format!("has to be called {}", names::ON_DEMAND);
                return Err(Invalid::new(format!("{place}.name"), message));
            }
            Known::OnDemand(found) => on_demand = Some(found),
            Known::FilterState(_) if acted || authn.is_some() || !authz.is_empty() => {
                let message =
                    "what is kept of requests has to be set before anything judges or limits them";
                return Err(Invalid::new(place, message));
            }
            Known::FilterState(found) => {
                let set = filter_state.get_or_insert_default();
                set.entries.extend(found.entries);
                set.for_routes |= found.for_routes;
            }
            Known::Authn(_) if acted || authn.is_some() => {
                let message = "tokens have to be asked for once, before rate limits, faults, CORS and sessions";
                return Err(Invalid::new(place, message));
            }
            Known::Authn(_) if value.name != names::JWT => {
                // Rules and routes find by this name what tokens say.
                let message = format!("has to be called {}", names::JWT);
                return Err(Invalid::new(format!("{place}.name"), message));
            }
            Known::Authn(found) => {
                authn_at = authz.len();
                authn = Some(Arc::new(*found));
            }
            Known::Authz(_) | Known::External(_) if acted => {
                let message =
                    "rules that judge have to stand before rate limits, faults, CORS and sessions";
                return Err(Invalid::new(place, message));
            }
            Known::Authz(mut found) => {
                judged = true;
                found.name = own_name(value, names::AUTHZ);
                authz.push(Arc::new(*found));
            }
            Known::External(mut found) => {
                found.external.name = own_name(value, names::EXTERNAL);
                let found = found.attach(&mut authz, behind);
                found.at(format!("{place}.typed_config"))?;
            }
            Known::Session(_) if session.is_some() => {
                return Err(Invalid::new(place, "a second session is not supported"));
            }
            Known::Session(_) if value.name != names::SESSION => {
                // Routes find it by this name.
                let message = format!("has to be called {}", names::SESSION);
                return Err(Invalid::new(format!("{place}.name"), message));
            }
            Known::Session(found) => {
                // It may change a header that those who judge would see.
                acted = true;
                session = Some(Arc::new(*found));
            }
            Known::Acts => acted = true,
            Known::Nothing => {}
        }
    }
    if filter_state.as_ref().is_some_and(|set| !set.for_routes)
        && (authn.is_some() || authz.iter().any(|one| one.external.is_some()))
    {
        // They may have the route chosen anew, and then it may go by what was kept.
        let message = "with jwt_authn or ext_authz, set_filter_state needs clear_route_cache";
        return Err(Invalid::new("http_filters", message));
    }
    let missing = CONFIGURABLE.into_iter().filter(|(name, message)| {
        let is = |filter: &HttpFilter| filter.name == *name && configures(filter, message);
        !filters.iter().any(is)
    });
    Ok(Filters {
        limit,
        on_demand,
        filter_state,
        authn,
        authn_at,
        authz,
        session,
        missing: missing.map(|(name, _)| name.into()).collect(),
    })
}

/// The name of a filter; empty where it is what Istio calls it.
fn own_name(filter: &HttpFilter, istio: &str) -> Name {
    match filter.name == istio {
        true => Name::default(),
        false => Name::from(&filter.name),
    }
}

/// Whether a filter's configuration is this message.
fn configures(filter: &HttpFilter, message: &str) -> bool {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => type_name(any) == message,
        _ => false,
    }
}

fn filter(value: &HttpFilter) -> Result<Known, Invalid> {
    let HttpFilter {
        // Routes refer to it by its name; what it is, its configuration says.
        name: _,
        is_optional,
        disabled,
        config_type,
    } = value;
    refuse!(disabled);
    let any = match required("typed_config", config_type)? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => return Err(unsupported("config_discovery")),
    };
    known(any, *is_optional).at("typed_config")
}

fn known(any: &Any, optional: bool) -> Result<Known, Invalid> {
    let name = type_name(any);
    if name == Router::full_name() {
        router(&unpack(any)?)?;
        return Ok(Known::Router);
    }
    if name == LocalRateLimit::full_name() {
        // A filter without a bucket leaves everything to the routes.
        let limit::Read { limit, on } = limit::read(&unpack(any)?)?;
        return Ok(limit.filter(|_| on).map_or(Known::Acts, Known::Limit));
    }
    if name == HttpFault::full_name() {
        if unpack::<HttpFault>(any)? != HttpFault::default() {
            let message = "a fault for every route is not supported; \
                           configure it in typed_per_filter_config";
            return Err(Invalid::new("", message));
        }
        return Ok(Known::Acts);
    } else if name == Rbac::full_name() {
        let authz = authz::of_requests(&unpack(any)?)?;
        return Ok(Known::Authz(Box::new(authz)));
    } else if name == JwtAuthentication::full_name() {
        let authn = authn::read(&unpack(any)?)?;
        return Ok(Known::Authn(Box::new(authn)));
    } else if name == ExtAuthz::full_name() {
        let external = external::of_requests(&unpack(any)?)?;
        return Ok(Known::External(Box::new(external)));
    } else if name == StatefulSession::full_name() {
        let session = session::read(&unpack(any)?)?;
        return Ok(Known::Session(Box::new(session)));
    } else if name == OnDemand::full_name() {
        let OnDemand { odcds } = unpack(any)?;
        let clusters = on_demand::clusters(odcds.as_ref()).at("odcds")?;
        return Ok(Known::OnDemand(clusters));
    } else if name == Config::full_name() {
        let set = filter_state::filter(&unpack(any)?)?;
        return Ok(Known::FilterState(set));
    } else if name == Cors::full_name() {
        let Cors {} = unpack(any)?;
        return Ok(Known::Acts);
    } else if name == FilterConfig::full_name() {
        forward_proxy(&unpack(any)?)?;
    } else if let Err(error) = extension::passed_over(any) {
        // An optional filter is one that may be left out where it is not known.
        if !optional {
            return Err(error);
        }
    }
    Ok(Known::Nothing)
}

#[expect(deprecated, reason = "Envoy still reads `start_child_span`")]
fn router(value: &Router) -> Result<(), Invalid> {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    refuse!(
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        upstream_http_filters,
    );
    if boolean(reject_connect_request_early_data.as_ref(), false) {
        refuse!(reject_connect_request_early_data);
    }
    pass_over!("envoy.extensions.filters.http.router.v3.Router":
        dynamic_stats,
        start_child_span,
        suppress_grpc_request_failure_code_stats,
    );
    Ok(())
}

/// A cluster that forwards to whatever the authority names needs no filter here.
fn forward_proxy(value: &FilterConfig) -> Result<(), Invalid> {
    let FilterConfig {
        save_upstream_address,
        allow_dynamic_host_from_filter_state,
        implementation_specifier,
    } = value;
    refuse!(save_upstream_address, allow_dynamic_host_from_filter_state);
    match implementation_specifier {
        None => Ok(()),
        Some(ImplementationSpecifier::DnsCacheConfig(cache)) => {
            cluster::dns_cache(cache).at("dns_cache_config")
        }
        Some(ImplementationSpecifier::SubClusterConfig(_)) => {
            Err(unsupported("sub_cluster_config"))
        }
    }
}
