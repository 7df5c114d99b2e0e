//! Sets of keys (RFC 7517), and whether one of them made a signature.
//!
//! A key that is not as it should be is passed over, as in Envoy (`jwt/jwks.cc`). Keys are used for
//! algorithms of their own kind and curve only, and RSA keys of less than 2048 bits are none.

use super::base64::decode;
use super::json;
use super::status::JwtStatus;
use super::token::{Algorithm, Token};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use mesh_core::Claim;
use std::fmt;

/// The largest set, in bytes.
pub const MAX_JWKS: usize = 1 << 20;
/// The most keys in a set; what comes after them is passed over.
pub const MAX_KEYS: usize = 1000;

/// Keys that are ready.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// One key.
#[derive(Debug)]
struct Key {
    /// Its name; empty where it has none.
    id: String,
    /// What it is for, where it says so.
    algorithm: Option<String>,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Curve(Algorithm, ParsedPublicKey),
    Secret(Vec<u8>),
}

// === impl KeySet ===

impl KeySet {
    /// Keys of a set.
    ///
    /// # Errors
    /// What is wrong with it, if there is no key in it that can be used.
    pub fn parse(text: &[u8]) -> Result<Self, JwtStatus> {
        if text.len() > MAX_JWKS {
            return Err(JwtStatus::KeysBadJson);
        }
        let set = json::object(text).ok_or(JwtStatus::KeysBadJson)?;
        let keys = set.at(&["keys"]).ok_or(JwtStatus::KeysMissing)?;
        let Claim::List(keys) = keys else {
            return Err(JwtStatus::KeysNotList);
        };
        let keys: Vec<_> = keys.iter().filter_map(Key::read).take(MAX_KEYS).collect();
        match keys.is_empty() {
            true => Err(JwtStatus::NoValidKey),
            false => Ok(Self(keys)),
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, which never is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys signed a token.
    pub fn verify(&self, token: &Token) -> JwtStatus {
        let mut matched = false;
        for key in &self.0 {
            let named = !token.key_id.is_empty() && !key.id.is_empty();
            if named && token.key_id != key.id {
                continue;
            }
            let other = |name: &String| Algorithm::of_name(name) != Some(token.algorithm);
            if key.algorithm.as_ref().is_some_and(other) {
                continue;
            }
            matched = true;
            match key.material.verify(token) {
                // Envoy looks at no further key then.
                JwtStatus::SignatureLength => return JwtStatus::SignatureLength,
                JwtStatus::Valid => return JwtStatus::Valid,
                _ => {}
            }
        }
        match matched {
            true => JwtStatus::VerificationFails,
            false => JwtStatus::NoKeyMatches,
        }
    }
}

// === impl Key ===

impl Key {
    fn read(fields: &Claim) -> Option<Self> {
        // Those of another type are as good as not there.
        let text = |name: &str| fields.at(&[name]).and_then(Claim::text);
        let algorithm = text("alg").filter(|name| !name.is_empty());
        let begins = |start: &[&str]| {
            algorithm.is_none_or(|name| start.iter().any(|start| name.starts_with(start)))
        };
        let bytes = |name: &str| decode(text(name)?.as_bytes());
        let material = match text("kty")? {
            "RSA" if begins(&["RS", "PS"]) => rsa(bytes("n")?, bytes("e")?)?,
            "EC" if begins(&["ES"]) => curve(algorithm, fields, &bytes("x")?, &bytes("y")?)?,
            "oct" if algorithm.is_none_or(|name| matches!(name, "HS256" | "HS384" | "HS512")) => {
                let secret = bytes("k")?;
                (!secret.is_empty()).then_some(Material::Secret(secret))?
            }
            "OKP" if algorithm.is_none_or(|name| name == "EdDSA") => {
                if text("crv")? != "Ed25519" {
                    return None;
                }
                let key = ParsedPublicKey::new(&signature::ED25519, bytes("x")?).ok()?;
                Material::Curve(Algorithm::EdDsa, key)
            }
            _ => return None,
        };
        Some(Self {
            id: text("kid").unwrap_or_default().to_owned(),
            algorithm: algorithm.map(str::to_owned),
            material,
        })
    }
}

/// A number without zeros before it.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let (n, e) = (trimmed(&n), trimmed(&e));
    // Others are not in use (Envoy).
    let exponent = matches!(e, [3] | [1, 0, 1]);
    let first = n.first()?;
    let bits = n.len() * 8 - usize::try_from(first.leading_zeros()).ok()?;
    let odd = n.last().is_some_and(|last| last & 1 == 1);
    (exponent && odd && (2048..=8192).contains(&bits)).then(|| {
        let (n, e) = (n.to_vec(), e.to_vec());
        Material::Rsa(RsaPublicKeyComponents { n, e })
    })
}

fn curve(algorithm: Option<&str>, fields: &Claim, x: &[u8], y: &[u8]) -> Option<Material> {
    let named = match fields.at(&["crv"]) {
        None => None,
        Some(Claim::Text(name)) => Some(&**name).filter(|name| !name.is_empty()),
        Some(_) => return None,
    };
    let by_curve = |name| match name {
        "P-256" => Some("ES256"),
        "P-384" => Some("ES384"),
        "P-521" => Some("ES512"),
        _ => None,
    };
    let algorithm = match (algorithm, named) {
        (None, None) => "ES256",
        (Some(algorithm), None) => algorithm,
        (None, Some(curve)) => by_curve(curve)?,
        (Some(algorithm), Some(curve)) => by_curve(curve).filter(|its| *its == algorithm)?,
    };
    let (algorithm, verifies, size) = match algorithm {
        "ES256" => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        "ES384" => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        "ES512" => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        _ => return None,
    };
    let mut point = vec![4];
    for number in [trimmed(x), trimmed(y)] {
        let missing = usize::checked_sub(size, number.len())?;
        point.extend(std::iter::repeat_n(0, missing));
        point.extend(number);
    }
    let key = ParsedPublicKey::new(verifies, point).ok()?;
    Some(Material::Curve(algorithm, key))
}

// === impl Material ===

impl Material {
    fn verify(&self, token: &Token) -> JwtStatus {
        let (signed, signature) = (token.signed(), &token.signature);
        let good = match self {
            Self::Rsa(key) => match padding(token.algorithm) {
                Some(parameters) => key.verify(parameters, signed, signature).is_ok(),
                None => false,
            },
            Self::Curve(Algorithm::EdDsa, _) if signature.len() != 64 => {
                return JwtStatus::SignatureLength;
            }
            Self::Curve(algorithm, key) => {
                *algorithm == token.algorithm && key.verify_sig(signed, signature).is_ok()
            }
            Self::Secret(secret) => match digest(token.algorithm) {
                Some(digest) => {
                    let key = hmac::Key::new(digest, secret);
                    hmac::verify(&key, signed, signature).is_ok()
                }
                None => false,
            },
        };
        match good {
            true => JwtStatus::Valid,
            false => JwtStatus::VerificationFails,
        }
    }
}

fn padding(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn digest(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}

/// Secrets stay where they are.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "Rsa",
            Self::Curve(..) => "Curve",
            Self::Secret(_) => "Secret",
        })
    }
}
