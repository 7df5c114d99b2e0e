//! Tokens that callers bring, and sets of keys that issuers give.

use crate::{Input, Target};
use mesh_policy::jwt::{JwtStatus, KeySet, MAX_KEYS, Token};

/// `jwt`: a token in compact form.
pub(crate) const JWT: Target = Target {
    name: "jwt",
    run: jwt,
    input: Input::Text,
};

/// `jwks`: a JSON Web Key Set.
pub(crate) const JWKS: Target = Target {
    name: "jwks",
    run: jwks,
    input: Input::Text,
};

/// Keys that never signed anything that is fed here.
const KEYS: &str = include_str!("../seeds/jwks/several");

fn jwt(data: &[u8]) {
    let Ok(token) = Token::parse(data) else {
        return;
    };
    let keys = KeySet::parse(KEYS.as_bytes()).expect("the seed is a set of keys");
    assert_ne!(keys.verify(&token), JwtStatus::Valid, "nobody signed it");
}

fn jwks(data: &[u8]) {
    let Ok(keys) = KeySet::parse(data) else {
        return;
    };
    assert!(!keys.is_empty() && keys.len() <= MAX_KEYS);
    let token = include_bytes!("../seeds/jwt/unsigned");
    let token = Token::parse(token.trim_ascii()).expect("the seed is a token");
    // Whoever chooses a symmetric key may sign with it.
    let _ = keys.verify(&token);
}
