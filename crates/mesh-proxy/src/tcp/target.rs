//! Which cluster a connection goes to.

use mesh_core::model::{TcpSplit, TcpTarget};
use mesh_core::{Caller, Name};

/// The name of the cluster for a connection. `word` is a random word. None where no cluster has
/// a weight.
pub(super) fn choose<'a>(target: &'a TcpTarget, caller: &'a Caller, word: u64) -> Option<&'a Name> {
    match target {
        TcpTarget::Clusters(splits) => drawn(splits, word),
        TcpTarget::ServerName(otherwise) => {
            let asked = caller.tls.as_ref().map(|tls| &tls.server_name);
            Some(asked.filter(|name| !name.is_empty()).unwrap_or(otherwise))
        }
        // Another kind of target is refused where configuration is read.
        _ => None,
    }
}

fn drawn(splits: &[TcpSplit], word: u64) -> Option<&Name> {
    if let [only] = splits {
        return Some(&only.cluster);
    }
    let total: u64 = splits.iter().map(|split| u64::from(split.weight)).sum();
    let mut left = word.checked_rem(total)?;
    let chosen = splits.iter().find(|split| {
        let weight = u64::from(split.weight);
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen
    });
    Some(&chosen?.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Origin;
    use mesh_core::exchange::TlsInfo;
    use std::sync::Arc;

    fn clusters(weights: &[(&str, u32)]) -> TcpTarget {
        let split = |(cluster, weight): &(&str, u32)| TcpSplit {
            origin: Origin::NONE,
            cluster: (*cluster).into(),
            weight: *weight,
        };
        TcpTarget::Clusters(weights.iter().map(split).collect())
    }

    #[test]
    fn weights_share_connections() {
        let target = clusters(&[("a", 80), ("none", 0), ("b", 20)]);
        let caller = Caller::default();
        let count = |name: &str| {
            let chosen = |word: &u64| *choose(&target, &caller, *word).unwrap() == *name;
            (0..1000).filter(chosen).count()
        };
        assert_eq!((count("a"), count("none"), count("b")), (800, 0, 200));
    }

    #[test]
    fn one_cluster_gets_all_whatever_its_weight() {
        let target = clusters(&[("a", 0)]);
        assert_eq!(&**choose(&target, &Caller::default(), 7).unwrap(), "a");
        assert_eq!(
            choose(&clusters(&[("a", 0), ("b", 0)]), &Caller::default(), 7),
            None
        );
    }

    #[test]
    fn the_server_name_is_the_cluster_where_there_is_one() {
        let target = TcpTarget::ServerName("otherwise".into());
        let named = |server_name: &str| {
            let mut info = TlsInfo::default();
            info.server_name = server_name.into();
            let mut caller = Caller::default();
            caller.tls = Some(Arc::new(info));
            choose(&target, &caller, 0).cloned()
        };
        assert_eq!(
            choose(&target, &Caller::default(), 0),
            Some(&"otherwise".into())
        );
        assert_eq!(named(""), Some("otherwise".into()));
        assert_eq!(named("outbound_.80_._.a"), Some("outbound_.80_._.a".into()));
    }
}
