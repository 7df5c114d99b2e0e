//! Flags for what keeps the process up.

use super::serve::token_in;
use crate::{Builder, Limits};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Limits on callers, which Envoy has in no flags, and who may use the admin interface.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct GuardArgs {
    /// Callers' connections at once, of all listeners together; 0 is no limit. A bootstrap's
    /// overload manager wins. Default: four fifths of the descriptors that the process may have.
    #[arg(long, value_name = "N")]
    max_connections: Option<u64>,
    /// Callers' connections at once from one address, or one IPv6 network of 64 bits; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_connections_per_address: u32,
    /// TLS handshakes under way at once; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_handshakes: u32,
    /// Seconds that a TLS handshake may take where the configuration says nothing; 0 is no limit.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    handshake_time: u64,
    /// Seconds that the head of a request of HTTP/1 may take where the configuration says nothing; 0
    /// is no limit.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    head_time: u64,
    /// Whoever changes something at the admin interface, or looks at what is known of secrets, has to
    /// send the token in this file as `authorization: Bearer TOKEN`. 16 characters at least. Without
    /// the flag that is for interfaces on loopback and on Unix domain sockets only.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

// === impl GuardArgs ===

impl GuardArgs {
    pub(super) fn apply(&self, builder: Builder) -> anyhow::Result<Builder> {
        let token = self.admin_token_file.as_deref();
        let token = token.map(|file| token_in(file, "--admin-token-file"));
        Ok(builder
            .limits(self.limits())
            .admin_token(token.transpose()?))
    }

    fn limits(&self) -> Limits {
        let seconds = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let mut limits = Limits::default();
        if let Some(most) = self.max_connections {
            limits.connections = (most > 0).then_some(most);
        }
        limits.connections_per_address =
            (self.max_connections_per_address > 0).then_some(self.max_connections_per_address);
        limits.handshakes = (self.max_handshakes > 0).then_some(self.max_handshakes);
        limits.handshake_time = seconds(self.handshake_time);
        limits.head_time = seconds(self.head_time);
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        guard: GuardArgs,
    }

    fn limits(flags: &[&str]) -> Limits {
        let line = ["x"].iter().chain(flags);
        Line::try_parse_from(line).unwrap().guard.limits()
    }

    #[test]
    fn without_flags_the_defaults_hold_and_0_is_no_limit() {
        assert_eq!(limits(&[]), Limits::default());
        let all = limits(&[
            "--max-connections=7",
            "--max-connections-per-address=3",
            "--max-handshakes=2",
            "--handshake-time=9",
            "--head-time=8",
        ]);
        assert_eq!(all.connections, Some(7));
        assert_eq!(all.connections_per_address, Some(3));
        assert_eq!(all.handshakes, Some(2));
        assert_eq!(all.handshake_time, Some(Duration::from_secs(9)));
        assert_eq!(all.head_time, Some(Duration::from_secs(8)));
        let none = limits(&["--max-connections=0", "--handshake-time=0", "--head-time=0"]);
        assert_eq!(
            (none.connections, none.handshake_time, none.head_time),
            (None, None, None)
        );
    }
}
