//! Whose a number is, and what it is called.
//!
//! A mesh has a hundred numbers for each of its clusters, so their names are not written out before
//! they are shown: what they begin with is there once for all of an owner.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// What a number belongs to, and its name there.
#[derive(Clone, Debug)]
pub(super) struct Id {
    subject: Arc<Subject>,
    stat: Cow<'static, str>,
}

/// An owner, and what the names of its numbers begin with.
#[derive(Debug)]
pub(super) struct Subject {
    owner: Owner,
    prefix: Box<str>,
}

/// Who has numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Process,
    Cluster(String),
    Http(String),
    Tcp(String),
    Listener(String),
    /// A virtual host, and the prefix of rules in it.
    Route(String, String),
}

// === impl Subject ===

impl Subject {
    pub(super) fn new(owner: Owner) -> Arc<Self> {
        let prefix = match &owner {
            Owner::Process => String::new(),
            Owner::Cluster(name) => format!("cluster.{name}."),
            Owner::Http(prefix) => format!("http.{prefix}."),
            Owner::Tcp(prefix) => format!("tcp.{prefix}."),
            Owner::Listener(address) => format!("listener.{address}."),
            Owner::Route(host, prefix) => format!("vhost.{host}.route.{prefix}."),
        };
        let prefix = prefix.into();
        Arc::new(Self { owner, prefix })
    }
}

// === impl Id ===

impl Id {
    pub(super) fn new(of: &Arc<Subject>, stat: impl Into<Cow<'static, str>>) -> Self {
        Self {
            subject: Arc::clone(of),
            stat: stat.into(),
        }
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.subject.owner
    }

    /// Its name among those of its owner.
    pub(super) fn stat(&self) -> &str {
        &self.stat
    }

    /// The order of whole names, as Envoy's `/stats` has it.
    fn by_name(&self, other: &Self) -> Ordering {
        let (one, two) = (
            self.subject.prefix.as_bytes(),
            other.subject.prefix.as_bytes(),
        );
        let shared = one.len().min(two.len());
        // Nearly always this settles it: otherwise one begins as the whole other does.
        let began = one[..shared].cmp(&two[..shared]);
        began.then_with(|| {
            let one = one[shared..].iter().chain(self.stat.as_bytes());
            one.cmp(two[shared..].iter().chain(other.stat.as_bytes()))
        })
    }
}

impl fmt::Display for Id {
    /// The whole name, as in Envoy's `/stats`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject.prefix)?;
        f.write_str(&self.stat)
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.stat == other.stat
            && (Arc::ptr_eq(&self.subject, &other.subject) || self.owner() == other.owner())
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.subject, &other.subject) {
            return self.stat.cmp(&other.stat);
        }
        let owner = || self.owner().cmp(other.owner());
        let by_name = self.by_name(other).then_with(owner);
        by_name.then_with(|| self.stat.cmp(&other.stat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_in_the_order_of_what_is_written(
            one in ("[ab.]{0,3}", "[ab.]{0,3}"), two in ("[ab.]{0,3}", "[ab.]{0,3}"),
        ) {
            let id = |(name, stat): (String, String)| {
                Id::new(&Subject::new(Owner::Cluster(name)), stat)
            };
            let (one, two) = (id(one), id(two));
            let written = one.to_string().cmp(&two.to_string());
            prop_assert_eq!(one.by_name(&two), written);
            if written.is_ne() {
                prop_assert_eq!(one.cmp(&two), written);
            }
            prop_assert_eq!(one.cmp(&two).is_eq(), one == two);
        }
    }
}
