//! What the `PeerAuthentication`s of a mesh say together.
//!
//! One with a selector goes before that of the workload's namespace, and that before the one of the
//! root namespace; of several of one kind the oldest holds. What says nothing inherits
//! (istiod's `ComposePeerAuthentication`).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::spec::{Meta, MutualTls, PeerAuthentication};
use crate::world::World;

/// All of them, the oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    all: Vec<(Meta, PeerAuthentication)>,
    root: String,
    stamp: u64,
}

/// What one workload accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) mode: MutualTls,
    ports: BTreeMap<u16, MutualTls>,
}

impl Peers {
    pub(crate) fn of(world: &World) -> Self {
        let mut all: Vec<_> = world.peer_authentications().collect();
        all.sort_by_key(|(meta, _)| meta.seniority());
        let mut hasher = DefaultHasher::new();
        for (meta, _) in &all {
            meta.stamp.hash(&mut hasher);
        }
        let each = all.into_iter();
        Self {
            all: each
                .map(|(meta, spec)| (meta.clone(), spec.clone()))
                .collect(),
            root: world.mesh_config().root_namespace.clone(),
            stamp: hasher.finish(),
        }
    }

    /// The same for the same objects, and different for others.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// What workloads of a namespace accept where nothing is said of them.
    pub(crate) fn namespace(&self, namespace: &str) -> MutualTls {
        let plain = |wanted: &str| {
            let mut all = self.all.iter();
            let found = all.find(|(of, spec)| of.namespace == wanted && spec.selector.is_none());
            found.and_then(|(_, spec)| spec.mode)
        };
        let own = || (namespace != self.root).then(|| plain(namespace)).flatten();
        own().or_else(|| plain(&self.root)).unwrap_or_default()
    }

    /// Those that ask for mutual TLS and are for workloads of a namespace, if not for all of them.
    pub(crate) fn strict(&self, namespace: &str) -> impl Iterator<Item = &Meta> {
        let all = self.all.iter().filter(move |(of, spec)| {
            let modes = spec.ports.values().chain([&spec.mode]);
            let strict = modes.flatten().any(|mode| *mode == MutualTls::Strict);
            strict && (of.namespace == namespace || of.namespace == self.root)
        });
        all.map(|(meta, _)| meta)
    }

    /// What a workload with these labels accepts.
    pub(crate) fn workload<'l>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> Accepted {
        let general = self.namespace(namespace);
        // In the root namespace a selector selects nothing, as in istiod.
        let mut all = self.all.iter().filter(|_| namespace != self.root);
        let own = all.find(|(of, spec)| {
            of.namespace == namespace
                && spec.selector.as_ref().is_some_and(|wanted| {
                    let mut wanted = wanted.iter();
                    wanted.all(|(key, value)| label(key) == Some(value))
                })
        });
        let Some((_, own)) = own else {
            return Accepted {
                mode: general,
                ports: BTreeMap::new(),
            };
        };
        let mode = own.mode.unwrap_or(general);
        let ports = own.ports.iter();
        Accepted {
            mode,
            ports: ports
                .map(|(port, said)| (*port, said.unwrap_or(mode)))
                .collect(),
        }
    }
}

impl Accepted {
    /// Whether mutual TLS has to be spoken anywhere.
    pub(crate) fn is_strict(&self) -> bool {
        let mut modes = self.ports.values().chain([&self.mode]);
        modes.any(|mode| *mode == MutualTls::Strict)
    }

    pub(crate) fn port(&self, port: u16) -> MutualTls {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    fn peers(objects: &[(&str, &str, &str, &str)]) -> Peers {
        let text: Vec<String> = objects
            .iter()
            .map(|(name, namespace, created, spec)| {
                format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: \
                     {name}, namespace: {namespace}, creationTimestamp: '{created}'}}\nspec: {spec}\n"
                )
            })
            .collect();
        let mut world = World::default();
        let findings = world.update(&Files::from_text("a.yaml", &text.join("---\n")));
        assert!(findings.is_empty(), "{findings:?}");
        Peers::of(&world)
    }

    fn of(peers: &Peers, namespace: &str, app: &str) -> Accepted {
        peers.workload(namespace, |key| (key == "app").then_some(app))
    }

    #[test]
    fn the_nearest_that_says_something_holds_and_the_oldest_of_a_kind() {
        use MutualTls::{Disable, Permissive, Strict};
        let peers = peers(&[
            ("mesh", "istio-system", "2020", "{mtls: {mode: STRICT}}"),
            ("late", "shop", "2021", "{mtls: {mode: STRICT}}"),
            ("early", "shop", "2020", "{mtls: {mode: PERMISSIVE}}"),
            ("unset", "pay", "2020", "{mtls: {mode: UNSET}}"),
            (
                "a",
                "shop",
                "2021",
                "{selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}}",
            ),
            (
                "b",
                "shop",
                "2021",
                "{selector: {matchLabels: {app: b}}, portLevelMtls: {8080: {mode: STRICT}, 9: {}}}",
            ),
            (
                "rooted",
                "istio-system",
                "2020",
                "{selector: {matchLabels: {app: c}}, mtls: {mode: DISABLE}}",
            ),
        ]);
        assert_eq!(peers.namespace("shop"), Permissive);
        assert_eq!(peers.namespace("pay"), Strict, "what is unset inherits");
        assert_eq!(peers.namespace("other"), Strict);
        assert_eq!(of(&peers, "shop", "a").port(1), Disable);
        let b = of(&peers, "shop", "b");
        assert_eq!(
            (b.mode, b.port(8080), b.port(9)),
            (Permissive, Strict, Permissive)
        );
        assert_eq!(of(&peers, "shop", "z").port(1), Permissive);
        assert_eq!(of(&peers, "istio-system", "c").port(1), Strict);
    }

    #[test]
    fn a_mesh_that_says_nothing_takes_both() {
        let peers = Peers::of(&World::default());
        assert_eq!(peers.namespace("shop"), MutualTls::Permissive);
        assert_eq!(of(&peers, "shop", "a").port(80), MutualTls::Permissive);
    }
}
