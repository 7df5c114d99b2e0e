//! Objects that a listener keeps of a request for routes and balancing (Envoy filter state).

use super::{Cidr, HeaderTemplate, StringMatch};
use crate::Name;
use std::borrow::Cow;
use std::net::IpAddr;

/// Keeps objects of each request before anything judges it (Envoy's HTTP filter
/// `set_filter_state`). Default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetFilterState {
    /// What is kept, in order: of two with one key the later one stays.
    pub entries: Vec<FilterStateEntry>,
    /// Routes may go by it (Envoy `clear_route_cache`); else only balancing does. Default false.
    pub for_routes: bool,
}

/// One object to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterStateEntry {
    /// What it is found by.
    pub key: Name,
    /// What is made of the value.
    pub kind: FilterObjectKind,
    /// The value. An operator without one is `-`, as in access logs.
    pub value: HeaderTemplate,
    /// An operator without a value is nothing instead (`omit_empty_values`). Default false.
    pub omit_missing: bool,
    /// Keep nothing where the value comes out empty (`skip_if_empty`). Default false.
    pub skip_empty: bool,
}

/// What is made of a value, by the name of Envoy's factory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterObjectKind {
    /// Text (`envoy.string`).
    Text,
    /// Text that balancing may hash (`envoy.hashable_string`).
    HashableText,
    /// An address (`envoy.network.ip`); of anything else nothing is kept.
    Address,
}

/// A condition on an object that was kept. One that was not never meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterStateMatch {
    /// What it is found by.
    pub key: Name,
    /// What it has to be.
    pub value: FilterObjectMatch,
}

/// What an object has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterObjectMatch {
    /// This, as text.
    Text(StringMatch),
    /// An address in one of these blocks.
    In(Vec<Cidr>),
    /// An address in none of these blocks.
    NotIn(Vec<Cidr>),
}

/// What was kept of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterState {
    objects: Vec<(Name, FilterObject)>,
    for_routes: bool,
}

/// An object that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterObject {
    /// Text.
    Text(Vec<u8>),
    /// Text that balancing may hash.
    HashableText(Vec<u8>),
    /// An address.
    Address(IpAddr),
}

// === impl FilterState ===

impl FilterState {
    /// Nothing, for routes or for balancing only.
    pub fn new(for_routes: bool) -> Self {
        Self {
            objects: Vec::new(),
            for_routes,
        }
    }

    /// Keeps an object in place of one with the same key.
    pub fn set(&mut self, key: Name, object: FilterObject) {
        match self.objects.iter_mut().find(|(it, _)| *it == key) {
            Some((_, before)) => *before = object,
            None => self.objects.push((key, object)),
        }
    }

    /// The object of a key.
    pub fn get(&self, key: &str) -> Option<&FilterObject> {
        let mut found = self.objects.iter().filter(|(it, _)| **it == *key);
        found.next().map(|(_, object)| object)
    }

    /// Whether routes may go by it.
    pub fn is_for_routes(&self) -> bool {
        self.for_routes
    }
}

// === impl FilterObjectKind ===

impl FilterObjectKind {
    /// Makes an object of a value; none where that is not possible.
    pub fn make(self, value: Vec<u8>) -> Option<FilterObject> {
        Some(match self {
            Self::Text => FilterObject::Text(value),
            Self::HashableText => FilterObject::HashableText(value),
            Self::Address => {
                let text = str::from_utf8(&value).ok()?;
                FilterObject::Address(text.parse().ok()?)
            }
        })
    }
}

// === impl FilterObject ===

impl FilterObject {
    /// As text.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(text) | Self::HashableText(text) => text.into(),
            Self::Address(ip) => ip.to_string().into_bytes().into(),
        }
    }
}

// === impl FilterStateMatch ===

impl FilterStateMatch {
    /// Whether what was kept meets it.
    pub fn holds(&self, state: Option<&FilterState>) -> bool {
        let Some(object) = state.and_then(|state| state.get(&self.key)) else {
            return false;
        };
        match (&self.value, object) {
            (FilterObjectMatch::Text(want), object) => want.matches(&object.text()),
            (FilterObjectMatch::In(blocks), FilterObject::Address(ip)) => {
                blocks.iter().any(|block| block.contains(*ip))
            }
            (FilterObjectMatch::NotIn(blocks), FilterObject::Address(ip)) => {
                !blocks.iter().any(|block| block.contains(*ip))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(kind: FilterObjectKind, value: &str) -> FilterState {
        let mut state = FilterState::new(true);
        if let Some(object) = kind.make(value.into()) {
            state.set("k".into(), object);
        }
        state
    }

    fn met(value: FilterObjectMatch, state: &FilterState) -> bool {
        let key = "k".into();
        FilterStateMatch { key, value }.holds(Some(state))
    }

    #[test]
    fn text_is_compared_with_any_object_and_blocks_with_addresses_only() {
        let is = |text: &str| FilterObjectMatch::Text(StringMatch::Exact(text.into()));
        let blocks = vec!["10.0.0.0/8".parse().unwrap()];
        let (within, without) = (
            FilterObjectMatch::In(blocks.clone()),
            FilterObjectMatch::NotIn(blocks),
        );
        let text = kept(FilterObjectKind::Text, "10.1.2.3");
        assert!(met(is("10.1.2.3"), &text));
        assert!(!met(within.clone(), &text) && !met(without.clone(), &text));
        let address = kept(FilterObjectKind::Address, "10.1.2.3");
        assert!(met(is("10.1.2.3"), &address));
        assert!(met(within.clone(), &address) && !met(without.clone(), &address));
        let other = kept(FilterObjectKind::Address, "11.1.2.3");
        assert!(!met(within.clone(), &other) && met(without.clone(), &other));
        let none = kept(FilterObjectKind::Address, "no address");
        assert!(!met(within, &none) && !met(without, &none) && !met(is("no address"), &none));
    }

    #[test]
    fn of_two_objects_with_one_key_the_later_one_stays() {
        let mut state = kept(FilterObjectKind::Text, "a");
        state.set("k".into(), FilterObject::HashableText(b"b".to_vec()));
        state.set("l".into(), FilterObject::Text(b"c".to_vec()));
        let texts = ["k", "l", "m"].map(|key| state.get(key).map(FilterObject::text));
        let texts = texts.each_ref().map(Option::as_deref);
        assert_eq!(texts, [Some(&b"b"[..]), Some(&b"c"[..]), None]);
    }
}
