use crate::world::*;
use mesh_core::model::{ClientTls, SecretRef, StringMatch, TlsVersion};
use mesh_identity::TlsFailure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SPIFFE: &str = "spiffe://td/ns/a/sa/b";

fn world() -> World {
    let authority = Authority::new("ca");
    World::new([
        (
            "server",
            authority
                .leaf(&["a.test", "spiffe://td/ns/a/sa/server"])
                .secret(),
        ),
        ("caller", authority.leaf(&[SPIFFE]).secret()),
        (
            "stranger",
            Authority::new("other").leaf(&["x.test"]).secret(),
        ),
        ("ca", authority.trust()),
    ])
}

#[tokio::test]
async fn without_a_validation_anything_is_accepted_and_nobody_is_asked() {
    let world = world();
    let mut client = ClientTls::default();
    client.certificates = vec![SecretRef::local("caller")];
    let (served, called) = world.shake(server("stranger"), client).await;
    let (served, called) = (served.unwrap().1, called.unwrap().1);
    assert_eq!(served.peer, None);
    let peer = called.peer.as_ref().unwrap();
    assert!(!peer.validated);
    assert_eq!(peer.dns_names, ["x.test"]);
    assert_eq!(called.server_name, "");
    assert_eq!(served.server_name, "");
}

#[tokio::test]
async fn both_sides_know_each_other_after_mutual_tls() {
    let world = world();
    let mut client = client("ca");
    client.certificates = vec![SecretRef::local("caller")];
    client.sni = "a.test".into();
    client.auto_san = true;
    let (served, called) = world.shake(mutual("server", "ca"), client).await;
    let (served, called) = (served.unwrap().1, called.unwrap().1);
    let caller = served.peer.as_ref().unwrap();
    assert!(caller.validated);
    assert_eq!(caller.uris, [SPIFFE]);
    assert_eq!(caller.issuer, "CN=ca");
    assert_eq!(served.local_names, ["spiffe://td/ns/a/sa/server", "a.test"]);
    assert_eq!(served.server_name, "a.test");
    assert_eq!(called.server_name, "a.test");
    assert_eq!(called.local_names, [SPIFFE]);
    assert!(called.peer.as_ref().unwrap().validated);
    assert_eq!(called.version, Some(TlsVersion::V1_3));
    assert_eq!(called.cipher, "TLS_AES_256_GCM_SHA384");
    assert_eq!(called.cipher, served.cipher);
}

#[tokio::test]
async fn a_certificate_that_is_not_required_may_be_missing_but_not_wrong() {
    let world = world();
    let mut optional = mutual("server", "ca");
    optional.require_client_certificate = false;
    let (served, called) = world.shake(optional.clone(), client("ca")).await;
    assert_eq!(served.unwrap().1.peer, None);
    assert!(called.is_ok());
    let mut client = client("ca");
    client.certificates = vec![SecretRef::local("stranger")];
    let (served, _) = world.shake(optional, client).await;
    assert!(served.is_err());
}

// Envoy does so, as nobody without a certificate has one of the names or pins.
#[tokio::test]
async fn a_certificate_of_which_names_or_pins_are_asked_may_not_be_missing() {
    let world = world();
    let pin = [7; 32];
    for asked in 0..3 {
        let mut optional = mutual("server", "ca");
        optional.require_client_certificate = false;
        let validation = optional.validation.as_mut().unwrap();
        match asked {
            0 => validation.subject_alt_names = vec![StringMatch::Prefix("spiffe://".into())],
            1 => validation.hashes = vec![pin],
            _ => validation.spki = vec![pin],
        }
        let (served, called) = world.shake(optional.clone(), client("ca")).await;
        assert_eq!(
            served.unwrap_err().kind(),
            TlsFailure::NoCertificate,
            "{asked}"
        );
        assert!(called.is_err(), "{asked}");
        optional.validation.as_mut().unwrap().accept_untrusted = true;
        let (served, _) = world.shake(optional, client("ca")).await;
        assert_eq!(served.unwrap().1.peer, None, "{asked}");
    }
}

#[tokio::test]
async fn an_untrusted_certificate_may_be_accepted_and_is_not_validated() {
    let world = world();
    let mut accepting = mutual("server", "ca");
    accepting.validation.as_mut().unwrap().accept_untrusted = true;
    for (shown, validated) in [("stranger", false), ("caller", true)] {
        let mut client = client("ca");
        client.certificates = vec![SecretRef::local(shown)];
        let (served, _) = world.shake(accepting.clone(), client).await;
        let told = served.unwrap().1;
        assert_eq!(told.peer.as_ref().unwrap().validated, validated, "{shown}");
    }
}

#[tokio::test]
async fn versions_and_ciphers_are_those_chosen() {
    let world = world();
    let mut tls = server("server");
    tls.params.max = Some(TlsVersion::V1_2);
    tls.params.ciphers = vec!["ECDHE-ECDSA-CHACHA20-POLY1305".into()];
    let (served, _) = world.shake(tls, client("ca")).await;
    let told = served.unwrap().1;
    assert_eq!(told.version, Some(TlsVersion::V1_2));
    assert_eq!(told.cipher, "ECDHE-ECDSA-CHACHA20-POLY1305");
}

#[tokio::test]
async fn names_of_every_kind_are_matched() {
    let authority = Authority::new("ca");
    let names = ["*.a.test", SPIFFE, "10.1.2.3", "ops@a.test"];
    let world = World::new([
        ("server", authority.leaf(&names).secret()),
        ("ca", authority.trust()),
    ]);
    for (want, accepted) in [
        (StringMatch::Exact("b.a.test".into()), true),
        (StringMatch::Exact("c.b.a.test".into()), false),
        (StringMatch::Exact(SPIFFE.into()), true),
        (StringMatch::Prefix("spiffe://td/".into()), true),
        (StringMatch::Prefix("spiffe://other/".into()), false),
        (StringMatch::Exact("10.1.2.3".into()), true),
        (StringMatch::Exact("10.1.2.4".into()), false),
        (StringMatch::Exact("ops@a.test".into()), true),
    ] {
        let mut client = client("ca");
        client.validation.as_mut().unwrap().subject_alt_names = vec![want.clone()];
        let (_, called) = world.shake(server("server"), client).await;
        assert_eq!(called.is_ok(), accepted, "{want}");
    }
}

#[tokio::test]
async fn the_host_of_the_request_is_asked_for_and_checked() {
    let authority = Authority::new("ca");
    let world = World::new([
        (
            "server",
            authority.leaf(&["a.test", "10.1.2.3", "::1"]).secret(),
        ),
        ("ca", authority.trust()),
    ]);
    let mut tls = client("ca");
    tls.auto_sni = true;
    tls.auto_san = true;
    let (acceptor, connector) = (world.acceptor(server("server")), world.connector(tls));
    for (host, asked, accepted) in [
        (Some("a.test"), "a.test", true),
        (Some("a.test:8443"), "a.test", true),
        (Some("b.test"), "b.test", false),
        (Some("10.1.2.3:443"), "", true),
        (Some("[::1]:443"), "", true),
        (Some("10.1.2.4"), "", false),
        (None, "", false),
        (Some("not a name"), "", false),
    ] {
        let (_, called) = shake(&acceptor, &connector, host).await;
        assert_eq!(called.is_ok(), accepted, "{host:?} {called:?}");
        match called {
            Ok((_, told)) => assert_eq!(told.server_name, asked),
            Err(error) => {
                let (said, sent) = (error.to_string(), host.unwrap_or_default());
                let sent = if sent.contains(' ') { "" } else { sent };
                let expected = format!("verify SAN list, expected SANs: [{sent}], ");
                assert!(said.contains(&expected), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let world = world();
    let (served, called) = world.shake(server("server"), client("ca")).await;
    let ((mut far, _), (mut near, _)) = (served.unwrap(), called.unwrap());
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(far.read_to_end(&mut rest).await.unwrap(), 0);
    far.write_all(b"still here").await.unwrap();
    // Hanging up without a word is an end, too.
    far.flush().await.unwrap();
    drop(far);
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"still here");
}
