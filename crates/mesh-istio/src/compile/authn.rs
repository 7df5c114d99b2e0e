//! Whose tokens are taken, as istiod asks for them: any may be missing, none may be bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Uri;
use mesh_core::Name;
use mesh_core::model::{
    Authn, AuthnRule, ClaimHeader, Jwks, JwtProvider, KeySource, RemoteJwks, TokenRequirement,
    WantedKeys,
};

use super::Compiler;
use super::authz::GATEWAY_NAME;
use crate::names::outbound;
use crate::node::Node;
use crate::registry::{Services, contains};
use crate::spec::request_authentication::{JwtKeys, JwtRule};
use crate::spec::{Meta, RequestAuthentication};
use crate::world::World;
use std::time::Duration;

/// Claims that are lists of words whatever a rule says.
const WORDS: [&str; 2] = ["permission", "scope"];
/// How long keys are used (istiod's `remote_jwks`).
const CACHE: Duration = Duration::from_secs(300);

/// The tokens that callers of the node may bring; none where nobody asks.
pub(super) fn authn(compiler: &mut Compiler<'_>) -> Option<Arc<Authn>> {
    let mut rules: Vec<_> = selected(compiler)
        .into_iter()
        .flat_map(|(meta, spec)| spec.rules.iter().map(move |rule| (meta, rule)))
        .collect();
    rules.sort_by(|(_, a), (_, b)| a.issuer.cmp(&b.issuer));
    if rules.is_empty() {
        return None;
    }
    let mut authn = Authn::default();
    for (at, (meta, rule)) in rules.into_iter().enumerate() {
        let provider = provider(compiler, meta, rule, format!("origins-{at}"));
        authn.providers.push(provider);
    }
    authn.rules = vec![AuthnRule::always(requirement(&authn.providers))];
    // In the order of their names, as they are read again.
    authn.providers.sort_by(|a, b| a.name.cmp(&b.name));
    authn.bypass_preflight = true;
    Some(Arc::new(authn))
}

/// Those of the root namespace, then those of the node's own.
fn selected<'a>(compiler: &Compiler<'a>) -> Vec<(&'a Meta, &'a RequestAuthentication)> {
    let viewer = &compiler.viewer;
    selecting(compiler.world, viewer.namespace(), viewer.labels())
}

fn selecting<'a>(
    world: &'a World,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<(&'a Meta, &'a RequestAuthentication)> {
    let root = &world.mesh_config().root_namespace;
    let selects = |(meta, spec): &(&'a Meta, &'a RequestAuthentication)| {
        let own = meta.namespace == namespace;
        if !spec.gateways.is_empty() {
            let name = labels.get(GATEWAY_NAME);
            return own && name.is_some_and(|name| spec.gateways.contains(name));
        }
        let selector = spec.selector.as_ref();
        (own || meta.namespace == *root)
            && selector.is_none_or(|selector| contains(labels, selector))
    };
    let mut all: Vec<_> = world.request_authentications().filter(selects).collect();
    all.sort_by_key(|(meta, _)| (meta.namespace != *root, meta.seniority()));
    all
}

fn names(texts: &[String]) -> Vec<Name> {
    texts.iter().map(Name::from).collect()
}

fn provider(compiler: &mut Compiler<'_>, meta: &Meta, rule: &JwtRule, name: String) -> JwtProvider {
    let keys = keys(compiler, meta, rule);
    let mut provider = JwtProvider::new(name, &rule.issuer, keys);
    provider.origin = compiler.origin(meta, rule.at);
    provider.audiences = names(&rule.audiences);
    provider.from_headers.clone_from(&rule.from_headers);
    provider.from_params.clone_from(&rule.from_params);
    provider.from_cookies.clone_from(&rule.from_cookies);
    provider.payload_header.clone_from(&rule.payload_header);
    provider.forward = rule.forward;
    let headers = rule
        .claim_headers
        .iter()
        .map(|(header, claim)| ClaimHeader {
            header: header.clone(),
            claim: claim.into(),
        });
    provider.claim_headers = headers.collect();
    provider.keep_claims = true;
    let own = rule.word_claims.iter().map(String::as_str);
    let words: BTreeSet<_> = WORDS.into_iter().chain(own).collect();
    provider.word_claims = words.into_iter().map(Name::from).collect();
    provider.clear_route = compiler.viewer.is_gateway();
    provider
}

/// The sets of keys that have to be got from outside of the mesh for this node, or for all: those
/// at a `jwksUri` where the mesh knows no service to ask, and those of issuers of which nothing but
/// the name is said. Each with its rule's `timeout`, the longest of several.
///
/// Compiling takes them from [`World::keys`].
///
/// ```
/// use mesh_core::model::KeySource;
/// use mesh_istio::{Files, World, wanted_keys};
///
/// let mut world = World::default();
/// world.update(&Files::from_text("a.yaml", "
/// apiVersion: security.istio.io/v1
/// kind: RequestAuthentication
/// metadata: {name: a}
/// spec: {jwtRules: [{issuer: a, jwksUri: 'https://keys.example/jwks'}]}
/// "));
/// let wanted = wanted_keys(&world, None);
/// assert!(wanted.contains_key(&KeySource::Uri("https://keys.example/jwks".into())));
/// ```
pub fn wanted_keys(world: &World, node: Option<&Node>) -> WantedKeys {
    let chosen = match node {
        Some(node) => selecting(world, &node.namespace, &node.labels),
        None => world.request_authentications().collect(),
    };
    let mut wanted = WantedKeys::new();
    for rule in chosen.into_iter().flat_map(|(_, spec)| &spec.rules) {
        let source = match &rule.keys {
            JwtKeys::Uri(uri) if served(world.catalog(), uri).is_none() => of_uri(uri),
            JwtKeys::Discovered => KeySource::Issuer(Name::from(&rule.issuer)),
            _ => continue,
        };
        let longest = wanted.entry(source).or_default();
        *longest = rule.timeout.max(*longest);
    }
    wanted
}

/// Keys from elsewhere are asked of the service there, if the mesh knows one; else they are those
/// that were got.
fn keys(compiler: &mut Compiler<'_>, meta: &Meta, rule: &JwtRule) -> Jwks {
    let source = match &rule.keys {
        JwtKeys::Inline(text) => return Jwks::Inline(text.into()),
        JwtKeys::Discovered => KeySource::Issuer(Name::from(&rule.issuer)),
        JwtKeys::Uri(uri) => match served(compiler.services, uri) {
            Some(cluster) => {
                let mut remote = RemoteJwks::new(uri.clone(), cluster);
                remote.timeout = rule.timeout;
                remote.cache_for = CACHE;
                return Jwks::Remote(remote);
            }
            None => of_uri(uri),
        },
    };
    if let Some(keys) = compiler.world.keys().get(&source) {
        return Jwks::Inline(keys.clone());
    }
    let message = format!("no token of this issuer is valid until keys have come from {source}");
    compiler.warn(meta, rule.at, "spec.jwtRules", message);
    Jwks::Inline(NO_KEYS.into())
}

fn of_uri(uri: &Uri) -> KeySource {
    KeySource::Uri(Name::from(uri.to_string()))
}

/// The cluster of the mesh's service at this host and port, if it knows one.
fn served(services: &Services, uri: &Uri) -> Option<String> {
    let host = uri.host().unwrap_or_default();
    let secured = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let entry = services.get(host)?;
    let known = entry.ports().any(|(known, _)| known == port);
    known.then(|| outbound(port, "", host))
}

/// As istiod has it where it could not get any: every token is refused. Envoy takes no set without a
/// key; this one's private half was thrown away when it was made.
const NO_KEYS: &str = "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"nobody\",\"alg\":\"RS256\",\"e\":\"AQAB\",\"n\":\"\
     rOY5-C9HJ72YZU7sYgy-Goz1kp7uGunV8RYFwDyZ4NoQWclmDMU29lB8__dYW9FSt5z8_l4Qg2sKxIso\
     UFt-KD4lA5FpYYjpIUsqL9csCMmaHOc4wYmhaRIhsWFe2RRTdB6BORyXS0SY-GL0aqn7IlpKhIZH9D-B\
     vCLfBaYAE5W4lzr5hzabEwihjDfR6CLwouGTr4pVjpmxn146IFrgXCU71mJEqcfZelUcflJUp0dFWbuW\
     7ZtAZLq8jjkbLsrES1xefCmcPkZufKy_YC0nIpin9WUZhkJDkkAVHHX2lLIdyAWg6mOQrnsq1A57Nfz7\
     0gSXZsHGbgxfPmwaNX0J3Q\"}]}";

/// A token of any provider, all of them valid, or none.
fn requirement(providers: &[JwtProvider]) -> TokenRequirement {
    let of = |provider: &JwtProvider| TokenRequirement::Provider(provider.name.clone(), Vec::new());
    let maybe =
        |provider| TokenRequirement::Any(vec![of(provider), TokenRequirement::AllowMissing]);
    match providers {
        [only] => maybe(only),
        several => {
            let mut any: Vec<_> = several.iter().map(of).collect();
            let all = several.iter().map(maybe).collect();
            any.push(TokenRequirement::All(all));
            TokenRequirement::Any(any)
        }
    }
}
