//! The mesh's names as applications spell them.

use mesh_core::discovery::NameTable;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Where the applications are that ask: what short names mean to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Their namespace: only services in it are called by their bare name.
    pub namespace: String,
    /// What the names of their cluster's services end in, e.g. `svc.cluster.local`. Services
    /// elsewhere have no short forms. Empty means that no service has any.
    pub domain: String,
    /// What their resolver adds to names, if it adds something (`search` in `resolv.conf`, of
    /// which only the first counts).
    pub search: Option<String>,
}

/// A table of names to look things up in.
///
/// ```
/// use mesh_core::discovery::{NameInfo, NameTable};
/// use mesh_discovery::dns::server::{Names, Place};
///
/// let info = NameInfo::new(["10.1.0.1".parse()?]).short("web", "shop");
/// let table: NameTable = [("web.shop.svc.cluster.local".into(), info)].into_iter().collect();
/// let place = Place {
///     namespace: "shop".into(),
///     domain: "svc.cluster.local".into(),
///     search: None,
/// };
/// let names = Names::new(&table, &place);
/// assert!(names.contains("web") && names.contains("WEB.shop.") && !names.contains("cart"));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Names {
    hosts: HashMap<String, Arc<Host>>,
    /// With a dot before it.
    search: Option<String>,
}

/// The addresses of a name.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
}

/// What was found for a name.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) host: &'a Host,
    /// The name was found without this many bytes at its end, of which a CNAME tells.
    pub(super) added: usize,
}

// === impl Names ===

impl Names {
    /// A table as applications in `place` see it.
    pub fn new(table: &NameTable, place: &Place) -> Self {
        let mut hosts = HashMap::with_capacity(table.names.len());
        let domain = plain(&place.domain);
        // The first label: `name.namespace.svc` is understood, longer forms are rare.
        let first = domain.split('.').next().unwrap_or_default();
        let inside = |name: &str| {
            let rest = name.strip_suffix(domain.as_str());
            !domain.is_empty() && rest.is_some_and(|rest| rest.ends_with('.'))
        };
        let mut shorts = Vec::new();
        for (name, info) in &table.names {
            let mut host = Host::default();
            for address in &info.addresses {
                match address {
                    IpAddr::V4(address) => host.v4.push(*address),
                    IpAddr::V6(address) => host.v6.push(*address),
                }
            }
            // As good as not there: others are asked for it.
            if host.v4.is_empty() && host.v6.is_empty() {
                continue;
            }
            let (name, host) = (plain(name), Arc::new(host));
            if let Some(short) = info.short.as_ref().filter(|_| inside(&name)) {
                let namespace = plain(&short.namespace);
                let own = namespace == plain(&place.namespace);
                let short = plain(&short.name);
                if own {
                    shorts.push((short.clone(), host.clone()));
                }
                let longer = format!("{short}.{namespace}");
                shorts.push((format!("{longer}.{first}"), host.clone()));
                shorts.push((longer, host.clone()));
            }
            hosts.insert(name, host);
        }
        // What is called so in full means that.
        for (name, host) in shorts {
            hosts.entry(name).or_insert(host);
        }
        let search = place.search.as_deref().map(plain);
        Self {
            hosts,
            search: search
                .filter(|search| !search.is_empty())
                .map(|search| format!(".{search}")),
        }
    }

    /// Whether a name is answered with what the mesh knows, in any case and with or without a dot
    /// at its end.
    pub fn contains(&self, name: &str) -> bool {
        self.find(&plain(name)).is_some()
    }

    /// How many names there are, in all their forms.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// A name in lower case without a dot at its end: itself, or with the search domain taken from
    /// it, or the closest wildcard of either.
    pub(super) fn find(&self, name: &str) -> Option<Found<'_>> {
        if let Some(found) = self.exact(name) {
            return Some(found);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.exact(&format!("*.{parent}")) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }

    fn exact(&self, name: &str) -> Option<Found<'_>> {
        if let Some(host) = self.hosts.get(name) {
            return Some(Found { host, added: 0 });
        }
        let search = self.search.as_deref()?;
        let host = self.hosts.get(name.strip_suffix(search)?)?;
        Some(Found {
            host,
            added: search.len(),
        })
    }
}

/// A name in lower case without a dot at its end.
pub(super) fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
