//! A crate made for the purpose, read by the real rustdoc; and listings made up.

use super::*;

/// Shows `other` in every place where a signature can, and a few that are harmless.
const SHOWN: &str = r#"
    pub struct Plain { pub field: other::Type, hidden: other::Hidden }
    pub struct Tuple(pub Vec<other::Type>, other::Hidden);
    pub enum Choice { Unit, One(other::Type), Named { it: Option<other::Type> } }
    pub fn argument(_: &other::Type) {}
    pub fn result() -> Result<(), Box<other::Type>> { Ok(()) }
    pub fn bound<T: other::Trait>(_: T) {}
    pub fn dynamic(_: &dyn other::Trait) {}
    pub fn opaque() -> impl other::Trait { other::Type }
    pub fn pointer(_: fn(other::Type) -> u8) {}
    pub type Alias = [other::Type; 2];
    pub const VALUE: Option<other::Type> = None;
    pub trait Super: other::Trait { type Of: Into<other::Type>; }
    impl other::Trait for Plain {}
    impl From<other::Type> for Plain {
        fn from(field: other::Type) -> Self { Plain { field, hidden: other::Hidden } }
    }
    pub use other::Again;

    pub struct Harmless { inside: other::Hidden }
    impl Harmless {
        pub fn uses() -> usize { let _ = other::Type; size_of::<other::Hidden>() }
        pub fn ours(self) -> Private { Private(other::Hidden) }
    }
    pub struct Private(other::Hidden);
    pub struct Local(*const u8);
    fn not_public(_: other::Hidden) {}
    pub(crate) fn only_in_the_crate(_: other::Hidden) {}
"#;

const OTHER: &str = "
    pub struct Type; pub struct Hidden; pub struct Again;
    pub trait Trait {} impl Trait for Type {}
";

/// The API of [`SHOWN`].
fn shown() -> Api {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| write(&folder.path().join(path), text).unwrap();
    let manifest = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{more}")
    };
    let more = "[dependencies]\nother = { path = \"other\" }\n[workspace]\n";
    put("Cargo.toml", &manifest("shown", more));
    put("src/lib.rs", SHOWN);
    put("other/Cargo.toml", &manifest("other", ""));
    put("other/src/lib.rs", OTHER);

    let target = folder.path().join("target");
    document(
        cargo::cargo(folder.path())
            .args(["doc", "--no-deps", "--target-dir"])
            .arg(&target)
            .env("RUSTC_BOOTSTRAP", "1"),
    )
    .unwrap();
    describe("shown", &target.join("doc/shown.json")).unwrap()
}

#[test]
fn every_place_that_shows_a_foreign_type_is_found_and_no_other() {
    let api = shown();
    for place in [
        "pub shown::Plain::field: other::Type",
        "pub struct shown::Tuple",
        "pub shown::Choice::One(other::Type)",
        "pub shown::Choice::Named::it",
        "fn shown::argument",
        "fn shown::result",
        "fn shown::bound",
        "fn shown::dynamic",
        "fn shown::opaque",
        "fn shown::pointer",
        "type shown::Alias",
        "const shown::VALUE",
        "trait shown::Super",
        "type shown::Super::Of",
        "impl other::Trait for shown::Plain",
        "impl core::convert::From<other::Type> for shown::Plain",
        "pub use shown::Again",
    ] {
        let found = api.foreign.iter().any(|line| line.contains(place));
        assert!(found, "{place} is not in {:#?}", api.foreign);
    }
    for harmless in ["Harmless", "Private", "Local", "Hidden", "not_public"] {
        let wrong = api.foreign.iter().find(|line| line.contains(harmless));
        assert_eq!(wrong, None);
    }
    let first = "shown shows other::Type in: pub fn shown::argument(&other::Type)";
    assert!(api.foreign.iter().any(|line| line == first));
}

#[test]
fn a_listing_has_what_is_public_and_which_types_cannot_be_sent() {
    let text = shown().text;
    assert!(text.contains("pub fn shown::Harmless::uses() -> usize\n"));
    assert!(text.contains("impl !core::marker::Send for shown::Local\n"));
    assert!(text.contains("impl core::convert::From<other::Type> for shown::Plain\n"));
    assert!(!text.contains("shown::Plain::from"));
    assert!(!text.contains("not_public"));
    assert!(!text.contains("impl core::marker::Send"));
    assert!(!text.contains("UnwindSafe"));
    assert!(!text.contains("impl<T> core::any::Any for T"));
}

#[test]
fn crates_that_users_of_tower_have_anyway_may_show() {
    for path in [
        "http::request::Request",
        "bytes::bytes::Bytes",
        "core::fmt::Debug",
    ] {
        assert!(foreign::is_allowed("mesh-lb", path), "{path}");
    }
    assert!(foreign::is_allowed("mesh-lb", "mesh_core::error::Error"));
    for path in [
        "hyper::Error",
        "tokio::time::Sleep",
        "httparse::Header",
        "tower::Layer",
    ] {
        assert!(!foreign::is_allowed("mesh-lb", path), "{path}");
    }
}

#[test]
fn an_exemption_is_for_one_of_our_crates_only() {
    assert!(foreign::is_allowed(
        "mesh-proxy",
        "clap_builder::derive::Args"
    ));
    assert!(!foreign::is_allowed(
        "mesh-client",
        "clap_builder::derive::Args"
    ));
}

#[test]
fn an_auto_trait_is_left_out_unless_it_is_send_or_sync_that_is_missing() {
    assert!(goes_without_saying("impl core::marker::Send for a::B"));
    assert!(goes_without_saying(
        "impl<T> core::marker::Sync for a::B<T> where T: core::marker::Sync"
    ));
    assert!(goes_without_saying(
        "impl !core::panic::unwind_safe::UnwindSafe for a::B"
    ));
    assert!(!goes_without_saying("impl !core::marker::Send for a::B"));
    assert!(!goes_without_saying(
        "impl<T> !core::marker::Sync for a::B<T>"
    ));
    assert!(!goes_without_saying("impl core::marker::Copy for a::B"));
    assert!(!goes_without_saying("pub fn a::send()"));
}

fn made_up(text: &str) -> Api {
    Api {
        package: "made-up".into(),
        text: text.into(),
        foreign: Vec::new(),
    }
}

#[test]
fn a_change_is_shown_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("api/made-up.txt"), "pub a\npub b\n").unwrap();

    let same = judge(folder.path(), &made_up("pub a\npub b\n")).unwrap();
    assert_eq!(same, Vec::<String>::new());

    let other = judge(folder.path(), &made_up("pub a\npub c\n")).unwrap();
    assert_eq!(other.len(), 1);
    assert!(
        other[0].ends_with("    - pub b\n    + pub c"),
        "{}",
        other[0]
    );
}

#[test]
fn a_crate_without_a_listing_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let problems = judge(folder.path(), &made_up("pub a\n")).unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("cargo xtask api --bless -p made-up"));
}

#[test]
fn a_foreign_type_is_a_problem_even_when_it_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("api/made-up.txt"), "pub a\n").unwrap();
    let mut api = made_up("pub a\n");
    api.foreign.push("made-up shows hyper::Error".into());
    let problems = judge(folder.path(), &api).unwrap();
    assert_eq!(problems, ["made-up shows hyper::Error"]);
}

#[test]
fn another_format_of_rustdoc_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    write(&file, r#"{"format_version": 1}"#).unwrap();
    let Err(error) = describe("x", &file) else {
        panic!("format 1 is not read");
    };
    assert!(error.is::<OtherFormat>(), "{error}");
}
