//! Who may do what: the index that finds policies, and asking one after the other, decide the same.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::Caller;
use mesh_core::exchange::{PeerCertificate, TlsInfo};
use mesh_core::model::{
    AuthzAction, AuthzPolicy, AuthzRules, Cidr, Fact, HeaderKey, HeaderMatch, PathTemplate,
    Pattern, PortRange, Predicate, StringMatch, TlsVersion, ValueMatch,
};
use mesh_policy::{Compiled, Facts, compile, decide};
use std::sync::Arc;

/// `policy_matcher`
pub(crate) const TARGET: Target = Target {
    name: "policy_matcher",
    run,
    input: Input::Steps,
};

/// The most policies, requests, and conditions in each other.
const MOST: (usize, usize, usize) = (16, 8, 6);

/// A small world, so that policies and requests meet.
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/b", "/a/b/c", "/A", "/ab"];
const WORDS: [&str; 8] = [
    "",
    "a",
    "A",
    "a.b",
    "A.B:80",
    "b",
    "GET",
    "spiffe://t/ns/x/sa/y",
];
const NAMES: [&str; 4] = ["spiffe://t/ns/x/sa/y", "u:/ns/x/", "a.b", ""];
const TEMPLATES: [&str; 5] = ["/*", "/a/*", "/**", "/a/**", "/*/b"];
const PATTERNS: [&str; 4] = [".*/ns/x/.*", ".*/ns/[a-z]/.*", ".*", "a|b"];

#[derive(Arbitrary, Debug)]
enum Step {
    Policy(Asked, Asked),
    Call(Call),
}

/// A condition.
#[derive(Arbitrary, Debug)]
enum Asked {
    Always,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Path(Text),
    Template(u8),
    Header(u8, Text, bool, bool),
    Present(u8, bool),
    Peer(Option<Text>),
    Port(u8),
    Block(u8, u8),
    ServerName(Text),
}

/// How a text has to be, and a text of one's own or of those above.
#[derive(Arbitrary, Debug)]
struct Text(u8, Word);

#[derive(Arbitrary, Debug)]
enum Word {
    Known(u8),
    Path(u8),
    Own(String),
}

#[derive(Arbitrary, Debug)]
struct Call {
    path: u8,
    query: bool,
    own: String,
    method: u8,
    host: u8,
    absolute: bool,
    tokens: Vec<u8>,
    tls: Option<bool>,
    names: Vec<u8>,
    address: u8,
    bytes: bool,
}

fn run(data: &[u8]) {
    let (mut policies, mut calls) = (Vec::new(), Vec::new());
    for step in steps(&mut Unstructured::new(data)) {
        match step {
            Step::Policy(permission, principal) => {
                let name = format!("p{:02}", policies.len());
                let both = (permission.predicate(0), principal.predicate(0));
                policies.push(AuthzPolicy::new(name, both.0, both.1));
            }
            Step::Call(call) => calls.push(call),
        }
    }
    policies.truncate(MOST.0);
    calls.truncate(MOST.1);
    for action in [AuthzAction::Allow, AuthzAction::Deny] {
        let rules = compile(&AuthzRules::new(action, policies.clone())).expect("all are known");
        // Each policy alone, with nothing in it that an index could go by.
        let alone: Vec<_> = policies.iter().map(alone).collect();
        for call in &calls {
            let caller = call.caller();
            let request = call.request();
            let mut facts = Facts::of_connection(&caller);
            facts.request = request
                .as_ref()
                .and_then(|request| Facts::of_request(request).request);
            let first = alone.iter().position(|rules| decide(rules, &facts).allowed);
            let verdict = decide(&rules, &facts);
            let found = verdict.policy.map(|policy| policy.name.as_str().to_owned());
            let expected = first.map(|at| format!("p{at:02}"));
            assert_eq!(found, expected, "{call:?} among {policies:#?}");
            assert_eq!(
                verdict.allowed,
                (action == AuthzAction::Allow) == first.is_some()
            );
        }
    }
}

fn alone(policy: &AuthzPolicy) -> Compiled {
    let twice_not = |predicate: &Predicate| {
        let not = |one| Predicate::Not(Box::new(one));
        not(not(predicate.clone()))
    };
    let (permission, principal) = (twice_not(&policy.permission), twice_not(&policy.principal));
    let policy = AuthzPolicy::new("alone", permission, principal);
    compile(&AuthzRules::new(AuthzAction::Allow, [policy])).expect("it is known")
}

fn of<T: Copy>(list: &[T], at: u8) -> T {
    list[usize::from(at) % list.len()]
}

fn key(which: u8) -> HeaderKey {
    match which % 6 {
        0 => HeaderKey::Method,
        1 => HeaderKey::Authority,
        2 => HeaderKey::Path,
        3 => HeaderKey::Scheme,
        4 => HeaderKey::Header(http::header::HOST),
        _ => HeaderKey::Header(HeaderName::from_static("x-token")),
    }
}

// === impl Asked ===

impl Asked {
    fn predicate(&self, depth: usize) -> Predicate {
        if depth > MOST.2 {
            return Predicate::Always;
        }
        let list = |all: &[Self]| -> Vec<Predicate> {
            let some = all.iter().take(4);
            some.map(|one| one.predicate(depth + 1)).collect()
        };
        let fact = match self {
            Self::Always => return Predicate::Always,
            Self::All(all) => return Predicate::All(list(all)),
            Self::Any(all) => return Predicate::Any(list(all)),
            Self::Not(one) => return Predicate::Not(Box::new(one.predicate(depth + 1))),
            Self::Path(text) => Fact::Path(text.matcher()),
            Self::Template(at) => {
                let template = PathTemplate::new(of(&TEMPLATES, *at));
                Fact::PathTemplate(template.expect("they are templates"))
            }
            Self::Header(which, text, invert, empty) => {
                let mut header = HeaderMatch::text(key(*which), text.matcher());
                (header.invert, header.missing_is_empty) = (*invert, *empty);
                Fact::Header(header)
            }
            Self::Present(which, present) => {
                let mut header = HeaderMatch::text(key(*which), StringMatch::Exact(String::new()));
                header.value = ValueMatch::Present(*present);
                Fact::Header(header)
            }
            Self::Peer(text) => Fact::Peer(text.as_ref().map(Text::matcher)),
            Self::Port(at) => Fact::DestinationPort(PortRange::single(80 + u16::from(at % 2))),
            Self::Block(at, length) => {
                let block = Cidr::new([10, 0, 0, at % 4].into(), length % 33);
                Fact::Direct(block.expect("the length is within the address's"))
            }
            Self::ServerName(text) => Fact::ServerName(text.matcher()),
        };
        Predicate::Fact(fact)
    }
}

// === impl Text ===

impl Text {
    fn matcher(&self) -> StringMatch {
        let word = match &self.1 {
            Word::Known(at) => of(&WORDS, *at).to_owned(),
            Word::Path(at) => of(&PATHS, *at).to_owned(),
            Word::Own(text) => text.clone(),
        };
        match self.0 % 9 {
            0 => StringMatch::Exact(word),
            1 => StringMatch::Prefix(word),
            2 => StringMatch::Suffix(word),
            3 => StringMatch::Contains(word),
            4 => StringMatch::ExactIgnoreCase(word),
            5 => StringMatch::PrefixIgnoreCase(word),
            6 => StringMatch::SuffixIgnoreCase(word),
            7 => StringMatch::ContainsIgnoreCase(word),
            _ => {
                let pattern = Pattern::new(of(&PATTERNS, self.0 / 9));
                StringMatch::Regex(pattern.expect("they are expressions"))
            }
        }
    }
}

// === impl Call ===

impl Call {
    fn caller(&self) -> Caller {
        let mut caller = Caller::default();
        caller.peer = Some(([10, 0, 0, self.address % 4], 1).into());
        caller.local = Some(([10, 0, 0, 9], 80 + u16::from(self.address / 4 % 2)).into());
        if let Some(validated) = self.tls {
            let mut peer = PeerCertificate::default();
            peer.validated = validated;
            let names = self.names.iter().take(4).map(|at| of(&NAMES, *at));
            peer.uris = names.map(Into::into).collect();
            let mut tls = TlsInfo::default();
            tls.version = Some(TlsVersion::V1_3);
            tls.peer = Some(peer);
            caller.tls = Some(Arc::new(tls));
        }
        caller
    }

    /// None is a connection of bytes.
    fn request(&self) -> Option<Request<()>> {
        let path = match self.own.is_empty() {
            true => of(&PATHS, self.path).to_owned(),
            false => format!("/{}", self.own),
        };
        let query = if self.query { "?/a" } else { "" };
        let host = of(&["a", "A.B:80", "a.b", "b"], self.host);
        let uri = match self.absolute {
            true => format!("http://{host}{path}{query}"),
            false => format!("{path}{query}"),
        };
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap_or(Uri::from_static("/a"));
        *request.method_mut() = of(&[&Method::GET, &Method::PUT], self.method).clone();
        let headers = request.headers_mut();
        if self.host & 0x80 == 0 {
            headers.insert(http::header::HOST, HeaderValue::from_static(host));
        }
        for at in self.tokens.iter().take(4) {
            let value = HeaderValue::from_static(of(&WORDS, *at));
            headers.append("x-token", value);
        }
        (!self.bytes).then_some(request)
    }
}
