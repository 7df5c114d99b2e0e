//! The secrets of one configuration, as they change.

use crate::error::TlsError;
use crate::secret::{self, Certificate, Parsed, Trust};
use crate::verify::Checker;
use mesh_core::Feed;
use mesh_core::model::{LiveSecret, Secret, SecretRef, Validation};
use rustls::crypto::CryptoProvider;
use std::sync::{Arc, Mutex, PoisonError};

/// Looks secrets up by how they are named.
pub(crate) type Lookup<'a> = &'a dyn Fn(&SecretRef) -> Option<Arc<LiveSecret>>;

/// Everything that a side needs besides its configuration.
#[derive(Debug)]
pub(crate) struct Sources {
    certificates: Vec<Option<Source>>,
    roots: Option<Option<Source>>,
    revoked: Option<Option<Source>>,
}

#[derive(Debug)]
struct Source {
    live: Arc<LiveSecret>,
    feed: Feed<Option<Arc<Secret>>>,
}

/// The secrets at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) roots: Option<Arc<Trust>>,
    pub(crate) revoked: Option<Arc<Trust>>,
}

/// What is made of the secrets, and made anew when they change. Old sessions cannot be resumed
/// then, because what keeps them is part of what is made.
#[derive(Debug)]
pub(crate) struct Generations<T> {
    // A lock for the time of a comparison of a few numbers; making a new generation is rare, and
    // then everybody has to wait for it anyway.
    last: Mutex<Option<Made<T>>>,
}

type Made<T> = (Vec<u64>, Moment, Arc<T>);

// === impl Sources ===

impl Sources {
    pub(crate) fn new(
        certificates: &[SecretRef],
        validation: Option<&Validation>,
        lookup: Lookup<'_>,
    ) -> Self {
        let source = |named: &SecretRef| {
            lookup(named).map(|live| Source {
                feed: live.value(),
                live,
            })
        };
        Self {
            certificates: certificates.iter().map(source).collect(),
            roots: validation.and_then(|given| given.roots.as_ref().map(source)),
            revoked: validation.and_then(|given| given.revoked.as_ref().map(source)),
        }
    }

    fn versions(&self) -> impl Iterator<Item = u64> + '_ {
        let certificates = self.certificates.iter();
        let trust = self.roots.iter().chain(&self.revoked);
        certificates
            .chain(trust)
            .map(|source| source.as_ref().map_or(0, |source| source.feed.version()))
    }

    // One missing secret is enough to refuse, as in Envoy.
    fn now(&self, versions: &[u64]) -> Option<Moment> {
        let mut versions = versions.iter();
        let mut next =
            |source: &Option<Source>| secret::current(&source.as_ref()?.live, *versions.next()?);
        let mut certificates = Vec::with_capacity(self.certificates.len());
        for source in &self.certificates {
            let Parsed::Certificate(certificate) = next(source)? else {
                return None;
            };
            certificates.push(certificate);
        }
        let mut trust = |source: &Option<Option<Source>>| match source {
            None => Some(None),
            Some(source) => match next(source)? {
                Parsed::Trust(trust) => Some(Some(trust)),
                Parsed::Certificate(_) => None,
            },
        };
        let roots = trust(&self.roots)?;
        if roots.as_ref().is_some_and(|roots| !roots.has_roots) {
            return None;
        }
        // Who asks for lists and has none must not believe that somebody looked.
        let revoked = trust(&self.revoked)?;
        if revoked
            .as_ref()
            .is_some_and(|lists| lists.revoked.is_empty())
        {
            return None;
        }
        Some(Moment {
            certificates,
            roots,
            revoked,
        })
    }
}

// === impl Moment ===

impl Moment {
    pub(crate) fn checker(
        &self,
        provider: &CryptoProvider,
        validation: Option<&Validation>,
    ) -> Checker {
        let algorithms = provider.signature_verification_algorithms;
        Checker::new(
            algorithms,
            validation,
            self.roots.clone(),
            self.revoked.clone(),
        )
    }

    fn is(&self, other: &Self) -> bool {
        let trust = |a: &Option<Arc<Trust>>, b: &Option<Arc<Trust>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut pairs = self.certificates.iter().zip(&other.certificates);
        pairs.all(|(a, b)| Arc::ptr_eq(a, b))
            && trust(&self.roots, &other.roots)
            && trust(&self.revoked, &other.revoked)
    }
}

// === impl Generations ===

impl<T> Generations<T> {
    /// The present one, made by `make` if the secrets have changed.
    pub(crate) fn current(
        &self,
        sources: &Sources,
        make: impl FnOnce(&Moment) -> Result<T, TlsError>,
    ) -> Result<Arc<T>, TlsError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((versions, _, made)) = &*last
            && sources.versions().eq(versions.iter().copied())
        {
            return Ok(made.clone());
        }
        let versions: Vec<_> = sources.versions().collect();
        let Some(moment) = sources.now(&versions) else {
            // Nothing of what was made may be used again, tickets least of all.
            *last = None;
            return Err(TlsError::no_secret());
        };
        if let Some((old, before, made)) = &mut *last
            && before.is(&moment)
        {
            *old = versions;
            return Ok(made.clone());
        }
        let made = Arc::new(make(&moment)?);
        *last = Some((versions, moment, made.clone()));
        Ok(made)
    }
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self {
            last: Mutex::new(None),
        }
    }
}
