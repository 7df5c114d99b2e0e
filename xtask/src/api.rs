//! `cargo xtask api`: the public API of each library crate, one item a line, as it is committed in
//! `api/CRATE.txt`; and that no type of another crate shows in it.
//!
//! Read from rustdoc's JSON, which stable rustdoc writes when it is told that it may
//! (`RUSTC_BOOTSTRAP`). Build scripts look at this variable too, and what they find out must not reach
//! what is tested or shipped: so cargo calls this program for rustdoc, and only rustdoc gets it.
//!
//! Left out of the listing: blanket impls, the functions in the impl of a trait, and auto traits
//! that a type has. A type that has *no* `Send` or `Sync` is listed with that, so that losing one
//! shows as a change.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use public_api::PublicItem;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    cargo,
    workspace::{Package, Packages, Workspace},
};

mod foreign;
#[cfg(test)]
mod tests;

/// The format of rustdoc's JSON that this reads; it is that of rustc 1.94 and 1.95.
const FORMAT: u64 = 57;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the listings instead of comparing with them
    #[arg(long)]
    bless: bool,

    #[command(flatten)]
    packages: Packages,
}

/// Compares the listings with the crates.
///
/// # Errors
///
/// If one differs, or a foreign type shows in one.
pub(crate) fn compare(workspace: &Workspace, packages: &Packages) -> anyhow::Result<()> {
    let options = Options {
        bless: false,
        packages: packages.clone(),
    };
    run(workspace, &options)
}

/// Compares or writes the listings.
///
/// # Errors
///
/// If one differs, or a foreign type shows in one.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for api in read(workspace, &options.packages)? {
        if options.bless {
            write(&workspace.root().join(api.listing()), &api.text)?;
        }
        problems.extend(judge(workspace.root(), &api)?);
    }
    problems.extend(left_over(workspace)?);
    if !problems.is_empty() {
        for problem in &problems {
            eprintln!("  {problem}");
        }
        bail!("problems with the public API: {}", problems.len());
    }
    Ok(())
}

/// The toolchain's rustdoc writes another format than xtask reads.
#[derive(Debug)]
pub(crate) struct OtherFormat(u64);

impl std::error::Error for OtherFormat {}

impl fmt::Display for OtherFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(format) = self;
        write!(
            f,
            "this rustdoc writes format {format}, xtask reads {FORMAT}: a new toolchain needs the \
             release of public-api that fits it"
        )
    }
}

/// The public API of one crate.
struct Api {
    package: String,
    text: String,
    foreign: Vec<String>,
}

impl Api {
    fn listing(&self) -> PathBuf {
        listing(&self.package)
    }
}

/// Where the listing of a package is, relative to the root.
fn listing(package: &str) -> PathBuf {
    Path::new("api").join(format!("{package}.txt"))
}

/// Has rustdoc describe the selected library crates, and reads what it wrote.
fn read(workspace: &Workspace, packages: &Packages) -> anyhow::Result<Vec<Api>> {
    let libraries: Vec<&Package> = workspace
        .select(packages)?
        .into_iter()
        .filter(|package| package.is_public_library())
        .collect();
    if libraries.is_empty() {
        return Ok(Vec::new());
    }
    let rustdoc = env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    document(
        cargo::cargo(workspace.root())
            .args(["doc", "--no-deps"])
            .args(cargo::documented(&libraries))
            .args(packages.arguments())
            .env("RUSTDOC", cargo::this_program()?)
            .env(IN_PLACE_OF, rustdoc),
    )?;
    libraries
        .into_iter()
        .map(|library| {
            let name = library.library().map_or(&*library.name, |lib| &*lib.name);
            let file = workspace.target().join(format!("doc/{name}.json"));
            describe(&library.name, &file)
        })
        .collect()
}

/// Has rustdoc, which `cargo` gets to be allowed to, write JSON (`doc/CRATE.json`).
fn document(cargo: &mut Command) -> anyhow::Result<()> {
    // Whether the documentation is sound is asked elsewhere (`test --step docs`).
    let flags = "--cap-lints=allow -Zunstable-options --output-format=json";
    cargo::run(cargo.env("RUSTDOCFLAGS", flags))
}

/// Names the rustdoc that cargo would have called, where it calls this program instead.
const IN_PLACE_OF: &str = "MESH_XTASK_RUSTDOC";

/// Does what cargo asks rustdoc for, if it called this program in its place.
pub(crate) fn in_place_of_rustdoc() -> Option<ExitCode> {
    let rustdoc = env::var_os(IN_PLACE_OF)?;
    let status = Command::new(&rustdoc)
        .args(env::args_os().skip(1))
        .env_remove(IN_PLACE_OF)
        .env("RUSTC_BOOTSTRAP", "1")
        .status();
    Some(match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot start {rustdoc:?}: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Reads JSON that is nested as deeply as the type of a stack of layers.
fn deep(text: &str) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    Value::deserialize(&mut reader)
}

/// Reads one file that rustdoc wrote.
fn describe(package: &str, file: &Path) -> anyhow::Result<Api> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))?;
    let json = deep(&text).context("cannot read rustdoc's JSON")?;
    let format = json["format_version"].as_u64();
    if format != Some(FORMAT) {
        return Err(OtherFormat(format.unwrap_or_default()).into());
    }
    let api = public_api::Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .build()
        .context("cannot read rustdoc's JSON")?;

    let mut text = String::new();
    let mut foreign = BTreeSet::new();
    for item in api.items() {
        let line = item.to_string();
        if goes_without_saying(&line) || is_given_by_a_trait(&json, item) {
            continue;
        }
        for name in foreign::types_of(&json, item.id().0) {
            if !foreign::is_allowed(package, &name) {
                foreign.insert(format!("{package} shows {name} in: {line}"));
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(Api {
        package: package.into(),
        text,
        foreign: foreign.into_iter().collect(),
    })
}

/// Whether the line says only that a type has a trait which it has by itself.
///
/// `impl !core::marker::Send for X` is not such a line.
fn goes_without_saying(line: &str) -> bool {
    let Some((head, _)) = line.split_once(" for ") else {
        return false;
    };
    let name = head.rsplit(' ').next().unwrap_or(head);
    let unsigned = name.strip_prefix('!').unwrap_or(name);
    head.starts_with("impl")
        && match unsigned {
            "core::marker::Send" | "core::marker::Sync" => unsigned == name,
            "core::marker::Freeze"
            | "core::marker::StructuralPartialEq"
            | "core::marker::Unpin"
            | "core::marker::UnsafeUnpin"
            | "core::panic::unwind_safe::RefUnwindSafe"
            | "core::panic::unwind_safe::UnwindSafe" => true,
            _ => false,
        }
}

/// Whether this is a function in the impl of a trait: that the impl is there says it all. (Its
/// associated types are the impl's own choice.)
fn is_given_by_a_trait(json: &Value, item: &PublicItem) -> bool {
    let inner = |id: u32| &json["index"][id.to_string()]["inner"];
    inner(item.id().0)["function"].is_object()
        && item
            .parent_id()
            .is_some_and(|parent| inner(parent.0)["impl"]["trait"].is_object())
}

/// What is wrong with an API, given the listing that is there.
fn judge(root: &Path, api: &Api) -> anyhow::Result<Vec<String>> {
    let mut problems = api.foreign.clone();
    let path = api.listing();
    match fs::read_to_string(root.join(&path)) {
        Ok(listed) => {
            let changes = changes(&listed, &api.text);
            if changes.is_empty() {
                println!("{}: {} items", api.package, api.text.lines().count());
            } else {
                problems.push(format!(
                    "{} differs from the crate (if that is meant: `cargo xtask api --bless`):\n{}",
                    path.display(),
                    changes.join("\n")
                ));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => problems.push(format!(
            "{} has no listing: `cargo xtask api --bless -p {0}` writes {}",
            api.package,
            path.display()
        )),
        Err(error) => return Err(error).with_context(|| format!("cannot read {path:?}")),
    }
    Ok(problems)
}

/// The lines that went and the lines that came.
fn changes(before: &str, after: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.lines().collect(), after.lines().collect());
    let went = before.lines().filter(|line| !new.contains(line));
    let came = after.lines().filter(|line| !old.contains(line));
    went.map(|line| format!("    - {line}"))
        .chain(came.map(|line| format!("    + {line}")))
        .collect()
}

/// Listings of crates that are not there any more.
fn left_over(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let expected: BTreeSet<PathBuf> = workspace
        .metadata
        .members()
        .filter(|package| package.is_public_library())
        .map(|package| listing(&package.name))
        .collect();
    let folder = workspace.root().join("api");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    for entry in fs::read_dir(&folder).context("cannot list api/")? {
        let path = Path::new("api").join(entry.context("cannot list api/")?.file_name());
        if !expected.contains(&path) {
            problems.push(format!("{} belongs to no library crate", path.display()));
        }
    }
    Ok(problems)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder:?}"))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {path:?}"))
}
