use crate::world::*;
use mesh_core::Name;
use mesh_core::model::{ClientTls, SecretRef, ServerTls, TlsVersion};

fn several(names: &[&str]) -> ServerTls {
    let mut tls = ServerTls::default();
    tls.certificates = names.iter().map(|name| SecretRef::local(*name)).collect();
    tls
}

fn asking(name: &str) -> ClientTls {
    let mut tls = ClientTls::default();
    tls.sni = name.into();
    tls
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_asked_for() {
    let authority = Authority::new("ca");
    let world = World::new([
        ("first", authority.leaf(&["first.test"]).secret()),
        ("wild", authority.leaf(&["*.b.test"]).secret()),
        ("exact", authority.leaf(&["x.b.test"]).secret()),
    ]);
    let acceptor = world.acceptor(several(&["first", "wild", "exact"]));
    for (asked, shown) in [
        ("first.test", "first.test"),
        ("x.b.test", "x.b.test"),
        ("X.B.test", "x.b.test"),
        ("y.b.test", "*.b.test"),
        ("z.y.b.test", "first.test"),
        ("unknown.test", "first.test"),
        ("", "first.test"),
    ] {
        let (served, called) = shake(&acceptor, &world.connector(asking(asked)), None).await;
        let told = called.unwrap().1;
        assert_eq!(told.peer.as_ref().unwrap().dns_names, [shown], "{asked}");
        assert_eq!(served.unwrap().1.local_names, [shown]);
    }
}

#[tokio::test]
async fn of_two_certificates_for_a_name_the_client_gets_the_kind_that_it_knows() {
    let authority = Authority::new("ca");
    let rsa = authority.leaf_for(&rcgen::PKCS_RSA_SHA256, &["a.test"]);
    let ecdsa = authority.leaf_for(&rcgen::PKCS_ECDSA_P256_SHA256, &["a.test"]);
    let world = World::new([("rsa", rsa.secret()), ("ecdsa", ecdsa.secret())]);
    let mut tls = several(&["rsa", "ecdsa"]);
    tls.params.max = Some(TlsVersion::V1_2);
    let acceptor = world.acceptor(tls);
    for (ciphers, shown) in [
        (&[][..], &ecdsa),
        (&["ECDHE-ECDSA-AES128-GCM-SHA256"], &ecdsa),
        (&["ECDHE-RSA-AES128-GCM-SHA256"], &rsa),
    ] {
        let mut client = asking("a.test");
        client.params.max = Some(TlsVersion::V1_2);
        client.params.ciphers = ciphers.iter().map(|name| Name::from(*name)).collect();
        let (_, called) = shake(&acceptor, &world.connector(client), None).await;
        let told = called.unwrap().1;
        assert!(
            *told.peer.as_ref().unwrap().der == *shown.der,
            "{ciphers:?}"
        );
    }
}

#[tokio::test]
async fn every_kind_of_key_serves() {
    let authority = Authority::new("ca");
    for kind in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ] {
        let leaf = authority.leaf_for(kind, &["a.test"]);
        let world = World::new([("leaf", leaf.secret()), ("ca", authority.trust())]);
        let (_, called) = world.shake(server("leaf"), client("ca")).await;
        assert!(
            called.unwrap().1.peer.as_ref().unwrap().validated,
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn the_protocol_inside_is_the_servers_first_that_both_know_or_none() {
    let authority = Authority::new("ca");
    let world = World::new([("server", authority.leaf(&["a.test"]).secret())]);
    for (ours, theirs, agreed) in [
        (&["h2", "http/1.1"][..], &["http/1.1", "h2"][..], "h2"),
        (&["h2", "http/1.1"], &["http/1.1"], "http/1.1"),
        (&["h2"], &["istio"], ""),
        (&["h2"], &[], ""),
        (&[], &["h2"], ""),
    ] {
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        let mut tls = server("server");
        tls.alpn = names(ours);
        let mut client = ClientTls::default();
        client.alpn = names(theirs);
        let (served, called) = world.shake(tls, client).await;
        assert_eq!(served.unwrap().1.alpn, agreed, "{ours:?} {theirs:?}");
        assert_eq!(called.unwrap().1.alpn, agreed);
    }
}
