use super::*;
use mesh_core::Name;
use mesh_core::model::{
    FilterChain, HttpManager, Listener, PortRange, RouteTable, Snapshot, SnapshotBuilder, TcpProxy,
};
use std::net::SocketAddr;

fn snapshot() -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t"));
    builder.build().unwrap().0
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A chain for a port that leads to a cluster.
fn chain(port: u16, cluster: &str) -> FilterChain {
    let mut chain = FilterChain::tcp(TcpProxy::to("p", cluster));
    chain.name = Name::from(port.to_string());
    chain.matches.destination_port = Some(port);
    chain
}

fn listener(chains: impl IntoIterator<Item = FilterChain>) -> Arc<Listener> {
    let listener = Listener::new("in", at(1));
    Arc::new(chains.into_iter().fold(listener, Listener::chain))
}

/// Of which chains the connections are to finish, by name.
fn draining(state: &[Arc<ChainState>]) -> Vec<String> {
    let draining = |chain: &&Arc<ChainState>| *chain.drained().borrow();
    let name = |chain: &Arc<ChainState>| chain.chain().config().name.to_string();
    state.iter().filter(draining).map(name).collect()
}

#[test]
fn a_change_of_one_chain_drains_its_connections_and_no_others() {
    let (plans, snapshot) = (Plans::default(), snapshot());
    let plan = |listener| plans.of(&listener, &at(1).into(), &snapshot);
    let state = ListenerState::new(
        plan(listener([chain(1, "a"), chain(2, "b"), chain(3, "c")])),
        at(1),
    );
    let before = state.current().chains.clone();
    // The first is the same, the second leads elsewhere, the third is gone; they changed places.
    state.update(plan(listener([chain(2, "other"), chain(1, "a")])));
    assert_eq!(draining(&before), ["2", "3"]);
    let after = state.current().chains.clone();
    assert_eq!(draining(&after), [""; 0]);
    assert!(Arc::ptr_eq(&before[0], &after[1]));
    state.drain();
    assert_eq!(draining(&after), ["2", "1"]);
}

#[test]
fn a_change_that_concerns_no_chain_drains_nothing() {
    let (plans, snapshot) = (Plans::default(), snapshot());
    let first = listener([chain(1, "a")]);
    let state = ListenerState::new(plans.of(&first, &at(1).into(), &snapshot), at(1));
    let before = state.current().chains.clone();
    let mut second = Listener::clone(&first);
    let inspector = mesh_core::model::Inspector {
        except: vec![PortRange::single(1)],
    };
    second.inspect.tls = Some(inspector);
    state.update(plans.of(&Arc::new(second), &at(1).into(), &snapshot));
    assert_eq!(draining(&before), [""; 0]);
    assert!(state.current().plan().inspect().tls.is_some());
}

#[test]
fn a_listener_that_comes_back_does_not_begin_with_draining() {
    let (plans, snapshot) = (Plans::default(), snapshot());
    let same = listener([chain(1, "a")]);
    let old = ListenerState::new(plans.of(&same, &at(1).into(), &snapshot), at(1));
    old.drain();
    let new = ListenerState::new(plans.of(&same, &at(1).into(), &snapshot), at(1));
    assert_eq!(draining(&old.current().chains), ["1"]);
    assert_eq!(draining(&new.current().chains), [""; 0]);
}

#[test]
fn workers_share_what_was_made_of_a_listener() {
    let (plans, snapshot) = (Plans::default(), snapshot());
    let first = listener([chain(1, "a"), chain(2, "b")]);
    let one = plans.of(&first, &at(1).into(), &snapshot);
    assert!(Arc::ptr_eq(
        &one,
        &plans.of(&first, &at(1).into(), &snapshot)
    ));
    // A chain that is the same is made once: with it go the keys of TLS sessions.
    let second = plans.of(&listener([chain(2, "b")]), &at(1).into(), &snapshot);
    assert!(Arc::ptr_eq(&one.chains()[1], &second.chains()[0]));
}

#[test]
fn the_default_chain_is_for_what_no_other_matches() {
    let (plans, snapshot) = (Plans::default(), snapshot());
    let mut with_default = Listener::new("in", at(1)).chain(chain(1, "a"));
    with_default.default_chain = Some(Arc::new(chain(9, "default")));
    let plan = plans.of(&Arc::new(with_default), &at(1).into(), &snapshot);
    let state = ListenerState::new(plan, at(1));
    let current = state.current();
    assert!(current.only_chain().is_none());
    let cluster = |port: u16| {
        let traits = Traits {
            destination: at(port),
            server_name: "",
            transport: mesh_core::model::TransportProtocol::Plain,
            protocols: &[],
            direct_source: at(1000),
            source: at(1000),
        };
        let chain = current.choose(&traits)?.chain().config().name.clone();
        Some(chain.to_string())
    };
    assert_eq!(cluster(1).as_deref(), Some("1"));
    assert_eq!(cluster(2).as_deref(), Some("9"));

    // One for everything needs no look, and a listener without any closes.
    let only = Listener::http("only", at(1), HttpManager::new("p", "t"));
    let only = Current::new(plans.of(&Arc::new(only), &at(1).into(), &snapshot), &[]);
    assert!(only.only_chain().is_some());
    let none = Arc::new(Listener::new("none", at(1)));
    let none = Current::new(plans.of(&none, &at(1).into(), &snapshot), &[]);
    assert!(none.only_chain().is_none());
}

#[test]
fn a_listener_is_counted_at_its_address() {
    let snapshot = snapshot();
    let statistics = Statistics::default();
    let plans = Plans::new(statistics.clone());
    let address: SocketAddr = "[::1]:8080".parse().unwrap();
    let plan = plans.of(&listener([]), &address.into(), &snapshot);
    plan.stats().inc(Shard::default(), ListenerStat::CxTotal);
    let all = statistics.listeners();
    assert_eq!(&*all[0].0, "[__1]_8080");
    assert_eq!(all[0].1.get(ListenerStat::CxTotal), 1);
}
