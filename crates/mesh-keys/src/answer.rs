//! What servers answer: sets of keys, and OpenID configurations.

use http::Uri;
use mesh_core::Name;
use mesh_policy::jwt::KeySet;
use std::time::Duration;

/// Why there is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error("{0:?} is not a URI of http or https")]
    BadUri(String),
    #[error("nothing came within {0:?}")]
    Elapsed(Duration),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, std::io::Error),
    #[error("the roots that this machine trusts cannot be read: {0}")]
    NoRoots(std::io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(String, mesh_identity::TlsError),
    #[error("TLS: {0}")]
    BadTls(#[from] mesh_core::Invalid),
    #[error("HTTP: {0}")]
    Http(#[from] mesh_http1::Error),
    #[error("answered {0}")]
    Status(http::StatusCode),
    #[error("redirected to {0:?}")]
    Redirected(String),
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    NoKeys(String),
    #[error("not an OpenID configuration: a JSON object with a jwks_uri")]
    NoConfiguration,
}

/// A set of keys, if one of them could be used: an Envoy that is given a set without any refuses
/// its whole configuration.
pub(crate) fn keys(body: &[u8]) -> Result<Name, GetError> {
    KeySet::parse(body).map_err(|status| GetError::NoKeys(status.to_string()))?;
    let text = std::str::from_utf8(body);
    let text = text.map_err(|_| GetError::NoKeys("not UTF-8".to_owned()))?;
    Ok(Name::from(text))
}

/// Where the keys are, by an OpenID configuration.
pub(crate) fn keys_uri(body: &[u8]) -> Result<Uri, GetError> {
    let read: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = read.as_ref().and_then(|all| all.get("jwks_uri")?.as_str());
    uri(text.ok_or(GetError::NoConfiguration)?)
}

/// Where the OpenID configuration of an issuer is.
pub(crate) fn configuration_uri(issuer: &str) -> Result<Uri, GetError> {
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    uri(&format!("{issuer}/.well-known/openid-configuration"))
}

/// A URI that can be asked: of http or https, with a host and without a user.
pub(crate) fn uri(text: &str) -> Result<Uri, GetError> {
    let bad = || GetError::BadUri(text.to_owned());
    let parsed: Uri = text.parse().map_err(|_| bad())?;
    let known = matches!(parsed.scheme_str(), Some("http" | "https"));
    let named = parsed.host().is_some_and(|host| !host.is_empty());
    let user = parsed
        .authority()
        .is_some_and(|all| all.as_str().contains('@'));
    match known && named && !user {
        true => Ok(parsed),
        false => Err(bad()),
    }
}

/// Where an answer redirects to: nowhere less secret (RFC 9110 §10.2.2, but for relative paths).
pub(crate) fn redirected(from: &Uri, to: &str) -> Result<Uri, GetError> {
    let refused = || GetError::Redirected(to.to_owned());
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map(http::uri::Authority::as_str);
    let whole = match to.strip_prefix("//") {
        Some(rest) => format!("{scheme}://{rest}"),
        None if to.starts_with('/') => format!("{scheme}://{}{to}", authority.unwrap_or_default()),
        None => to.to_owned(),
    };
    let next = uri(&whole).map_err(|_| refused())?;
    match scheme == "https" && next.scheme_str() == Some("http") {
        true => Err(refused()),
        false => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_set_needs_a_key_that_can_be_used() {
        let good = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
        assert_eq!(keys(good).unwrap().as_bytes(), good);
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"new"}]}"#,
            "<html>",
        ] {
            assert!(keys(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_openid_configuration_says_where_the_keys_are() {
        let found = keys_uri(br#"{"issuer":"x","jwks_uri":"https://a/k"}"#).unwrap();
        assert_eq!(found, "https://a/k");
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"jwks_uri":1}"#,
            r#"{"jwks_uri":"file:///k"}"#,
        ] {
            assert!(keys_uri(bad.as_bytes()).is_err(), "{bad}");
        }
        let expected = "https://a/b/.well-known/openid-configuration";
        for issuer in ["https://a/b", "https://a/b/"] {
            assert_eq!(configuration_uri(issuer).unwrap(), expected);
        }
        assert!(configuration_uri("accounts.example").is_err());
    }

    #[test]
    fn redirects_stay_as_secret_as_they_were() {
        let at = |from: &str, to: &str| redirected(&from.parse().unwrap(), to).ok();
        let secret = |to: &str| at("https://a:8443/k?x", to).map(|uri| uri.to_string());
        assert_eq!(secret("/l").as_deref(), Some("https://a:8443/l"));
        assert_eq!(secret("//b/l").as_deref(), Some("https://b/l"));
        assert_eq!(secret("https://c/").as_deref(), Some("https://c/"));
        for refused in ["http://a/k", "l", "", "file:///etc", "https://u:p@c/"] {
            assert_eq!(secret(refused), None, "{refused}");
        }
        assert!(at("http://a/k", "https://a/k").is_some());
    }

    proptest! {
        #[test]
        fn any_location_leads_to_http_or_nowhere(to in ".{0,40}|(https?:)?/{0,3}[a-z@:/.]{0,20}") {
            if let Ok(next) = redirected(&Uri::from_static("https://a/k"), &to) {
                prop_assert_eq!(next.scheme_str(), Some("https"));
                prop_assert!(next.host().is_some());
            }
        }
    }
}
