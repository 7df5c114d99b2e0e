use super::*;
use crate::accept::Accept;
use std::os::unix::net::UnixStream as Caller;
use std::path::PathBuf;

/// A directory of its own, and a socket's path in it.
fn place() -> (tempfile::TempDir, UnixPath, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.sock");
    let path = UnixPath::new(file.to_str().unwrap()).unwrap();
    (dir, path, file)
}

fn open(path: &UnixPath) -> UnixSocket {
    let socket = UnixSocket::bind(path, 0).unwrap();
    socket.listen().unwrap();
    socket
}

#[tokio::test]
async fn the_file_has_its_mode_before_anybody_can_connect_and_goes_with_the_last_user() {
    let (_dir, path, file) = place();
    let socket = UnixSocket::bind(&path, 0o640).unwrap();
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o640);
    assert!(Caller::connect(&file).is_err(), "nobody listens yet");
    socket.listen().unwrap();
    socket.set_mode(0o600).unwrap();
    assert_eq!(mode(), 0o600);
    let worker = socket.clone().accepting().unwrap();
    let in_use = socket.in_use();
    drop(socket);
    let _caller = Caller::connect(&file).unwrap();
    let ready = worker.next().await;
    assert_eq!((ready.peer, ready.local), (NOWHERE, Some(NOWHERE)));
    drop(in_use.get().unwrap());
    drop(worker);
    assert!(!file.exists());
    assert!(in_use.get().is_none());
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let (_dir, path, file) = place();
    let _theirs = StdListener::bind(&file).unwrap();
    let error = UnixSocket::bind(&path, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(Caller::connect(&file).is_ok());
}

#[test]
fn the_file_of_a_socket_that_was_closed_is_replaced() {
    let (_dir, path, file) = place();
    drop(StdListener::bind(&file).unwrap());
    assert!(file.exists());
    let _socket = open(&path);
    assert!(Caller::connect(&file).is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let (_dir, path, file) = place();
    fs::write(&file, "precious").unwrap();
    let error = UnixSocket::bind(&path, 0).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn what_another_put_in_its_place_stays() {
    let (_dir, path, file) = place();
    let ours = open(&path);
    fs::remove_file(&file).unwrap();
    let _theirs = StdListener::bind(&file).unwrap();
    drop(ours);
    assert!(Caller::connect(&file).is_ok());
}

#[tokio::test]
async fn what_the_kernel_has_accepted_is_served_by_whoever_shares_the_socket() {
    let (_dir, path, file) = place();
    let socket = open(&path);
    let workers = [(); 3].map(|()| socket.clone().accepting().unwrap());
    // They stay while the others come.
    let callers = [(); 100].map(|()| Caller::connect(&file).unwrap());
    let accepted: usize = workers.into_iter().map(|one| one.waiting().len()).sum();
    assert_eq!(accepted, callers.len());
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_has_no_file_and_belongs_to_one() {
    let name = format!("@mesh-proxy-accept-{}", std::process::id());
    let path = UnixPath::new(&name).unwrap();
    let socket = open(&path);
    assert!(!std::path::Path::new(&name).exists());
    let error = UnixSocket::bind(&path, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(socket);
    open(&path);
}
