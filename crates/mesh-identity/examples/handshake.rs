//! Mutual TLS over a pipe in memory, and a certificate that is replaced under way.
//!
//! ```text
//! cargo run -p mesh-identity --example handshake
//! ```

use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretRef, ServerTls, SnapshotBuilder, StringMatch, Validation,
};
use mesh_identity::{Acceptor, Connector, check_secret};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use std::error::Error;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // An authority and two certificates. In a mesh they come from files, from a secret discovery
    // service, or from a control plane.
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "example authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let certificate = |identity: &str| -> Result<Secret, Box<dyn Error>> {
        let mut params = CertificateParams::new([])?;
        params
            .subject_alt_names
            .push(SanType::URI(identity.try_into()?));
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &authority)?;
        let secret = Secret::certificate(leaf.pem(), key.serialize_pem());
        check_secret(&secret)?;
        Ok(secret)
    };
    let reviews = "spiffe://cluster.local/ns/default/sa/reviews";
    let ratings = "spiffe://cluster.local/ns/default/sa/ratings";

    // How both sides are secured. Secrets are named, not held.
    let mut validation = Validation::default();
    validation.roots = Some(SecretRef::local("ROOTCA"));
    let mut server = ServerTls::default();
    server.certificates = vec![SecretRef::local("ratings")];
    server.validation = Some(validation.clone());
    server.require_client_certificate = true;
    server.alpn = vec!["h2".into(), "http/1.1".into()];
    let mut client = ClientTls::default();
    client.certificates = vec![SecretRef::local("reviews")];
    validation.subject_alt_names = vec![StringMatch::Exact(ratings.to_owned())];
    client.validation = Some(validation);
    client.alpn = vec!["h2".into()];
    client.sni = "ratings.default.svc.cluster.local".into();

    // A snapshot holds the secrets; here one cluster names all of them.
    let mut builder = SnapshotBuilder::new();
    let mut cluster = Cluster::new("ratings");
    let mut names = client.clone();
    names.certificates.extend(server.certificates.clone());
    cluster.tls = Some(Arc::new(names));
    builder.cluster(cluster);
    builder.secret(SecretRef::local("reviews"), Arc::new(certificate(reviews)?));
    builder.secret(SecretRef::local("ratings"), Arc::new(certificate(ratings)?));
    builder.secret(
        SecretRef::local("ROOTCA"),
        Arc::new(Secret::roots(authority.pem())),
    );
    let (snapshot, _) = builder.build()?;

    let acceptor = Acceptor::new(Arc::new(server), |name| snapshot.secret(name).cloned())?;
    let connector = Connector::new(Arc::new(client), |name| snapshot.secret(name).cloned())?;

    for round in ["first", "again", "rotated"] {
        if round == "rotated" {
            let live = snapshot.secret(&SecretRef::local("ratings"));
            let live = live.ok_or("the snapshot has no such secret")?;
            live.publish(Some(Arc::new(certificate(ratings)?)));
        }
        let (near, far) = duplex(16 << 10);
        let serve = async {
            let (mut stream, told) = acceptor.accept(far).await?;
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await?;
            stream.write_all(b"five stars").await?;
            stream.shutdown().await?;
            Ok::<_, Box<dyn Error>>(told)
        };
        let call = async {
            let (mut stream, told) = connector.connect(near, None).await?;
            stream.write_all(b"what do they say?").await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, Box<dyn Error>>((told, answer))
        };
        let (served, called) = tokio::join!(serve, call);
        let (served, (called, answer)) = (served?, called?);
        println!("{round}: {answer}");
        println!("  resumed       {}", called.resumed);
        println!("  cipher        {} inside {}", called.cipher, called.alpn);
        println!("  asked for     {}", served.server_name);
        if let (Some(caller), Some(endpoint)) = (&served.peer, &called.peer) {
            println!(
                "  caller        {} validated {}",
                caller.uris[0], caller.validated
            );
            println!(
                "  endpoint      {} …{}",
                endpoint.uris[0],
                &endpoint.fingerprint[..8]
            );
        }
    }
    Ok(())
}
