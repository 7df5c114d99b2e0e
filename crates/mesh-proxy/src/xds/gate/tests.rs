use super::*;
use mesh_core::model::{HttpManager, RouteTable, SnapshotBuilder, UnixPath};
use socket2::{Domain, Type};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

fn listener(name: &str, address: SocketAddr) -> Listener {
    Listener::http(name, address, HttpManager::new("s", "t"))
}

fn snapshot(listeners: &[(&str, SocketAddr)]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t"));
    for (name, address) in listeners {
        builder.listener(listener(name, *address));
    }
    builder.build().unwrap().0
}

/// An address that is taken for as long as the socket lives.
fn taken() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn free() -> SocketAddr {
    taken().1
}

#[test]
fn who_connects_before_the_socket_is_taken_waits_in_it() {
    let address = free();
    let gate = Gate::default();
    let permit = gate.admit(&listener("a", address)).unwrap();
    let snapshot = snapshot(&[("a", address)]);
    gate.prepare(&snapshot);
    let caller = std::net::TcpStream::connect(address).unwrap();
    let Some(Opened::Tcp(socket)) = gate.take(&snapshot.listeners()[0]) else {
        panic!("no socket");
    };
    let (_, peer) = socket.accept().unwrap();
    assert_eq!(peer, caller.local_addr().unwrap());
    assert!(
        gate.take(&snapshot.listeners()[0]).is_none(),
        "it is taken once"
    );
    drop(permit);
}

#[test]
fn who_connects_before_the_listener_is_in_force_is_turned_away() {
    let address = free();
    let gate = Gate::default();
    let _permit = gate.admit(&listener("a", address)).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    // Meanwhile it is nobody else's.
    assert!(
        Socket::new(Domain::IPV4, Type::STREAM, None)
            .and_then(|socket| socket.bind(&address.into()))
            .is_err()
    );
}

#[test]
fn what_cannot_be_bound_is_refused_with_the_systems_reason() {
    let (socket, address) = taken();
    let gate = Gate::default();
    let error = gate.admit(&listener("a", address)).unwrap_err();
    let expected = format!("address: cannot bind '{address}': Address already in use");
    assert_eq!(error.to_string(), expected);
    drop(socket);
    gate.admit(&listener("a", address)).unwrap();
    // A block for documentation (RFC 5737): no machine has it.
    let error = gate.admit(&listener("a", "192.0.2.1:80".parse().unwrap()));
    let error = error.unwrap_err().to_string();
    let expected = "address: cannot bind '192.0.2.1:80': Cannot assign requested address";
    assert_eq!(error, expected);
}

#[test]
fn a_stranger_that_shares_ports_is_noticed() {
    let address = free();
    let _stranger = accept::listen(address).unwrap();
    assert!(Gate::default().admit(&listener("a", address)).is_err());
}

#[test]
fn an_address_that_changes_hands_is_not_mistaken_for_a_strangers() {
    let address = free();
    let gate = Gate::default();
    let permit = gate.admit(&listener("a", address)).unwrap();
    let before = snapshot(&[("a", address)]);
    gate.prepare(&before);
    let _serving = gate.take(&before.listeners()[0]).unwrap();
    // While it is there, as when two swap theirs, and after it was removed.
    let other = gate.admit(&listener("b", address)).unwrap();
    drop((permit, other));
    let _permit = gate.admit(&listener("b", address)).unwrap();
    let after = snapshot(&[("b", address)]);
    gate.prepare(&after);
    assert!(gate.take(&before.listeners()[0]).is_none());
    assert!(gate.take(&after.listeners()[0]).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_ours_once_is_not_ours_for_ever() {
    let address = free();
    let gate = Gate::default();
    drop(gate.admit(&listener("a", address)).unwrap());
    let _stranger = accept::listen(address).unwrap();
    assert!(gate.admit(&listener("b", address)).is_ok());
    tokio::time::advance(CLOSING * 2).await;
    assert!(gate.admit(&listener("c", address)).is_err());
}

#[test]
fn what_left_before_it_was_taken_is_closed() {
    let address = free();
    let gate = Gate::default();
    let permit = gate.admit(&listener("a", address)).unwrap();
    gate.prepare(&snapshot(&[("a", address)]));
    drop(permit);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(gate.take(&listener("a", address)).is_none());
}

#[test]
fn one_that_was_not_asked_for_is_opened_with_its_snapshot() {
    let (socket, address) = taken();
    let gate = Gate::default();
    let wanted = snapshot(&[("a", address)]);
    gate.prepare(&wanted);
    assert!(gate.take(&wanted.listeners()[0]).is_none());
    drop(socket);
    gate.prepare(&wanted);
    gate.prepare(&wanted);
    assert!(gate.take(&wanted.listeners()[0]).is_some());
    gate.prepare(&snapshot(&[]));
    assert!(gate.0.lock().unwrap().fixed.is_empty());
}

#[test]
fn a_unix_socket_is_bound_when_its_listener_comes_and_its_owner_hands_it_on() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.sock");
    let at = |name: &str| {
        let path = UnixPath::new(file.to_str().unwrap()).unwrap();
        let mut listener = listener(name, free());
        listener.address = path.into();
        listener
    };
    let gate = Gate::default();
    let first = gate.admit(&at("a")).unwrap();
    assert!(file.exists());
    assert!(UnixStream::connect(&file).is_err(), "nobody listens yet");
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t"));
    builder.listener(at("a"));
    gate.prepare(&builder.build().unwrap().0);
    assert!(UnixStream::connect(&file).is_ok());
    let socket = gate.take(&at("a")).unwrap();
    // Who comes to the same path gets no socket from here: there is one.
    let _second = gate.admit(&at("b")).unwrap();
    assert!(gate.take(&at("b")).is_none());
    assert!(UnixStream::connect(&file).is_ok());
    drop((first, socket));
    assert!(!file.exists());
}

#[test]
fn a_unix_socket_that_cannot_be_bound_is_refused_with_its_path() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.sock");
    let _stranger = std::os::unix::net::UnixListener::bind(&file).unwrap();
    let mut listener = listener("a", free());
    listener.address = UnixPath::new(file.to_str().unwrap()).unwrap().into();
    let error = Gate::default().admit(&listener).unwrap_err();
    let file = file.display();
    assert_eq!(
        error.to_string(),
        format!("address: cannot bind '{file}': Address already in use")
    );
}
