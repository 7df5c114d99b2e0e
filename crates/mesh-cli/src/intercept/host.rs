//! The programs that do it, in this network namespace or another.

use super::plan::Setting;
use super::rule::{Family, Table};
use super::state::State;
use anyhow::{Context, bail};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// CAP_NET_ADMIN and CAP_SYS_ADMIN (capabilities(7)).
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

/// How long to wait for another iptables, in seconds.
const LOCK_PATIENCE: &str = "--wait=10";

/// A network namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Its name for `ip netns`; none is the one that we are in.
    pub(super) netns: Option<String>,
}

// === impl Host ===

impl Host {
    /// Looks whether we may change anything.
    ///
    /// # Errors
    /// Says what is missing.
    pub(super) fn check_privileges(&self) -> anyhow::Result<()> {
        let status = std::fs::read_to_string("/proc/self/status")
            .context("cannot find out what we may do: interception needs Linux and /proc")?;
        let effective =
            effective_capabilities(&status).context("/proc/self/status has no CapEff")?;
        let may = |capability: u32| effective >> capability & 1 == 1;
        if !may(NET_ADMIN) {
            bail!(
                "needs the capability NET_ADMIN: run it as root, or in an init container with it"
            );
        }
        if self.netns.is_some() && !may(SYS_ADMIN) {
            bail!("--netns needs the capability SYS_ADMIN too: run it as root");
        }
        Ok(())
    }

    /// The families that there are, and what there is to say about one that is not.
    ///
    /// # Errors
    /// If a program is missing for a family that is on, unless IPv6 may be left alone.
    pub(super) fn families(
        &self,
        may_leave_ipv6: bool,
    ) -> anyhow::Result<(Vec<Family>, Option<String>)> {
        for program in [Family::V4.restore(), Family::V4.save()] {
            need(program)?;
        }
        if self.is_ipv6_off()? {
            let note = "IPv6 is switched off here and is left alone".to_owned();
            return Ok((vec![Family::V4], Some(note)));
        }
        for program in [Family::V6.restore(), Family::V6.save()] {
            match need(program) {
                Ok(_) => {}
                Err(error) if may_leave_ipv6 => {
                    return Ok((
                        vec![Family::V4],
                        Some(format!("{error}; IPv6 is left alone")),
                    ));
                }
                Err(error) => {
                    return Err(error.context(
                        "IPv6 is on, and what goes over it would pass the proxy by \
                         (--no-ipv6 accepts that)",
                    ));
                }
            }
        }
        Ok((vec![Family::V4, Family::V6], None))
    }

    fn is_ipv6_off(&self) -> anyhow::Result<bool> {
        for interface in ["all", "lo"] {
            let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            let output = self.output(&["cat", &file], "")?;
            // No such file: the kernel has no IPv6. Unless it is the namespace that is not there.
            if !output.status.success() && !std::fs::exists(&file).unwrap_or_default() {
                return Ok(true);
            }
            if succeeded(&output)?.trim() != "0" {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What of ours is in the tables.
    ///
    /// # Errors
    /// If it cannot be listed, or Istio's chains are in use by somebody else.
    pub(super) fn state(&self, family: Family) -> anyhow::Result<State> {
        let mut text = String::new();
        for table in Table::ALL {
            match self.run(&[family.save(), "-t", table.name()], "") {
                Ok(saved) => text += &saved,
                // A kernel without this table has nothing of ours in it.
                Err(error) if table == Table::Raw && is_absence(&format!("{error:#}")) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(State::saved(&text)?)
    }

    /// Changes the tables.
    ///
    /// # Errors
    /// Names the rule that was refused, if the program does.
    pub(super) fn restore(&self, family: Family, text: &str) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let program = family.restore();
        let output = self.output(&[program, "--noflush", LOCK_PATIENCE], text)?;
        let Err(error) = succeeded(&output) else {
            return Ok(());
        };
        match refused_line(&format!("{error}"), text) {
            Some(line) => Err(error.context(format!("{program} refused \"{line}\""))),
            None => Err(error.context(format!("{program} failed"))),
        }
    }

    /// Whether something is set.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) fn has(&self, setting: Setting, family: Family) -> anyhow::Result<bool> {
        let words = setting.list(family);
        let output = self.output(&words, "")?;
        // A table of routes exists from its first route on.
        if String::from_utf8_lossy(&output.stderr).contains("FIB table does not exist") {
            return Ok(false);
        }
        let text = succeeded(&output).with_context(|| words.join(" "))?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(false);
        }
        let list = serde_json::from_str(text)
            .with_context(|| format!("{} printed no JSON: {text}", words.join(" ")))?;
        Ok(setting.is_in(&list))
    }

    /// Runs a command to its end, and gives what it printed.
    ///
    /// # Errors
    /// What it said if it failed.
    pub(super) fn run(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let output = self.output(words, input)?;
        succeeded(&output).with_context(|| words.join(" "))
    }

    fn output(&self, words: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut all = Vec::new();
        if let Some(name) = &self.netns {
            all.extend(["ip", "netns", "exec", name]);
        }
        all.extend(words);
        let program = all[0];
        need(program)?;
        let mut child = Command::new(program)
            .args(&all[1..])
            // Messages are read for the line that they name.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()) {
                // It stopped reading; why is in what it says.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                other => other.with_context(|| format!("cannot write to {program}"))?,
            }
        }
        child
            .wait_with_output()
            .with_context(|| format!("cannot wait for {program}"))
    }
}

fn succeeded(output: &Output) -> anyhow::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    if said.is_empty() {
        bail!("ended with {}", output.status);
    }
    bail!("{}", said.replace('\n', "; "))
}

/// Whether iptables-save says that there is no such table: `Table does not exist (do you need to
/// insmod?)`, or ``table `raw' does not exist``.
fn is_absence(message: &str) -> bool {
    message.contains("does not exist")
}

/// The line that a message of iptables-restore is about: `line 4 failed`, or `at line: 4`.
fn refused_line<'a>(message: &str, input: &'a str) -> Option<&'a str> {
    let mut after = message.split("line").skip(1);
    let number = after.find_map(|rest| {
        let rest = rest.trim_start_matches([':', ' ']);
        let digits = rest.split(|character: char| !character.is_ascii_digit());
        digits
            .take(1)
            .find_map(|digits| digits.parse::<usize>().ok())
    })?;
    input.lines().nth(number.checked_sub(1)?)
}

/// The effective capabilities in the text of `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// Looks for a program where `execvp` would.
fn need(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    let Some(found) = found.find(|file| file.is_file()) else {
        let package = if program == "ip" {
            "iproute2"
        } else {
            "iptables"
        };
        bail!("{program} is not installed or not in PATH (Debian: apt-get install {package})");
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUT: &str = "*nat\n:A - [0:0]\n-A A -j RETURN\n-A B -j RETURN\nCOMMIT\n";

    #[test]
    fn the_rule_that_was_refused_is_known_from_every_kind_of_message() {
        for (message, line) in [
            (
                "iptables-restore: line 4 failed: No chain/target/match by that name.",
                4,
            ),
            (
                "unknown option \"--foo\"; Error occurred at line: 3; Try `iptables-restore -h'",
                3,
            ),
            (
                "line 3: RULE_APPEND failed (No such file or directory): rule in chain A",
                3,
            ),
            (
                "ip6tables-restore v1.8.9 (legacy): goto 'A' is not a chain; Error at line: 4",
                4,
            ),
        ] {
            assert_eq!(refused_line(message, INPUT), INPUT.lines().nth(line - 1));
        }
        assert_eq!(refused_line("no line was named", INPUT), None);
        assert_eq!(refused_line("line 99 failed", INPUT), None);
    }

    #[test]
    fn a_table_that_does_not_exist_is_told_from_one_that_cannot_be_read() {
        for (message, absent) in [
            (
                "iptables-save -t raw: iptables-save v1.8.9 (legacy): Cannot initialize: Table does \
                 not exist (do you need to insmod?)",
                true,
            ),
            (
                "iptables-save -t raw: iptables-save v1.8.9 (nf_tables): table `raw' does not exist",
                true,
            ),
            (
                "iptables-save -t raw: iptables-save v1.8.9 (legacy): Cannot initialize: Permission \
                 denied (you must be root)",
                false,
            ),
            (
                "iptables-save -t raw: iptables-save v1.8.9 (nf_tables): Could not fetch rule set \
                 generation id: Permission denied (you must be root)",
                false,
            ),
            (
                "iptables-save is not installed or not in PATH (Debian: apt-get install iptables)",
                false,
            ),
        ] {
            assert_eq!(is_absence(message), absent, "{message}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_kernels_text() {
        let status = "Name:\tmesh\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << NET_ADMIN));
        assert_eq!(effective_capabilities("Name:\tmesh\n"), None);
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let error = need("ip13tables-restore").unwrap_err().to_string();
        assert!(error.contains("ip13tables-restore"), "{error}");
        assert!(error.contains("apt-get install iptables"), "{error}");
    }

    proptest! {
        #[test]
        fn a_message_never_panics(message in "(line|:| |[0-9]{0,30}|é){0,20}") {
            let _ = refused_line(&message, INPUT);
        }
    }
}
