//! Tokens of service accounts, from a file: who a caller without a certificate is.
//!
//! One token a line, `#` begins a remark:
//!
//! ```text
//! # TOKEN                       NAMESPACE/SERVICE-ACCOUNT   [until=SECONDS SINCE 1970] [once]
//! 3b1f6a0c9d5e4f7788990a1b2c3d  shop/reviews
//! 9c8b7a6d5e4f3a2b1c0d9e8f7a6b  shop/ratings                until=1893456000 once
//! ```
//!
//! `once` is for a token that is handed to a workload for its first certificate, which it renews
//! with the certificate itself: it is accepted a single time for as long as the process runs, and
//! has to have an end so that it is not good again after a restart.

use crate::SpiffeId;
use crate::names::sha256;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use mesh_core::Invalid;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::time;

/// The most tokens of a file.
pub const MAX_TOKENS: usize = 10_000;

/// The shortest token: it has to be beyond guessing.
const SHORTEST: usize = 16;

/// The longest, in bytes. One that came from Kubernetes has about a thousand.
const LONGEST: usize = 16 << 10;

/// Tokens and whose they are. Of the tokens themselves only SHA-256 is kept.
pub struct Tokens(Vec<Token>);

struct Token {
    digest: [u8; 32],
    identity: SpiffeId,
    until: Option<i64>,
    once: bool,
    used: AtomicBool,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// Nobody has it.
    Unknown,
    /// It was good once.
    Expired,
    /// It was good for one time.
    Used,
}

// === impl Tokens ===

impl Tokens {
    /// Reads tokens; those whom they belong to are in this trust domain.
    ///
    /// # Errors
    /// The line and what is wrong with it; never what stands in it.
    pub fn read(text: &str, trust_domain: &str) -> Result<Self, Invalid> {
        let mut tokens: Vec<Token> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = Token::read(line, trust_domain);
            let token = token.map_err(|error| error.within(format!("line {}", at + 1)))?;
            if tokens.iter().any(|other| other.digest == token.digest) {
                let field = format!("line {}", at + 1);
                return Err(Invalid::new(field, "this token stands in the file twice"));
            }
            if tokens.len() == MAX_TOKENS {
                return Err(Invalid::new("", "more than 10,000 tokens"));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Tokens that were read anew: those that were used up stay so.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        for token in &self.0 {
            let same = before.0.iter().find(|old| old.digest == token.digest);
            if same.is_some_and(|old| old.used.load(Ordering::Acquire)) {
                token.used.store(true, Ordering::Release);
            }
        }
        self
    }

    /// Whose token it is. One that is good for one time is used up by this.
    ///
    /// How long it takes does not depend on how much of a token was right.
    ///
    /// # Errors
    /// It is refused.
    pub fn identify(&self, token: &str, now: SystemTime) -> Result<&SpiffeId, TokenError> {
        let digest = sha256(token.as_bytes());
        let mut found = None;
        for one in &self.0 {
            // All of them, wherever it is found.
            if verify_slices_are_equal(&one.digest, &digest).is_ok() {
                found = Some(one);
            }
        }
        let found = found.ok_or(TokenError::Unknown)?;
        if found.until.is_some_and(|until| until <= time::seconds(now)) {
            return Err(TokenError::Expired);
        }
        if found.once && found.used.swap(true, Ordering::AcqRel) {
            return Err(TokenError::Used);
        }
        Ok(&found.identity)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

// === impl Token ===

impl Token {
    fn read(line: &str, trust_domain: &str) -> Result<Self, Invalid> {
        let wrong = |message: &str| Err(Invalid::new("", message));
        let mut words = line.split_ascii_whitespace();
        let (Some(token), Some(account)) = (words.next(), words.next()) else {
            return wrong("TOKEN NAMESPACE/SERVICE-ACCOUNT is expected");
        };
        if !(SHORTEST..=LONGEST).contains(&token.len())
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return wrong("a token has to have 16 to 16,384 visible ASCII characters");
        }
        let Some((namespace, account)) = account.split_once('/') else {
            return wrong("after the token, NAMESPACE/SERVICE-ACCOUNT is expected");
        };
        let (mut until, mut once) = (None, false);
        for word in words {
            match word.split_once('=') {
                Some(("until", seconds)) if until.is_none() => match seconds.parse::<u32>() {
                    Ok(seconds) => until = Some(i64::from(seconds)),
                    Err(_) => return wrong("until= has to be whole seconds since 1970"),
                },
                None if word == "once" && !once => once = true,
                _ => return wrong("only until=SECONDS and once may follow, each one time"),
            }
        }
        if once && until.is_none() {
            return wrong("once needs until=, or the token would be good again after a restart");
        }
        Ok(Self {
            digest: sha256(token.as_bytes()),
            identity: SpiffeId::of_workload(trust_domain, namespace, account)?,
            until,
            once,
            used: AtomicBool::new(false),
        })
    }
}

// === impl TokenError ===

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the token is not known",
            Self::Expired => "the token has expired",
            Self::Used => "the token was good for one time and has been used",
        })
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    const FILE: &str = "
# who is who
for-ever-and-a-day  shop/reviews
until-ten-seconds   shop/ratings until=10
a-single-time-only  shop/details until=10 once
";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_its_owners_until_it_ends_or_is_used() {
        let tokens = Tokens::read(FILE, "a.test").unwrap();
        let ask = |token, now| tokens.identify(token, at(now)).map(SpiffeId::as_str);
        let id = "spiffe://a.test/ns/shop/sa/";
        assert_eq!(ask("for-ever-and-a-day", 99), Ok(&*format!("{id}reviews")));
        assert_eq!(ask("until-ten-seconds", 9), Ok(&*format!("{id}ratings")));
        assert_eq!(ask("until-ten-seconds", 10), Err(TokenError::Expired));
        assert_eq!(ask("a-single-time-only", 10), Err(TokenError::Expired));
        assert_eq!(ask("a-single-time-only", 1), Ok(&*format!("{id}details")));
        assert_eq!(ask("a-single-time-only", 1), Err(TokenError::Used));
        for wrong in [
            "",
            "for-ever-and-a-da",
            "for-ever-and-a-day ",
            "FOR-EVER-AND-A-DAY",
        ] {
            assert_eq!(ask(wrong, 1), Err(TokenError::Unknown), "{wrong}");
        }
        let anew = Tokens::read(FILE, "a.test").unwrap().after(&tokens);
        let again = anew.identify("a-single-time-only", at(1));
        assert_eq!(
            again,
            Err(TokenError::Used),
            "it stays used when the file is read again"
        );
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_not_shown() {
        for (line, said) in [
            ("hush-hush-hush-hush", "NAMESPACE/SERVICE-ACCOUNT"),
            ("hush-hush-hush-hush x", "NAMESPACE/SERVICE-ACCOUNT"),
            ("hush a/b", "16 to"),
            ("hush-hush-hush-hush a/b/c", "/"),
            ("hush-hush-hush-hush a/b once", "until="),
            ("hush-hush-hush-hush a/b until=hush", "seconds"),
            ("hush-hush-hush-hush a/b hush", "only until="),
        ] {
            let error = Tokens::read(&format!("\n{line}\n"), "a.test").unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.starts_with("line 2") && shown.contains(said),
                "{shown}"
            );
            assert!(!shown.contains("hush"), "{shown}");
        }
        let twice = "hush-hush-hush-hush a/b\nhush-hush-hush-hush a/c\n";
        assert!(Tokens::read(twice, "a.test").is_err());
        assert!(!format!("{:?}", Tokens::read(FILE, "a.test")).contains("ever"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_registry_or_is_not(text in "([!-~]{10,20} [a-z/]{1,5}( [a-z0-9=]{0,9})?\n?){0,4}") {
            let _ = Tokens::read(&text, "a.test");
        }
    }
}
