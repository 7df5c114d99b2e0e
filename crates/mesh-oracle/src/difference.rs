//! One fact in which a subject differs from Envoy.

use crate::config::Config;
use std::fmt;

#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// Which subject.
    pub(crate) peer: &'static str,
    /// Which request of the configuration; None for the configuration itself.
    pub(crate) call: Option<usize>,
    pub(crate) fact: String,
    pub(crate) envoy: String,
    pub(crate) ours: String,
}

/// A difference with the configuration that it was found in.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) config: Config,
    pub(crate) difference: Difference,
}

// === impl Difference ===

impl Difference {
    /// What stays the same while a case is made smaller.
    pub(crate) fn signature(&self) -> (&'static str, &str, String) {
        // Texts that are part of values change with the case; words and numbers of answers do not.
        let short = |text: &str| text.chars().take(24).collect::<String>();
        let kind = match &*self.fact {
            "status" | "upstream count" | "log flags" | "log details" | "end" => {
                format!("{} {}", short(&self.envoy), short(&self.ours))
            }
            // Who refused it, whatever for.
            "configuration" => {
                let word = |text: &str| text.chars().take(8).collect::<String>();
                format!("{} {}", word(&self.envoy), word(&self.ours))
            }
            _ => {
                let there = |text: &str| if text == "(none)" { "no" } else { "a" };
                format!("{} {}", there(&self.envoy), there(&self.ours))
            }
        };
        (self.peer, &self.fact, kind)
    }
}

impl Found {
    /// Without the configuration.
    pub(crate) fn in_one_line(&self) -> String {
        let it = &self.difference;
        let call = it
            .call
            .and_then(|at| Some((at, self.config.calls.get(at)?)));
        let call = call
            .map(|(at, call)| format!("{at}: {call}"))
            .unwrap_or_default();
        let area = self.config.area;
        format!(
            "{area} | {} | {} | {:?} | {:?} | {call}",
            it.peer, it.fact, it.envoy, it.ours
        )
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            peer,
            call,
            fact,
            envoy,
            ours,
        } = &self.difference;
        writeln!(f, "--- {}: {peer}: {fact}", self.config.area)?;
        for part in self.config.source.parts() {
            writeln!(f, "  configuration: {part}")?;
        }
        match call.and_then(|at| self.config.calls.get(at)) {
            Some(call) => writeln!(f, "  request: {call}")?,
            None => {
                for call in self.config.calls.iter().take(5) {
                    writeln!(f, "  request: {call}")?;
                }
            }
        }
        writeln!(f, "  envoy:   {envoy:?}")?;
        write!(f, "  ours:    {ours:?}")
    }
}
