//! Fuzz targets for whatever a peer or a file can feed to the mesh toolkit.
//!
//! ```text
//!  seeds/NAME ──► seed ──► corpus ──► libFuzzer ──► mutate ──► the target: checks, or panics
//!   readable text         its input                (protobuf and DER keep their lengths)
//! ```
//!
//! All targets are in one program, which is linked once; [`VARIABLE`] says which one runs. A target
//! takes any bytes and panics where something is wrong. `cargo xtask fuzz` is how to run them, and
//! the tests of this package run each over its seeds.

mod certificate;
mod chains;
pub mod client;
pub mod converge;
pub mod der;
mod dns;
mod first;
mod http1;
mod identity;
mod istio;
mod jwt;
mod message;
mod names;
mod parts;
mod paths;
mod policy;
mod resource;
mod seeds;
pub mod server;
pub mod snapshot;
mod structured;
mod text;
pub mod wire;

use std::path::Path;
use std::{fmt, fs};

/// The environment variable that names the target.
pub const VARIABLE: &str = "MESH_FUZZ_TARGET";

/// The environment variable that names a folder: then the target's seeds are written there, as it
/// takes them, and nothing is run.
pub const SEEDS: &str = "MESH_FUZZ_SEEDS";

/// Something that is fed with anything.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name; its seeds are in `seeds/NAME`.
    pub name: &'static str,
    /// Takes an input, and panics if something is wrong.
    pub run: fn(&[u8]),
    /// What inputs are made of.
    pub input: Input,
}

/// What the inputs of a target are made of, which is how seeds become inputs and inputs others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// An encoded message of this type. Seeds are YAML.
    Protobuf(&'static str),
    /// As [`Input::Protobuf`], after a byte that says which of [`message::MESSAGES`] it is. The
    /// first line of a seed is `# ` and the message's name.
    AnyProtobuf,
    /// DER, after a byte that says which of [`certificate::LABELS`] it is. Seeds are PEM.
    Der,
    /// Bytes. Seeds are lines of hexadecimal digits and quoted text; see [`seeds::bytes`].
    Bytes,
    /// Text. Seeds are taken as they are.
    Text,
    /// Steps, as `arbitrary` reads them. Seeds are a few numbers; see [`structured::spread`].
    Steps,
}

/// Changes an input with the help of random numbers, of which this is the first; none if the input
/// does not have the form. The last argument changes the contents of a field.
pub type Change = fn(&[u8], u32, &mut dyn FnMut(&mut Vec<u8>)) -> Option<Vec<u8>>;

/// All targets.
pub const TARGETS: &[Target] = &[
    resource::CLUSTER,
    resource::ENDPOINTS,
    resource::LISTENER,
    resource::ROUTES,
    resource::SECRET,
    message::SCHEMA,
    text::JSON,
    text::BOOTSTRAP,
    client::TARGET,
    server::TARGET,
    converge::TARGET,
    snapshot::TARGET,
    istio::YAML,
    parts::ACCESS_LOG,
    parts::HEADER,
    first::PROXY_PROTOCOL,
    first::TLS,
    first::HTTP,
    http1::MESSAGE,
    http1::SERVER,
    chains::TARGET,
    certificate::FILES,
    certificate::DER,
    dns::TARGET,
    identity::SPIFFE,
    identity::REQUEST,
    jwt::JWT,
    jwt::JWKS,
    names::TARGET,
    paths::TARGET,
    policy::TARGET,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

// === impl Target ===

impl Target {
    /// A committed seed as an input.
    ///
    /// # Errors
    /// If it is not what the target's seeds are made of.
    pub fn seed(&self, text: &str) -> Result<Vec<u8>, String> {
        match self.input {
            Input::Protobuf(message) => message::encode(message, text),
            Input::AnyProtobuf => message::encode_named(text),
            Input::Der => certificate::unwrap(text),
            Input::Bytes => seeds::bytes(text),
            Input::Text => Ok(text.as_bytes().to_vec()),
            Input::Steps => structured::spread(text),
        }
    }

    /// How inputs are changed so that they keep their form, and from which byte on they have it.
    pub fn form(&self) -> Option<(usize, Change)> {
        match self.input {
            Input::Protobuf(_) => Some((0, wire::mutate)),
            Input::AnyProtobuf => Some((1, wire::mutate)),
            Input::Der => Some((1, der::mutate)),
            Input::Bytes | Input::Text | Input::Steps => None,
        }
    }

    /// Writes the seeds in the folder `from` to the folder `to`, as inputs. Returns how many.
    ///
    /// # Errors
    /// If a folder cannot be used, or a seed is wrong; with its path.
    pub fn write_seeds(&self, from: &Path, to: &Path) -> Result<usize, String> {
        let said = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let mut count = 0;
        for entry in fs::read_dir(from).map_err(|error| said(from, &error))? {
            let path = entry.map_err(|error| said(from, &error))?.path();
            let text = fs::read_to_string(&path).map_err(|error| said(&path, &error))?;
            let input = self.seed(&text).map_err(|error| said(&path, &error))?;
            let name = path.file_name().unwrap_or_default();
            let file = to.join(format!("seed-{}", name.display()));
            fs::write(&file, input).map_err(|error| said(&file, &error))?;
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn seeds() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
    }

    #[test]
    fn every_target_is_clean_over_its_seeds() {
        for target in TARGETS {
            let mut count = 0;
            for entry in fs::read_dir(seeds().join(target.name)).expect(target.name) {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let input = target.seed(&text).unwrap_or_else(|error| {
                    panic!("{}: {error}", path.display());
                });
                (target.run)(&input);
                count += 1;
            }
            assert!(count > 0, "{} has no seeds", target.name);
        }
    }

    #[test]
    fn every_folder_of_seeds_is_that_of_a_target() {
        for entry in fs::read_dir(seeds()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(target(&name).is_some(), "there is no target {name}");
        }
    }

    #[test]
    fn no_target_minds_nothing_or_noise() {
        let noise: Vec<u8> = (0..4_000_u32)
            .map(|at| ((at * at * 31) >> 5) as u8)
            .collect();
        for target in TARGETS {
            (target.run)(&[]);
            for cut in [1, 7, 100, 4_000] {
                (target.run)(&noise[..cut]);
            }
        }
    }
}
