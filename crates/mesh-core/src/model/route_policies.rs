//! What routes say of the filters that judge.
//!
//! Plain data in the shape of Envoy's `typed_per_filter_config`, so that it says the same in three
//! places. Filters go by their names: several with the same name mean the same to a route.

use super::{AskedBody, Authn, Authz, External, HttpManager, RouteTable};
use crate::{Matched, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a rule or virtual host says of the filters that judge, by their names ([`Authz::filter`],
/// [`External::filter`], [`Authn::FILTER`]).
///
/// What a rule says of a filter takes the place of what its virtual host says of it, but for
/// `context`, of which both count. Names of filters that are not there have no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutePolicies {
    /// Filters that requests do not come through (`FilterConfig.disabled`). As in Envoy the route
    /// decides that a request meets as it comes, whatever tokens say.
    pub off: BTreeSet<Name>,
    /// Rules in place of the filter's own (`RBACPerRoute`); without any, everything is allowed. Who
    /// is asked behind them stays, and statistics stay the filter's.
    pub authz: BTreeMap<Name, Arc<Authz>>,
    /// What is asked of tokens in place of the filter's rules: one of [`Authn::named`], or nothing
    /// (`PerRouteConfig.requirement_name`, `disabled`).
    pub tokens: BTreeMap<Name, Option<Name>>,
    /// Nobody is asked (`ExtAuthzPerRoute.disabled`).
    pub unasked: BTreeSet<Name>,
    /// Told to who is asked over gRPC (`CheckSettings.context_extensions`). Without any entries it
    /// still takes the place of a virtual host's `unasked`.
    pub context: BTreeMap<Name, BTreeMap<Name, Name>>,
    /// Whether and how bodies are sent along to who is asked, in place of [`External::body`]
    /// (`CheckSettings.with_request_body`, `disable_request_body_buffering`). [`AskedBody::raw`] has
    /// no effect here, as in Envoy: it is as the filter has it, and else false.
    pub bodies: BTreeMap<Name, Option<AskedBody>>,
}

// === impl RoutePolicies ===

impl RoutePolicies {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether anything is said of a filter.
    pub fn names(&self, filter: &str) -> bool {
        self.off.contains(filter) || self.configures(filter)
    }

    fn configures(&self, filter: &str) -> bool {
        self.authz.contains_key(filter)
            || self.tokens.contains_key(filter)
            || self.unasked.contains(filter)
            || self.context.contains_key(filter)
            || self.bodies.contains_key(filter)
    }
}

// === impl Matched ===

impl Matched {
    /// What is said of the filters that judge: of the rule, then of its virtual host.
    pub fn policies(&self) -> impl Iterator<Item = &RoutePolicies> {
        let levels = [&self.rule().policies, &self.host().policies];
        levels.into_iter().filter_map(|level| level.as_deref())
    }

    /// Whether requests do not come through the filter of this name. Only the route that a request
    /// meets as it comes is asked this.
    pub fn goes_round(&self, filter: &str) -> bool {
        let mut levels = self.policies();
        let first = levels.find(|level| level.names(filter));
        first.is_some_and(|level| level.off.contains(filter))
    }

    /// The rules in place of those of the filter of this name, if any are.
    pub fn authz(&self, filter: &str) -> Option<&Arc<Authz>> {
        self.policies().find_map(|level| level.authz.get(filter))
    }

    /// What is asked of tokens in place of the filter's rules, if anything is said: the name of a
    /// requirement, or nothing.
    pub fn tokens(&self) -> Option<Option<&Name>> {
        let said = |level: &'_ RoutePolicies| level.tokens.contains_key(Authn::FILTER);
        let level = self.policies().find(|level| said(level))?;
        level.tokens.get(Authn::FILTER).map(Option::as_ref)
    }

    /// Whether nobody is asked by the filter of this name.
    pub fn is_unasked(&self, filter: &str) -> bool {
        self.asking(filter)
            .is_some_and(|level| level.unasked.contains(filter))
    }

    /// Whether and how the filter of this name sends bodies along, if that is said.
    pub fn asked_body(&self, filter: &str) -> Option<Option<AskedBody>> {
        self.asking(filter)?.bodies.get(filter).copied()
    }

    /// What is told to who is asked by the filter of this name.
    pub fn context(&self, filter: &str) -> BTreeMap<&Name, &Name> {
        let mut all = BTreeMap::new();
        for level in self.policies() {
            for (name, value) in level.context.get(filter).into_iter().flatten() {
                // The rule's came first.
                all.entry(name).or_insert(value);
            }
        }
        all
    }

    /// The first level that has settings for a filter that asks.
    fn asking(&self, filter: &str) -> Option<&RoutePolicies> {
        self.policies().find(|level| {
            level.unasked.contains(filter)
                || level.context.contains_key(filter)
                || level.bodies.contains_key(filter)
        })
    }
}

// === names of filters ===

impl Authz {
    /// The name of the filter: [`Authz::name`], or what Istio calls it.
    pub fn filter(&self) -> &str {
        or(&self.name, "envoy.filters.http.rbac")
    }

    /// Whether there is a filter with rules at all: where a service is asked and nothing else is
    /// said, there is none.
    pub fn is_filter(&self) -> bool {
        self.external.is_none() || self.rules.is_some() || self.trial.is_some()
    }
}

impl External {
    /// The name of the filter: [`External::name`], or what Istio calls it.
    pub fn filter(&self) -> &str {
        or(&self.name, "envoy.filters.http.ext_authz")
    }
}

impl Authn {
    /// The name of the filter: rules and routes find by it what tokens say.
    pub const FILTER: &str = "envoy.filters.http.jwt_authn";
}

impl HttpManager {
    /// Whether anything judges that routes may speak of.
    pub fn judges(&self) -> bool {
        self.authn.is_some() || !self.authz.is_empty()
    }
}

fn or<'a>(name: &'a Name, other: &'a str) -> &'a str {
    match name.is_empty() {
        true => other,
        false => name,
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Whether one of its virtual hosts or rules says something of the filters that judge.
    pub fn says_policies(&self) -> bool {
        self.virtual_hosts.iter().any(|host| {
            host.policies.is_some() || host.rules.iter().any(|rule| rule.policies.is_some())
        })
    }
}

#[cfg(test)]
mod tests;
