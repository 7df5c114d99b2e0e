//! What may be wrong with a token or with keys, in Envoy's words (`jwt/status.cc`).

use std::fmt;

/// What a look at a token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwtStatus {
    /// It is valid.
    Valid,
    /// There is none.
    Missing,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `exp` lies behind.
    Expired,
    /// It has not three parts.
    BadFormat,
    /// The header is not Base64url.
    HeaderBadBase64,
    /// The header is not a JSON object.
    HeaderBadJson,
    /// The header's `alg` is no text.
    HeaderBadAlg,
    /// The header's `alg` is none that is known.
    HeaderUnknownAlg,
    /// The header's `kid` is no text.
    HeaderBadKid,
    /// The payload is not Base64url.
    PayloadBadBase64,
    /// The payload is not a JSON object.
    PayloadBadJson,
    /// A claim of the payload that has to be text is not.
    NotText(TextClaim),
    /// A claim of the payload that has to be a time is no number.
    NotInteger(TimeClaim),
    /// A claim of the payload that has to be a time is negative or too large.
    OutOfRange(TimeClaim),
    /// `aud` is neither text nor a list of texts.
    AudienceNotText,
    /// The signature is not Base64url.
    SignatureBadBase64,
    /// A signature of Ed25519 has not 64 bytes.
    SignatureLength,
    /// The issuer is none that may issue it, there.
    UnknownIssuer,
    /// It is for somebody else.
    AudienceNotAllowed,
    /// No key made the signature.
    VerificationFails,
    /// No key has its `kid` and `alg`.
    NoKeyMatches,
    /// There is no key at all.
    NoValidKey,
    /// The keys could not be got.
    FetchFailed,
    /// The keys that were got are not JSON.
    KeysBadJson,
    /// The keys that were got have no list of keys.
    KeysMissing,
    /// The list of keys that was got is none.
    KeysNotList,
}

/// A claim that is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextClaim {
    /// `iss`
    Issuer,
    /// `sub`
    Subject,
    /// `jti`
    Id,
}

/// A claim that is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeClaim {
    /// `iat`
    IssuedAt,
    /// `nbf`
    NotBefore,
    /// `exp`
    Expires,
}

// === impl JwtStatus ===

impl JwtStatus {
    /// Whether it may go on.
    pub fn is_valid(self) -> bool {
        self == Self::Valid
    }
}

impl fmt::Display for JwtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Valid => "OK",
            Self::Missing => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBadBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderBadJson => "Jwt header is an invalid JSON",
            Self::HeaderBadAlg => "Jwt header [alg] field is required and must be a string",
            Self::HeaderUnknownAlg => "Jwt header [alg] is not supported",
            Self::HeaderBadKid => "Jwt header [kid] field is not a string",
            Self::PayloadBadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadBadJson => "Jwt payload is an invalid JSON",
            Self::NotText(claim) => {
                return write!(f, "Jwt payload [{claim}] field is not a string");
            }
            Self::NotInteger(claim) => {
                return write!(f, "Jwt payload [{claim}] field is not an integer");
            }
            Self::OutOfRange(claim) => {
                return write!(
                    f,
                    "Jwt payload [{claim}] field is not a positive 64 bit integer"
                );
            }
            Self::AudienceNotText => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBadBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::SignatureLength => "Jwt ED25519 signature is wrong length",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::VerificationFails => "Jwt verification fails",
            Self::NoKeyMatches => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::NoValidKey => "Jwks doesn't have any valid public key",
            Self::FetchFailed => "Jwks remote fetch is failed",
            Self::KeysBadJson => "Jwks is an invalid JSON",
            Self::KeysMissing => "Jwks does not have [keys] field",
            Self::KeysNotList => "[keys] in Jwks is not an array",
        };
        f.write_str(text)
    }
}

impl std::error::Error for JwtStatus {}

impl TextClaim {
    /// The claim's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Issuer => "iss",
            Self::Subject => "sub",
            Self::Id => "jti",
        }
    }
}

impl fmt::Display for TextClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TimeClaim {
    /// The claim's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::IssuedAt => "iat",
            Self::NotBefore => "nbf",
            Self::Expires => "exp",
        }
    }
}

impl fmt::Display for TimeClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
