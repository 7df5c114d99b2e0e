use super::*;
use crate::facts::Facts;
use http::Request;
use mesh_core::Caller;
use mesh_core::exchange::{PeerCertificate, TlsInfo};
use mesh_core::model::{
    Cidr, Fact, HeaderKey, HeaderMatch, PathTemplate, Pattern, PortRange, Predicate, StringMatch,
    TlsVersion, ValueMatch,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;

fn fact(fact: Fact) -> Predicate {
    Predicate::Fact(fact)
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn method(name: &str) -> Predicate {
    fact(Fact::Header(HeaderMatch::text(
        HeaderKey::Method,
        exact(name),
    )))
}

fn rules(action: AuthzAction, policies: Vec<(&str, Predicate, Predicate)>) -> Compiled {
    let policies = policies
        .into_iter()
        .map(|(name, permission, principal)| AuthzPolicy::new(name, permission, principal));
    compile(&AuthzRules::new(action, policies)).unwrap()
}

fn told(rules: &Compiled, facts: &Facts<'_>) -> (bool, String) {
    let verdict = decide(rules, facts);
    let name = verdict.policy.map(|policy| policy.name.to_string());
    (verdict.allowed, name.unwrap_or_default())
}

/// A caller with a certificate of these names, or none of them and no TLS.
fn caller(uris: &[&str], dns: &[&str], subject: &str) -> Caller {
    let mut peer = PeerCertificate::default();
    peer.validated = true;
    peer.uris = uris.iter().map(|uri| (*uri).into()).collect();
    peer.dns_names = dns.iter().map(|name| (*name).into()).collect();
    peer.subject = subject.into();
    let mut tls = TlsInfo::default();
    tls.version = Some(TlsVersion::V1_3);
    tls.peer = Some(peer);
    let mut caller = Caller::default();
    caller.tls = Some(Arc::new(tls));
    caller
}

#[test]
fn the_first_policy_by_name_is_the_one_that_is_told() {
    let rules = rules(
        AuthzAction::Deny,
        vec![
            ("rule[2]", Predicate::Always, Predicate::Always),
            ("rule[10]", method("GET"), Predicate::Always),
            ("rule[1]", method("POST"), Predicate::Always),
        ],
    );
    let get = Request::get("/").body(()).unwrap();
    let facts = Facts::of_request(&get);
    assert_eq!(told(&rules, &facts), (false, "rule[10]".into()));
    let put = Request::put("/").body(()).unwrap();
    let facts = Facts::of_request(&put);
    assert_eq!(told(&rules, &facts), (false, "rule[2]".into()));
}

#[test]
fn without_a_match_only_an_allow_denies() {
    let get = Request::get("/").body(()).unwrap();
    let facts = Facts::of_request(&get);
    for (action, allowed) in [
        (AuthzAction::Allow, false),
        (AuthzAction::Deny, true),
        (AuthzAction::Log, true),
    ] {
        let none = rules(action, vec![]);
        assert_eq!(told(&none, &facts), (allowed, String::new()));
        let never = Predicate::Not(Box::new(Predicate::Always));
        let never = rules(action, vec![("n", never, Predicate::Always)]);
        assert_eq!(told(&never, &facts), (allowed, String::new()));
        let always = rules(action, vec![("a", Predicate::Always, Predicate::Always)]);
        let allowed = action != AuthzAction::Deny;
        assert_eq!(told(&always, &facts), (allowed, "a".into()));
    }
}

#[test]
fn a_peer_is_known_by_any_of_its_names_if_its_certificate_was_checked() {
    let known = |want: Option<StringMatch>, caller: &Caller| {
        let peer = fact(Fact::Peer(want));
        let rules = rules(AuthzAction::Allow, vec![("p", Predicate::Always, peer)]);
        decide(&rules, &Facts::of_connection(caller)).allowed
    };
    let full = caller(&["spiffe://a/ns/x/sa/y"], &["y.x"], "CN=y");
    for name in ["spiffe://a/ns/x/sa/y", "y.x", "CN=y"] {
        assert!(known(Some(exact(name)), &full), "{name}");
    }
    assert!(!known(Some(exact("y")), &full));
    let namespace = |name| {
        let pattern = Pattern::new(&format!(".*/ns/{name}/.*")).unwrap();
        Some(StringMatch::Regex(pattern))
    };
    assert!(known(namespace("x"), &full));
    assert!(!known(namespace("sa"), &full));
    let mut unchecked = full.clone();
    let mut tls = TlsInfo::clone(full.tls.as_ref().unwrap());
    tls.peer.as_mut().unwrap().validated = false;
    unchecked.tls = Some(Arc::new(tls));
    assert!(!known(Some(exact("CN=y")), &unchecked));
    assert!(known(None, &unchecked), "TLS alone is enough for that");
    assert!(!known(None, &Caller::default()));
    // Passed on as it is: what was seen of TLS proves nothing.
    let mut passing = full;
    let mut tls = TlsInfo::default();
    tls.server_name = "a".into();
    passing.tls = Some(Arc::new(tls));
    assert!(!known(None, &passing));
}

#[test]
fn a_connection_of_bytes_has_no_headers_and_no_path() {
    let caller = Caller::default();
    let facts = Facts::of_connection(&caller);
    let says = |predicate: Predicate| {
        let rules = rules(
            AuthzAction::Allow,
            vec![("p", predicate, Predicate::Always)],
        );
        decide(&rules, &facts).allowed
    };
    assert!(!says(method("GET")));
    assert!(says(Predicate::Not(Box::new(method("GET")))));
    assert!(!says(fact(Fact::Path(StringMatch::Prefix(String::new())))));
    let mut absent = HeaderMatch::present(http::header::COOKIE);
    assert!(!says(fact(Fact::Header(absent.clone()))));
    absent.value = ValueMatch::Present(false);
    assert!(says(fact(Fact::Header(absent))));
    assert!(says(fact(Fact::ServerName(exact("")))));
    let mut late = TlsInfo::default();
    late.server_name = "a.test".into();
    for (is_late, name) in [(false, "a.test"), (true, "")] {
        late.late_server_name = is_late;
        let mut caller = Caller::default();
        caller.tls = Some(Arc::new(late.clone()));
        let facts = Facts::of_connection(&caller);
        assert_eq!(facts.server_name(), name);
    }
}

#[test]
fn each_line_of_a_header_is_looked_at_alone() {
    let request = Request::get("/")
        .header("x-token", "")
        .header("x-token", "abc")
        .body(())
        .unwrap();
    let facts = Facts::of_request(&request);
    let says = |value: StringMatch, invert| {
        let name = http::HeaderName::from_static("x-token");
        let mut header = HeaderMatch::text(HeaderKey::Header(name), value);
        header.invert = invert;
        let header = fact(Fact::Header(header));
        let rules = rules(AuthzAction::Allow, vec![("p", header, Predicate::Always)]);
        decide(&rules, &facts).allowed
    };
    assert!(says(exact("abc"), false));
    assert!(!says(exact("abc"), true));
    assert!(says(exact(""), false));
    assert!(!says(exact(",abc"), false));
}

#[test]
fn what_is_too_deep_is_refused_with_its_place() {
    let mut deep = Predicate::Always;
    for _ in 0..100 {
        deep = Predicate::Not(Box::new(deep));
    }
    let policy = AuthzPolicy::new("deep", Predicate::All(vec![deep]), Predicate::Always);
    let error = compile(&AuthzRules::new(AuthzAction::Deny, [policy])).unwrap_err();
    assert!(
        error.path().starts_with("policies[deep].permission[0]"),
        "{error}"
    );
}

fn a_fact() -> impl Strategy<Value = Fact> {
    let path = select(vec!["/", "/a", "/a/b", "/b", "/a/"]);
    let peer = select(vec![
        "spiffe://t/ns/x/sa/y",
        "spiffe://t/ns/z/sa/y",
        "CN=y",
        "",
    ]);
    prop_oneof![
        path.clone().prop_map(|path| Fact::Path(exact(path))),
        path.clone()
            .prop_map(|path| Fact::Path(StringMatch::Prefix(path.into()))),
        path.prop_map(|path| Fact::Path(StringMatch::Suffix(path.into()))),
        select(vec!["/*", "/a/*", "/**", "/a/**"])
            .prop_map(|text| Fact::PathTemplate(PathTemplate::new(text).unwrap())),
        peer.prop_map(|name| Fact::Peer(Some(exact(name)))),
        select(vec!["x", "z", "q", "[a-z]"]).prop_map(|name| {
            let pattern = Pattern::new(&format!(".*/ns/{name}/.*")).unwrap();
            Fact::Peer(Some(StringMatch::Regex(pattern)))
        }),
        Just(Fact::Peer(None)),
        (0u16..3).prop_map(|port| Fact::DestinationPort(PortRange::single(port))),
        a_block().prop_map(Fact::Direct),
        a_block().prop_map(Fact::Source),
        a_block().prop_map(Fact::Remote),
        a_block().prop_map(Fact::Destination),
        a_header().prop_map(Fact::Header),
        a_server_name(),
        select(vec!["sa/y", "y", "CN", ""])
            .prop_map(|name| Fact::Peer(Some(StringMatch::Suffix(name.into())))),
        select(vec!["spiffe:", "u", ""])
            .prop_map(|name| Fact::Peer(Some(StringMatch::Prefix(name.into())))),
    ]
}

fn an_address() -> impl Strategy<Value = Option<IpAddr>> {
    let known = ["10.1.1.1", "10.1.2.3", "192.0.2.1", "2001:db8::1", "::1"];
    proptest::option::weighted(0.8, select(known.map(|it| it.parse().unwrap()).to_vec()))
}

fn a_block() -> impl Strategy<Value = Cidr> {
    let blocks = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.1",
        "10.1.2.3",
        "::/0",
        "2001:db8::/32",
    ];
    select(blocks.map(|block| block.parse().unwrap()).to_vec())
}

fn a_header() -> impl Strategy<Value = HeaderMatch> {
    let token = HeaderKey::Header(http::HeaderName::from_static("x-token"));
    let host = HeaderKey::Header(http::header::HOST);
    let key = select(vec![
        HeaderKey::Method,
        HeaderKey::Authority,
        HeaderKey::Path,
        token,
        host,
    ]);
    let kinds = [
        StringMatch::Exact,
        StringMatch::Prefix,
        StringMatch::Suffix,
        StringMatch::ExactIgnoreCase,
        StringMatch::PrefixIgnoreCase,
        StringMatch::SuffixIgnoreCase,
    ];
    let word = select(vec!["", "GET", "a", "A", "a.b", "B", "a.B:80", "/a"]);
    let flags = proptest::bool::weighted(0.2);
    (key, 0..kinds.len(), word, flags, flags).prop_map(move |(key, kind, word, invert, empty)| {
        let mut header = HeaderMatch::text(key, kinds[kind](word.to_owned()));
        header.invert = invert;
        header.missing_is_empty = empty;
        header
    })
}

fn a_server_name() -> impl Strategy<Value = Fact> {
    let kinds = [
        StringMatch::Exact,
        StringMatch::Prefix,
        StringMatch::Suffix,
        StringMatch::ExactIgnoreCase,
        StringMatch::Contains,
    ];
    let word = select(vec!["", "a", "b.a", ".a", "c.b.a", "B.a", "c."]);
    let known = 0..kinds.len();
    (known, word).prop_map(move |(kind, word)| Fact::ServerName(kinds[kind](word.to_owned())))
}

fn a_predicate() -> impl Strategy<Value = Predicate> {
    let leaf = prop_oneof![4 => a_fact().prop_map(Predicate::Fact), 1 => Just(Predicate::Always)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Predicate::All),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Predicate::Any),
            inner.prop_map(|one| Predicate::Not(Box::new(one))),
        ]
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_asking_one_after_the_other_finds(
        predicates in proptest::collection::vec((a_predicate(), a_predicate()), 0..12),
        path in select(vec!["/", "/a", "/a/b", "/a/b/c", "/b?x=/a", "/a/"]),
        uris in select(vec![
            vec![], vec!["spiffe://t/ns/x/sa/y"], vec!["spiffe://t/ns/z/sa/y", "u:/ns/x/"],
        ]),
        tls: bool,
        port in 0u16..3,
        host in select(vec!["a.b", "A.B:80", "", "b"]),
        tokens in proptest::collection::vec(select(vec!["a", "A", "", "GET"]), 0..3),
        (source, remote) in (an_address(), an_address()),
        (server, late) in (select(vec!["", "a", "b.a", "c.b.a", "x.c.b.a", "b.A"]), any::<bool>()),
    ) {
        let policies: Vec<_> = predicates
            .into_iter()
            .enumerate()
            .map(|(at, (permission, principal))| {
                AuthzPolicy::new(format!("p{at:02}"), permission, principal)
            })
            .collect();
        let compiled = compile(&AuthzRules::new(AuthzAction::Allow, policies)).unwrap();
        let mut caller = if tls { caller(&uris, &[], "CN=y") } else { Caller::default() };
        if tls {
            let mut info = TlsInfo::clone(caller.tls.as_ref().unwrap());
            info.server_name = server.into();
            info.late_server_name = late;
            caller.tls = Some(Arc::new(info));
        }
        let mut request = Request::get(path);
        if !host.is_empty() {
            request = request.header("host", host);
        }
        for token in tokens {
            request = request.header("x-token", token);
        }
        let request = request.body(()).unwrap();
        let mut facts = Facts::of_connection(&caller);
        facts.request = Facts::of_request(&request).request;
        facts.destination = Some(([10, 1, 1, 1], port).into());
        facts.direct = Some([10, 1, 2, 3].into());
        facts.source = source;
        facts.remote = remote;
        let naive = compiled.policies().iter().find(|policy| {
            holds(&policy.permission, &facts) && holds(&policy.principal, &facts)
        });
        prop_assert_eq!(decide(&compiled, &facts).policy, naive);
    }
}
