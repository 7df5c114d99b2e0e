//! A response that waits for the verdicts on its resources.

use crate::TypeUrl;
use bytes::Bytes;
use mesh_core::Name;
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Instant;

/// How much is said of one refused resource, and of all of them, in bytes.
const ONE: usize = 1024;
const ALL: usize = 16 * 1024;

/// A response that waits for the verdicts on its resources.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) kind: TypeUrl,
    pub(super) nonce: String,
    /// The version of the whole.
    pub(super) version: String,
    /// The server that it came from.
    pub(super) server: Name,
    /// What waits for a verdict.
    pub(super) waiting: HashMap<Name, Offered>,
    pub(super) refused: Vec<(String, String)>,
    /// VHDS: aliases that move to one of those that wait, once it is accepted.
    pub(super) moves: Vec<(Name, Name)>,
    /// The caller has seen it.
    pub(super) handed_over: bool,
}

/// A resource that was handed on.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) version: Name,
    pub(super) body: Option<Bytes>,
    pub(super) expires: Option<Instant>,
}

// === impl Ticket ===

impl Ticket {
    pub(super) fn is_complete(&self) -> bool {
        self.handed_over && self.waiting.is_empty()
    }

    /// What is said to the server, if anything was refused: `resource: reason` for each.
    pub(super) fn error(&self) -> Option<String> {
        if self.refused.is_empty() {
            return None;
        }
        let mut text = String::new();
        for (said, (name, reason)) in self.refused.iter().enumerate() {
            if text.len() > ALL {
                let _ = write!(text, "\nand {} more", self.refused.len() - said);
                break;
            }
            if said > 0 {
                text.push('\n');
            }
            let _ = write!(text, "{name}: {}", shortened(reason));
        }
        Some(text)
    }
}

/// The beginning of a reason.
pub(super) fn shortened(reason: &str) -> &str {
    let whole = |at: &usize| reason.is_char_boundary(*at);
    let end = (0..=reason.len().min(ONE)).rev().find(whole);
    &reason[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_lists_each_refused_resource_and_stays_within_its_bound() {
        let mut ticket = Ticket {
            kind: TypeUrl::Cluster,
            nonce: String::new(),
            version: String::new(),
            server: Name::default(),
            waiting: HashMap::new(),
            refused: Vec::new(),
            moves: Vec::new(),
            handed_over: true,
        };
        assert_eq!(ticket.error(), None);
        ticket.refused = vec![("a".into(), "bad".into()), ("b".into(), "ü".repeat(ONE))];
        let text = ticket.error().unwrap();
        assert!(text.starts_with("a: bad\nb: üü"), "{text}");
        assert_eq!(text.len(), "a: bad\nb: ".len() + ONE);
        ticket.refused = vec![("x".into(), "y".repeat(ONE)); 1000];
        let text = ticket.error().unwrap();
        assert!(text.ends_with("more") && text.len() < ALL + 2 * ONE);
    }
}
