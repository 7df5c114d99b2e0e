//! A real Envoy is the judge of balancing: the same clusters, the same keys, the same backends.
//!
//! Where hashes decide, every key has to reach the same endpoint through both. Where chance does,
//! shares have to agree. Needs `MESH_ENVOY`, as `envoy_full` does.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[path = "balancing_full/cases.rs"]
mod cases;
// It knows more than is asked of it here.
#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
mod support;
#[path = "balancing_full/translate.rs"]
mod translate;

use cases::{Case, Judge};
use http::Request;
use mesh_core::Publisher;
use mesh_core::model::{
    Balancing, HashCookie, HashPolicy, HashSource, HttpManager, Listener, RouteTable, Rule,
    SnapshotBuilder, VirtualHost,
};
use mesh_proxy::Proxy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use support::{Http1, Whole};

/// How many keys are tried with each case.
const KEYS: usize = 1_000;

/// A binary to compare with, or nothing to do.
fn binary() -> Option<String> {
    let Ok(binary) = std::env::var("MESH_ENVOY") else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "MESH_ENVOY is not set"
        );
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return None;
    };
    Some(binary)
}

/// Backends that answer with their names.
async fn backends(count: usize) -> Vec<SocketAddr> {
    const NAMES: [&str; 12] = [
        "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11",
    ];
    let mut addresses = Vec::new();
    for name in &NAMES[..count] {
        addresses.push(support::named(name).await);
    }
    addresses
}

/// Both proxies with the same cases, each at a path of its own.
struct Both {
    envoy: child::Proxy,
    theirs: SocketAddr,
    ours: SocketAddr,
    proxy: mesh_proxy::Running,
    _directory: tempfile::TempDir,
}

impl Both {
    async fn start(binary: &str, cases: &[Case]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let routes: Vec<Value> = cases.iter().map(translate::route).collect();
        let clusters: Vec<Value> = cases.iter().map(translate::cluster).collect();
        let config = json!({
            "node": {"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "own"}},
            "cluster_manager": {"local_cluster_name": "peers"},
            "static_resources": {
                "listeners": [translate::listener(&routes)],
                "clusters": clusters,
            },
        });
        let envoy = child::Proxy::start(binary, config, directory.path()).await;
        let theirs = envoy.listeners().await["in"];

        let ours = support::free_address();
        let mut builder = SnapshotBuilder::new();
        builder.listener(Listener::http("in", ours, HttpManager::new("in", "t")));
        let mut host = VirtualHost::new("all", ["*"]);
        for case in cases {
            let mut rule = Rule::prefix_to(&format!("/{}/", case.cluster.name), "");
            rule.action = mesh_core::model::Action::Forward(case.forward());
            rule.request_edits.add.push(cases::edit());
            host = host.rule(rule);
            builder.endpoints(case.cluster.name.clone(), case.endpoints.clone());
            builder.cluster(case.cluster.clone());
        }
        builder.routes(RouteTable::new("t").host(host));
        let publisher = Publisher::from_arc(builder.build().unwrap().0);
        let proxy = Proxy::builder(publisher.feed())
            .concurrency(1)
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .zone(Some(cases::zone()))
            .start()
            .await
            .unwrap();
        let listening = proxy.ready().await;
        assert!(listening.failed.is_empty(), "{listening:?}");
        Self {
            envoy,
            theirs,
            ours,
            proxy,
            _directory: directory,
        }
    }

    async fn stats(&self) -> [BTreeMap<String, u64>; 2] {
        let mut both = Vec::new();
        for admin in [self.envoy.admin, self.proxy.admin().unwrap()] {
            let text = child::ask(admin, "/stats").await;
            let pairs = text.lines().filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            });
            both.push(pairs.collect());
        }
        both.try_into().unwrap()
    }
}

/// Which backend answers each key.
async fn reached(at: SocketAddr, case: &Case) -> Vec<String> {
    let mut client = Http1::<Whole>::connect(at).await;
    let mut reached = Vec::with_capacity(KEYS);
    for key in 0..KEYS {
        let request = Request::get(format!("/{}/x?q={key}&q=z", case.cluster.name))
            .header("host", "mesh")
            .header("x-key", format!("key-{key}"))
            .header("x-edited", format!("c{key}"))
            .header("x-many", format!("b{key}"))
            .header("x-many", format!("a{key}"))
            .header("cookie", format!("other=1; stay=\"user-{key}\""))
            .body(Whole::default())
            .unwrap();
        let response = client.send(request).await;
        let status = response.status();
        let dropped = response.headers().contains_key("x-envoy-drop-overload");
        let said = support::text(response).await;
        let from = match (status.is_success(), dropped) {
            (true, _) => said,
            (false, false) => format!("{status} {said}"),
            (false, true) => format!("{status} {said} x-envoy-drop-overload"),
        };
        reached.push(from);
    }
    reached
}

/// Tests of one family of cases each, so that they can run side by side.
macro_rules! requests_reach_the_endpoints_that_envoy_would_choose {
    ($($name:ident: $cases:expr,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            compare($cases).await;
        }
    )*};
}

requests_reach_the_endpoints_that_envoy_would_choose! {
    on_a_ring: cases::rings,
    in_a_table_of_maglev: cases::maglevs,
    by_localities_and_priorities: cases::localities,
    by_what_is_hashed: cases::policies,
    in_a_subset: cases::subsets,
    at_random: |backends| cases::chances("random", Balancing::Random, 90, backends),
    in_turn: |backends| cases::chances("round-robin", Balancing::RoundRobin, 10, backends),
    where_the_fewest_requests_are: |backends| {
        cases::chances("least", cases::least(1.0), 40, backends)
    },
    where_the_fewest_requests_are_or_not: |backends| {
        cases::chances("least-biased", cases::least(0.0), 10, backends)
    },
    unless_they_are_dropped: cases::dropped,
}

async fn compare(cases: impl FnOnce(&[SocketAddr]) -> Vec<Case>) {
    let Some(binary) = binary() else { return };
    let backends = backends(12).await;
    let mut all = vec![cases::peers(&backends)];
    all.extend(cases(&backends));
    let cases = all;
    let both = Both::start(&binary, &cases).await;
    let mut wrong = Vec::new();
    for case in &cases {
        let (theirs, ours) = tokio::join!(reached(both.theirs, case), reached(both.ours, case));
        let counts = [&theirs, &ours].map(|reached| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            reached
                .iter()
                .for_each(|from| *counts.entry(from).or_default() += 1);
            counts
        });
        match case.judge {
            Judge::Same => {
                let same = theirs.iter().zip(&ours).filter(|(a, b)| a == b).count();
                println!(
                    "{}: {same} of {KEYS}, {} endpoints",
                    case.cluster.name,
                    counts[0].len()
                );
                if same != KEYS {
                    wrong.push(format!("{}: {same} {counts:?}", case.cluster.name));
                }
            }
            Judge::Shares(tolerance) => {
                println!("{}: {counts:?}", case.cluster.name);
                let keys = counts[0].keys().chain(counts[1].keys());
                for key in keys {
                    let [a, b] = [0, 1].map(|side| counts[side].get(key).copied().unwrap_or(0));
                    if a.abs_diff(b) > tolerance {
                        wrong.push(format!("{}: {key}: {a} {b}", case.cluster.name));
                    }
                }
            }
        }
    }
    let [theirs, ours] = both.stats().await;
    let mut compared = 0;
    for case in &cases {
        let prefix = format!("cluster.{}.", case.cluster.name);
        for (name, value) in &theirs {
            let Some(stat) = name.strip_prefix(&prefix) else {
                continue;
            };
            if !case.compares(stat) {
                continue;
            }
            compared += 1;
            let mine = ours.get(name);
            if mine.is_none_or(|mine| mine.abs_diff(*value) > case.slack(stat)) {
                wrong.push(format!("{name}: {value}, ours {mine:?}"));
            }
        }
    }
    println!("{compared} statistics compared");
    both.proxy.drain().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_are_made_as_envoy_makes_them() {
    let Some(binary) = binary() else { return };
    let backends = backends(4).await;
    let cookie = |ttl: Option<u64>, path: &str| {
        let mut cookie = HashCookie::default();
        cookie.name = "stay".into();
        cookie.ttl = ttl.map(std::time::Duration::from_secs);
        cookie.path = path.into();
        cookie
    };
    let mut decorated = cookie(Some(0), "/a");
    decorated.attributes = vec![
        ("SameSite".into(), "Strict".into()),
        ("Secure".into(), "".into()),
    ];
    let cookies = [
        ("plain", cookie(Some(60), "/")),
        ("session", cookie(Some(0), "")),
        ("decorated", decorated),
        ("none", cookie(None, "/")),
    ];
    let mut cases = vec![cases::peers(&backends)];
    for (name, cookie) in &cookies {
        for (suffix, balancing) in [("", cases::ring()), ("-random", Default::default())] {
            let mut case = cases::plain(&format!("{name}{suffix}"), balancing, &backends);
            case.policies = vec![HashPolicy::new(HashSource::Cookie(cookie.clone()))];
            cases.push(case);
        }
    }
    let both = Both::start(&binary, &cases).await;
    for case in &cases {
        let mut seen: HashMap<bool, Vec<(Option<String>, String)>> = HashMap::new();
        for (ours, at) in [(false, both.theirs), (true, both.ours)] {
            let mut client = Http1::<Whole>::connect(at).await;
            for header in [
                "",
                "stay=known",
                "stay=; a=b",
                "stay=\"\"",
                "x=y;stay=first; stay=second",
            ] {
                let request = Request::get(format!("/{}/", case.cluster.name))
                    .header("host", "mesh")
                    .header("cookie", header)
                    .body(Whole::default())
                    .unwrap();
                let response = client.send(request).await;
                let line = response.headers().get("set-cookie");
                let line = line.map(|line| {
                    let line = line.to_str().unwrap();
                    // The value differs: it is that of the connection.
                    let (name, rest) = line.split_once("=\"").unwrap();
                    let (value, rest) = rest.split_once('"').unwrap();
                    assert_eq!(value.len(), 16, "{line}");
                    assert!(
                        value
                            .bytes()
                            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
                    );
                    format!("{name}=?{rest}")
                });
                let made = line.is_some();
                let from = support::text(response).await;
                let is_random = case.cluster.name.ends_with("random")
                    || case.cluster.name == "peers"
                    || made
                    || (case.cluster.name == "none"
                        && !header.contains("known")
                        && !header.contains("first"));
                let from = if is_random { String::new() } else { from };
                seen.entry(ours).or_default().push((line, from));
            }
        }
        assert_eq!(seen[&false], seen[&true], "{}", case.cluster.name);
    }
    both.proxy.drain().await;
}
