use crate::world::*;
use mesh_core::model::{SecretRef, TlsVersion};
use mesh_core::stats::{ClusterStat, ListenerStat};
use mesh_identity::{Acceptor, TlsError, TlsFailure};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_new_certificate_is_used_by_the_next_handshake_and_connections_go_on() {
    let authority = Authority::new("ca");
    let world = World::new([
        ("server", authority.leaf(&["one.test"]).secret()),
        ("ca", authority.trust()),
    ]);
    let acceptor = world.acceptor(server("server"));
    let connector = world.connector(client("ca"));
    let (served, called) = shake(&acceptor, &connector, None).await;
    let ((mut far, _), (mut near, told)) = (served.unwrap(), called.unwrap());
    assert_eq!(told.peer.as_ref().unwrap().dns_names, ["one.test"]);
    for name in ["two.test", "three.test"] {
        let next = Arc::new(authority.leaf(&[name]).secret());
        world.live("server").publish(Some(next));
        let (_, called) = shake(&acceptor, &connector, None).await;
        let told = called.unwrap().1;
        assert_eq!(told.peer.as_ref().unwrap().dns_names, [name]);
        assert!(!told.resumed);
    }
    near.write_all(b"old").await.unwrap();
    near.flush().await.unwrap();
    let mut word = [0; 3];
    far.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"old");
}

#[tokio::test]
async fn sessions_are_resumed_until_a_secret_of_either_side_changes() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        resumes_until_a_secret_changes(version).await;
    }
}

async fn resumes_until_a_secret_changes(version: TlsVersion) {
    let (authority, next) = (Authority::new("ca"), Authority::new("next"));
    let world = World::new([
        ("server", authority.leaf(&["a.test"]).secret()),
        ("caller", authority.leaf(&["spiffe://td/x"]).secret()),
        ("ca", authority.trust()),
        ("callers", authority.trust()),
    ]);
    let acceptor = world.acceptor(mutual("server", "callers"));
    let mut tls = client("ca");
    tls.certificates = vec![SecretRef::local("caller")];
    tls.params.max = Some(version);
    let connector = world.connector(tls);
    let resumed = async || {
        let (served, called) = shake(&acceptor, &connector, None).await;
        let (served, called) = (served.unwrap().1, called.unwrap().1);
        assert_eq!(served.resumed, called.resumed);
        // Who the caller is is known from the session, too.
        assert_eq!(served.peer.as_ref().unwrap().uris, ["spiffe://td/x"]);
        assert!(served.peer.as_ref().unwrap().validated);
        assert_eq!(served.version, Some(version));
        served.resumed
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    // The same again is no change.
    world.live("ca").publish(Some(Arc::new(authority.trust())));
    assert!(resumed().await);
    // Roots of callers: what was trusted with the old ones is checked again.
    let both = [authority.0.pem(), next.0.pem()].concat();
    let both = Arc::new(mesh_core::model::Secret::roots(both));
    world.live("callers").publish(Some(both.clone()));
    assert!(!resumed().await);
    assert!(resumed().await);
    world.live("ca").publish(Some(both));
    assert!(!resumed().await);
    assert!(resumed().await);
    // Roots that do not vouch for the caller end its sessions.
    world.live("callers").publish(Some(Arc::new(next.trust())));
    let (served, _) = shake(&acceptor, &connector, None).await;
    assert_eq!(served.unwrap_err().kind(), TlsFailure::Untrusted);
}

#[tokio::test]
async fn a_secret_that_is_taken_away_refuses_handshakes_until_it_is_back() {
    let authority = Authority::new("ca");
    let secret = Arc::new(authority.leaf(&["a.test"]).secret());
    let world = World::new([
        ("server", (*secret).clone()),
        ("ca", authority.trust()),
        ("other", authority.leaf(&["b.test"]).secret()),
    ]);
    let acceptor = world.acceptor(server("server"));
    let other = world.acceptor(server("other"));
    let connector = world.connector(client("ca"));
    assert!(shake(&acceptor, &connector, None).await.0.is_ok());
    world.live("server").publish(None);
    let (served, called) = shake(&acceptor, &connector, None).await;
    is_missing(&served.unwrap_err());
    assert_eq!(called.unwrap_err().kind(), TlsFailure::Io);
    assert!(shake(&other, &connector, None).await.0.is_ok());
    world.live("server").publish(Some(secret));
    let (served, _) = shake(&acceptor, &connector, None).await;
    assert!(!served.unwrap().1.resumed);
    world.live("ca").publish(None);
    is_missing(&shake(&acceptor, &connector, None).await.1.unwrap_err());
}

#[tokio::test]
async fn a_secret_of_the_wrong_kind_is_as_good_as_none() {
    let authority = Authority::new("ca");
    let world = World::new([
        ("server", authority.leaf(&["a.test"]).secret()),
        ("ca", authority.trust()),
    ]);
    let mut without_lists = client("ca");
    without_lists.validation.as_mut().unwrap().revoked = Some(SecretRef::local("ca"));
    for wrong in [client("server"), client("unknown"), without_lists] {
        let (_, called) = world.shake(server("server"), wrong).await;
        is_missing(&called.unwrap_err());
    }
    let (served, _) = world.shake(server("ca"), client("ca")).await;
    is_missing(&served.unwrap_err());
}

fn is_missing(error: &TlsError) {
    assert_eq!(error.kind(), TlsFailure::NoSecret);
    assert_eq!(
        error.to_string(),
        "TLS error: Secret is not supplied by SDS"
    );
    // As Envoy counts it: `*_context_secrets_not_ready`.
    assert_eq!(error.listener_stat(), Some(ListenerStat::SecretsNotReady));
    assert_eq!(error.cluster_stat(), Some(ClusterStat::SecretsNotReady));
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_leaves_the_last_one_in_use() {
    let authority = Authority::new("ca");
    let good = authority.leaf(&["a.test"]);
    let world = World::new([("server", good.secret()), ("ca", authority.trust())]);
    let acceptor = world.acceptor(server("server"));
    let connector = world.connector(client("ca"));
    assert!(shake(&acceptor, &connector, None).await.0.is_ok());
    let mut wrong = authority.leaf(&["b.test"]);
    wrong.key.clone_from(&good.key);
    world.live("server").publish(Some(Arc::new(wrong.secret())));
    let (served, _) = shake(&acceptor, &connector, None).await;
    let told = served.unwrap().1;
    assert_eq!(told.local_names, ["a.test"]);
    // Nothing in use has changed, so sessions live on.
    assert!(told.resumed);
}

#[tokio::test]
async fn a_certificate_that_goes_while_a_caller_hesitates_is_not_shown() {
    let authority = Authority::new("ca");
    let world = World::new([("server", authority.leaf(&["a.test"]).secret())]);
    let acceptor = world.acceptor(server("server"));
    let connector = world.connector(mesh_core::model::ClientTls::default());
    let (near, far) = tokio::io::duplex(64 << 10);
    let mut accepting = std::pin::pin!(acceptor.accept(far));
    // Waits for the first word.
    let pending = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    world.live("server").publish(None);
    let (served, called) = tokio::join!(accepting, connector.connect(near, None));
    is_missing(&served.unwrap_err());
    assert!(called.is_err());
}

#[tokio::test]
async fn no_handshake_fails_while_secrets_are_replaced_under_way() {
    let authority = Authority::new("ca");
    let leaves: Vec<_> = (0..4)
        .map(|_| Arc::new(authority.leaf(&["a.test"]).secret()))
        .collect();
    let world = World::new([("server", (*leaves[0]).clone()), ("ca", authority.trust())]);
    let acceptor = world.acceptor(mutual("server", "ca"));
    let mut tls = client("ca");
    tls.certificates = vec![SecretRef::local("server")];
    let connector = world.connector(tls);
    // Everything runs on one thread, and each handshake lets the others go first several times.
    let handshakes = async {
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            running.spawn(async move { shake(&acceptor, &connector, None).await });
            tokio::task::yield_now().await;
        }
        for (served, called) in running.join_all().await {
            served.unwrap();
            called.unwrap();
        }
    };
    let rotation = async {
        for leaf in leaves.iter().cycle().take(60) {
            world.live("server").publish(Some(leaf.clone()));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(handshakes, rotation);
}

#[tokio::test]
async fn an_acceptor_that_is_alone_has_its_secrets_in_a_snapshot_of_its_own() {
    let authority = Authority::new("ca");
    let world = World::new([("ca", authority.trust())]);
    let connector = world.connector(client("ca"));
    let named = SecretRef::local("server");
    let secret = Arc::new(authority.leaf(&["a.test"]).secret());
    let tls = Arc::new(server("server"));
    let (acceptor, snapshot) = Acceptor::alone(tls.clone(), [(named.clone(), secret)]).unwrap();
    let (served, called) = shake(&acceptor, &connector, None).await;
    assert_eq!(served.unwrap().1.local_names, ["a.test"]);
    assert!(called.is_ok());
    // Whoever follows the snapshot brings the next one.
    let next = Arc::new(authority.leaf(&["b.test"]).secret());
    snapshot.secret(&named).unwrap().publish(Some(next));
    let (served, _) = shake(&acceptor, &connector, None).await;
    assert_eq!(served.unwrap().1.local_names, ["b.test"]);

    let (acceptor, snapshot) = Acceptor::alone(tls, []).unwrap();
    let (served, _) = shake(&acceptor, &connector, None).await;
    assert!(served.is_err(), "it has not come yet");
    let late = Arc::new(authority.leaf(&["c.test"]).secret());
    snapshot.secret(&named).unwrap().publish(Some(late));
    let (served, _) = shake(&acceptor, &connector, None).await;
    assert_eq!(served.unwrap().1.local_names, ["c.test"]);
}
