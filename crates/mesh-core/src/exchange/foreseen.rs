//! The route of a request before it is routed, for filters that judge as the route says.
//!
//! As in Envoy it is found once with one random word, and again only after somebody who changed the
//! request wants that (`clear_route_cache`).

use super::{Exchange, Matched};

/// What is known of a request's route.
#[derive(Debug)]
pub(super) struct Foreseen {
    /// Of the request as it came; none if it met no rule.
    first: Option<Matched>,
    /// Of the request as it is; none until it is looked for again.
    now: Option<Matched>,
    word: u64,
}

// === impl Exchange ===

impl Exchange {
    /// Notes which route the request meets as it is, by this random word. The first call says which
    /// it met as it came.
    pub fn foresee(&self, matched: Option<Matched>, word: u64) {
        let mut shared = self.shared();
        match &mut shared.foreseen {
            Some(foreseen) => foreseen.now = matched,
            none => {
                let first = matched.clone();
                *none = Some(Box::new(Foreseen {
                    first,
                    now: matched,
                    word,
                }));
            }
        }
    }

    /// The route that the request meets as it is, if that was looked for and there is one.
    pub fn foreseen(&self) -> Option<Matched> {
        self.shared().foreseen.as_ref()?.now.clone()
    }

    /// The route that the request met as it came, if that was looked for and there was one.
    pub fn first_foreseen(&self) -> Option<Matched> {
        self.shared().foreseen.as_ref()?.first.clone()
    }

    /// The random word by which its route is looked for, if it was.
    pub fn route_word(&self) -> Option<u64> {
        Some(self.shared().foreseen.as_ref()?.word)
    }

    /// The request changed, and its route is looked for anew.
    pub fn forget_foreseen(&self) {
        if let Some(foreseen) = &mut self.shared().foreseen {
            foreseen.now = None;
        }
    }
}
