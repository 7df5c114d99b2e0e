//! Which machine has a name, and the spellings of structured names.
//!
//! On the wire a structured name has one form ([`crate::xdstp`]). Those who refer to a resource may
//! write it otherwise, and are given it under the name that they used.

use crate::TypeUrl;
use crate::read::Resource;
use crate::xdstp::{self, ResourceName};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Which machine has a name, and the spellings of structured names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The place of each authority's machine. Without any, structured names are names like any
    /// other, as for Envoy without `config_sources`.
    authorities: BTreeMap<Name, usize>,
    /// By what names a resource is asked for, where that is not only its own.
    spellings: HashMap<(TypeUrl, Name), BTreeSet<Name>>,
}

// === impl Names ===

impl Names {
    pub(super) fn new(authorities: BTreeMap<Name, usize>) -> Self {
        Self {
            authorities,
            ..Self::default()
        }
    }

    pub(super) fn authorities(&self) -> &BTreeMap<Name, usize> {
        &self.authorities
    }

    /// The machine that has a name, and the form under which it has it.
    pub(super) fn place(&self, kind: TypeUrl, name: &Name) -> Result<(usize, Name), Invalid> {
        if xdstp::is_glob(name) && !kind.absence_removes() {
            let message = format!(
                "{name:?}: a glob collection, of which a reference to one resource can make nothing"
            );
            return Err(Invalid::new("", message));
        }
        if self.authorities.is_empty() || !xdstp::is_structured(name) {
            return Ok((0, xdstp::canonical(name).as_ref().into()));
        }
        let parsed = ResourceName::of_kind(name, kind)?;
        match self.authorities.get(parsed.authority()) {
            Some(place) => Ok((*place, parsed.to_string().into())),
            // Never the servers of somebody else (gRFC A47).
            None => {
                let message = format!("{name:?}: no server is known for its authority");
                Err(Invalid::new("", message))
            }
        }
    }

    /// Somebody asks for a resource by this name.
    pub(super) fn asked(&mut self, kind: TypeUrl, form: &Name, name: &Name) {
        if xdstp::is_structured(name) {
            let spellings = self.spellings.entry((kind, form.clone())).or_default();
            spellings.insert(name.clone());
        }
    }

    /// Another name by which a resource is asked for already.
    pub(super) fn other_spelling(&self, kind: TypeUrl, form: &Name, name: &Name) -> Option<Name> {
        let spellings = self.spellings.get(&(kind, form.clone()))?;
        spellings.iter().find(|other| *other != name).cloned()
    }

    /// Nobody asks by this name any more. Returns whether nobody asks for the resource at all.
    pub(super) fn left(&mut self, kind: TypeUrl, form: &Name, name: &Name) -> bool {
        let key = (kind, form.clone());
        let Some(spellings) = self.spellings.get_mut(&key) else {
            return true;
        };
        spellings.remove(name);
        let last = spellings.is_empty();
        if last {
            self.spellings.remove(&key);
        }
        last
    }

    /// A resource that came, under each of the names by which it is asked for.
    pub(super) fn spelled(&self, kind: TypeUrl, form: &Name, resource: Resource) -> Vec<Resource> {
        if !xdstp::is_structured(form) {
            return vec![resource];
        }
        let each = self.names(kind, form).into_iter();
        each.map(|name| renamed(resource.clone(), name)).collect()
    }

    /// The names by which a resource is asked for.
    pub(super) fn names(&self, kind: TypeUrl, form: &Name) -> Vec<Name> {
        match self.spellings.get(&(kind, form.clone())) {
            Some(spellings) => spellings.iter().cloned().collect(),
            None => vec![form.clone()],
        }
    }
}

pub(super) fn renamed(mut resource: Resource, name: Name) -> Resource {
    match &mut resource {
        Resource::Cluster(cluster) => cluster.cluster.name = name,
        Resource::Endpoints(endpoints) => endpoints.name = name,
        Resource::Listener(listener) => listener.listener.name = name,
        Resource::Routes(table) => table.name = name,
        Resource::Secret(secret) => secret.name = name,
        Resource::VirtualHost(host) => host.name = name,
        Resource::NameTable(_) => {}
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new([("a".into(), 1), (Name::default(), 0)].into())
    }

    const ONE: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/x?b=1&a=2";
    const FORM: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/x?a=2&b=1";

    #[test]
    fn the_authority_says_whose_servers_have_a_name() {
        let place = |name: &str| names().place(TypeUrl::Cluster, &name.into());
        assert_eq!(place(ONE), Ok((1, FORM.into())));
        assert_eq!(place("plain"), Ok((0, "plain".into())));
        let none = "xdstp:///envoy.config.cluster.v3.Cluster/x";
        assert_eq!(place(none), Ok((0, none.into())));
        for (wrong, why) in [
            ("xdstp://b/envoy.config.cluster.v3.Cluster/x", "no server"),
            ("xdstp://a/envoy.config.listener.v3.Listener/x", "expected"),
            ("xdstp://a", "expected"),
        ] {
            let error = place(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_collection_can_be_asked_for_and_not_be_referred_to() {
        for names in [names(), Names::default()] {
            let glob = Name::from("xdstp:///envoy.config.cluster.v3.Cluster/*");
            assert_eq!(names.place(TypeUrl::Cluster, &glob), Ok((0, glob)));
            let glob = "xdstp:///envoy.config.endpoint.v3.ClusterLoadAssignment/*";
            let error = names.place(TypeUrl::Endpoints, &glob.into()).unwrap_err();
            assert!(error.to_string().contains("glob collection"), "{error}");
        }
    }

    #[test]
    fn without_authorities_structured_names_are_names_like_any_other() {
        let names = Names::default();
        let place = names.place(TypeUrl::Cluster, &ONE.into());
        assert_eq!(place, Ok((0, FORM.into())));
    }

    #[test]
    fn a_resource_comes_under_each_name_that_it_is_asked_for_by() {
        let mut names = names();
        let (kind, form) = (TypeUrl::Cluster, Name::from(FORM));
        names.asked(kind, &form, &ONE.into());
        names.asked(kind, &form, &form);
        assert_eq!(names.names(kind, &form), [form.clone(), ONE.into()]);
        assert!(!names.left(kind, &form, &form));
        assert_eq!(names.names(kind, &form), [Name::from(ONE)]);
        assert!(names.left(kind, &form, &ONE.into()));
    }
}
