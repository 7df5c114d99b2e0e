//! What is in netfilter of ours, and how to get from one such state to another.
//!
//! Ours are the rules in built-in chains that carry our comment, and the chains with Istio's names,
//! unless a rule of somebody else leads to one: then they are not ours to touch.

use super::plan::Plan;
use super::rule::{Chain, MARK_OF_OURS, Table};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// What is ours, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(BTreeMap<Table, Content>);

/// What is ours in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    chains: Vec<Chain>,
    /// The lines that put the rules in, in their order.
    rules: Vec<String>,
    /// The lines that take out what is in built-in chains.
    removals: Vec<String>,
}

/// Somebody else's rule that leads to a chain with one of Istio's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    table: Table,
    rule: String,
}

// === impl State ===

impl State {
    /// What a plan puts in.
    pub(super) fn planned(plan: &Plan) -> Self {
        let mut state = Self::default();
        for (table, rules) in &plan.tables {
            let content = state.0.entry(*table).or_default();
            for rule in rules {
                content.rules.push(rule.to_string());
                if !rule.chain.is_built_in() && !content.chains.contains(&rule.chain) {
                    content.chains.push(rule.chain);
                }
            }
        }
        state
    }

    /// Reads what `iptables-save` prints. What is not ours is passed over.
    ///
    /// # Errors
    /// If Istio's chains are there and in use by somebody else.
    pub(super) fn saved(text: &str) -> Result<Self, Foreign> {
        let mut state = Self::default();
        let mut table = None;
        let mut places: BTreeMap<(Table, &str), usize> = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|one| one.name() == name.trim());
                continue;
            }
            let Some(table) = table else { continue };
            if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                if let Some(chain) = ours(name) {
                    state.0.entry(table).or_default().chains.push(chain);
                }
                continue;
            }
            let Some((name, rest)) = line.strip_prefix("-A ").and_then(|it| it.split_once(' '))
            else {
                continue;
            };
            let place = places.entry((table, name)).or_default();
            *place += 1;
            if ours(name).is_some() {
                state.0.entry(table).or_default().rules.push(line.into());
                continue;
            }
            let words = words(rest);
            if follows(&words, &["--comment"], |comment| comment == MARK_OF_OURS) {
                let content = state.0.entry(table).or_default();
                // At the very place, so that it stands as before among the rules of others.
                content.rules.push(format!("-I {name} {place} {rest}"));
                content.removals.push(format!("-D {name} {rest}"));
            } else if follows(&words, &["-j", "-g"], |target| ours(target).is_some()) {
                let rule = line.into();
                return Err(Foreign { table, rule });
            }
        }
        Ok(state)
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By table: the chains, and the lines of their rules.
    pub(super) fn tables(&self) -> impl Iterator<Item = (Table, &[Chain], &[String])> {
        let tables = self.0.iter();
        tables.map(|(table, content)| (*table, &*content.chains, &*content.rules))
    }

    /// What to give to `iptables-restore --noflush` to get to another state, leaving what is not
    /// ours as it is. Each table changes at once.
    pub(super) fn transition(&self, to: &Self) -> String {
        let nothing = Content::default();
        let mut text = String::new();
        for table in Table::ALL {
            let old = self.0.get(&table).unwrap_or(&nothing);
            let new = to.0.get(&table).unwrap_or(&nothing);
            if *old == nothing && *new == nothing {
                continue;
            }
            let gone = || {
                old.chains
                    .iter()
                    .filter(|chain| !new.chains.contains(chain))
            };
            text.extend(["*", table.name(), "\n"]);
            // To name a chain is to make or to empty it.
            for chain in new.chains.iter().chain(gone()) {
                text.extend([":", chain.name(), " - [0:0]\n"]);
            }
            for line in old.removals.iter().chain(&new.rules) {
                text.extend([line, "\n"]);
            }
            for chain in gone() {
                text.extend(["-X ", chain.name(), "\n"]);
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}

impl fmt::Display for State {
    /// The input of iptables-restore that makes it from nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::default().transition(self))
    }
}

// === impl Foreign ===

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rule \"")?;
        f.write_str(&self.rule)?;
        f.write_str("\" in table ")?;
        f.write_str(self.table.name())?;
        f.write_char(' ')?;
        f.write_str(
            "uses a chain of Istio's but is not from here; remove what made it first, for \
             example with istio-clean-iptables",
        )
    }
}

impl std::error::Error for Foreign {}

fn ours(name: &str) -> Option<Chain> {
    Chain::OURS.into_iter().find(|chain| chain.name() == name)
}

/// Whether a word with the right value comes after one of the options.
fn follows(words: &[String], options: &[&str], is_right: impl Fn(&str) -> bool) -> bool {
    words
        .windows(2)
        .any(|pair| options.contains(&pair[0].as_str()) && is_right(&pair[1]))
}

/// Splits a rule as iptables-restore does: at spaces, but not within double quotes, where a
/// backslash takes the next character as it is. A word that was quoted begins with a quote, so that
/// no comment looks like an option.
fn words(rule: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for character in rule.chars() {
        let word = match words.last_mut() {
            Some(word) if character != ' ' || is_quoted => word,
            _ => {
                words.push(String::new());
                continue;
            }
        };
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        word.push(character);
    }
    words
}
