use super::*;
use mesh_core::model::{OverloadMonitor, OverloadRule, OverloadTrigger};
use std::time::Duration;

fn peer(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 1))
}

fn limits() -> Limits {
    Limits {
        connections: Some(3),
        ..Limits::default()
    }
}

fn guard(limits: Limits, config: Overload) -> Guard {
    Guard::new(limits, config, Rng::with_seed(1))
}

#[test]
fn connections_that_are_too_many_are_refused_and_every_place_is_given_back() {
    let mut limits = limits();
    limits.connections_per_address = Some(2);
    let guard = guard(limits, Overload::default());
    let first = guard.admit(peer(1)).unwrap();
    let second = guard.admit(peer(1)).unwrap();
    assert_eq!(
        guard.admit(peer(1)).unwrap_err(),
        ListenerStat::AddressCxOverflow
    );
    let third = guard.admit(peer(2)).unwrap();
    for caller in [1, 2, 3] {
        let refused = guard.admit(peer(caller)).unwrap_err();
        assert_eq!(refused, ListenerStat::GlobalCxOverflow);
    }
    drop(first);
    let again = guard.admit(peer(1)).unwrap();
    drop((second, third, again));
    assert_eq!(guard.0.connections.load(Ordering::Relaxed), 0);
}

#[test]
fn what_the_bootstrap_says_of_connections_wins_and_unix_callers_have_no_address() {
    let mut config = Overload::default();
    config.max_connections = Some(1000);
    let mut limits = limits();
    limits.connections_per_address = Some(1);
    let guard = guard(limits, config);
    let from_nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let all: Result<Vec<_>, _> = (0..900).map(|_| guard.admit(from_nowhere)).collect();
    assert_eq!(all.unwrap().len(), 900);
}

#[test]
fn handshakes_have_places_of_their_own() {
    let mut limits = limits();
    limits.handshakes = Some(1);
    let guard = guard(limits, Overload::default());
    let first = guard.shake().unwrap();
    assert!(guard.shake().is_none());
    drop(first);
    assert!(guard.shake().is_some());
}

/// The pressures of the one monitor, one after the other.
async fn pressed(guard: &Guard, pressures: Vec<f64>) -> Vec<[bool; 4]> {
    let (sender, receiver) = std::sync::mpsc::channel();
    for pressure in &pressures {
        sender.send(*pressure).unwrap();
    }
    let read = move |resource| match resource {
        WatchedResource::Heap(9) => receiver.recv().map_err(|_| io::ErrorKind::NotFound.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let looking = looking(guard.clone(), read);
    tokio::pin!(looking);
    let mut seen = Vec::new();
    for _ in pressures {
        // Each look comes at the beginning of its time.
        let _ = tokio::time::timeout(Duration::from_millis(999), &mut looking).await;
        seen.push([
            guard.ends_connections(),
            guard.shedding().sheds(0),
            guard.admit(peer(1)).is_err(),
            *guard.stopped().borrow(),
        ]);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    seen
}

fn ladder() -> Overload {
    let mut config = Overload::default();
    config.monitors = vec![OverloadMonitor::new("m", WatchedResource::Heap(9))];
    config.rules = OverloadAction::ALL
        .into_iter()
        .zip([0.6, 0.7, 0.8, 0.9])
        .map(|(action, at)| OverloadRule::new(action, vec![OverloadTrigger::threshold("m", at)]))
        .collect();
    config
}

#[tokio::test(start_paused = true)]
async fn under_pressure_the_mildest_comes_first_and_goes_last() {
    let guard = guard(limits(), ladder());
    let steps = vec![0.5, 0.6, 0.75, 0.8, 0.95, 0.86, 0.84, 0.7, 0.66, 0.5];
    let seen = pressed(&guard, steps).await;
    let expected = [0, 1, 2, 3, 4, 4, 3, 2, 2, 0];
    for (step, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        let wanted: [bool; 4] = std::array::from_fn(|action| action < expected);
        assert_eq!(*seen, wanted, "step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_done_and_why_is_in_the_statistics() {
    let guard = guard(limits(), ladder());
    pressed(&guard, vec![0.75, 0.75]).await;
    let statistics = guard.statistics();
    let value = |name: &str| {
        let found = statistics.iter().find(|(known, ..)| known == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {statistics:?}"))
            .2
    };
    assert_eq!(value("overload.m.pressure"), 75);
    assert_eq!(value("overload.m.failed_updates"), 0);
    let descriptors = format!("overload.{}.failed_updates", Overload::DESCRIPTORS);
    assert_eq!(value(&descriptors), 2);
    for (action, active) in [
        ("disable_http_keepalive", 1),
        ("stop_accepting_requests", 1),
        ("stop_accepting_connections", 0),
    ] {
        let name = format!("overload.envoy.overload_actions.{action}");
        assert_eq!(value(&format!("{name}.active")), active);
        assert_eq!(value(&format!("{name}.scale_percent")), 100 * active);
    }
}

#[tokio::test(start_paused = true)]
async fn part_of_what_comes_is_refused_in_proportion() {
    let mut config = ladder();
    config.rules = vec![OverloadRule::new(
        OverloadAction::RejectConnections,
        vec![OverloadTrigger::scaled("m", 0.0, 1.0)],
    )];
    let mut limits = limits();
    limits.connections = None;
    let guard = guard(limits, config);
    pressed(&guard, vec![0.25]).await;
    let refused = (0..4000).filter(|_| guard.admit(peer(1)).is_err()).count();
    assert!((800..1200).contains(&refused), "{refused} of 4000");
}
