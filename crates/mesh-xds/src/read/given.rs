//! Secrets that come with what uses them.

use mesh_core::model::{Secret, SecretName, SecretRef};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Secrets, each under a name that follows from its contents.
#[derive(Debug, Default)]
pub(super) struct Given {
    all: Vec<(SecretRef, Arc<Secret>)>,
}

// === impl Given ===

impl Given {
    pub(super) fn add(&mut self, secret: Secret) -> SecretRef {
        self.put(Arc::new(secret))
    }

    /// Adds a secret and says how it is called. One that has the same name is replaced.
    pub(super) fn put(&mut self, secret: Arc<Secret>) -> SecretRef {
        let named = SecretRef::local(name_of(&secret));
        match self.all.iter_mut().find(|(known, _)| *known == named) {
            Some((_, known)) => *known = secret,
            None => self.all.push((named.clone(), secret)),
        }
        named
    }

    pub(super) fn get(&self, named: &SecretRef) -> Option<Arc<Secret>> {
        let found = self.all.iter().find(|(known, _)| known == named);
        found.map(|(_, secret)| secret.clone())
    }

    pub(super) fn into_inner(self) -> Vec<(SecretRef, Arc<Secret>)> {
        self.all
    }
}

/// A hash of what of the secret is public. The key is no part of it: names are seen by everybody,
/// and this is no hash that would hide it.
fn name_of(secret: &Secret) -> mesh_core::Name {
    let mut hash = Xxh3::new();
    let parts: [&[u8]; 3] = match secret {
        Secret::Certificate { chain, .. } => [b"certificate", chain, b""],
        Secret::Trust { roots, revoked } => [b"trust", roots, revoked],
        _ => [b"other", b"", b""],
    };
    for part in parts {
        hash.update(&part.len().to_le_bytes());
        hash.update(part);
    }
    let name = format!("inline:{:032x}", hash.digest128());
    SecretName::Other(&name).to_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_the_contents_and_says_nothing_of_the_key() {
        let mut given = Given::default();
        let one = given.add(Secret::certificate("chain", "key"));
        let same = given.add(Secret::certificate("chain", "another key"));
        let other = given.add(Secret::certificate("chain 2", "key"));
        let roots = given.add(Secret::roots("chain"));
        assert_eq!(one, same);
        assert!(one != other && one != roots && other != roots);
        assert_eq!(given.into_inner().len(), 3);
    }
}
