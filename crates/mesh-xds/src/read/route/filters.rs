//! Policies that filters have per route, from `typed_per_filter_config`.

use super::{cors, fault, limit, policies};
use crate::pb::envoy::config::route::v3::FilterConfig;
use crate::pb::envoy::extensions::filters::http::on_demand::v3::PerRouteConfig;
use crate::pb::google::protobuf::Any;
use crate::read::session;
use crate::wire::{At, names, on_demand, required, type_name, unpack};
use mesh_core::Invalid;
use mesh_core::model::{
    ClustersOnDemand, Cors, Fault, Mirror, RateLimit, RoutePolicies, RouteSession,
};
use prost::Name;
use std::collections::HashMap;
use std::sync::Arc;

/// What one level says about a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Setting<T> {
    /// Nothing; the next level counts.
    #[default]
    Unset,
    /// It is switched off, whatever the next level says.
    Off,
    /// This.
    On(T),
}

/// What one level says about the filters that are known here.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) cors: Setting<Arc<Cors>>,
    pub(super) fault: Setting<Arc<Fault>>,
    pub(super) rate_limit: Setting<Arc<RateLimit>>,
    /// None where nothing is said.
    pub(super) session: Option<RouteSession>,
    /// None where nothing is said.
    pub(super) on_demand: Option<ClustersOnDemand>,
    /// Of the filters that judge.
    pub(super) policies: RoutePolicies,
}

/// What a virtual host says for rules that say nothing.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// Whether it has cross-origin rules. The model keeps them on the host.
    pub(super) cors: bool,
    pub(super) fault: Option<Arc<Fault>>,
    pub(super) session: Option<RouteSession>,
    pub(super) rate_limit: Option<Arc<RateLimit>>,
    pub(super) mirrors: Vec<Mirror>,
}

// === impl Setting ===

impl<T> Setting<T> {
    /// The policy, if there is one.
    pub(super) fn on(self) -> Option<T> {
        match self {
            Self::On(policy) => Some(policy),
            Self::Unset | Self::Off => None,
        }
    }

    /// This, or what `other` says where this says nothing.
    pub(super) fn or(self, other: Self) -> Self {
        match self {
            Self::Unset => other,
            set => set,
        }
    }
}

impl<T: Clone> Setting<T> {
    /// The policy, or the one of the level above where this says nothing.
    pub(super) fn or_inherit(self, above: Option<&T>) -> Option<T> {
        match self {
            Self::On(policy) => Some(policy),
            Self::Off => None,
            Self::Unset => above.cloned(),
        }
    }
}

// === impl Filters ===

impl Filters {
    /// Reads `typed_per_filter_config`, in the order of the names so that of several errors the
    /// same one is reported each time.
    pub(super) fn read(configs: &HashMap<String, Any>) -> Result<Self, Invalid> {
        let mut sorted: Vec<_> = configs.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let mut filters = Self::default();
        for (name, config) in sorted {
            let path = format!("typed_per_filter_config[{name}]");
            filters.wrapped(name, config).at(path)?;
        }
        Ok(filters)
    }

    fn wrapped(&mut self, name: &str, config: &Any) -> Result<(), Invalid> {
        if type_name(config) != FilterConfig::full_name() {
            return self.set(name, config);
        }
        let FilterConfig {
            config,
            is_optional,
            disabled,
        } = unpack(config)?;
        if disabled {
            self.switch_off(name);
            return Ok(());
        }
        let config = required("config", &config)?;
        if is_optional && !known(name) {
            // It may be one that judges; others that are not known are left out.
            return self.judged(name, config).at("config").map(drop);
        }
        self.set(name, config).at("config")
    }

    fn set(&mut self, name: &str, config: &Any) -> Result<(), Invalid> {
        match name {
            names::CORS => self.cors = cors::read(&unpack(config)?)?,
            names::FAULT => self.fault = Setting::On(Arc::new(fault::read(&unpack(config)?)?)),
            names::RATE_LIMIT => self.rate_limit = limit::read(&unpack(config)?)?,
            names::SESSION => self.session = Some(session::on_route(&unpack(config)?)?),
            names::ON_DEMAND => {
                let PerRouteConfig { odcds } = unpack(config)?;
                self.on_demand = Some(on_demand::clusters(odcds.as_ref()).at("odcds")?);
            }
            _ if self.judged(name, config)? => {}
            _ => {
                let message = format!("no filter with this name has settings here: {name:?}");
                return Err(Invalid::new("", message));
            }
        }
        Ok(())
    }

    /// What is said of a filter that judges. False: it is of none.
    fn judged(&mut self, name: &str, config: &Any) -> Result<bool, Invalid> {
        policies::set(&mut self.policies, name, config)
    }

    /// The policies of the filters that judge, if there are any.
    pub(super) fn take_policies(&mut self) -> Option<Arc<RoutePolicies>> {
        let policies = std::mem::take(&mut self.policies);
        (!policies.is_empty()).then(|| Arc::new(policies))
    }

    /// A filter that is not there is off anyway; it may be one that judges.
    fn switch_off(&mut self, name: &str) {
        match name {
            names::CORS => self.cors = Setting::Off,
            names::FAULT => self.fault = Setting::Off,
            names::RATE_LIMIT => self.rate_limit = Setting::Off,
            names::SESSION => self.session = Some(RouteSession::Off),
            names::ON_DEMAND => self.on_demand = Some(ClustersOnDemand::Off),
            _ => {
                self.policies.off.insert(name.into());
            }
        }
    }
}

fn known(name: &str) -> bool {
    matches!(
        name,
        names::CORS | names::FAULT | names::RATE_LIMIT | names::SESSION | names::ON_DEMAND
    )
}
