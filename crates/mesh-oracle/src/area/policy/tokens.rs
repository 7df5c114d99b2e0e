//! Tokens at random, and filters that ask for them (Envoy's `jwt_authn`).
//!
//! The keys are the oracle's own and sign nothing else.

use crate::dice::Dice;
use crate::request::Call;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA384, RsaKeyPair};
use aws_lc_rs::{hmac, rand::SystemRandom};
use serde_json::{Map, Value, json};

const TYPE: &str = "type.googleapis.com/envoy";
/// Each has one provider: of several Envoy takes any.
const ISSUERS: &[&str] = &["https://a.test", "https://b.test", "https://c.test"];
const RSA: &[u8] = include_bytes!("key.pk8");
const MODULUS: &str = "wkVtKNy4nlKt08H8reI6lDGgfsm_bCPqS36FKQzyr1rNT5we5cidCRUK-QDPEjDdn69boBNmlrq8vLY5\
     cdsZaxT1h2Eja2EWrIC-lSNd1534ASLDurTj36t4ZriX8Aw4YT4CFRRpY4uRl2ZdeYlLtGFq_7rn5_XO\
     45GEH7Nbh_2tz57D4TtUN3UvsLs-ug8Ls7a3xaKMtJjWoTODXD_bl7EX9s-ZvZnCpjdrIl-xVqRAZuAT\
     FMTKMioucWnISj5xXQm3gg8z4DsvVCMUucRaoAFdfyk3OlRe4m4nWxVaS-zW46-xEMdgTYbjcmjYc6iT\
     tKl8eg7fBFLAOLf0cjQNbw";
/// The seed of the key of Ed25519.
const SEED: [u8; 32] = *b"the oracle signs tokens with it.";
const SECRET: &[u8] = b"a secret that both sides know, of enough bytes";
/// The year 2100, in seconds since 1970.
const LATER: u64 = 4_102_444_800;

pub(super) fn filter(dice: &mut Dice) -> Value {
    let mut providers = Map::new();
    let number = dice.pick(&[1, 1, 2, 2, 3]);
    for at in 0..number {
        providers.insert(format!("p{at}"), provider(dice, at));
    }
    let mut rules = Vec::new();
    if dice.chance(25) {
        let path = dice.pick(&[
            json!({"prefix": "/api"}),
            json!({"path": "/fixed"}),
            json!({"prefix": "/ADMIN", "case_sensitive": false}),
            json!({"safe_regex": {"regex": "/(old|moved).*"}}),
        ]);
        let requires = requirement(dice, number, 1);
        rules.push(match dice.chance(30) {
            true => json!({"match": path}),
            false => json!({"match": path, "requires": requires}),
        });
    }
    rules.push(json!({"match": {"prefix": "/"}, "requires": requirement(dice, number, 2)}));
    json!({"name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": format!("{TYPE}.extensions.filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": providers,
        "rules": rules,
        "requirement_map": {
            "first": requirement(dice, number, 1),
            "second": requirement(dice, number, 1),
        },
        "bypass_cors_preflight": dice.chance(50),
        "strip_failure_response": dice.chance(10),
    }})
}

fn provider(dice: &mut Dice, at: usize) -> Value {
    let mut provider = json!({
        "local_jwks": {"inline_string": keys(dice).to_string()},
        "forward": dice.chance(50),
    });
    if dice.chance(92) {
        provider["issuer"] = json!(ISSUERS[at]);
    }
    if dice.chance(40) {
        let lists = [
            json!(["shop"]),
            json!(["shop", "pay"]),
            json!(["https://shop/"]),
            json!(["nobody"]),
        ];
        provider["audiences"] = dice.pick(&lists);
    }
    if dice.chance(35) {
        let list = json!([{"name": "x-jwt", "value_prefix": dice.pick(&["Token ", "", "Token"])}]);
        provider["from_headers"] = list;
    }
    if dice.chance(25) {
        provider["from_params"] = json!(["tok"]);
    }
    if dice.chance(25) {
        provider["from_cookies"] = json!(["jwt"]);
    }
    if dice.chance(30) {
        provider["forward_payload_header"] = json!("x-payload");
        provider["pad_forward_payload_header"] = json!(dice.chance(50));
    }
    if dice.chance(45) {
        provider["claim_to_headers"] = json!([
            {"header_name": "x-sub", "claim_name": "sub"},
            {"header_name": "x-deep", "claim_name": "a.b"},
            {"header_name": "x-num", "claim_name": "num"},
            {"header_name": "x-list", "claim_name": "groups"},
        ]);
    }
    if dice.chance(75) {
        provider["payload_in_metadata"] = json!("payload");
        if dice.chance(60) {
            let claims = json!({"space_delimited_claims": ["scope", "permission"]});
            provider["normalize_payload_in_metadata"] = claims;
        }
    }
    if dice.chance(40) {
        provider["clear_route_cache"] = json!(true);
    }
    if dice.chance(10) {
        provider["clock_skew_seconds"] = json!(dice.pick(&[1, 4_000_000_000_u32]));
    }
    provider
}

/// The same as a rule of a RequestAuthentication; `at` is below 3.
pub(super) fn rule(dice: &mut Dice, at: usize) -> Value {
    let provider = provider(dice, at);
    let mut rule = json!({
        "issuer": ISSUERS[at],
        "jwks": provider["local_jwks"]["inline_string"],
        "forwardOriginalToken": provider["forward"],
    });
    if rule["jwks"]
        .as_str()
        .is_some_and(|keys| !keys.contains("kty"))
    {
        rule["jwks"] = json!(json!({"keys": [rsa()]}).to_string());
    }
    for (name, given) in [
        ("audiences", "audiences"),
        ("fromParams", "from_params"),
        ("fromCookies", "from_cookies"),
        ("outputPayloadToHeader", "forward_payload_header"),
    ] {
        if !provider[given].is_null() {
            rule[name] = provider[given].clone();
        }
    }
    let list = |given: &Value, names: [(&str, &str); 2]| -> Vec<Value> {
        let one = |given: &Value| {
            let pairs = names.map(|(name, given_as)| (name.to_owned(), given[given_as].clone()));
            Value::Object(pairs.into_iter().collect())
        };
        given.as_array().into_iter().flatten().map(one).collect()
    };
    let headers = list(
        &provider["from_headers"],
        [("name", "name"), ("prefix", "value_prefix")],
    );
    if !headers.is_empty() {
        rule["fromHeaders"] = json!(headers);
    }
    let claims = list(
        &provider["claim_to_headers"],
        [("header", "header_name"), ("claim", "claim_name")],
    );
    if !claims.is_empty() {
        rule["outputClaimToHeaders"] = json!(claims);
    }
    if dice.chance(30) {
        rule["spaceDelimitedClaims"] = json!(["sub"]);
    }
    rule
}

fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "r", "alg": "RS256", "n": MODULUS, "e": "AQAB"})
}

fn keys(dice: &mut Dice) -> Value {
    let rsa = rsa();
    let any_rsa = json!({"kty": "RSA", "n": MODULUS, "e": "AQAB"});
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed has 32 bytes");
    let point = aws_lc_rs::signature::KeyPair::public_key(&pair);
    // Without `alg` Envoy would take what says that it is signed in another way.
    let point = base64(point.as_ref());
    let ed = json!({"kty": "OKP", "kid": "e", "crv": "Ed25519", "alg": "EdDSA", "x": point});
    let oct = json!({"kty": "oct", "kid": "o", "alg": "HS256", "k": base64(SECRET)});
    let bad = json!({"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"});
    let sets = [
        json!({"keys": [rsa, ed, oct]}),
        json!({"keys": [rsa, ed, oct]}),
        json!({"keys": [any_rsa]}),
        json!({"keys": [bad, ed]}),
        json!({"keys": [oct, rsa]}),
        json!({"keys": []}),
        json!({"key": []}),
    ];
    // Envoy takes no set without a key.
    let at = match dice.chance(98) {
        true => dice.below(5),
        false => 5 + dice.below(2),
    };
    sets[at].clone()
}

fn requirement(dice: &mut Dice, number: usize, depth: usize) -> Value {
    let name = format!("p{}", dice.below(number));
    let several = |dice: &mut Dice| {
        let all: Vec<Value> = (0..dice.between(2, 3))
            .map(|_| requirement(dice, number, depth - 1))
            .collect();
        json!({"requirements": all})
    };
    match dice.below(if depth == 0 { 6 } else { 10 }) {
        0..=2 => json!({"provider_name": name}),
        3 => json!({"provider_and_audiences": {
            "provider_name": name,
            "audiences": dice.pick(&[json!(["pay"]), json!(["shop"])]),
        }}),
        4 => json!({"allow_missing": {}}),
        5 => json!({"allow_missing_or_failed": {}}),
        6 => json!({"requires_all": several(dice)}),
        7 => {
            // As istiod writes it for one issuer.
            json!({"requires_any": {"requirements": [
                {"provider_name": name}, {"allow_missing": {}},
            ]}})
        }
        _ => json!({"requires_any": several(dice)}),
    }
}

/// A condition on a claim, as metadata.
pub(super) fn claim(dice: &mut Dice) -> Value {
    let value = dice.pick(&[
        json!({"string_match": {"exact": "me"}}),
        json!({"string_match": {"prefix": "x"}}),
        json!({"string_match": {"safe_regex": {"regex": ".+"}}}),
    ]);
    let value = match dice.chance(60) {
        true => json!({"or_match": {"value_matchers": [{"list_match": {"one_of": value}}, value]}}),
        false => value,
    };
    let way = dice.pick(&[&["sub"][..], &["groups"], &["scope"], &["a", "b"], &["a"]]);
    let way: Vec<Value> = way.iter().map(|key| json!({"key": key})).collect();
    let mut path = vec![json!({"key": "payload"})];
    path.extend(way);
    json!({"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value})
}

/// Gives a request tokens, in places where they are looked for or nearly so.
pub(super) fn bring(dice: &mut Dice, mut call: Call) -> Call {
    if call.header("authorization").is_none() && dice.chance(30) {
        return call.with("authorization", &format!("Bearer {}", spoiled(dice)));
    }
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 1, 2, 3]) {
        let token = token(dice);
        match dice.below(10) {
            // Envoy makes one line of several.
            0..=4 if call.header("authorization").is_none() => {
                let before = dice.pick(&[
                    "Bearer ",
                    "Bearer ",
                    "Bearer ",
                    "bearer ",
                    "Bearer  ",
                    "x Bearer ",
                ]);
                call = call.with("authorization", &format!("{before}{token}"));
            }
            0..=1 | 5 | 6 => {
                let name = dice.pick(&["access_token", "access_token", "tok"]);
                let mark = if call.target.contains('?') { '&' } else { '?' };
                call.target = format!("{}{mark}{name}={token}", call.target);
                let more = dice.pick(&["", "", "&z=1&a=+b", "&x=a+b&x", "&q=%41%2f%3D&%zz=1"]);
                call.target += more;
            }
            2..=4 | 7 | 8 => {
                let before = dice.pick(&["Token ", "Token ", "", "Token=", "token "]);
                call = call.with("x-jwt", &format!("{before}{token}"));
            }
            _ => {
                let (open, close) = dice.pick(&[("", ""), ("", ""), ("\"", "\"")]);
                let more = dice.pick(&["", "; a=b", "; jwt=x"]);
                call = call.with("cookie", &format!("c=d; jwt={open}{token}{close}{more}"));
            }
        }
    }
    // What only the proxy may write.
    if dice.chance(25) {
        call = call.with(dice.pick(&["x-sub", "x-payload", "x-deep"]), "forged");
    }
    if call.method == "OPTIONS" && dice.chance(70) {
        call = call
            .with("origin", "http://o.test")
            .with("access-control-request-method", "GET");
    }
    call
}

/// A token that is good but for one thing, or good.
fn spoiled(dice: &mut Dice) -> String {
    let mut payload = json!({
        "iss": dice.pick(&ISSUERS[..2]),
        "sub": "me",
        "exp": LATER,
        "aud": ["shop", "pay", "http://shop"],
    });
    let mut header = json!({"alg": "RS256", "kid": "r"});
    let fault = dice.below(6);
    match fault {
        0 => payload["exp"] = json!(1_000_000_000),
        1 => payload["nbf"] = json!(LATER),
        2 => payload["aud"] = json!("elsewhere"),
        3 => header["kid"] = json!("other"),
        _ => {}
    }
    let [header, payload] = [header, payload].map(|it| base64(it.to_string().as_bytes()));
    let mut signature = sign("RS256", format!("{header}.{payload}").as_bytes());
    signature[0] ^= u8::from(fault == 4);
    format!("{header}.{payload}.{}", base64(&signature))
}

fn token(dice: &mut Dice) -> String {
    if dice.chance(6) {
        return dice
            .pick(&[
                "",
                "x",
                "a.b",
                "a.b.c",
                "a.b.c.d",
                "..",
                "e30.e30.",
                "e30.e30.e30",
            ])
            .to_owned();
    }
    let mut payload = json!({
        "iss": dice.pick(&[ISSUERS[0], ISSUERS[0], ISSUERS[0], ISSUERS[1], ISSUERS[1], ISSUERS[2], "https://d.test"]),
        "sub": dice.pick(&["me", "me", "x you", ""]),
        "exp": LATER,
        "groups": ["staff", "me"],
        "azp": "shop",
        "scope": dice.pick(&["read me", "me", " ", "x  write"]),
        "a": {"b": dice.pick(&["xy", "me", "z"])},
        "num": dice.pick(&[json!(1), json!(1.5), json!(-2), json!(true), json!(1e20), json!(null)]),
    });
    if dice.chance(65) {
        let lists = [
            json!("shop"),
            json!(["pay", "shop"]),
            json!("http://shop/"),
            json!([]),
        ];
        payload["aud"] = dice.pick(&lists);
    }
    // What is wrong with it, if anything is.
    if dice.chance(35) {
        let (name, value) = dice.pick(&[
            ("exp", json!(1_000_000_000)),
            ("exp", json!(1_000_000_000)),
            ("exp", json!("soon")),
            ("exp", json!(-1)),
            ("exp", json!(0)),
            ("nbf", json!(LATER)),
            ("nbf", json!(LATER)),
            ("nbf", json!(LATER)),
            ("nbf", json!(LATER)),
            ("nbf", json!(1e30)),
            ("iat", json!(false)),
            ("iss", json!(1)),
            ("iss", json!(null)),
            ("sub", json!([])),
            ("jti", json!({})),
            ("aud", json!("elsewhere")),
            ("aud", json!("elsewhere")),
            ("aud", json!([1])),
            ("aud", json!(null)),
        ]);
        payload[name] = value;
    }
    let mut text = payload.to_string();
    if dice.chance(4) {
        text = dice
            .pick(&[
                "[]",
                "{",
                "{\"a\":1,\"a\":1}",
                " {\"iss\":\"https://a.test\"} ",
                "1",
            ])
            .to_owned();
    }
    signed(dice, &text)
}

/// A token with this payload, signed as it has to be, or not.
fn signed(dice: &mut Dice, payload: &str) -> String {
    let algorithm = dice.pick(&[
        "RS256", "RS256", "RS256", "RS256", "EdDSA", "HS256", "PS384",
    ]);
    let own = match algorithm {
        "EdDSA" => "e",
        "HS256" => "o",
        _ => "r",
    };
    let mut header = json!({"alg": algorithm});
    match dice.below(10) {
        0..=5 => header["kid"] = json!(own),
        6 => header["kid"] = json!(dice.pick(&["e", "other", ""])),
        7 => header["kid"] = dice.pick(&[json!(1), json!(null)]),
        _ => {}
    }
    if dice.chance(6) {
        header["alg"] = dice.pick(&[json!("none"), json!("RS512"), json!(1), json!("HS256")]);
    }
    let signed = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(payload.as_bytes())
    );
    let mut signature = sign(algorithm, signed.as_bytes());
    match dice.below(14) {
        0 | 1 => signature[0] ^= 1,
        2 => drop(signature.pop()),
        _ => {}
    }
    let mut token = format!("{signed}.{}", base64(&signature));
    match dice.below(24) {
        0 => token += "=",
        1 => token += "!",
        2 => token.insert(0, '.'),
        3 => token += " x",
        _ => {}
    }
    token
}

fn sign(algorithm: &str, bytes: &[u8]) -> Vec<u8> {
    match algorithm {
        "EdDSA" => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed has 32 bytes");
            pair.sign(bytes).as_ref().to_vec()
        }
        "HS256" => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
            hmac::sign(&key, bytes).as_ref().to_vec()
        }
        other => {
            let pair = RsaKeyPair::from_pkcs8(RSA).expect("the key is one");
            let mut signature = vec![0; pair.public_modulus_len()];
            let padding: &dyn aws_lc_rs::signature::RsaEncoding = match other {
                "PS384" => &RSA_PSS_SHA384,
                _ => &RSA_PKCS1_SHA256,
            };
            let random = SystemRandom::new();
            let done = pair.sign(padding, &random, bytes, &mut signature);
            done.expect("the key fits");
            signature
        }
    }
}

/// Base64url without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let all = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(all >> (18 - 6 * n)) as usize & 0x3f]));
        }
    }
    out
}
