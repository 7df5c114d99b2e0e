//! The files of a configuration, read as text and nothing more.
//!
//! Reading cannot fail as a whole: a file that cannot be read is carried along
//! as such, so that the objects it had before stay in force.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};

/// The largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 8 << 20;

// A directory that contains a link to itself has to end somewhere.
const DEEPEST_DIRECTORY: usize = 32;

/// A set of files, in the order in which they count. Files with the same names and texts have the
/// same hash: whoever watches files, beside which others change, keeps that of the last ones.
#[derive(Clone, Debug, Default, Hash)]
pub struct Files {
    files: Vec<File>,
}

/// One file: its name and its text, or why there is none.
#[derive(Clone, Hash)]
pub(crate) struct File {
    pub(crate) name: Arc<str>,
    pub(crate) text: Result<Arc<str>, String>,
    /// It holds a mesh configuration instead of objects.
    pub(crate) mesh_config: bool,
}

impl fmt::Debug for File {
    /// Leaves the text out: there may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.name)
            .field("length", &self.text.as_ref().map(|text| text.len()))
            .field("mesh_config", &self.mesh_config)
            .finish()
    }
}

// === impl Files ===

impl Files {
    /// Reads files, and directories with everything below them that ends in
    /// `.yaml`, `.yml` or `.json`, sorted by path.
    ///
    /// A file is read whatever its name if it is given itself.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Self {
        let mut files = Self::default();
        for path in paths {
            files.add_path(path.as_ref());
        }
        files
    }

    /// One file from memory.
    pub fn from_text(name: &str, text: &str) -> Self {
        Self::default().and_text(name, text)
    }

    /// Adds another file from memory.
    #[must_use]
    pub fn and_text(mut self, name: &str, text: &str) -> Self {
        self.files.push(File {
            name: name.into(),
            text: Ok(text.into()),
            mesh_config: false,
        });
        self
    }

    /// Adds a file that holds a mesh configuration (`--mesh-config`) and reads it first.
    #[must_use]
    pub fn and_mesh_config(mut self, path: &Path) -> Self {
        let file = File {
            mesh_config: true,
            ..read_file(path)
        };
        self.files.insert(0, file);
        self
    }

    /// Adds a mesh configuration from memory.
    #[must_use]
    pub fn and_mesh_config_text(mut self, name: &str, text: &str) -> Self {
        let file = File {
            name: name.into(),
            text: Ok(text.into()),
            mesh_config: true,
        };
        self.files.insert(0, file);
        self
    }

    /// The names of the files, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| &*file.name)
    }

    /// The files that could not be read, and why.
    pub fn unreadable(&self) -> Vec<Diagnostic> {
        self.files.iter().filter_map(File::problem).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    fn add_path(&mut self, path: &Path) {
        if !path.is_dir() {
            self.add_file(path);
            return;
        }
        let mut found = BTreeSet::new();
        if let Err(reason) = list(path, 0, &mut found) {
            let name = path.display().to_string().into();
            self.files.push(File {
                name,
                text: Err(reason),
                mesh_config: false,
            });
        }
        for path in found {
            self.add_file(&path);
        }
    }

    fn add_file(&mut self, path: &Path) {
        let file = read_file(path);
        // The same file may be given itself and through its directory.
        if self.files.iter().all(|have| have.name != file.name) {
            self.files.push(file);
        }
    }
}

impl File {
    pub(crate) fn problem(&self) -> Option<Diagnostic> {
        let reason = self.text.as_ref().err()?;
        Some(Diagnostic::of_file(
            Severity::Error,
            &self.name,
            reason.as_str(),
        ))
    }
}

fn list(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    if depth > DEEPEST_DIRECTORY {
        return Err(format!(
            "directories nested deeper than {DEEPEST_DIRECTORY}"
        ));
    }
    let entries = fs::read_dir(directory).map_err(|error| format!("cannot list: {error}"))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("cannot list: {error}"))?
            .path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // Mounted ConfigMaps keep their real files below `..data`; editors hide theirs too.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            list(&path, depth + 1, found)?;
        } else if matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml" | "json"),
        ) {
            found.insert(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> File {
    let name: Arc<str> = path.display().to_string().into();
    File {
        name,
        text: read_text(path),
        mesh_config: false,
    }
}

fn read_text(path: &Path) -> Result<Arc<str>, String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot read: {error}"))?;
    let mut bytes = Vec::new();
    // The limit holds while reading: a file may grow, and a pipe has no size to ask for.
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read: {error}"))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("larger than {} MiB", LARGEST_FILE >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher as _, RandomState};

    #[test]
    fn reads_directories_in_sorted_order_and_leaves_other_files_alone() {
        let root = std::env::temp_dir().join(format!("mesh-istio-files-{}", std::process::id()));
        fs::create_dir_all(root.join("b")).unwrap();
        for (name, text) in [
            ("z.yaml", "z: 1"),
            ("b/a.yml", "a: 1"),
            ("c.json", "{}"),
            ("notes.txt", ""),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        fs::write(root.join("bad.yaml"), [0xff, 0xfe]).unwrap();
        let files = Files::read(&[&root, &root.join("z.yaml")]);
        let names: Vec<&str> = files
            .names()
            .map(|name| {
                Path::new(name)
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(names, ["b/a.yml", "bad.yaml", "c.json", "z.yaml"]);
        assert_eq!(files.unreadable()[0].message, "not UTF-8");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_hash_tells_names_and_texts_apart_and_no_text_is_shown() {
        let hasher = RandomState::new();
        let of = |name: &str, text: &str| hasher.hash_one(Files::from_text(name, text));
        assert_eq!(of("a.yaml", "subset: v2"), of("a.yaml", "subset: v2"));
        assert_ne!(of("a.yaml", "subset: v2"), of("a.yaml", "subset: v3"));
        assert_ne!(of("a.yaml", "subset: v2"), of("b.yaml", "subset: v2"));
        let shown = format!("{:?}", Files::from_text("a.yaml", "subset: v2"));
        assert!(!shown.contains("v2"), "{shown}");
    }

    #[test]
    fn carries_a_missing_file_along_as_unreadable() {
        let files = Files::read(&["no/such/file.yaml"]);
        assert!(
            files.unreadable()[0]
                .to_string()
                .starts_with("no/such/file.yaml: cannot read")
        );
    }

    #[test]
    fn refuses_a_file_above_the_limit() {
        let path = std::env::temp_dir().join(format!("mesh-istio-big-{}.yaml", std::process::id()));
        fs::write(
            &path,
            vec![b'#'; usize::try_from(LARGEST_FILE).unwrap() + 1],
        )
        .unwrap();
        assert_eq!(
            Files::read(&[&path]).unreadable()[0].message,
            "larger than 8 MiB"
        );
        fs::remove_file(path).unwrap();
    }
}
