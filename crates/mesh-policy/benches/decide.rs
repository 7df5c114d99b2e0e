//! What it costs to judge one request, by the number of policies and what they are about.

#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use mesh_core::Caller;
use mesh_core::exchange::{PeerCertificate, TlsInfo};
use mesh_core::model::{
    AuthzAction, AuthzPolicy, AuthzRules, Fact, HeaderKey, HeaderMatch, Pattern, PortRange,
    Predicate, StringMatch, TlsVersion,
};
use mesh_policy::{Facts, compile, decide};
use std::hint::black_box;
use std::sync::Arc;

fn any(fact: Fact) -> Predicate {
    let any = Predicate::Any(vec![Predicate::Fact(fact)]);
    Predicate::All(vec![any])
}

fn header(name: &'static str, value: String) -> Predicate {
    let key = HeaderKey::Header(http::HeaderName::from_static(name));
    any(Fact::Header(HeaderMatch::text(
        key,
        StringMatch::Exact(value),
    )))
}

fn policy(kind: &str, at: usize) -> AuthzPolicy {
    let text = |text: String| StringMatch::Exact(text);
    let (permission, principal) = match kind {
        "paths" => (
            any(Fact::Path(text(format!("/api/v1/{at}")))),
            Predicate::Always,
        ),
        "prefixes" => {
            let prefix = StringMatch::Prefix(format!("/api/{at}/"));
            (any(Fact::Path(prefix)), Predicate::Always)
        }
        "principals" => {
            let name = format!("spiffe://cluster.local/ns/n{at}/sa/default");
            (Predicate::Always, any(Fact::Peer(Some(text(name)))))
        }
        "namespaces" => {
            let pattern = Pattern::new(&format!(".*/ns/n{at}/.*")).unwrap();
            let namespace = Fact::Peer(Some(StringMatch::Regex(pattern)));
            (Predicate::Always, any(namespace))
        }
        "headers" => (Predicate::Always, header("x-tenant", format!("t{at}"))),
        "hosts" => {
            let host = StringMatch::SuffixIgnoreCase(format!(".t{at}.example"));
            let host = HeaderMatch::text(HeaderKey::Authority, host);
            (any(Fact::Header(host)), Predicate::Always)
        }
        // As most are: somebody may call some methods of a service.
        "usual" => {
            let prefix = StringMatch::Prefix(format!("/api/{at}/"));
            let method = HeaderMatch::text(HeaderKey::Method, text("GET".into()));
            let admin = any(Fact::Path(StringMatch::Suffix("/admin".into())));
            let done = Predicate::All(vec![
                any(Fact::Header(method)),
                any(Fact::Path(prefix)),
                Predicate::Not(Box::new(admin)),
            ]);
            let name = format!("spiffe://cluster.local/ns/n{at}/sa/default");
            (done, any(Fact::Peer(Some(text(name)))))
        }
        "blocks" => {
            let block = format!("10.{}.{}.0/24", at / 256, at % 256);
            (Predicate::Always, any(Fact::Direct(block.parse().unwrap())))
        }
        "servers" => {
            let server = text(format!("{at}.example"));
            (any(Fact::ServerName(server)), Predicate::Always)
        }
        "wildcard servers" => {
            let server = StringMatch::Suffix(format!(".t{at}.example"));
            (any(Fact::ServerName(server)), Predicate::Always)
        }
        // Not in the index: one after the other.
        _ => {
            let ports = PortRange::single(at as u16);
            (any(Fact::DestinationPort(ports)), Predicate::Always)
        }
    };
    AuthzPolicy::new(
        format!("ns[a]-policy[p{at}]-rule[0]"),
        permission,
        principal,
    )
}

fn caller() -> Caller {
    let mut peer = PeerCertificate::default();
    peer.validated = true;
    peer.uris = vec!["spiffe://cluster.local/ns/unknown/sa/default".into()];
    let mut tls = TlsInfo::default();
    tls.version = Some(TlsVersion::V1_3);
    tls.server_name = "shop.unknown.example".into();
    tls.peer = Some(peer);
    let mut caller = Caller::default();
    caller.tls = Some(Arc::new(tls));
    caller
}

fn deciding(criterion: &mut Criterion) {
    let caller = caller();
    let request = Request::get("/api/v1/unknown?x=1")
        .header("host", "shop.unknown.example")
        .header("x-tenant", "unknown")
        .body(())
        .unwrap();
    let mut facts = Facts::of_connection(&caller);
    facts.request = Facts::of_request(&request).request;
    facts.direct = Some([10, 9, 9, 9].into());
    let mut group = criterion.benchmark_group("decide");
    let kinds = [
        "paths",
        "prefixes",
        "principals",
        "namespaces",
        "headers",
        "hosts",
        "usual",
        "blocks",
        "servers",
        "wildcard servers",
        "linear",
    ];
    for kind in kinds {
        for count in [1, 1000] {
            let policies = (0..count).map(|at| policy(kind, at));
            let rules = compile(&AuthzRules::new(AuthzAction::Deny, policies)).unwrap();
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| decide(&rules, black_box(&facts)).allowed);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, deciding);
criterion_main!(benches);
