//! A control plane that dies, lies and comes back: the proxy serves on, and in the end what the
//! control plane says is what answers.

#[path = "chaos/harm.rs"]
mod harm;
#[path = "chaos/impostor.rs"]
mod impostor;
#[path = "chaos/load.rs"]
mod load;
// The control plane of the `xds` tests, of which this needs less.
#[allow(dead_code)]
#[path = "xds/plane.rs"]
mod plane;
mod support;

use harm::Harm;
use impostor::Impostor;
use load::Load;
use mesh_xds::TypeUrl;
use mesh_xds::client::Variant;
use mesh_xds::server::{Changes, Event, ResourceSet};
use plane::{Driven, Plane, cluster, endpoints, listener, routes};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Whole, backend, free_address};

/// How often the control plane is killed.
const ROUNDS: usize = 20;

/// For all of it.
const LIMIT: Duration = Duration::from_secs(240);

/// One version of the configuration is one cluster, with one backend that says its number.
fn version(number: usize) -> String {
    format!("version-{number}.")
}

/// Everything that one version needs besides the listener.
fn all_of(number: usize, at: SocketAddr) -> Changes {
    let name = version(number);
    Changes::new()
        .set(TypeUrl::Cluster, cluster(&name))
        .set(TypeUrl::Endpoints, endpoints(&name, &[at]))
        .set(TypeUrl::Routes, routes(&name))
}

async fn answering(number: usize) -> SocketAddr {
    let answer = move |_| async move { http::Response::new(Whole::from(number.to_string())) };
    backend(answer).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_control_plane_that_dies_and_lies_twenty_times_costs_no_request() {
    let both = async {
        for variant in [Variant::Delta, Variant::Sotw] {
            torment(variant).await;
        }
    };
    tokio::time::timeout(LIMIT, both).await.expect("in time");
}

async fn torment(variant: Variant) {
    let at = free_address();
    let mut plane = Plane::restarted(ResourceSet::new(), free_address()).await;
    plane.apply(all_of(0, answering(0).await).set(TypeUrl::Listener, listener("in", at)));
    let driven = Driven::by(&plane, variant).await;
    driven.initialized().await;
    plane.acknowledged(TypeUrl::Routes).await;
    let load = Load::start(at);
    load.goes_on().await;

    let mut rejected = BTreeSet::new();
    for round in 1..=ROUNDS {
        let (set, address) = plane.kill().await;
        disconnected(&driven).await;
        load.goes_on().await;
        if let Some(impostor) = Impostor::of_round(round, address).await {
            impostor.met().await;
            impostor.end().await;
        }

        // It comes back with a new version and something bad.
        let backend = answering(round).await;
        let harm = Harm::of_round(round);
        load.may_answer(round);
        set.apply(all_of(round, backend));
        set.apply(harm.done(round, at));
        plane = Plane::restarted(set, address).await;

        let said = plane.rejected(harm.kind()).await;
        let bad = harm.name(round);
        let called = match (variant, harm.has_name()) {
            // Its name would be in its bytes and nowhere else; its place has to do.
            (Variant::Sotw, false) => "resources[0]: ".to_owned(),
            _ => format!("{bad}: "),
        };
        assert!(said.contains(&called), "round {round}, {harm:?}: {said}");
        rejected.insert((harm.kind(), bad));
        load.goes_on().await;
        plane.apply(harm.undone(round, at));

        // Acknowledged, so it is in force: from here on nobody hears the old version.
        in_force(&plane).await;
        load.must_answer(round);
        load.goes_on().await;
        plane.apply(
            Changes::new()
                .remove(TypeUrl::Cluster, version(round - 1))
                .remove(TypeUrl::Endpoints, version(round - 1)),
        );
    }

    // What is left is the last version, and nothing of what was bad.
    let last = version(ROUNDS);
    driven
        .shows("/clusters", |shown| {
            shown.contains(&last) && !shown.contains(&version(ROUNDS - 1))
        })
        .await;
    let dump = driven.admin("/config_dump").await;
    assert!(dump.contains(&last), "{dump}");
    assert!(!dump.contains(harm::EXTRA), "{dump}");
    let stats = driven.admin("/stats").await;
    assert!(
        stats.contains("control_plane.connected_state: 1\n"),
        "{stats}"
    );
    assert!(rejected.len() >= Harm::ALL.len(), "{rejected:?}");
    let answers = load.end().await;
    assert!(answers >= 20 * ROUNDS, "{answers} answers");
}

/// Waits until the proxy knows that its control plane is gone.
async fn disconnected(driven: &Driven) {
    driven
        .shows("/stats", |stats| stats.contains("connected_state: 0\n"))
        .await;
}

/// Waits for the acknowledgement of routes since the control plane came back.
async fn in_force(plane: &Plane) {
    plane
        .saw(|event| {
            let of = TypeUrl::Routes;
            matches!(event, Event::Acked { kind, .. } if *kind == of).then_some(())
        })
        .await;
}
