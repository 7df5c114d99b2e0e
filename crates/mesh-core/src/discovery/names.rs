//! Names of the mesh and the addresses behind them, for whoever answers the applications' questions.

use crate::Name;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Every name that one node may resolve in the mesh (Istio's
/// `istio.networking.nds.v1.NameTable`).
///
/// Names are full host names in lower case without a dot at the end; a first label `*` stands for
/// one or more labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameTable {
    /// What is known of each name.
    pub names: BTreeMap<Name, NameInfo>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameInfo {
    /// Its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// The Kubernetes service whose short forms (`name`, `name.namespace`, `name.namespace.svc`)
    /// mean the same; none for names that Kubernetes does not know.
    pub short: Option<ShortName>,
}

/// A Kubernetes service as its neighbours call it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortName {
    /// Its name; for one pod of a service `pod.service`.
    pub name: Name,
    /// Its namespace.
    pub namespace: Name,
}

// === impl NameInfo ===

impl NameInfo {
    /// A name with these addresses and no short forms.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            short: None,
        }
    }

    /// The name of a Kubernetes service.
    #[must_use]
    pub fn short(mut self, name: impl Into<Name>, namespace: impl Into<Name>) -> Self {
        self.short = Some(ShortName {
            name: name.into(),
            namespace: namespace.into(),
        });
        self
    }
}

impl FromIterator<(Name, NameInfo)> for NameTable {
    fn from_iter<I: IntoIterator<Item = (Name, NameInfo)>>(names: I) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }
}
