//! Whether a request may go on with the tokens that it brings. Pure: keys, time and head are
//! arguments.
//!
//! The rules, the order of checks and of places, and what is told are those of Envoy's filter
//! `jwt_authn` (`authenticator.cc`, `verifier.cc`).

use super::base64;
use super::head::Work;
use super::json;
use super::keys::KeySet;
use super::locate::{Found, Places};
use super::status::JwtStatus;
use super::token::Token;
use mesh_core::model::{Authn, JwtProvider, PathMatch, TokenRequirement};
use mesh_core::{Claim, Claims, Invalid, Name};
use std::sync::Arc;
use std::time::Duration;

/// How deep requirements may be in each other.
const MAX_DEPTH: usize = 32;

/// What is asked of requests, made ready.
#[derive(Debug)]
pub(super) struct Plan {
    providers: Vec<Provider>,
    rules: Vec<(PathMatch, Node)>,
    named: Vec<(Name, Node)>,
}

#[derive(Debug)]
struct Provider {
    config: JwtProvider,
    audiences: Vec<String>,
}

#[derive(Debug)]
enum Node {
    Nothing,
    Provider {
        at: usize,
        /// Instead of the provider's own.
        audiences: Option<Vec<String>>,
        places: Places,
    },
    Any {
        nodes: Vec<Self>,
        missing: bool,
        failed: bool,
    },
    All(Vec<Self>),
    Open {
        failed: bool,
        places: Places,
    },
}

/// The keys of a provider, at this moment.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Keys(Arc<KeySet>),
    /// There are none, and it is known why.
    None(JwtStatus),
    /// They have to be got first.
    Wanted,
}

/// What is looked at beside the head.
pub(super) struct Setting<'a> {
    /// The keys of each provider.
    pub(super) keys: &'a dyn Fn(usize) -> Known,
    pub(super) since_epoch: Duration,
}

/// The keys of a provider have to be got first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted(pub(super) usize);

/// A look at a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// The provider whose token it was taken for, if it came as far as that.
    pub provider: Option<Name>,
    /// What it came to.
    pub status: JwtStatus,
}

// === impl Plan ===

impl Plan {
    /// # Errors
    /// With the path of the field, for a requirement of a provider that there is not, and for
    /// requirements too deep in each other.
    pub(super) fn of(authn: &Authn) -> Result<Self, Invalid> {
        let providers = &authn.providers;
        let rules = authn.rules.iter().enumerate().map(|(at, rule)| {
            let node = node(&rule.requires, providers, 0)
                .map_err(|error| error.within(format!("rules[{at}].requires")))?;
            Ok((rule.path.clone(), node))
        });
        let named = authn.named.iter().map(|(name, requires)| {
            let node = node(requires, providers, 0)
                .map_err(|error| error.within(format!("named[{name}]")))?;
            Ok((name.clone(), node))
        });
        Ok(Self {
            rules: rules.collect::<Result<_, Invalid>>()?,
            named: named.collect::<Result<_, Invalid>>()?,
            providers: providers
                .iter()
                .map(|config| Provider {
                    audiences: audiences(&config.audiences),
                    config: config.clone(),
                })
                .collect(),
        })
    }

    pub(super) fn provider(&self, at: usize) -> &JwtProvider {
        &self.providers[at].config
    }

    /// Works on a head as the route says, or else as the first rule that matches. `looks` gets every
    /// look at a token. What the route names has to be one of [`Authn::named`], or no token is valid.
    pub(super) fn decide(
        &self,
        route: Option<Option<&Name>>,
        head: &mut Work<'_>,
        setting: &Setting<'_>,
        looks: &mut Vec<Look>,
    ) -> Result<JwtStatus, Wanted> {
        // Whatever is asked: nobody behind shall take what callers forged (Envoy 1.40).
        self.sanitize(head);
        let node = match route {
            Some(None) => None,
            Some(Some(name)) => match self.named.iter().find(|(known, _)| known == name) {
                Some((_, node)) => Some(node),
                None => return Ok(JwtStatus::VerificationFails),
            },
            None => {
                let mut rules = self.rules.iter();
                let rule = rules.find(|(path, _)| matches(path, head));
                rule.map(|(_, node)| node)
            }
        };
        let Some(node) = node else {
            return Ok(JwtStatus::Valid);
        };
        let mut run = Run {
            plan: self,
            setting,
            looks,
        };
        run.node(node, head)
    }

    /// Takes off what only we may write, whoever's tokens it is for.
    pub(super) fn sanitize(&self, head: &mut Work<'_>) {
        let configs = self.providers.iter().map(|provider| &provider.config);
        Places::of(configs).sanitize(head);
    }

    /// The provider for tokens of an issuer, where none is asked for by name.
    fn by_issuer(&self, issuer: &str) -> Option<usize> {
        let of = |issuer: &str| {
            let mut all = self.providers.iter();
            all.position(|provider| *provider.config.issuer == *issuer)
        };
        of(issuer).or_else(|| of(""))
    }
}

fn node(
    requires: &TokenRequirement,
    providers: &[JwtProvider],
    depth: usize,
) -> Result<Node, Invalid> {
    if depth > MAX_DEPTH {
        let message = format!("requirements are more than {MAX_DEPTH} deep in each other");
        return Err(Invalid::new("", message));
    }
    let several = |all: &[TokenRequirement]| -> Result<Vec<Node>, Invalid> {
        let each = all.iter().enumerate().map(|(at, one)| {
            node(one, providers, depth + 1).map_err(|error| error.within(format!("[{at}]")))
        });
        each.collect()
    };
    let open = |failed| Node::Open {
        failed,
        places: Places::of(providers),
    };
    Ok(match requires {
        TokenRequirement::Nothing => Node::Nothing,
        TokenRequirement::Provider(name, own) => {
            let at = providers.iter().position(|one| one.name == *name);
            let at = at.ok_or_else(|| {
                Invalid::new("provider_name", format!("there is no provider {name:?}"))
            })?;
            Node::Provider {
                at,
                audiences: (!own.is_empty()).then(|| audiences(own)),
                places: Places::of([&providers[at]]),
            }
        }
        TokenRequirement::Any(all) => {
            let has = |kind: &TokenRequirement| all.contains(kind);
            let missing = has(&TokenRequirement::AllowMissing);
            let failed = has(&TokenRequirement::AllowMissingOrFailed);
            let is_open = |one: &&TokenRequirement| {
                matches!(
                    one,
                    TokenRequirement::AllowMissing | TokenRequirement::AllowMissingOrFailed
                )
            };
            let regular: Vec<_> = all.iter().filter(|one| !is_open(one)).cloned().collect();
            match regular.is_empty() && (missing || failed) {
                true => open(failed),
                false => Node::Any {
                    nodes: several(&regular)?,
                    missing,
                    failed,
                },
            }
        }
        TokenRequirement::All(all) => Node::All(several(all)?),
        TokenRequirement::AllowMissing => open(false),
        TokenRequirement::AllowMissingOrFailed => open(true),
        _ => {
            return Err(Invalid::new(
                "",
                "is a kind of requirement that is not known",
            ));
        }
    })
}

fn matches(want: &PathMatch, head: &Work<'_>) -> bool {
    let Some(both) = head.path() else {
        return false;
    };
    let end = both.find(['?', '#']).unwrap_or(both.len());
    let (both, path) = (both.as_bytes(), &both.as_bytes()[..end]);
    let starts = |text: &[u8], prefix: &str| {
        let head = text.get(..prefix.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    match want {
        PathMatch::Prefix(prefix) => both.starts_with(prefix.as_bytes()),
        PathMatch::PrefixIgnoreCase(prefix) => starts(both, prefix),
        PathMatch::Exact(exact) => path == exact.as_bytes(),
        PathMatch::ExactIgnoreCase(exact) => path.eq_ignore_ascii_case(exact.as_bytes()),
        PathMatch::SeparatedPrefix(prefix) => path
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
        PathMatch::SeparatedPrefixIgnoreCase(prefix) => {
            starts(path, prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
        }
        PathMatch::Regex(pattern) => pattern.is_match(path),
        // What is not known could be anything, so it asks for a token.
        _ => true,
    }
}

/// Audiences without scheme and the slash at their end (Envoy `check_audience.cc`).
fn audiences(all: &[Name]) -> Vec<String> {
    all.iter().map(|one| bare(one).to_owned()).collect()
}

fn bare(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("http://")
        .or_else(|| audience.strip_prefix("https://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// One decision.
struct Run<'p, 's> {
    plan: &'p Plan,
    setting: &'s Setting<'s>,
    looks: &'s mut Vec<Look>,
}

/// Whose token is looked for, and what else is let through.
#[derive(Clone, Copy)]
struct Search<'p> {
    provider: Option<(usize, Option<&'p [String]>)>,
    missing: bool,
    failed: bool,
}

// === impl Run ===

impl<'p> Run<'p, '_> {
    fn node(&mut self, node: &'p Node, head: &mut Work<'_>) -> Result<JwtStatus, Wanted> {
        match node {
            Node::Nothing => Ok(JwtStatus::Valid),
            Node::Provider {
                at,
                audiences,
                places,
            } => {
                let search = Search {
                    provider: Some((*at, audiences.as_deref())),
                    missing: false,
                    failed: false,
                };
                self.search(search, places, head)
            }
            Node::Open { failed, places } => {
                let search = Search {
                    provider: None,
                    missing: true,
                    failed: *failed,
                };
                self.search(search, places, head)
            }
            Node::All(nodes) => {
                for node in nodes {
                    let status = self.node(node, head)?;
                    if !status.is_valid() {
                        return Ok(status);
                    }
                }
                Ok(JwtStatus::Valid)
            }
            Node::Any {
                nodes,
                missing,
                failed,
            } => {
                let mut last = JwtStatus::Missing;
                for node in nodes {
                    let status = self.node(node, head)?;
                    if status.is_valid() {
                        return Ok(status);
                    }
                    // What is wrong with a token is told rather than that another is not there.
                    let absent = matches!(status, JwtStatus::Missing | JwtStatus::UnknownIssuer);
                    if !absent || last == JwtStatus::Missing {
                        last = status;
                    }
                }
                let passes = *failed || *missing && last == JwtStatus::Missing;
                Ok(if passes { JwtStatus::Valid } else { last })
            }
        }
    }

    /// Looks at every token in some places. All of them have to be valid: whoever is behind might
    /// take a bad one for the one that was checked.
    fn search(
        &mut self,
        search: Search<'p>,
        places: &Places,
        head: &mut Work<'_>,
    ) -> Result<JwtStatus, Wanted> {
        places.sanitize(head);
        let mut found = places.find(head);
        let mut status = JwtStatus::Missing;
        while let Some(token) = found.pop() {
            status = self.token(search, &token, head)?;
            if !status.is_valid() && !search.failed && !search.missing {
                return Ok(status);
            }
        }
        let passes = search.failed || search.missing && status == JwtStatus::Missing;
        Ok(if passes { JwtStatus::Valid } else { status })
    }

    fn token(
        &mut self,
        search: Search<'p>,
        found: &Found<'_>,
        head: &mut Work<'_>,
    ) -> Result<JwtStatus, Wanted> {
        let mut provider = search.provider.map(|(at, _)| at);
        let status = match self.check(search, found, &mut provider) {
            Ok(token) => {
                // Found, or it were not valid.
                if let Some(at) = provider {
                    self.plan.providers[at].good(&token, found, head);
                }
                JwtStatus::Valid
            }
            Err(Stop::Status(status)) => status,
            Err(Stop::Wanted(wanted)) => return Err(wanted),
        };
        self.looks.push(Look {
            provider: provider.map(|at| self.plan.provider(at).name.clone()),
            status,
        });
        Ok(status)
    }

    fn check(
        &self,
        search: Search<'p>,
        found: &Found<'_>,
        provider: &mut Option<usize>,
    ) -> Result<Token, Stop> {
        let token = Token::parse(&found.text)?;
        if !found.allows(token.issuer()) {
            return Err(JwtStatus::UnknownIssuer.into());
        }
        let at = match *provider {
            Some(at) => at,
            None => self
                .plan
                .by_issuer(token.issuer())
                .ok_or(JwtStatus::UnknownIssuer)?,
        };
        *provider = Some(at);
        let known = &self.plan.providers[at];
        let in_time = token.in_time(self.setting.since_epoch, known.config.clock_skew);
        if !in_time.is_valid() {
            return Err(in_time.into());
        }
        let allowed = match search.provider {
            Some((_, Some(own))) => own,
            _ => &known.audiences,
        };
        let is_allowed = |audience: &String| allowed.iter().any(|one| one == bare(audience));
        if !allowed.is_empty() && !token.audiences.iter().any(is_allowed) {
            return Err(JwtStatus::AudienceNotAllowed.into());
        }
        match (self.setting.keys)(at) {
            Known::Wanted => Err(Stop::Wanted(Wanted(at))),
            Known::None(status) => Err(status.into()),
            Known::Keys(keys) => match keys.verify(&token) {
                JwtStatus::Valid => Ok(token),
                status => Err(status.into()),
            },
        }
    }
}

/// Why a look at a token ends.
enum Stop {
    Status(JwtStatus),
    Wanted(Wanted),
}

impl From<JwtStatus> for Stop {
    fn from(status: JwtStatus) -> Self {
        Self::Status(status)
    }
}

// === impl Provider ===

impl Provider {
    /// What a valid token does to the head that it came with.
    fn good(&self, token: &Token, found: &Found<'_>, head: &mut Work<'_>) {
        let config = &self.config;
        if let Some(name) = &config.payload_header {
            let mut payload = token.encoded_payload().to_owned();
            while config.pad_payload && !payload.len().is_multiple_of(4) {
                payload.push('=');
            }
            head.add(name, &payload);
        }
        let mut added = false;
        for one in &config.claim_headers {
            let way: Vec<_> = one.claim.split('.').collect();
            let value = token.payload.at(&way).map(text).unwrap_or_default();
            if !value.is_empty() {
                added |= head.add(&one.header, &value);
            }
        }
        head.clear_route |= config.clear_route && (added || config.keep_claims);
        if !config.forward {
            found.remove(head);
        }
        if config.keep_claims {
            let mut payload = token.payload.clone();
            if let Claim::Object(fields) = &mut payload {
                for name in &config.word_claims {
                    if let Some(claim) = fields.get_mut(&**name) {
                        split(claim);
                    }
                }
            }
            head.claims = Some(Claims::new(payload));
        }
    }
}

/// A text becomes the list of its words, unless there are none.
fn split(claim: &mut Claim) {
    let Some(text) = claim.text() else {
        return;
    };
    let words = text.split(' ').filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(|word| Claim::Text(word.to_owned())).collect();
    if !words.is_empty() {
        *claim = Claim::List(words);
    }
}

/// A claim as the value of a header; empty where it has none.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: whole, not negative, and less than 2^64"
)]
fn text(claim: &Claim) -> String {
    const END: f64 = 18_446_744_073_709_551_616.0;
    match claim {
        Claim::Text(text) => text.clone(),
        Claim::Bool(value) => value.to_string(),
        Claim::Number(number) if (0.0..END).contains(number) && number.fract() == 0.0 => {
            (*number as u64).to_string()
        }
        // As C++ writes doubles.
        Claim::Number(number) => format!("{number:.6}"),
        Claim::List(_) | Claim::Object(_) => base64::encode(json::text(claim).as_bytes()),
        _ => String::new(),
    }
}
