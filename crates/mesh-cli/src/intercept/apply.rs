//! Setting it up and taking it back, whole or not at all.

use super::host::Host;
use super::options::Options;
use super::plan::{Plan, Setting, plan};
use super::rule::Family;
use super::state::State;
use anyhow::Context;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The families in which something was set up or taken back.
    pub(super) families: Vec<Family>,
    /// What there is to say besides.
    pub(super) notes: Vec<String>,
}

/// How to take one step back.
#[derive(Debug)]
enum Undo {
    /// Back to what was ours before.
    Rules(Family, State),
    /// A command.
    Command(Vec<&'static str>),
}

/// Sets an interception up, in place of an earlier one.
///
/// # Errors
/// Says which rule or command was refused. All is then as before.
pub(super) fn apply(host: &Host, options: &Options) -> anyhow::Result<Done> {
    let mut options = options.clone();
    host.check_privileges()?;
    let (families, note) = host.families(options.no_ipv6)?;
    let mut done = Done::default();
    if let Some(note) = note {
        options.no_ipv6 = true;
        options
            .check()
            .map_err(anyhow::Error::msg)
            .context(note.clone())?;
        done.notes.push(note);
    }
    let plans = families.into_iter().map(|family| {
        if family == Family::V6 && options.no_ipv6 {
            Plan::nothing(family)
        } else {
            plan(&options, family)
        }
    });
    change(host, plans, &mut done)?;
    Ok(done)
}

/// Takes back what [`apply`] has set up.
///
/// # Errors
/// Says what was refused. All is then as before.
pub(super) fn clean(host: &Host) -> anyhow::Result<Done> {
    host.check_privileges()?;
    let (families, note) = host.families(true)?;
    let mut done = Done::default();
    done.notes.extend(note);
    change(host, families.into_iter().map(Plan::nothing), &mut done)?;
    Ok(done)
}

/// Goes to what is planned, or back.
fn change(host: &Host, plans: impl Iterator<Item = Plan>, done: &mut Done) -> anyhow::Result<()> {
    // All that can be found out is, before anything changes.
    let mut work = Vec::new();
    for plan in plans {
        let before = host.state(plan.family).context("nothing was changed")?;
        work.push((plan, before));
    }
    let mut undo = Vec::new();
    for (plan, before) in &work {
        if let Err(error) = change_family(host, plan, before, &mut undo, done) {
            let what = match roll_back(host, undo) {
                Ok(()) => "all is as before".to_owned(),
                Err(other) => {
                    format!("going back failed too ({other:#}): see `mesh intercept clean`")
                }
            };
            return Err(error.context(what));
        }
    }
    Ok(())
}

fn change_family(
    host: &Host,
    plan: &Plan,
    before: &State,
    undo: &mut Vec<Undo>,
    done: &mut Done,
) -> anyhow::Result<()> {
    let family = plan.family;
    let wanted = State::planned(plan);
    if before.is_empty() && wanted.is_empty() {
        return Ok(());
    }
    done.families.push(family);
    let mut settings = Vec::new();
    for setting in Setting::ALL {
        let is_wanted = plan.settings.contains(&setting);
        // Without rules of ours, whatever is set is not ours to take back.
        if !is_wanted && before.is_empty() {
            continue;
        }
        let is_there = host.has(setting, family)?;
        if is_there != is_wanted {
            settings.push((setting, is_wanted));
        } else if is_there && before.is_empty() {
            let what = setting.add(family).join(" ");
            done.notes.push(format!(
                "`{what}` was done by somebody already; to clean will take it back"
            ));
        }
    }
    // Settings first: nothing uses them without the rules. And last when all is taken away.
    let (added, deleted): (Vec<_>, Vec<_>) = settings.into_iter().partition(|(_, add)| *add);
    for (setting, _) in added {
        host.run(&setting.add(family), "")?;
        undo.push(Undo::Command(setting.delete(family)));
    }
    undo.push(Undo::Rules(family, before.clone()));
    host.restore(family, &before.transition(&wanted))?;
    for (setting, _) in deleted {
        host.run(&setting.delete(family), "")?;
        undo.push(Undo::Command(setting.add(family)));
    }
    Ok(())
}

/// Takes steps back, the last first; all of them, even if one fails.
fn roll_back(host: &Host, undo: Vec<Undo>) -> anyhow::Result<()> {
    let mut first = Ok(());
    for step in undo.into_iter().rev() {
        let result = match step {
            Undo::Command(words) => host.run(&words, "").map(drop),
            // Some tables may have changed and others not, so look again.
            Undo::Rules(family, before) => host.state(family).and_then(|now| {
                if now == before {
                    return Ok(());
                }
                host.restore(family, &now.transition(&before))
            }),
        };
        first = first.and(result);
    }
    first
}
