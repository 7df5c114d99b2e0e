//! What is told about a handshake that is over.

use crate::verify::{Checker, Peer};
use crate::{names, params};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::TlsVersion;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};
use rustls_pki_types::ServerName;
use std::sync::Arc;

pub(crate) fn of(
    connection: &CommonState,
    checker: &Checker,
    name: Option<&ServerName<'_>>,
    kind: Peer,
) -> TlsInfo {
    let mut told = TlsInfo::default();
    if let Some(protocol) = connection.alpn_protocol() {
        told.alpn = String::from_utf8_lossy(protocol).into_owned().into();
    }
    told.version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::V1_3),
        Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::V1_2),
        _ => None,
    };
    if let Some(suite) = connection.negotiated_cipher_suite() {
        told.cipher = params::openssl_name(suite.suite());
    }
    if let Some(group) = connection.negotiated_key_exchange_group() {
        told.group = params::group_name(group.name());
    }
    told.resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    if let Some(chain) = connection.peer_certificates()
        && let Some(leaf) = chain.first()
    {
        let mut peer = names::peer(leaf, checker.validates(chain, name, kind));
        peer.issuers = chain[1..].iter().map(|der| Arc::from(&**der)).collect();
        told.peer = Some(peer);
    }
    told
}
