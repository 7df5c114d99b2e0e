//! Who somebody is: SPIFFE identities, and what workloads send to a certificate authority.

use crate::{Input, Target};
use mesh_identity::SpiffeId;
use mesh_identity::fuzz::read_request;

/// `spiffe_id`: the text of an identity.
pub(crate) const SPIFFE: Target = Target {
    name: "spiffe_id",
    run: spiffe,
    input: Input::Text,
};

/// `certificate_request`: PKCS #10 as DER.
pub(crate) const REQUEST: Target = Target {
    name: "certificate_request",
    run: request,
    input: Input::Bytes,
};

fn spiffe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(id) = text.parse::<SpiffeId>() else {
        return;
    };
    // One identity has one text.
    assert_eq!(id.as_str(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert!(id.path().is_empty() || id.path().starts_with('/'));
    assert!(!id.trust_domain().contains('/'));
    if let Some((namespace, account)) = id.workload() {
        let made = SpiffeId::of_workload(id.trust_domain(), namespace, account);
        assert_eq!(made, Ok(id.clone()));
    }
}

fn request(data: &[u8]) {
    // As it comes, and as somebody who writes PEM would send it.
    let _ = read_request(data);
    let text = crate::certificate::wrap("CERTIFICATE REQUEST", data, "\n");
    let read = read_request(text.as_bytes());
    assert_eq!(read, read_request(text.as_bytes()));
    if read.is_ok() {
        // Nothing but one whole request is one.
        let twice = [&text[..], &text].concat();
        assert!(read_request(twice.as_bytes()).is_err());
        let longer = crate::certificate::wrap("CERTIFICATE REQUEST", &[data, &[0]].concat(), "\n");
        assert!(read_request(longer.as_bytes()).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_requests() {
        for text in [
            include_str!("../seeds/certificate_request/p256"),
            include_str!("../seeds/certificate_request/p384"),
            include_str!("../seeds/certificate_request/rsa2048"),
        ] {
            let der = REQUEST.seed(text).unwrap();
            let pem = crate::certificate::wrap("CERTIFICATE REQUEST", &der, "\n");
            assert_eq!(read_request(pem.as_bytes()), Ok(()));
        }
    }
}
