//! Requests that two servers might read differently, byte by byte over a real socket, through the
//! proxy, to a backend with a parser of its own: what reaches it, it reads as the proxy did.
//! `smuggling_full.rs` does the same beside a real Envoy.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[path = "smuggling/backend.rs"]
mod backend;
#[path = "smuggling/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
mod support;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_smuggled_and_what_is_not_plain_is_refused() {
    let cases = cases::all();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let directory = tempfile::tempdir().unwrap();
    let (backend, log) = backend::start().await;
    let at = support::free_address();
    let binary = env!("CARGO_BIN_EXE_mesh-proxy");
    let _proxy = cases::proxy(binary, backend, directory.path(), at).await;
    let (outcomes, malformed) = cases::run(at, &cases, &log).await;
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let name = case.name;
        // One that the backend saw and that has no answer was one more than the caller sent.
        if outcome.read != outcome.answered {
            let (read, answered) = (&outcome.read, &outcome.answered);
            wrong.push(format!(
                "{name}: the backend read {read:?}, answered are {answered:?}"
            ));
        }
        if outcome.reached() != case.reaches {
            wrong.push(format!(
                "{name}: {} reaches, not {}",
                outcome.reached(),
                case.reaches
            ));
        }
    }
    wrong.extend(malformed);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
