//! The files of a certificate authority: made, looked at, and changed beside a control plane that
//! runs and follows them.

use anyhow::Context;
use clap::{Args as Arguments, Subcommand, ValueEnum};
use mesh_identity::authority::{Authority, Directory, Limits, Material, RootOptions, Serial, Step};
use mesh_identity::{KeyKind, certificate_facts, check_trust_domain};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// What is done to an authority.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a root that vouches for itself. A directory that has an authority is left alone.
    Init(Init),
    /// Say what an authority is made of, and what it has revoked.
    Print(At),
    /// Revoke a certificate by its serial number: a control plane refuses it from then on, and peers
    /// that are given the list in ca-crl.pem do.
    Revoke(Revoke),
    /// Do one step of replacing a root. Between two steps everybody has to get a certificate anew.
    Rotate(Rotate),
}

#[derive(Debug, Arguments)]
pub(crate) struct At {
    /// The directory: ca-cert.pem, ca-key.pem, root-cert.pem, …
    directory: PathBuf,
}

#[derive(Debug, Arguments)]
pub(crate) struct Init {
    #[command(flatten)]
    at: At,
    /// The trust domain, which stands in the root's subject.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// What kind of key it has.
    #[arg(long, value_enum, default_value_t)]
    key: Key,
}

#[derive(Debug, Arguments)]
pub(crate) struct Revoke {
    #[command(flatten)]
    at: At,
    /// The serial number, in hexadecimal digits.
    serial: String,
}

#[derive(Debug, Arguments)]
pub(crate) struct Rotate {
    #[command(flatten)]
    at: At,
    /// The step.
    #[arg(value_enum)]
    step: StepName,
    /// With prepare: the trust domain, which stands in the root's subject.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Key {
    #[default]
    P256,
    P384,
    Rsa2048,
    Rsa4096,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StepName {
    /// A new root is made and trusted beside the old one, which still signs.
    Prepare,
    /// The new root signs; both are trusted.
    Promote,
    /// The old root is trusted no longer.
    Retire,
}

/// Does it. Errors are printed.
pub(crate) fn run(command: Command) -> ExitCode {
    match execute(command, SystemTime::now()) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What there is to say about it, once it is done.
fn execute(command: Command, now: SystemTime) -> anyhow::Result<String> {
    match command {
        Command::Init(init) => {
            check_trust_domain(&init.trust_domain).context("--trust-domain")?;
            let directory = Directory::at(init.at.directory);
            if !directory.is_empty() {
                anyhow::bail!("{} has an authority already", directory.path().display());
            }
            let mut options = RootOptions::default();
            options.organization = init.trust_domain;
            options.key = init.key.into();
            directory.write(&Material::self_signed(&options, now)?)?;
            print(&directory, now)
        }
        Command::Print(at) => print(&Directory::at(at.directory), now),
        Command::Revoke(revoke) => {
            let serial: Serial = revoke.serial.parse().context("SERIAL")?;
            let directory = Directory::at(revoke.at.directory);
            let mut authority = open(&directory, now)?;
            let news = authority.revoke(serial.clone(), now)?;
            directory.write_revoked(&authority.revoked_pem(now)?)?;
            Ok(match news {
                true => format!("revoked {serial}\n"),
                false => format!("{serial} was revoked before\n"),
            })
        }
        Command::Rotate(rotate) => {
            let directory = Directory::at(rotate.at.directory);
            let mut material = directory.read()?;
            let mut options = RootOptions::default();
            options.organization = rotate.trust_domain;
            material.step(rotate.step.into(), &options, now)?;
            let authority = Authority::new(&material, Limits::default(), now)?;
            let material = material.with_revoked(authority.revoked_pem(now)?);
            directory.write(&material)?;
            print(&directory, now)
        }
    }
}

fn open(directory: &Directory, now: SystemTime) -> anyhow::Result<Authority> {
    let authority = Authority::new(&directory.read()?, Limits::default(), now);
    authority.with_context(|| directory.path().display().to_string())
}

/// One line for each certificate, and one for each that was revoked.
fn print(directory: &Directory, now: SystemTime) -> anyhow::Result<String> {
    let authority = open(directory, now)?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let seconds = i64::try_from(seconds)?;
    let mut out = String::new();
    for (what, file) in [
        ("signs", "ca-cert.pem"),
        ("next", "next/ca-cert.pem"),
        ("previous", "previous/ca-cert.pem"),
        ("trusted", "root-cert.pem"),
    ] {
        let path = directory.path().join(file);
        if !path.exists() {
            continue;
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        for facts in certificate_facts(&text)? {
            let (serial, days) = (&facts.serial, facts.days_left(seconds));
            out += &format!("{what:<9} {serial}  {days} days left\n");
        }
    }
    if let Some((step, at)) = authority.due() {
        let days = at.duration_since(now).unwrap_or_default().as_secs() / 86_400;
        let step = format!("{step:?}").to_lowercase();
        out += &format!("due       {step}, in {days} days\n");
    }
    for serial in authority.revoked() {
        out += &format!("revoked   {serial}\n");
    }
    Ok(out)
}

// === impl Key ===

impl From<Key> for KeyKind {
    fn from(key: Key) -> Self {
        match key {
            Key::P256 => Self::EcdsaP256,
            Key::P384 => Self::EcdsaP384,
            Key::Rsa2048 => Self::Rsa2048,
            Key::Rsa4096 => Self::Rsa4096,
        }
    }
}

// === impl StepName ===

impl From<StepName> for Step {
    fn from(step: StepName) -> Self {
        match step {
            StepName::Prepare => Self::Prepare,
            StepName::Promote => Self::Promote,
            StepName::Retire => Self::Retire,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn an_authority_is_made_once_and_changed_step_by_step() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("ca");
        let directory = directory.to_str().unwrap();
        let now = SystemTime::now();
        let run = |words: &[&str]| {
            let line = Line::try_parse_from([&["mesh"], words].concat()).unwrap();
            execute(line.command, now).map_err(|error| format!("{error:#}"))
        };
        let count =
            |said: &str, what: &str| said.lines().filter(|line| line.starts_with(what)).count();
        assert!(
            run(&["print", directory])
                .unwrap_err()
                .contains("is missing")
        );
        let made = run(&[
            "init",
            directory,
            "--key",
            "p384",
            "--trust-domain",
            "a.test",
        ])
        .unwrap();
        assert_eq!(
            (count(&made, "signs"), count(&made, "trusted")),
            (1, 1),
            "{made}"
        );
        assert!(run(&["init", directory]).unwrap_err().contains("already"));
        assert!(
            run(&["rotate", directory, "promote"])
                .unwrap_err()
                .contains("prepared")
        );
        let said = run(&["rotate", directory, "prepare"]).unwrap();
        assert_eq!(
            (count(&said, "next"), count(&said, "trusted")),
            (1, 2),
            "{said}"
        );
        assert_eq!(
            run(&["revoke", directory, "0A:FF"]).unwrap(),
            "revoked 0aff\n"
        );
        assert!(
            run(&["revoke", directory, "0aff"])
                .unwrap()
                .contains("before")
        );
        assert!(run(&["revoke", directory, "x"]).is_err());
        run(&["rotate", directory, "promote"]).unwrap();
        let said = run(&["rotate", directory, "retire"]).unwrap();
        assert_eq!(
            (count(&said, "trusted"), count(&said, "previous")),
            (1, 0),
            "{said}"
        );
        assert_eq!(count(&said, "revoked   0aff"), 1, "{said}");
        assert!(
            !said.contains(made.split_whitespace().nth(1).unwrap()),
            "another root: {said}"
        );
    }
}
