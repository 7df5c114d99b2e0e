//! Delegates: the rules of another object, in place of the rule that names it.
//!
//! Each of the delegate's rules is narrowed to what the root's rule matches, and takes from the
//! root what it does not say itself. One that could match what the root does not is left out, as
//! istiod leaves it out, but with a warning. There is one level only.

use std::borrow::Cow;

use mesh_core::model::StringMatch;

use super::{Compiler, gateway_name};
use crate::spec::virtual_service::{Action, Delegate, HttpMatch, HttpRoute};
use crate::spec::{Kind, Meta, Spec, VirtualService};
use crate::world::{ObjectKey, World};

/// A rule, maybe of two objects.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    pub(super) route: Cow<'a, HttpRoute>,
    pub(super) owners: Owners<'a>,
}

/// Which object each part of a rule stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners<'a> {
    pub(super) action: &'a Meta,
    pub(super) matches: &'a Meta,
    pub(super) rewrite: &'a Meta,
    pub(super) timeout: &'a Meta,
    pub(super) retries: &'a Meta,
    pub(super) fault: &'a Meta,
    pub(super) mirrors: &'a Meta,
    pub(super) cors: &'a Meta,
}

/// What a header or parameter has to be; nothing is presence.
type Wanted = Option<StringMatch>;

/// The rules of a virtual service, with those of its delegates in their places.
pub(super) fn routes<'m, 'a: 'm>(
    compiler: &mut Compiler<'a>,
    meta: &'m Meta,
    spec: &'m VirtualService,
) -> Vec<Merged<'m>> {
    let mut all = Vec::new();
    for route in &spec.http {
        let Action::Delegate(asked) = &route.action else {
            all.push(Merged {
                route: Cow::Borrowed(route),
                owners: Owners::all(meta),
            });
            continue;
        };
        let Some((leaf, rules)) = find(compiler, meta, asked) else {
            continue;
        };
        for own in &rules.http {
            match merge((meta, route), (leaf, own)) {
                Some(merged) => all.push(merged),
                None => {
                    let message = format!(
                        "left out: it matches requests that {meta} does not delegate with rule {:?}",
                        route.name,
                    );
                    compiler.warn(leaf, own.at, "spec.http", message);
                }
            }
        }
    }
    all
}

fn find<'a>(
    compiler: &mut Compiler<'a>,
    root: &Meta,
    asked: &Delegate,
) -> Option<(&'a Meta, &'a VirtualService)> {
    let world: &'a World = compiler.world;
    let namespace = match asked.namespace.as_str() {
        "" => root.namespace.as_str(),
        named => named,
    };
    let named = named(world, namespace, &asked.name);
    if let Some(hears) = &mut compiler.hears {
        let stamp = named.map(|(meta, _)| meta.stamp);
        let place = (namespace.to_owned(), asked.name.clone(), stamp);
        hears.delegates.push(place);
    }
    let full = format!("{}.{namespace}", asked.name);
    let usual = &compiler.mesh.virtual_service_export;
    let message = match named {
        None => format!("there is no VirtualService {full}"),
        Some((_, spec)) if !spec.hosts.is_empty() => {
            format!("VirtualService {full} has hosts, so it is no delegate")
        }
        Some((_, spec)) => {
            let visibility = spec.export_to.as_ref().unwrap_or(usual);
            if visibility.shows(namespace, &root.namespace) {
                return named;
            }
            format!(
                "VirtualService {full} is not exported to {:?}",
                root.namespace
            )
        }
    };
    compiler.warn(root, asked.at, "spec.http.delegate", message);
    None
}

/// The virtual service of this name.
pub(super) fn named<'w>(
    world: &'w World,
    namespace: &str,
    name: &str,
) -> Option<(&'w Meta, &'w VirtualService)> {
    let key = ObjectKey {
        kind: Kind::VirtualService,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let object = world.object(&key)?;
    match &object.spec {
        Spec::VirtualService(spec) => Some((&object.meta, spec)),
        _ => None,
    }
}

// === impl Owners ===

impl<'a> Owners<'a> {
    fn all(meta: &'a Meta) -> Self {
        Self {
            action: meta,
            matches: meta,
            rewrite: meta,
            timeout: meta,
            retries: meta,
            fault: meta,
            mirrors: meta,
            cors: meta,
        }
    }
}

// === merging ===

fn merge<'a>(root: (&'a Meta, &HttpRoute), leaf: (&'a Meta, &HttpRoute)) -> Option<Merged<'a>> {
    let ((root_meta, root), (leaf_meta, leaf)) = (root, leaf);
    let mut owners = Owners::all(leaf_meta);
    let mut route = leaf.clone();
    route.name = joined(&root.name, &leaf.name);
    route.matches = match (root.matches.as_slice(), leaf.matches.as_slice()) {
        (theirs, []) => {
            owners.matches = root_meta;
            theirs
                .iter()
                .map(|block| placed(block, root_meta))
                .collect()
        }
        ([], own) => own.iter().map(|block| placed(block, leaf_meta)).collect(),
        (theirs, own) => {
            let mut all = Vec::new();
            for block in own {
                let before = all.len();
                let block = placed(block, leaf_meta);
                let theirs = theirs.iter().map(|theirs| placed(theirs, root_meta));
                all.extend(theirs.filter_map(|theirs| both(&theirs, &block)));
                if all.len() == before {
                    return None;
                }
            }
            all
        }
    };
    if route.rewrite.is_none() {
        route.rewrite.clone_from(&root.rewrite);
        owners.rewrite = root_meta;
    }
    if route.timeout.is_none() {
        route.timeout = root.timeout;
        owners.timeout = root_meta;
    }
    if route.retries.is_none() {
        route.retries.clone_from(&root.retries);
        owners.retries = root_meta;
    }
    if route.fault.is_none() {
        route.fault.clone_from(&root.fault);
        owners.fault = root_meta;
    }
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
        owners.mirrors = root_meta;
    }
    if route.cors.is_none() {
        route.cors.clone_from(&root.cors);
        owners.cors = root_meta;
    }
    // As a whole: what the delegate does to requests stops the root's edits of responses too.
    if route.headers.is_none() {
        route.headers.clone_from(&root.headers);
    }
    let route = Cow::Owned(route);
    Some(Merged { route, owners })
}

fn joined(root: &str, leaf: &str) -> String {
    match (root, leaf) {
        ("", one) | (one, "") => one.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    }
}

/// A block whose gateways mean the same wherever it is looked at.
fn placed(block: &HttpMatch, meta: &Meta) -> HttpMatch {
    let mut block = block.clone();
    for gateway in &mut block.gateways {
        *gateway = gateway_name(gateway, &meta.namespace);
    }
    block
}

/// What both take in, if that is all that the delegate's block takes in of what it speaks of.
fn both(root: &HttpMatch, leaf: &HttpMatch) -> Option<HttpMatch> {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let within = texts.into_iter().all(|(root, leaf)| match (root, leaf) {
        (Some(root), Some(leaf)) => narrows(root, leaf),
        _ => true,
    });
    let same_case =
        leaf.uri.is_none() || root.uri.is_none() || root.ignore_uri_case == leaf.ignore_uri_case;
    let port = match (root.port, leaf.port) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let namespace = root.source_namespace.is_empty()
        || leaf.source_namespace.is_empty()
        || root.source_namespace == leaf.source_namespace;
    let labels = leaf
        .source_labels
        .iter()
        .all(|(key, value)| root.source_labels.get(key).is_none_or(|have| have == value));
    let gateways =
        root.gateways.is_empty() || leaf.gateways.iter().all(|one| root.gateways.contains(one));
    if !(within && same_case && port && namespace && labels && gateways) {
        return None;
    }
    let mut block = leaf.clone();
    block.name = joined(&root.name, &leaf.name);
    if block.uri.is_none() {
        block.uri.clone_from(&root.uri);
        block.ignore_uri_case = root.ignore_uri_case;
    }
    block.scheme = block.scheme.or_else(|| root.scheme.clone());
    block.method = block.method.or_else(|| root.method.clone());
    block.authority = block.authority.or_else(|| root.authority.clone());
    block.headers = conditions(&root.headers, &leaf.headers, has)?;
    block.query = conditions(&root.query, &leaf.query, has)?;
    // What the delegate shuts out has to be the wider: it may not let in more than the root.
    let shuts = |root: &Wanted, leaf: &Wanted| has(leaf, root);
    block.without_headers = conditions(&root.without_headers, &leaf.without_headers, shuts)?;
    block.port = block.port.or(root.port);
    for (key, value) in &root.source_labels {
        let key = key.clone();
        block
            .source_labels
            .entry(key)
            .or_insert_with(|| value.clone());
    }
    if block.source_namespace.is_empty() {
        block.source_namespace.clone_from(&root.source_namespace);
    }
    if block.gateways.is_empty() {
        block.gateways.clone_from(&root.gateways);
    }
    if block.stat_prefix.is_empty() {
        block.stat_prefix.clone_from(&root.stat_prefix);
    }
    Some(block)
}

/// Conditions of both by name; of one name the delegate's, if it `fits` the root's.
fn conditions<K: Clone + PartialEq>(
    root: &[(K, Wanted)],
    leaf: &[(K, Wanted)],
    fits: impl Fn(&Wanted, &Wanted) -> bool,
) -> Option<Vec<(K, Wanted)>> {
    let mut all = leaf.to_vec();
    for (name, theirs) in root {
        match leaf.iter().find(|(have, _)| have == name) {
            None => all.push((name.clone(), theirs.clone())),
            Some((_, own)) if fits(theirs, own) => {}
            Some(_) => return None,
        }
    }
    Some(all)
}

/// Whether what meets `leaf` meets `root`.
fn has(root: &Wanted, leaf: &Wanted) -> bool {
    match (root, leaf) {
        (None, _) => true,
        (Some(root), Some(leaf)) => narrows(root, leaf),
        (Some(_), None) => false,
    }
}

/// Whether every text that `leaf` matches is matched by `root`, as far as istiod can tell: it
/// does not look into regular expressions.
fn narrows(root: &StringMatch, leaf: &StringMatch) -> bool {
    match (root, leaf) {
        (StringMatch::Exact(root), StringMatch::Exact(leaf)) => root == leaf,
        (StringMatch::Prefix(root), StringMatch::Exact(leaf) | StringMatch::Prefix(leaf)) => {
            leaf.starts_with(root)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = StringMatch> {
        ("[ab]{0,3}", any::<bool>()).prop_map(|(text, exact)| match exact {
            true => StringMatch::Exact(text),
            false => StringMatch::Prefix(text),
        })
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        proptest::option::of(texts())
    }

    fn met(wanted: &Wanted, value: &str) -> bool {
        wanted
            .as_ref()
            .is_none_or(|text| text.matches(value.as_bytes()))
    }

    proptest! {
        #[test]
        fn whatever_a_narrower_text_matches_the_wider_matches(
            root in wanted(), leaf in wanted(), value in "[ab]{0,4}",
        ) {
            if has(&root, &leaf) && met(&leaf, &value) {
                prop_assert!(met(&root, &value));
            }
        }

        #[test]
        fn a_text_narrows_itself_and_what_is_longer(root in texts(), more in "[ab]{0,2}") {
            prop_assert!(narrows(&root, &root));
            if let StringMatch::Prefix(prefix) = &root {
                let longer = format!("{prefix}{more}");
                prop_assert!(narrows(&root, &StringMatch::Exact(longer.clone())));
                prop_assert!(narrows(&root, &StringMatch::Prefix(longer)));
            }
        }
    }
}
