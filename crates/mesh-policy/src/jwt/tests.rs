use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use aws_lc_rs::{hmac, signature};
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use mesh_core::model::{Authn, AuthnRule, ClaimHeader, Jwks, JwtProvider, RemoteJwks};
use mesh_core::model::{ClaimMatch, StringMatch, TokenRequirement};
use mesh_core::{BoxError, Caller, Claims, Error, Exchange, Failure, reply};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tower::{Layer, ServiceExt, service_fn};

const NOW: u64 = 1_700_000_000;
const SECRET: &[u8] = b"shared by both sides, and long enough";

fn url(bytes: &[u8]) -> String {
    let text = base64::encode(bytes);
    let text = text.trim_end_matches('=');
    text.replace('+', "-").replace('/', "_")
}

fn token_of(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", url(header.as_bytes()), url(payload.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", url(signature.as_ref()))
}

fn token(payload: &str) -> String {
    token_of(r#"{"alg":"HS256","kid":"o"}"#, payload)
}

fn set() -> Jwks {
    let key = url(SECRET);
    let text = format!(r#"{{"keys":[{{"kty":"oct","kid":"o","alg":"HS256","k":"{key}"}}]}}"#);
    Jwks::Inline(text.into())
}

fn provider(name: &str, issuer: &str) -> JwtProvider {
    let mut provider = JwtProvider::new(name, issuer, set());
    provider.keep_claims = true;
    provider
}

/// As istiod asks: a token may be missing, but not bad.
fn maybe(providers: Vec<JwtProvider>) -> Authn {
    let of = |one: &JwtProvider| TokenRequirement::Provider(one.name.clone(), Vec::new());
    let mut all: Vec<_> = providers.iter().map(of).collect();
    all.push(TokenRequirement::AllowMissing);
    let mut authn = Authn::default();
    authn.providers = providers;
    authn.rules = vec![AuthnRule::always(TokenRequirement::Any(all))];
    authn
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        since_epoch: Duration::from_secs(NOW),
    }
}

fn with(token: &str) -> Request<()> {
    let request = Request::get("http://shop/a?x=1").header("authorization", token);
    request.body(()).unwrap()
}

/// The head that goes on, or what is told.
fn looked(authn: &Authn, mut request: Request<()>) -> Result<Request<()>, Error> {
    match step(authn, &request, None, now()) {
        Step::Through(passed) => {
            passed.apply(&mut request);
            Ok(request)
        }
        Step::Refused(error) => Err(error),
        Step::Waits(_) => panic!("there is nothing to wait for"),
    }
}

fn told(authn: &Authn, request: Request<()>) -> (u16, String, String, Option<String>) {
    let error = looked(authn, request).expect_err("it is refused");
    assert_eq!(error.failure(), Failure::Unauthenticated);
    let details = reply::details(&error);
    let answer = reply::answer(error, reply::Asked::default());
    let challenge = answer.headers.get("www-authenticate");
    (
        answer.status.as_u16(),
        String::from_utf8_lossy(&answer.body).into_owned(),
        details,
        challenge.map(|value| value.to_str().unwrap().to_owned()),
    )
}

#[test]
fn what_is_wrong_is_told_as_envoy_tells_it() {
    let mut own = provider("own", "me");
    own.audiences = vec!["https://shop/".into()];
    let authn = maybe(vec![own]);
    let good = r#"{"iss":"me","aud":["x","http://shop"],"exp":1700000000}"#;
    assert!(looked(&authn, with(&format!("Bearer {}", token(good)))).is_ok());
    let rows = [
        (
            "x",
            401,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (&*token_of("[]", good), 401, "Jwt header is an invalid JSON"),
        (
            &*token_of(r#"{"alg":"none"}"#, good),
            401,
            "Jwt header [alg] is not supported",
        ),
        (
            &*token_of(r#"{"alg":1}"#, good),
            401,
            "Jwt header [alg] field is required and must be a string",
        ),
        (
            &*token_of(r#"{"alg":"HS256","kid":1}"#, good),
            401,
            "Jwt header [kid] field is not a string",
        ),
        (
            &*token_of(r#"{"alg":"HS256","kid":"p"}"#, good),
            401,
            "Jwks doesn't have key to match kid or alg from Jwt",
        ),
        (
            &*token_of(r#"{"alg":"RS256"}"#, good),
            401,
            "Jwks doesn't have key to match kid or alg from Jwt",
        ),
        (
            &*token(r#"{"iss":1}"#),
            401,
            "Jwt payload [iss] field is not a string",
        ),
        (
            &*token(r#"{"iss":"me","exp":"x"}"#),
            401,
            "Jwt payload [exp] field is not an integer",
        ),
        (
            &*token(r#"{"iss":"me","nbf":-1}"#),
            401,
            "Jwt payload [nbf] field is not a positive 64 bit integer",
        ),
        (
            &*token(r#"{"iss":"me","aud":[1]}"#),
            401,
            "Jwt payload [aud] field is not a string or string list",
        ),
        (
            &*token(r#"{"iss":"you"}"#),
            401,
            "Jwt issuer is not configured",
        ),
        (
            &*token(r#"{"iss":"me","exp":1699999939}"#),
            401,
            "Jwt is expired",
        ),
        (
            &*token(r#"{"iss":"me","nbf":1700000061}"#),
            401,
            "Jwt not yet valid",
        ),
        (
            &*token(r#"{"iss":"me","aud":"pay"}"#),
            403,
            "Audiences in Jwt are not allowed",
        ),
        (
            &*format!("{}AAAA", token(good)),
            401,
            "Jwt verification fails",
        ),
    ];
    for (token, status, text) in rows {
        let (code, body, details, challenge) = told(&authn, with(&format!("Bearer {token}")));
        assert_eq!((code, &*body), (status, text), "{token}");
        let expected = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
        assert_eq!(details, expected);
        let expected = r#"Bearer realm="http://shop/a?x=1", error="invalid_token""#;
        assert_eq!(challenge.as_deref(), Some(expected));
    }
}

#[test]
fn a_token_within_a_minute_of_its_times_is_valid() {
    let authn = maybe(vec![provider("own", "me")]);
    for payload in [
        r#"{"iss":"me","exp":1699999940}"#,
        r#"{"iss":"me","nbf":1700000060}"#,
        r#"{"iss":"me","exp":0}"#,
        r#"{"iss":"me"}"#,
    ] {
        let request = with(&format!("Bearer {}", token(payload)));
        assert!(looked(&authn, request).is_ok(), "{payload}");
    }
}

#[test]
fn a_missing_token_is_told_only_where_one_is_asked_for() {
    let mut authn = maybe(vec![provider("own", "me")]);
    let bare = || Request::get("http://shop/").body(()).unwrap();
    assert!(looked(&authn, bare()).is_ok());
    let requires = TokenRequirement::Provider("own".into(), Vec::new());
    authn.rules = vec![AuthnRule::always(requires)];
    // What is ready for the old rules is not for these.
    authn.slot = mesh_core::Slot::default();
    let (status, body, _, challenge) = told(&authn, bare());
    assert_eq!((status, &*body), (401, "Jwt is missing"));
    assert_eq!(challenge.as_deref(), Some(r#"Bearer realm="http://shop/""#));
    authn.silent = true;
    authn.slot = mesh_core::Slot::default();
    let (status, body, _, challenge) = told(&authn, bare());
    assert_eq!((status, &*body, challenge), (401, "", None));
}

#[test]
fn all_tokens_of_a_request_have_to_be_valid() {
    let mut own = provider("own", "me");
    own.from_headers = vec![(HeaderName::from_static("x-jwt"), String::new())];
    own.from_cookies = vec!["c".to_owned()];
    let authn = maybe(vec![own]);
    let good = token(r#"{"iss":"me"}"#);
    let both = |cookie: &str| {
        let request = Request::get("/").header("x-jwt", &good);
        request
            .header("cookie", format!("a=b; c=\"{cookie}\""))
            .body(())
            .unwrap()
    };
    assert!(looked(&authn, both(&good)).is_ok());
    assert_eq!(told(&authn, both("a.b")).0, 401);
}

#[test]
fn what_a_token_says_goes_on_and_what_callers_forge_does_not() {
    let mut own = provider("own", "me");
    own.from_params = vec!["t".to_owned()];
    own.payload_header = Some(HeaderName::from_static("x-payload"));
    own.word_claims = vec!["scope".into()];
    own.claim_headers = [("x-sub", "sub"), ("x-deep", "a.b"), ("x-none", "none")]
        .map(|(header, claim)| ClaimHeader {
            header: HeaderName::from_static(header),
            claim: claim.into(),
        })
        .to_vec();
    let authn = maybe(vec![own]);
    let payload = r#"{"iss":"me","sub":"you","a":{"b":7},"scope":"r  w"}"#;
    let request = Request::get(format!("/a?z=%20&t={}&b=1", token(payload)));
    let request = request.header("x-sub", "forged").header("x-none", "forged");
    let request = looked(&authn, request.body(()).unwrap()).unwrap();
    assert_eq!(request.uri().path(), "/a");
    assert!(!request.uri().query().unwrap_or_default().contains("t="));
    assert_eq!(request.headers()["x-sub"], "you");
    assert_eq!(request.headers()["x-deep"], "7");
    assert_eq!(request.headers()["x-payload"], url(payload.as_bytes()));
    assert!(!request.headers().contains_key("x-none"));
    let claims = request.extensions().get::<Claims>().unwrap().payload();
    let says = |name: &str, value: &str, list: bool| {
        let mut want = ClaimMatch::new([name], [StringMatch::Exact(value.into())]);
        want.list = list;
        want.holds(Some(claims))
    };
    assert!(says("sub", "you", false));
    assert!(says("scope", "w", true));
    assert!(!says("scope", "w", false));
    assert!(!says("scope", "r  w", true));
}

/// As in Envoy, whose route is looked for anew as soon as one of several tokens is found good: logs
/// have it though another token is missing.
#[test]
fn a_request_that_is_refused_for_one_token_is_routed_by_another() {
    let mut other = provider("other", "you");
    other.from_headers = vec![(HeaderName::from_static("x-other"), String::new())];
    for clear_route in [false, true] {
        let mut own = provider("own", "me");
        own.clear_route = clear_route;
        let mut authn = maybe(vec![own, other.clone()]);
        let both = ["own", "other"].map(|it| TokenRequirement::Provider(it.into(), Vec::new()));
        authn.rules = vec![AuthnRule::always(TokenRequirement::All(both.to_vec()))];
        let mut request = with(&format!("Bearer {}", token(r#"{"iss":"me"}"#)));
        let exchange = Exchange::new(Instant::now(), Caller::default());
        exchange.attach(&mut request);
        assert_eq!(told(&authn, request).0, 401);
        assert_eq!(exchange.claims().is_some(), clear_route);
    }
}

#[test]
fn a_preflight_needs_no_token_and_forges_nothing() {
    let mut own = provider("own", "me");
    own.payload_header = Some(HeaderName::from_static("x-payload"));
    let mut authn = maybe(vec![own]);
    let requires = TokenRequirement::Provider("own".into(), Vec::new());
    authn.rules = vec![AuthnRule::always(requires)];
    let preflight = || {
        let request = Request::options("/").header("origin", "http://o");
        let request = request.header("access-control-request-method", "PUT");
        request.header("x-payload", "forged").body(()).unwrap()
    };
    assert_eq!(told(&authn, preflight()).0, 401);
    authn.bypass_preflight = true;
    let request = looked(&authn, preflight()).unwrap();
    assert!(!request.headers().contains_key("x-payload"));
}

#[test]
fn a_forged_extension_does_not_survive() {
    let authn = maybe(vec![provider("own", "me")]);
    let mut request = Request::get("/").body(()).unwrap();
    request
        .extensions_mut()
        .insert(Claims::new(mesh_core::Claim::Null));
    let request = looked(&authn, request).unwrap();
    assert!(request.extensions().get::<Claims>().is_none());
}

#[test]
fn keys_are_for_algorithms_of_their_own() {
    let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    let point = ec.public_key().as_ref();
    let text = format!(
        r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{}"}},{{"kty":"EC","x":"{}","y":"{}"}},
            {{"kty":"oct","k":"{}"}},{{"kty":"RSA","n":"AQAB","e":"AQAB"}},{{}},1]}}"#,
        url(ed.public_key().as_ref()),
        url(&point[1..33]),
        url(&point[33..]),
        url(point),
    );
    let keys = KeySet::parse(text.as_bytes()).unwrap();
    assert_eq!(keys.len(), 3);
    let signed = |algorithm: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let signed = format!("{}.{}", url(header.as_bytes()), url(b"{}"));
        let text = format!("{signed}.{}", url(&sign(signed.as_bytes())));
        Token::parse(text.as_bytes()).unwrap()
    };
    let by_ec = |bytes: &[u8]| ec.sign(&random, bytes).unwrap().as_ref().to_vec();
    let by_ed = |bytes: &[u8]| ed.sign(bytes).as_ref().to_vec();
    // A public key used as a secret is what everybody could sign with.
    let by_point = |bytes: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, ed.public_key().as_ref());
        hmac::sign(&key, bytes).as_ref().to_vec()
    };
    let only_ec = KeySet::parse(
        format!(
            r#"{{"keys":[{{"kty":"EC","x":"{}","y":"{}"}}]}}"#,
            url(&point[1..33]),
            url(&point[33..])
        )
        .as_bytes(),
    )
    .unwrap();
    assert_eq!(only_ec.verify(&signed("ES256", &by_ec)), JwtStatus::Valid);
    assert_eq!(
        only_ec.verify(&signed("ES384", &by_ec)),
        JwtStatus::VerificationFails
    );
    assert_eq!(
        only_ec.verify(&signed("HS256", &by_ec)),
        JwtStatus::VerificationFails
    );
    assert_eq!(keys.verify(&signed("EdDSA", &by_ed)), JwtStatus::Valid);
    assert_eq!(
        keys.verify(&signed("HS256", &by_point)),
        JwtStatus::SignatureLength
    );
    assert_eq!(signature::ED25519_PUBLIC_KEY_LEN, 32);
}

struct Gives(Option<String>, AtomicUsize);

impl Fetch for Gives {
    fn fetch(&self, _: &RemoteJwks) -> Fetched {
        self.1.fetch_add(1, Ordering::SeqCst);
        let body = self
            .0
            .clone()
            .map(Bytes::from)
            .ok_or_else(|| BoxError::from("gone"));
        Box::pin(async move {
            tokio::task::yield_now().await;
            (Instant::now(), body)
        })
    }
}

async fn fetched(gives: Arc<Gives>) -> Vec<Result<(), String>> {
    let uri = http::Uri::from_static("http://keys/jwks");
    let mut own = provider("own", "me");
    own.keys = Jwks::Remote(RemoteJwks::new(uri, "keys"));
    let layer = JwtLayer::fixed(maybe(vec![own])).fetching(gives);
    let layer = layer.clock(mesh_core::WallClock::fixed(Duration::from_secs(NOW)));
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, BoxError>(Response::new(()))
    }));
    let bearer = format!("Bearer {}", token(r#"{"iss":"me"}"#));
    let calls = (0..3).map(|_| service.clone().oneshot(with(&bearer)));
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            std::task::Poll::Ready(result) => {
                done.push(
                    result
                        .map(drop)
                        .map_err(|error| error.cause().unwrap_or_default()),
                );
                false
            }
            std::task::Poll::Pending => true,
        });
        match calls.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.push(
        service
            .oneshot(with(&bearer))
            .await
            .map(drop)
            .map_err(|error| error.cause().unwrap_or_default()),
    );
    done
}

#[tokio::test]
async fn keys_are_got_once_for_all_who_wait() {
    let Jwks::Inline(text) = set() else {
        unreachable!()
    };
    let gives = Arc::new(Gives(Some(text.to_string()), AtomicUsize::new(0)));
    assert_eq!(fetched(gives.clone()).await, vec![Ok(()); 4]);
    assert_eq!(gives.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn keys_that_cannot_be_got_are_not_asked_for_again_at_once() {
    let gives = Arc::new(Gives(None, AtomicUsize::new(0)));
    let refused = || Err("Jwks remote fetch is failed".to_owned());
    assert_eq!(
        fetched(gives.clone()).await,
        vec![refused(), refused(), refused(), refused()]
    );
    assert_eq!(gives.1.load(Ordering::SeqCst), 1);
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_no_token_is_valid(text in "[a-zA-Z0-9._=-]{0,60}") {
        let authn = maybe(vec![provider("own", "me")]);
        let request = Request::get("/").header("authorization", format!("Bearer {text}"));
        let result = looked(&authn, request.body(()).unwrap());
        proptest::prop_assert!(result.is_err());
    }
}

#[test]
fn a_route_may_ask_for_something_else_or_for_nothing() {
    let mut authn = maybe(vec![provider("a", "me"), provider("b", "you")]);
    let of = |name: &str| TokenRequirement::Provider(name.into(), Vec::new());
    authn.named = vec![("mine".into(), of("a")), ("yours".into(), of("b"))];
    let mine = format!("Bearer {}", token(r#"{"iss":"me"}"#));
    let speaking = authn.clone();
    let asked = |route: Option<Option<&str>>, request: &Request<()>| {
        let route = route.map(|name| name.map(mesh_core::Name::from));
        let route = route.as_ref().map(Option::as_ref);
        match step_on(route, &speaking, request, None, now()) {
            Step::Through(_) => Ok(()),
            Step::Refused(mut error) => {
                let answer = error.take_answer().unwrap();
                Err((answer.status.as_u16(), error.cause().unwrap()))
            }
            Step::Waits(_) => panic!("keys are there"),
        }
    };
    let without = || Request::get("http://shop/a").body(()).unwrap();
    assert_eq!(asked(None, &without()), Ok(()));
    let missing = (401, "Jwt is missing".to_owned());
    assert_eq!(asked(Some(Some("mine")), &without()), Err(missing));
    assert_eq!(asked(Some(Some("mine")), &with(&mine)), Ok(()));
    assert!(asked(Some(Some("yours")), &with(&mine)).is_err());
    assert_eq!(asked(Some(None), &with("Bearer x.y.z")), Ok(()));
    assert!(asked(None, &with("Bearer x.y.z")).is_err());
    let unknown = "Wrong requirement_name: his. It should be one of [mine,yours]".to_owned();
    assert_eq!(asked(Some(Some("his")), &with(&mine)), Err((403, unknown)));

    authn.silent = true;
    let his = mesh_core::Name::from("his");
    let Step::Refused(mut error) = step_on(Some(Some(&his)), &authn, &without(), None, now())
    else {
        panic!("there is no such name");
    };
    assert!(error.take_answer().unwrap().body.is_empty());
}
