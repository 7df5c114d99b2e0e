//! Where tokens are looked for (Envoy `jwt_authn/extractor.cc`).

use super::head::Work;
use super::query::Query;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue};
use mesh_core::Name;
use mesh_core::model::JwtProvider;
use std::collections::{BTreeMap, BTreeSet};

/// Places that one or several providers named, each kind in the order of names.
#[derive(Debug, Default)]
pub(super) struct Places {
    headers: BTreeMap<String, (HeaderName, String, Issuers)>,
    params: BTreeMap<String, Issuers>,
    cookies: BTreeMap<String, Issuers>,
    /// Headers that only we may write.
    ours: Vec<HeaderName>,
}

/// Whose tokens may be in a place.
#[derive(Debug, Default)]
struct Issuers {
    any: bool,
    named: BTreeSet<Name>,
}

/// A token that was found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) text: Vec<u8>,
    issuers: &'a Issuers,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    Header(&'a HeaderName),
    Param(&'a str),
    Cookie,
}

// === impl Places ===

impl Places {
    pub(super) fn of<'p>(providers: impl IntoIterator<Item = &'p JwtProvider>) -> Self {
        let mut places = Self::default();
        for provider in providers {
            places.add(provider);
        }
        places
    }

    fn add(&mut self, provider: &JwtProvider) {
        let issuer = &provider.issuer;
        for (name, prefix) in &provider.from_headers {
            self.header(name, prefix, issuer);
        }
        for name in &provider.from_params {
            self.params.entry(name.clone()).or_default().add(issuer);
        }
        for name in &provider.from_cookies {
            self.cookies.entry(name.clone()).or_default().add(issuer);
        }
        let named = [&provider.from_params, &provider.from_cookies];
        if provider.from_headers.is_empty() && named.iter().all(|list| list.is_empty()) {
            self.header(&AUTHORIZATION, "Bearer ", issuer);
            let param = self.params.entry("access_token".to_owned());
            param.or_default().add(issuer);
        }
        self.ours.extend(provider.payload_header.clone());
        let claims = provider.claim_headers.iter();
        self.ours.extend(claims.map(|claim| claim.header.clone()));
    }

    fn header(&mut self, name: &HeaderName, prefix: &str, issuer: &Name) {
        let place = self.headers.entry(format!("{name}{prefix}"));
        let new = || (name.clone(), prefix.to_owned(), Issuers::default());
        place.or_insert_with(new).2.add(issuer);
    }

    /// Takes off what only we may write.
    pub(super) fn sanitize(&self, head: &mut Work<'_>) {
        for name in &self.ours {
            head.remove(name);
        }
    }

    /// The tokens of a request. The last is looked at first.
    pub(super) fn find(&self, head: &Work<'_>) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for (name, prefix, issuers) in self.headers.values() {
            let lines = head.headers().get_all(name).iter();
            let lines = lines.map(HeaderValue::as_bytes);
            let joined;
            let lines: Vec<_> = match *name == AUTHORIZATION {
                false => lines.collect(),
                // Envoy has this one in one line.
                true => {
                    joined = lines.collect::<Vec<_>>().join(&b","[..]);
                    let is_there = head.headers().contains_key(name);
                    is_there.then_some(&*joined).into_iter().collect()
                }
            };
            let texts = lines.into_iter().filter_map(|line| after(line, prefix));
            found.extend(texts.map(|text| Found {
                text: text.to_vec(),
                issuers,
                place: Place::Header(name),
            }));
        }
        if let Some(path) = head.path().filter(|_| !self.params.is_empty()) {
            let query = Query::of(path);
            for (name, issuers) in &self.params {
                found.extend(query.first(name).map(|text| Found {
                    text: text.to_vec(),
                    issuers,
                    place: Place::Param(name),
                }));
            }
        }
        for (name, issuers) in &self.cookies {
            found.extend(cookie(head, name).map(|text| Found {
                text: text.to_vec(),
                issuers,
                place: Place::Cookie,
            }));
        }
        found
    }
}

/// What comes after a prefix, wherever that is, from the first byte on that may be in a token.
fn after<'a>(line: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(line);
    }
    let mut windows = line.windows(prefix.len());
    let at = windows.position(|window| window == prefix.as_bytes())?;
    let rest = &line[at + prefix.len()..];
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match rest.iter().position(of_token) {
        Some(begin) => Some(&rest[begin..]),
        // As ever in Envoy.
        None => Some(line),
    }
}

/// The first cookie of a name, its quotes taken off (Envoy `Utility::parseCookies`).
fn cookie<'h>(head: &'h Work<'_>, name: &str) -> Option<&'h [u8]> {
    let lines = head.headers().get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    });
    let value = values.next()?;
    match value {
        [b'"', inner @ .., b'"'] => Some(inner),
        plain => Some(plain),
    }
}

// === impl Issuers ===

impl Issuers {
    fn add(&mut self, issuer: &Name) {
        match issuer.is_empty() {
            true => self.any = true,
            false => drop(self.named.insert(issuer.clone())),
        }
    }
}

// === impl Found ===

impl Found<'_> {
    /// Whether a token of this issuer may be where this one was.
    pub(super) fn allows(&self, issuer: &str) -> bool {
        self.issuers.any || self.issuers.named.contains(issuer)
    }

    /// Takes the token off the request. Cookies stay, as in Envoy.
    pub(super) fn remove(&self, head: &mut Work<'_>) {
        match self.place {
            Place::Header(name) => head.remove(name),
            Place::Param(name) => {
                let Some(path) = head.path() else {
                    return;
                };
                let mut query = Query::of(path);
                query.remove(name);
                let path = query.instead(path);
                head.set_path(&path);
            }
            Place::Cookie => {}
        }
    }
}
