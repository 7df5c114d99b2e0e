//! Authorities, certificates and a snapshot with secrets.

use mesh_core::exchange::TlsInfo;
use mesh_core::model::{
    ClientTls, Cluster, LiveSecret, Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder,
    Validation,
};
use mesh_identity::{Acceptor, Connector, TlsError, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

pub(crate) type Stream = TlsStream<DuplexStream>;
pub(crate) type Side = Result<(Stream, Arc<TlsInfo>), TlsError>;

/// An authority.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM and DER.
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
    pub(crate) public: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    pub(crate) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn trust(&self) -> Secret {
        Secret::roots(self.0.pem())
    }

    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| {})
    }

    pub(crate) fn leaf_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        self.leaf_of(KeyPair::generate().unwrap(), names, change)
    }

    pub(crate) fn leaf_for(&self, kind: &'static SignatureAlgorithm, names: &[&str]) -> Leaf {
        self.leaf_of(KeyPair::generate_for(kind).unwrap(), names, |_| {})
    }

    fn leaf_of(
        &self,
        key: KeyPair,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = params(names);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Leaf {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
            public: rcgen::PublicKeyData::subject_public_key_info(&key),
        }
    }

    /// A list of revoked certificates.
    pub(crate) fn revokes(&self, serials: &[u64], until: i32) -> Vec<u8> {
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap().into_bytes()
    }
}

pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "leaf");
    for name in names {
        params.subject_alt_names.push(match *name {
            uri if uri.contains("://") => SanType::URI(uri.try_into().unwrap()),
            mail if mail.contains('@') => SanType::Rfc822Name(mail.try_into().unwrap()),
            name => match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into().unwrap()),
            },
        });
    }
    params
}

impl Leaf {
    pub(crate) fn secret(&self) -> Secret {
        Secret::certificate(self.chain.as_bytes(), self.key.as_bytes())
    }
}

/// Secrets by name, and both sides.
pub(crate) struct World {
    pub(crate) snapshot: Arc<Snapshot>,
}

impl World {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, Secret)>) -> Self {
        let mut builder = SnapshotBuilder::new();
        let mut tls = ClientTls::default();
        for (name, secret) in secrets {
            tls.certificates.push(SecretRef::local(name));
            builder.secret(SecretRef::local(name), Arc::new(secret));
        }
        let mut cluster = Cluster::new("all");
        cluster.tls = Some(Arc::new(tls));
        builder.cluster(cluster);
        let (snapshot, _) = builder.build().unwrap();
        Self { snapshot }
    }

    pub(crate) fn live(&self, name: &str) -> Arc<LiveSecret> {
        self.snapshot
            .secret(&SecretRef::local(name))
            .unwrap()
            .clone()
    }

    pub(crate) fn acceptor(&self, tls: ServerTls) -> Acceptor {
        Acceptor::new(Arc::new(tls), |name| self.snapshot.secret(name).cloned()).unwrap()
    }

    pub(crate) fn connector(&self, tls: ClientTls) -> Connector {
        Connector::new(Arc::new(tls), |name| self.snapshot.secret(name).cloned()).unwrap()
    }

    pub(crate) async fn shake(&self, server: ServerTls, client: ClientTls) -> (Side, Side) {
        shake(&self.acceptor(server), &self.connector(client), None).await
    }
}

/// One handshake. Where both sides succeed a word goes each way, so that a refusal that comes late
/// (TLS 1.3) is seen, and the sessions are known to the client.
pub(crate) async fn shake(
    acceptor: &Acceptor,
    connector: &Connector,
    host: Option<&str>,
) -> (Side, Side) {
    let (near, far) = duplex(64 << 10);
    let serve = async {
        let (mut stream, told) = acceptor.accept(far).await?;
        let mut word = [0; 4];
        stream
            .read_exact(&mut word)
            .await
            .map_err(TlsError::from_io)?;
        stream.write_all(&word).await.map_err(TlsError::from_io)?;
        stream.flush().await.map_err(TlsError::from_io)?;
        Ok((stream, told))
    };
    let call = async {
        let (mut stream, told) = connector.connect(near, host).await?;
        stream.write_all(b"ping").await.map_err(TlsError::from_io)?;
        stream.flush().await.map_err(TlsError::from_io)?;
        let mut word = [0; 4];
        stream
            .read_exact(&mut word)
            .await
            .map_err(TlsError::from_io)?;
        assert_eq!(&word, b"ping");
        Ok((stream, told))
    };
    tokio::join!(serve, call)
}

pub(crate) fn server(certificate: &str) -> ServerTls {
    let mut tls = ServerTls::default();
    tls.certificates = vec![SecretRef::local(certificate)];
    tls
}

/// A server that checks callers.
pub(crate) fn mutual(certificate: &str, roots: &str) -> ServerTls {
    let mut tls = server(certificate);
    tls.validation = Some(trusting(roots));
    tls.require_client_certificate = true;
    tls
}

/// A client that checks endpoints.
pub(crate) fn client(roots: &str) -> ClientTls {
    let mut tls = ClientTls::default();
    tls.validation = Some(trusting(roots));
    tls
}

pub(crate) fn trusting(roots: &str) -> Validation {
    let mut validation = Validation::default();
    validation.roots = Some(SecretRef::local(roots));
    validation
}
