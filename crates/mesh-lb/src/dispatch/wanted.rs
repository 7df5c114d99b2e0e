//! The subset of its cluster that a request asks for.

use mesh_core::model::Forward;
use mesh_core::{Exchange, Name};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Names and values, if any.
#[derive(Debug)]
pub(crate) struct Wanted<'a>(Option<Cow<'a, BTreeMap<Name, Name>>>);

// === impl Wanted ===

impl<'a> Wanted<'a> {
    /// What the rule asks for, and what its chosen destination does, which wins.
    pub(crate) fn of(exchange: Option<&'a Exchange>) -> Self {
        let matched = exchange.and_then(Exchange::matched);
        let Some(Forward { subset: rule, .. }) = matched.and_then(|matched| matched.forward())
        else {
            return Self(None);
        };
        let part = matched
            .and_then(|matched| matched.weighted())
            .map(|part| &part.subset)
            .filter(|part| !part.is_empty());
        Self(match part {
            None if rule.is_empty() => None,
            None => Some(Cow::Borrowed(rule)),
            Some(part) if rule.is_empty() => Some(Cow::Borrowed(part)),
            Some(part) => {
                let mut both = rule.clone();
                both.extend(
                    part.iter()
                        .map(|(name, value)| (name.clone(), value.clone())),
                );
                Some(Cow::Owned(both))
            }
        })
    }

    pub(crate) fn subset(&self) -> Option<&BTreeMap<Name, Name>> {
        self.0.as_deref()
    }
}
