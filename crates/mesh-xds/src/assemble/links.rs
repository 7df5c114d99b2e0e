//! Resources that others refer to, and who does.

use crate::TypeUrl;
use crate::assemble::{Assemble, Interest};
use crate::read::{Reference, Source};
use mesh_core::Name;
use mesh_core::model::StreamOpening;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What comes before the fingerprint of what streams begin with, in a name made up here.
const OPENED: &str = ", opened as ";

/// Resources of one type by their name in snapshots.
#[derive(Debug)]
pub(super) struct Links<T> {
    all: BTreeMap<Name, Link<T>>,
    /// Those whose users changed in this step.
    touched: BTreeSet<Name>,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Link<T> {
    /// What is in force.
    pub(super) value: Option<Arc<T>>,
    /// Its source says that it does not exist.
    pub(super) absent: bool,
    /// It is there for good, and not asked for.
    pub(super) fixed: bool,
    /// Who refers to it.
    pub(super) users: BTreeSet<Name>,
    /// The reference by which it was asked for.
    asked: Option<Reference>,
    /// The latest reference to it.
    wanted: Option<Reference>,
}

// === impl Links ===

impl<T> Links<T> {
    pub(super) fn get(&self, key: &str) -> Option<&Link<T>> {
        self.all.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Link<T>> {
        self.all.get_mut(key)
    }

    pub(super) fn entry(&mut self, key: &Name) -> &mut Link<T> {
        self.all.entry(key.clone()).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Link<T>)> {
        self.all.iter()
    }

    /// Notes that `user` refers to it.
    pub(super) fn refer(&mut self, key: &Name, by: Option<&Reference>, user: &Name) {
        let link = self.entry(key);
        if let Some(by) = by {
            link.wanted = Some(by.clone());
        }
        if link.users.insert(user.clone()) | link.is_watched_elsewhere() {
            self.touched.insert(key.clone());
        }
    }

    /// Notes that `user` no longer refers to it.
    pub(super) fn release(&mut self, key: &Name, user: &Name) {
        if let Some(link) = self.all.get_mut(key)
            && link.users.remove(user)
        {
            self.touched.insert(key.clone());
        }
    }

    /// What has to be asked for from now on or no longer. Who is not referred to any more is
    /// forgotten; its key is in the second list.
    pub(super) fn follow(&mut self, kind: TypeUrl) -> (Vec<Interest>, Vec<Name>) {
        let mut interests = Vec::new();
        let mut forgotten = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some(link) = self.all.get_mut(&key) else {
                continue;
            };
            if link.users.is_empty() {
                if let Some(asked) = link.asked.take() {
                    interests.push(Interest::Stop(kind, asked.from, asked.name));
                }
                if !link.fixed {
                    self.all.remove(&key);
                    forgotten.push(key);
                }
            } else if !link.fixed
                && (link.asked.is_none() || link.is_watched_elsewhere())
                && let Some(wanted) = &link.wanted
            {
                link.asked = Some(wanted.clone());
                interests.push(Interest::Start(kind, wanted.clone()));
            }
        }
        (interests, forgotten)
    }
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }
}

// === impl Link ===

impl<T> Link<T> {
    /// The latest reference names another directory to be watched than the one that it was asked
    /// for by.
    fn is_watched_elsewhere(&self) -> bool {
        let (Some(asked), Some(wanted)) = (&self.asked, &self.wanted) else {
            return false;
        };
        asked.watched_directory != wanted.watched_directory
    }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self {
            value: None,
            absent: false,
            fixed: false,
            users: BTreeSet::new(),
            asked: None,
            wanted: None,
        }
    }
}

// === impl Assemble ===

impl Assemble {
    /// Subscriptions follow references, at the end of a step: what is let go and taken up again
    /// within one step is not forgotten in between.
    pub(super) fn follow_references(&mut self) {
        self.follow_secrets();
        let (interests, _) = self.endpoints.follow(TypeUrl::Endpoints);
        self.step.interests.extend(interests);
        let (interests, forgotten) = self.tables.links.follow(TypeUrl::Routes);
        self.step.interests.extend(interests);
        for key in forgotten {
            self.table_forgotten(&key);
        }
    }
}

/// The name by which a resource is known here.
pub(super) fn key(from: &Source, name: &Name) -> Name {
    match from {
        Source::Ads => name.clone(),
        Source::Path(path) => format!("{name} (from {})", path.display()).into(),
        Source::Service {
            cluster,
            delta,
            opening,
        } => {
            let variant = if *delta { "delta of " } else { "" };
            let opened = match opening.is_empty() {
                true => String::new(),
                false => format!("{OPENED}{:032x}", fingerprint(opening)),
            };
            format!("{name} (from {variant}service {cluster}{opened})").into()
        }
    }
}

/// What a name that [`key`] made is in a message: nothing in it comes from a credential.
pub(super) fn shown(key: &str) -> String {
    match key.rsplit_once(OPENED) {
        Some((before, _)) => format!("{before})"),
        None => key.to_owned(),
    }
}

/// Tells what streams begin with apart. Each part comes with its length, so that no two read alike.
fn fingerprint(opening: &StreamOpening) -> u128 {
    let mut hash = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    part(opening.authority.as_bytes());
    for (name, value) in opening.metadata.iter() {
        part(name.as_str().as_bytes());
        part(value.as_bytes());
    }
    hash.digest128()
}

/// The name by which a table that came with a listener is known here.
pub(super) fn inline_key(table: &Name, listener: &Name) -> Name {
    format!("{table} (inline in {listener})").into()
}

/// Whether a name could be one that is made up here.
pub(super) fn is_made_up(name: &str) -> bool {
    let parts = [" (inline in ", " (from ", " (without "];
    name.ends_with(')') && parts.iter().any(|part| name.contains(part))
}
