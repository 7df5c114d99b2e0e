//! Workers that only write down what they are told.

use super::*;
use mesh_core::model::{HttpManager, RouteTable, SnapshotBuilder};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

struct Workers {
    reconciler: Reconciler,
    told: Vec<mpsc::UnboundedReceiver<Command>>,
    /// What they would be listening on.
    sockets: HashMap<Name, Vec<Opened>>,
}

// === impl Workers ===

impl Workers {
    fn new(count: usize) -> Self {
        let (senders, told) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        Self {
            reconciler: Reconciler::new(senders, Gate::default()),
            told,
            sockets: HashMap::new(),
        }
    }

    /// Applies a snapshot with these listeners, and returns what the first worker was told.
    fn apply(&mut self, listeners: &[(&str, SocketAddr)]) -> Vec<String> {
        self.apply_all(listeners.iter().map(|(name, at)| listener(name, *at)))
    }

    fn apply_all(&mut self, listeners: impl Iterator<Item = Listener>) -> Vec<String> {
        let mut builder = SnapshotBuilder::new();
        builder.routes(RouteTable::new("t"));
        for listener in listeners {
            builder.listener(listener);
        }
        self.reconciler.apply(&builder.build().unwrap().0);
        let mut first = Vec::new();
        for (number, told) in self.told.iter_mut().enumerate() {
            let mut opened: HashMap<Name, Opened> = HashMap::new();
            while let Ok(command) = told.try_recv() {
                let said = match command {
                    Command::Open(listener, socket) => {
                        let said = format!("open {}", listener.name);
                        opened.insert(listener.name.clone(), socket);
                        said
                    }
                    Command::Stand(listener) => format!("stand {}", listener.name),
                    Command::Update(listener) => format!("update {}", listener.name),
                    Command::Close(name) => {
                        self.sockets.remove(&name);
                        format!("close {name}")
                    }
                    Command::Drain => "drain".to_owned(),
                };
                if number == 0 {
                    first.push(said);
                }
            }
            for (name, socket) in opened {
                let sockets = self.sockets.entry(name).or_default();
                if number == 0 {
                    sockets.clear();
                }
                sockets.push(socket);
            }
        }
        first
    }

    fn status(&self) -> Arc<Listening> {
        self.reconciler.status().load()
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.status().open[&Name::from(name)].socket().unwrap()
    }
}

fn listener(name: &str, address: SocketAddr) -> Listener {
    Listener::http(name, address, HttpManager::new("in", "t"))
}

/// A listener that gets only what others hand over.
fn unbound(name: &str, address: SocketAddr) -> Listener {
    let mut listener = listener(name, address);
    listener.bind = false;
    listener
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn all_workers_listen_on_one_port_when_any_will_do() {
    let mut workers = Workers::new(3);
    assert_eq!(workers.apply(&[("a", any())]), ["open a"]);
    let sockets = &workers.sockets[&Name::from("a")];
    let port = |socket: &Opened| match socket {
        Opened::Tcp(socket) => socket.local_addr().unwrap(),
        Opened::Unix(_) => panic!("not TCP"),
    };
    let ports: HashSet<_> = sockets.iter().map(port).collect();
    assert_eq!((sockets.len(), ports.len()), (3, 1));
    assert!(ports.contains(&workers.address("a")));
    assert_eq!(workers.apply(&[("a", any())]), [""; 0], "nothing changed");
}

#[test]
fn an_address_that_changes_hands_is_never_closed() {
    let mut workers = Workers::new(1);
    workers.apply(&[("a", any())]);
    let address = workers.address("a");
    assert_eq!(workers.apply(&[("b", address)]), ["open b", "close a"]);
    assert_eq!(workers.address("b"), address);
    // Its old sockets may take a moment to close; the next change does not mind.
    assert_eq!(workers.apply(&[]), ["close b"]);
    let kept = accept::listen(address).unwrap();
    assert_eq!(workers.apply(&[("c", address)]), ["open c"]);
    drop(kept);
}

#[test]
fn listeners_can_swap_their_addresses() {
    let mut workers = Workers::new(1);
    workers.apply(&[("a", any())]);
    let first = workers.address("a");
    // Two of them cannot both ask for any port.
    workers.apply(&[("a", first), ("b", any())]);
    let second = workers.address("b");
    assert_eq!(
        workers.apply(&[("a", second), ("b", first)]),
        ["open a", "open b"]
    );
    assert_eq!(workers.address("a"), second);
    assert_eq!(workers.address("b"), first);
}

#[test]
fn a_listener_that_cannot_move_stays_where_it_is() {
    let mut workers = Workers::new(1);
    workers.apply(&[("a", any())]);
    let stranger = TcpListener::bind(any()).unwrap();
    let taken = stranger.local_addr().unwrap();
    assert_eq!(workers.apply(&[("a", taken)]), [""; 0]);
    assert!(workers.status().failed.contains_key(&Name::from("a")));
    drop(stranger);
    assert_eq!(workers.apply(&[("a", taken)]), ["open a"]);
    assert_eq!(workers.address("a"), taken);
}

#[test]
fn an_address_that_was_ours_once_is_not_ours_for_ever() {
    let mut workers = Workers::new(1);
    workers.apply(&[("a", any())]);
    let address = workers.address("a");
    workers.apply(&[]);
    workers.apply(&[("b", any())]);
    // A stranger that shares ports would silently get a part of our connections.
    let _stranger = accept::listen(address).unwrap();
    workers.apply(&[("b", any()), ("a", address)]);
    assert!(workers.status().failed.contains_key(&Name::from("a")));
}

#[test]
fn a_listener_that_is_not_bound_stands_for_an_address_that_is_not_ours() {
    let mut workers = Workers::new(2);
    // TEST-NET-3 (RFC 5737): nobody can bind it.
    let address = "203.0.113.1:80".parse().unwrap();
    let apply = |workers: &mut Workers, listener| workers.apply_all([listener].into_iter());
    assert_eq!(apply(&mut workers, unbound("a", address)), ["stand a"]);
    assert_eq!(workers.address("a"), address);
    let mut changed = unbound("a", address);
    changed.hand_off = true;
    assert_eq!(apply(&mut workers, changed), ["update a"]);
    // It is bound from now on, which fails here, so it stays as it is.
    assert_eq!(apply(&mut workers, listener("a", address)), [""; 0]);
    assert!(workers.status().failed.contains_key(&Name::from("a")));
    assert_eq!(workers.apply(&[]), ["close a"]);
}

#[test]
fn an_address_that_is_only_stood_for_is_not_ours() {
    let mut workers = Workers::new(1);
    let stranger = accept::listen(any()).unwrap();
    let address = stranger.local_addr().unwrap();
    workers.apply_all([unbound("a", address)].into_iter());
    // The stranger shares ports: half of the connections would silently be its.
    workers.apply_all([listener("a", address)].into_iter());
    assert!(workers.status().failed.contains_key(&Name::from("a")));
    drop(stranger);
    assert_eq!(
        workers.apply_all([listener("a", address)].into_iter()),
        ["open a"]
    );
    assert_eq!(
        workers.apply_all([unbound("a", address)].into_iter()),
        ["stand a"]
    );
}

fn unix(name: &str, path: &UnixPath, mode: u32) -> Listener {
    let mut listener = listener(name, any());
    listener.address = path.clone().into();
    listener.mode = mode;
    listener
}

#[test]
fn a_unix_socket_is_shared_by_the_workers_and_changes_hands_without_being_closed() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.sock");
    let path = UnixPath::new(file.to_str().unwrap()).unwrap();
    let identity = || {
        let file = std::fs::metadata(&file).unwrap();
        (file.ino(), file.mode() & 0o777)
    };
    let apply = |workers: &mut Workers, listener| workers.apply_all([listener].into_iter());
    let mut workers = Workers::new(3);
    assert_eq!(apply(&mut workers, unix("a", &path, 0o640)), ["open a"]);
    assert_eq!(workers.sockets[&Name::from("a")].len(), 3);
    let (number, mode) = identity();
    assert_eq!(mode, 0o640);
    // Another mode is no other socket, and another listener takes over the one that is there.
    assert_eq!(apply(&mut workers, unix("a", &path, 0o600)), ["update a"]);
    assert_eq!(identity(), (number, 0o600));
    let told = apply(&mut workers, unix("b", &path, 0o660));
    assert_eq!(told, ["open b", "close a"]);
    assert_eq!(identity(), (number, 0o660));
    assert!(std::os::unix::net::UnixStream::connect(&file).is_ok());
    assert_eq!(workers.apply(&[]), ["close b"]);
    assert!(!file.exists(), "the last user takes the file away");
}

#[test]
fn a_unix_socket_that_somebody_else_listens_on_is_left_to_them() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.sock");
    let path = UnixPath::new(file.to_str().unwrap()).unwrap();
    let stranger = std::os::unix::net::UnixListener::bind(&file).unwrap();
    let mut workers = Workers::new(1);
    let apply = |workers: &mut Workers| workers.apply_all([unix("a", &path, 0)].into_iter());
    assert_eq!(apply(&mut workers), [""; 0]);
    let status = workers.status();
    let failed = &status.failed[&Name::from("a")];
    assert!(failed.contains(path.as_str()), "{failed}");
    drop(stranger);
    assert_eq!(apply(&mut workers), ["open a"]);
}
