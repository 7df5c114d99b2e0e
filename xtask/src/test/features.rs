//! Each crate alone, and with each of its features alone.
//!
//! In a workspace build cargo switches on in a shared crate what any member asks for, so a member
//! that forgot to ask for it itself builds all the same; its users' builds would not.

use super::Context;
use crate::{cargo, report::Outcome};

pub(super) fn run(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut ran = 0;
    for package in &context.selected {
        // What is not published is built by nobody but the workspace.
        let own = context.workspace.folder(package).starts_with("crates");
        if !own || package.publish.is_some() {
            continue;
        }
        let alone = std::iter::once(None).chain(package.features.keys().map(Some));
        for feature in alone {
            let mut command = context.cargo();
            command
                .args(["check", "--quiet", "--no-default-features"])
                .arg(format!("--package={}", package.name));
            if let Some(feature) = feature {
                command.arg(format!("--features={feature}"));
            }
            cargo::run(&mut command)?;
            ran += 1;
        }
    }
    Ok(match ran {
        0 => Outcome::Nothing("no crate under crates/".into()),
        _ => Outcome::Passed,
    })
}
