//! Secrets that a task's YAML needs and that cannot lie in a repository.
//!
//! A task asks for one in a comment, which says the Secret's namespace and name, and the hosts of
//! its certificate. On a cluster one would make it by hand (`kubectl create secret tls`).
//!
//! ```text
//! # certificate: istio-system/shop-credential shop.example.com www.example.com
//! ```

use super::certificates::{Authority, write_private};
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// What a comment that asks for a Secret begins with.
const ASKS: &str = "# certificate: ";

/// A Secret that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    hosts: Vec<&'a str>,
}

/// The Secrets that a text asks for.
pub(crate) fn wanted(text: &str) -> impl Iterator<Item = anyhow::Result<Wanted<'_>>> {
    let asked = text.lines().filter_map(|line| line.strip_prefix(ASKS));
    asked.map(|asked| {
        Wanted::of(asked).with_context(|| {
            format!("`{ASKS}{asked}` is not `{ASKS}NAMESPACE/NAME HOST` and perhaps more hosts")
        })
    })
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    fn of(asked: &'a str) -> Option<Self> {
        let mut words = asked.split_whitespace();
        let (namespace, name) = words.next()?.split_once('/')?;
        let hosts: Vec<&str> = words.collect();
        let is_name = |text: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !text.is_empty() && text.chars().all(fits)
        };
        (is_name(namespace) && is_name(name) && !hosts.is_empty()).then_some(Self {
            namespace,
            name,
            hosts,
        })
    }

    /// Writes the Secret with a new certificate into a directory, in place of an earlier one.
    pub(crate) fn write(&self, authority: &Authority, dir: &Path) -> anyhow::Result<PathBuf> {
        let Self {
            namespace, name, ..
        } = self;
        let pair = authority.issue(&self.hosts)?;
        let text = format!(
            "# Made by `mesh demo`; `mesh demo renew` replaces it.\n\
             apiVersion: v1\n\
             kind: Secret\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             type: kubernetes.io/tls\n\
             stringData:\n  \
             tls.crt: |\n{}  \
             tls.key: |\n{}",
            indented(&pair.certificate),
            indented(&pair.key),
        );
        // Whole or not at all, whenever somebody looks.
        let aside = dir.join(format!(".secret-{name}"));
        if aside.exists() {
            fs::remove_file(&aside).with_context(|| format!("cannot clear {}", aside.display()))?;
        }
        write_private(&aside, &text)?;
        let place = dir.join(format!("secret-{name}.yaml"));
        fs::rename(&aside, &place).with_context(|| format!("cannot write {}", place.display()))?;
        Ok(place)
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_istio::{Files, World};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn comments_ask_for_secrets() {
        let text = "a: 1\n# certificate: ns/one a.com b.com\n# certificates: no\n";
        let asked: Vec<_> = wanted(text).map(Result::unwrap).collect();
        let one = Wanted {
            namespace: "ns",
            name: "one",
            hosts: vec!["a.com", "b.com"],
        };
        assert_eq!(asked, [one]);
        for wrong in [
            "one a.com",
            "ns/one",
            "ns/../x a.com",
            "/one a.com",
            "ns/ a.com",
        ] {
            let text = format!("{ASKS}{wrong}");
            let error = wanted(&text).next().unwrap().unwrap_err();
            assert!(error.to_string().contains("NAMESPACE/NAME"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_an_object_that_is_taken_and_nobody_else_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let asked = Wanted::of("ns/one a.com").unwrap();
        let first = asked.write(&authority, dir.path()).unwrap();
        let text = fs::read_to_string(&first).unwrap();
        let second = asked.write(&authority, dir.path()).unwrap();
        assert_eq!(first, second);
        assert_ne!(text, fs::read_to_string(&second).unwrap());
        let mode = fs::metadata(&second).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut world = World::default();
        assert_eq!(world.update(&Files::read(&[&second])), []);
        assert!(world.secret("ns", "one").unwrap().certificate.is_some());
        let yaml: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        assert_eq!(yaml, ["secret-one.yaml"]);
    }
}
