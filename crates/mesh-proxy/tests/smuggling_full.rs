//! The requests of `smuggling.rs` through a real Envoy, too: what it refuses is refused here.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path); without it the test says so and passes,
//! but fails where `CI=true`. `MESH_ENVOY_ALL=1` prints what Envoy takes and we refuse.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[path = "smuggling/backend.rs"]
mod backend;
#[allow(dead_code)]
#[path = "smuggling/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
mod support;

/// What Envoy refuses and we take, each with its reason.
const TAKEN: &[(&str, &str)] = &[(
    "connection: a websocket that nobody takes",
    "Envoy passes the head on and keeps the body back until the upgrade is accepted; a backend that \
     reads the body first waits for ever",
)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_envoy_refuses_is_refused() {
    let Ok(binary) = std::env::var("MESH_ENVOY") else {
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!is_ci, "MESH_ENVOY is not set");
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    let cases = cases::all();
    let directory = tempfile::tempdir().unwrap();
    let mut sides = Vec::new();
    for (name, binary) in [
        ("envoy", &*binary),
        ("ours", env!("CARGO_BIN_EXE_mesh-proxy")),
    ] {
        let (backend, log) = backend::start().await;
        let at = support::free_address();
        let place = directory.path().join(name);
        let _proxy = cases::proxy(binary, backend, &place, at).await;
        sides.push(cases::run(at, &cases, &log).await);
    }
    let [(theirs, their_malformed), (ours, our_malformed)] = &sides[..] else {
        unreachable!("two sides")
    };
    println!("Envoy's backend could not read: {their_malformed:#?}");
    assert!(our_malformed.is_empty(), "{our_malformed:#?}");
    let mut taken = Vec::new();
    let mut stricter = 0;
    for ((case, theirs), ours) in cases.iter().zip(theirs).zip(ours) {
        assert_eq!(ours.read, ours.answered, "{}", case.name);
        if theirs.read != theirs.answered {
            let (read, answered) = (&theirs.read, &theirs.answered);
            println!(
                "{}: Envoy's backend read {read:?}, answered are {answered:?}",
                case.name
            );
        }
        if ours.read.iter().any(|line| !theirs.read.contains(line)) {
            let (ours, theirs) = (&ours.read, &theirs.read);
            taken.push((case.name, format!("{ours:?}, Envoy {theirs:?}")));
        } else if ours.read != theirs.read {
            stricter += 1;
            if std::env::var_os("MESH_ENVOY_ALL").is_some() {
                let (ours, theirs) = (&ours.read, &theirs.read);
                println!("{}: {ours:?}, Envoy {theirs:?}", case.name);
            }
        }
    }
    println!(
        "{} cases, of {stricter} less reaches the backend than through Envoy",
        cases.len()
    );
    for (name, _) in TAKEN {
        let used = taken.iter().any(|(found, _)| found == name);
        assert!(
            used,
            "{name} is refused: the exception is not needed any more"
        );
    }
    taken.retain(|(name, _)| TAKEN.iter().all(|(known, _)| known != name));
    assert!(taken.is_empty(), "{taken:#?}");
}
