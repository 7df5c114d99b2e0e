//! A token taken apart, nothing of it believed.

use super::base64::decode;
use super::json;
use super::status::{JwtStatus, TextClaim, TimeClaim};
use mesh_core::Claim;
use std::time::Duration;

/// What tokens may be signed with (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are called what they are")]
#[non_exhaustive]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// A token in compact form (RFC 7519), its signature unchecked.
#[derive(Clone, Debug)]
pub struct Token {
    pub(super) algorithm: Algorithm,
    /// The name of its key; empty where it has none.
    pub(super) key_id: String,
    /// What is signed: header and payload as they came.
    signed: String,
    /// Where the payload begins in that.
    payload_at: usize,
    pub(super) signature: Vec<u8>,
    pub(super) payload: Claim,
    pub(super) audiences: Vec<String>,
    not_before: u64,
    expires: u64,
}

// === impl Algorithm ===

impl Algorithm {
    const ALL: [(&'static str, Self); 13] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("EdDSA", Self::EdDsa),
    ];

    /// By its name, e.g. `RS256`.
    pub fn of_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, algorithm)| *algorithm)
    }
}

// === impl Token ===

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong with it. The order of the checks is Envoy's.
    pub fn parse(text: &[u8]) -> Result<Self, JwtStatus> {
        let mut parts = text.split(|byte| *byte == b'.').filter(|it| !it.is_empty());
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtStatus::BadFormat);
        };
        let decoded = decode(header).ok_or(JwtStatus::HeaderBadBase64)?;
        let fields = json::object(&decoded).ok_or(JwtStatus::HeaderBadJson)?;
        let name = fields.at(&["alg"]).and_then(Claim::text);
        let name = name.ok_or(JwtStatus::HeaderBadAlg)?;
        let algorithm = Algorithm::of_name(name).ok_or(JwtStatus::HeaderUnknownAlg)?;
        let key_id = text_at(&fields, "kid").map_err(|_| JwtStatus::HeaderBadKid)?;
        // Both were Base64url.
        let lossy = |part| String::from_utf8_lossy(part);
        let signed = format!("{}.{}", lossy(header), lossy(payload));
        let payload_at = header.len() + 1;

        let decoded = decode(payload).ok_or(JwtStatus::PayloadBadBase64)?;
        let payload = json::object(&decoded).ok_or(JwtStatus::PayloadBadJson)?;
        let is_text = |claim: TextClaim| {
            let text = text_at(&payload, claim.name());
            text.map(drop).map_err(|_| JwtStatus::NotText(claim))
        };
        is_text(TextClaim::Issuer)?;
        is_text(TextClaim::Subject)?;
        time_at(&payload, TimeClaim::IssuedAt)?;
        let not_before = time_at(&payload, TimeClaim::NotBefore)?;
        let expires = time_at(&payload, TimeClaim::Expires)?;
        is_text(TextClaim::Id)?;
        let audiences = texts_at(&payload, "aud").ok_or(JwtStatus::AudienceNotText)?;
        let signature = decode(signature).ok_or(JwtStatus::SignatureBadBase64)?;
        Ok(Self {
            algorithm,
            key_id,
            signed,
            payload_at,
            signature,
            payload,
            audiences,
            not_before,
            expires,
        })
    }

    /// Who says that they issued it; empty where nobody does.
    pub fn issuer(&self) -> &str {
        let issuer = self.payload.at(&["iss"]).and_then(Claim::text);
        issuer.unwrap_or_default()
    }

    /// What is signed.
    pub(super) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The payload as it came.
    pub(super) fn encoded_payload(&self) -> &str {
        &self.signed[self.payload_at..]
    }

    /// Whether it is valid at this time, clocks being apart at most so far. Without `exp`, or with
    /// 0, it does not expire.
    pub(super) fn in_time(&self, since_epoch: Duration, skew: Duration) -> JwtStatus {
        let (now, skew) = (since_epoch.as_secs(), skew.as_secs());
        if now.saturating_add(skew) < self.not_before {
            return JwtStatus::NotYetValid;
        }
        match self.expires != 0 && now > self.expires.saturating_add(skew) {
            true => JwtStatus::Expired,
            false => JwtStatus::Valid,
        }
    }
}

/// There is something else.
struct Other;

/// A text, empty where there is nothing.
fn text_at(fields: &Claim, name: &str) -> Result<String, Other> {
    match fields.at(&[name]) {
        None => Ok(String::new()),
        Some(Claim::Text(text)) => Ok(text.clone()),
        Some(_) => Err(Other),
    }
}

/// Seconds since 1970, fractions cut off; 0 where there is nothing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked, and fractions are cut off"
)]
fn time_at(fields: &Claim, claim: TimeClaim) -> Result<u64, JwtStatus> {
    /// 2^64
    const END: f64 = 18_446_744_073_709_551_616.0;
    match fields.at(&[claim.name()]) {
        None => Ok(0),
        Some(Claim::Number(number)) if (0.0..END).contains(number) => Ok(*number as u64),
        Some(Claim::Number(_)) => Err(JwtStatus::OutOfRange(claim)),
        Some(_) => Err(JwtStatus::NotInteger(claim)),
    }
}

/// A text or a list of texts.
fn texts_at(fields: &Claim, name: &str) -> Option<Vec<String>> {
    match fields.at(&[name]) {
        None => Some(Vec::new()),
        Some(Claim::Text(text)) => Some(vec![text.clone()]),
        Some(Claim::List(items)) => {
            let texts = items.iter().map(|item| item.text().map(str::to_owned));
            texts.collect()
        }
        Some(_) => None,
    }
}
