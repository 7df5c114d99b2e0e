//! Network filters: an HTTP connection manager or a TCP proxy, and what may stand before them.

use crate::pb::envoy::config::listener::v3::{Filter as Proto, filter::ConfigType};
use crate::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as LimitProto;
use crate::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::pb::envoy::extensions::filters::network::rbac::v3::Rbac;
use crate::pb::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use crate::pb::google::protobuf::Any;
use crate::read::{RouteSource, authz, extension, external, http, tcp};
use crate::wire::{At, boolean, maybe_duration, required, type_name, unpack, unsupported};
use mesh_core::Invalid;
use mesh_core::model::{Authz, ConnectionLimit, Filter};
use prost::Name as _;
use std::sync::Arc;

/// What filters do, and where their routes are.
pub(super) struct Read {
    pub(super) filter: Filter,
    pub(super) routes: Option<RouteSource>,
    /// The rules that judge connections, in order.
    pub(super) authz: Vec<Arc<Authz>>,
    /// How many connections there may be.
    pub(super) limit: Option<ConnectionLimit>,
}

/// Reads the filters of a chain. `listener` names routes where nothing else does.
pub(super) fn filters(values: &[Proto], listener: &str) -> Result<Read, Invalid> {
    let Some((last, before)) = values.split_last() else {
        return Err(Invalid::new("filters", "required, but missing"));
    };
    let mut by_name = None;
    let mut authz = Vec::new();
    let mut limit = None;
    // The filter before is one that judges.
    let mut judged = false;
    for (at, value) in before.iter().enumerate() {
        let place = format!("filters[{at}]");
        let any = config(value).at(&place)?;
        let behind = std::mem::take(&mut judged);
        match type_name(any) {
            name if name == SniCluster::full_name() => {
                unpack::<SniCluster>(any).at("typed_config").at(&place)?;
                by_name = Some(place);
            }
            name if name == Rbac::full_name() => {
                let rules: Rbac = unpack(any).at("typed_config").at(&place)?;
                let rules = authz::of_connections(&rules);
                authz.push(Arc::new(rules.at("typed_config").at(&place)?));
                judged = true;
            }
            name if name == ExtAuthz::full_name() => {
                let mut read =
                    || external::of_connections(&unpack(any)?)?.attach(&mut authz, behind);
                read().at("typed_config").at(&place)?;
            }
            name if name == LimitProto::full_name() => {
                let read = unpack(any).and_then(|value| connection_limit(&value));
                if limit.replace(read.at("typed_config").at(&place)?).is_some() {
                    let message = "one connection_limit is all that a chain may have";
                    return Err(Invalid::new(place, message));
                }
            }
            name if is_last(name) => {
                let message = "nothing may follow an HTTP connection manager or a TCP proxy";
                return Err(Invalid::new(place, message));
            }
            _ => extension::passed_over(any).at("typed_config").at(&place)?,
        }
    }
    let place = format!("filters[{}]", before.len());
    let any = config(last).at(&place)?;
    let read = || match type_name(any) {
        name if name == HttpConnectionManager::full_name() => {
            let (manager, routes) = http::manager(&unpack(any)?, listener)?;
            Ok(Read {
                filter: Filter::Http(Arc::new(manager)),
                routes: Some(routes),
                authz,
                limit,
            })
        }
        name if name == TcpProxy::full_name() => Ok(Read {
            filter: Filter::Tcp(Arc::new(tcp::proxy(&unpack(any)?, by_name.is_some())?)),
            routes: None,
            authz,
            limit,
        }),
        name => {
            let message = format!(
                "{name:?} is not supported: the last filter is an HTTP connection manager or a \
                 TCP proxy"
            );
            Err(Invalid::new("", message))
        }
    };
    let read = read().at("typed_config").at(&place)?;
    match (by_name, &read.filter) {
        (Some(place), Filter::Http(_)) => {
            let message = "the sni_cluster filter has no effect before HTTP";
            Err(Invalid::new(place, message))
        }
        _ => Ok(read),
    }
}

fn connection_limit(value: &LimitProto) -> Result<ConnectionLimit, Invalid> {
    let LimitProto {
        stat_prefix,
        max_connections,
        delay,
        runtime_enabled,
    } = value;
    let most = required("max_connections", max_connections)?.value;
    let mut limit = ConnectionLimit::new(stat_prefix.as_str(), most);
    limit.delay = maybe_duration("delay", delay.as_ref())?.unwrap_or_default();
    // Nothing here looks at runtime keys: the default holds.
    let enabled = runtime_enabled.as_ref();
    let enabled = enabled.and_then(|flag| flag.default_value.as_ref());
    limit.enabled = boolean(enabled, true);
    Ok(limit)
}

fn is_last(name: &str) -> bool {
    name == HttpConnectionManager::full_name() || name == TcpProxy::full_name()
}

fn config(value: &Proto) -> Result<&Any, Invalid> {
    let Proto {
        // A name without a meaning: Envoy goes by the type of the message.
        name: _,
        config_type,
    } = value;
    match required("typed_config", config_type)? {
        ConfigType::TypedConfig(any) => Ok(any),
        ConfigType::ConfigDiscovery(_) => Err(unsupported("config_discovery")),
    }
}
