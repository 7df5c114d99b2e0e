//! What a request's route says of the filters that judge it.

use mesh_core::model::{AskedBody, Authz, External};
use mesh_core::{Matched, Name};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The routes of a request, as far as they say something of filters
/// ([`RoutePolicies`](mesh_core::model::RoutePolicies)). Without any, everything is as the listener
/// has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnRoute<'a> {
    first: Option<&'a Matched>,
    now: Option<&'a Matched>,
}

/// What is different about asking, for requests of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whether and how the body is sent along, if that is said.
    pub(crate) body: Option<Option<AskedBody>>,
    /// More that is told, over gRPC.
    pub(crate) context: BTreeMap<Name, Name>,
}

// === impl OnRoute ===

impl<'a> OnRoute<'a> {
    /// The route that a request met as it came, which decides about the filters that it comes
    /// through, and the one that it meets as it is, which decides about all else.
    pub fn of(first: Option<&'a Matched>, now: Option<&'a Matched>) -> Self {
        Self { first, now }
    }

    /// Whether requests do not come through the filter of this name.
    pub fn goes_round(self, filter: &str) -> bool {
        self.first.is_some_and(|first| first.goes_round(filter))
    }

    /// What is asked of tokens in place of the listener's rules, if anything is said.
    pub fn tokens(self) -> Option<Option<&'a Name>> {
        self.now?.tokens()
    }

    /// The rules that judge: those of the filter, or the route's own. None judge who goes round.
    pub(crate) fn rules(self, authz: &'a Authz) -> Option<&'a Authz> {
        if !authz.is_filter() {
            return Some(authz);
        }
        if self.goes_round(authz.filter()) {
            return None;
        }
        let own = self.now.and_then(|now| now.authz(authz.filter()));
        Some(own.map_or(authz, Arc::as_ref))
    }

    /// The rules whose notes are found by who asks behind the filter. Notes go by the prefix of the
    /// rules that make them; those of a route that have none keep the filter's, as in Envoy.
    pub(crate) fn notes(self, authz: &'a Authz) -> Option<&'a Authz> {
        let rules = self.rules(authz)?;
        let prefix = &rules.trial_prefix;
        (prefix.is_empty() || *prefix == authz.trial_prefix).then_some(rules)
    }

    /// Whether the route leaves it to the filter whether somebody is asked.
    pub(crate) fn may_ask(self, external: &External) -> bool {
        let filter = external.filter();
        !self.goes_round(filter) && !self.now.is_some_and(|now| now.is_unasked(filter))
    }

    /// What is different about asking.
    pub(crate) fn told(self, external: &External) -> Told {
        let Some(now) = self.now else {
            return Told::default();
        };
        let context = now.context(external.filter()).into_iter();
        Told {
            body: now.asked_body(external.filter()),
            context: context
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
