//! Transport security at random.

use http::{HeaderName, HeaderValue};
use mesh_core::Name;
use mesh_core::model::{
    SecretName, SecretRef, SecretSource, ServerTls, StreamOpening, StringMatch, TlsVersion,
    Validation,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::time::Duration;

fn name() -> BoxedStrategy<Name> {
    prop_oneof!["[a-z0-9._|;]{1,12}", "kubernetes://[a-z]{1,5}"]
        .prop_map(Name::from)
        .boxed()
}

pub(crate) fn source() -> BoxedStrategy<SecretSource> {
    let wait = || {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_secs(15)),
            (1_u64..100_000).prop_map(Duration::from_millis)
        ]
    };
    let watched = prop_oneof![Just(String::new()), "/[a-z]{1,5}".prop_map(String::from)];
    prop_oneof![
        Just(SecretSource::Local),
        wait().prop_map(|wait| SecretSource::ControlPlane {
            initial_fetch_timeout: wait
        }),
        (name(), any::<bool>(), opening(), wait()).prop_map(|(cluster, delta, opening, wait)| {
            SecretSource::Service {
                cluster,
                delta,
                opening,
                initial_fetch_timeout: wait,
            }
        }),
        ("/[a-z]{1,5}", watched).prop_map(|(path, watched)| SecretSource::File {
            path: path.into(),
            watched: watched.into(),
        }),
    ]
    .boxed()
}

fn opening() -> impl Strategy<Value = StreamOpening> {
    let authority = prop_oneof![Just(String::new()), "[a-z]{1,6}(:[1-9][0-9]{0,3})?"];
    // Bytes above those of ASCII are no UTF-8 mostly.
    let value = vec(prop_oneof![0x20_u8..0x7f, Just(b'%'), 0x80_u8..], 1..9);
    let value = value.prop_filter_map("a header", |bytes| {
        let text = bytes.trim_ascii();
        HeaderValue::from_bytes(text)
            .ok()
            .filter(|_| !text.is_empty())
    });
    let name = "x-[a-z]{1,5}".prop_map(|name| name.parse::<HeaderName>().unwrap());
    (authority, vec((name, value), 0..3)).prop_map(|(authority, metadata)| {
        let mut opening = StreamOpening::default();
        opening.authority = authority.into();
        opening.metadata = metadata.into();
        opening
    })
}

fn file() -> impl Strategy<Value = String> {
    "/[a-z]{1,5}\\.pem"
}

pub(crate) fn certificate() -> BoxedStrategy<SecretRef> {
    let files = (file(), file()).prop_map(|(certificate, key)| {
        let (certificate, key) = (&*certificate, &*key);
        SecretRef::local(SecretName::CertificateFiles { certificate, key }.to_name())
    });
    let other = (name(), source()).prop_map(|(name, source)| SecretRef { name, source });
    prop_oneof![files, other].boxed()
}

pub(crate) fn validation() -> BoxedStrategy<Validation> {
    let roots = prop_oneof![
        file().prop_map(|file| SecretRef::local(SecretName::RootFile(&file).to_name())),
        Just(SecretRef::local(SecretName::SystemRoots.to_name())),
        (name(), source()).prop_map(|(name, source)| SecretRef { name, source }),
    ];
    let revoked = file();
    let revoked =
        revoked.prop_map(|file| SecretRef::local(SecretName::RevokedFile(&file).to_name()));
    let alt = prop_oneof![
        "[a-z:/.]{1,9}".prop_map(StringMatch::Exact),
        "[a-z:/.]{1,9}".prop_map(StringMatch::Prefix),
        "[a-z:/.]{1,9}".prop_map(StringMatch::SuffixIgnoreCase),
    ];
    let digests = || vec(any::<[u8; 32]>(), 0..3);
    let flags = (any::<bool>(), any::<bool>());
    let rest = (vec(alt, 0..3), digests(), digests(), flags);
    (option::of((roots, option::of(revoked))), rest)
        .prop_map(|(roots, rest)| {
            let mut validation = Validation::default();
            if let Some((roots, revoked)) = roots {
                validation.roots = Some(roots);
                validation.revoked = revoked;
                validation.subject_alt_names = rest.0;
            }
            validation.hashes = rest.1;
            validation.spki = rest.2;
            (validation.accept_untrusted, validation.only_leaf_revocation) = rest.3;
            validation
        })
        .boxed()
}

pub(crate) fn server_tls() -> BoxedStrategy<ServerTls> {
    let version = || {
        prop_oneof![
            Just(None),
            Just(Some(TlsVersion::V1_2)),
            Just(Some(TlsVersion::V1_3)),
        ]
    };
    let cipher = prop_oneof![
        Just("ECDHE-RSA-AES128-GCM-SHA256"),
        Just("ECDHE-ECDSA-CHACHA20-POLY1305"),
    ];
    let group = prop_oneof![Just("X25519"), Just("P-256"), Just("X25519MLKEM768")];
    let params = (
        version(),
        version(),
        vec(cipher.prop_map(Name::from), 0..3),
        vec(group.prop_map(Name::from), 0..3),
    );
    let alpn = vec("[a-z0-9/.]{1,8}".prop_map(Name::from), 0..3);
    let rest = (option::of(validation()), any::<bool>());
    (params, alpn, vec(certificate(), 1..4), rest)
        .prop_map(|(params, alpn, certificates, rest)| {
            let mut tls = ServerTls::default();
            (tls.params.min, tls.params.max) = (params.0, params.1);
            if params.1.is_some_and(|max| params.0 > Some(max)) {
                tls.params.min = None;
            }
            tls.params.ciphers = params.2;
            tls.params.groups = params.3;
            tls.alpn = alpn;
            tls.certificates = certificates;
            (tls.validation, tls.require_client_certificate) = rest;
            tls
        })
        .boxed()
}
