//! Several sets of rules in order, and what they count.

use crate::decide::{Compiled, Verdict, compile, decide};
use crate::facts::Facts;
use crate::on_route::OnRoute;
use mesh_core::model::{Authz, AuthzPolicy, AuthzRules, External};
use mesh_core::stats::{AuthzStat, Block, ExternalStat};
use mesh_core::{Name, Shard};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Sets of rules that judge one after the other: what one denies the next is not asked about.
#[derive(Debug, Default)]
pub struct Judges(Vec<Judge>);

/// It may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The policy that says so; none where it takes one to allow it.
    pub policy: Option<Arc<AuthzPolicy>>,
}

/// What one set of rules says, to be told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Judged<'a> {
    /// The rules. None: there are none, and it is for a service to say.
    pub rules: Option<&'a AuthzRules>,
    /// They are on trial: what they say has no effect.
    pub on_trial: bool,
    /// What they say.
    pub verdict: Verdict<'a>,
    /// It is to be asked, behind these rules.
    pub asked: Option<&'a External>,
}

/// How far sets of rules have judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of them: it may go on.
    Admitted,
    /// As far as the one at this place, whose service has to be asked now ([`Judges::external`]). If
    /// that says yes, it goes on with the one behind.
    Ask(usize),
}

#[derive(Debug)]
struct Judge {
    authz: Arc<Authz>,
    rules: Arc<Block<AuthzStat>>,
    trial: Arc<Block<AuthzStat>>,
    external: Arc<Block<ExternalStat>>,
}

/// The compiled forms of rules, kept in their slot. Rules that cannot be compiled deny everything.
#[derive(Debug)]
struct Forms {
    rules: Option<Option<Compiled>>,
    trial: Option<Option<Compiled>>,
}

// === impl Judges ===

impl Judges {
    /// Judges of requests that count by the names that Envoy counts by, in the blocks that `block`
    /// gives for everything before `allowed` and `denied`, e.g. `rbac.`: names under
    /// `http.<stat_prefix>.`.
    pub fn of_requests(
        authz: &[Arc<Authz>],
        mut block: impl FnMut(Name) -> Arc<Block<AuthzStat>>,
        mut external: impl FnMut(Name) -> Arc<Block<ExternalStat>>,
    ) -> Self {
        let judge = |authz: &Arc<Authz>| {
            let rules = format!("rbac.{}", dotted(&authz.stat_prefix));
            let trial = format!("rbac.{}shadow_", dotted(&authz.trial_prefix));
            let asked = authz.external.as_ref().map_or_else(Arc::default, |asked| {
                external(format!("ext_authz.{}", dotted(&asked.stat_prefix)).into())
            });
            Judge::new(authz, block(rules.into()), block(trial.into()), asked)
        };
        Self(authz.iter().map(judge).collect())
    }

    /// Judges of connections, see [`Judges::of_requests`]; the names are whole, e.g. `tcp.rbac.`.
    pub fn of_connections(
        authz: &[Arc<Authz>],
        mut block: impl FnMut(Name) -> Arc<Block<AuthzStat>>,
        mut external: impl FnMut(Name) -> Arc<Block<ExternalStat>>,
    ) -> Self {
        let judge = |authz: &Arc<Authz>| {
            let prefix = format!("{}rbac.", dotted(&authz.stat_prefix));
            let trial = format!("{prefix}{}shadow_", dotted(&authz.trial_prefix));
            let asked = authz.external.as_ref().map_or_else(Arc::default, |asked| {
                // Seen of Envoy: `tcp.` gives `ext_authz.tcp..ok`.
                external(format!("ext_authz.{}.", asked.stat_prefix).into())
            });
            Judge::new(authz, block(prefix.into()), block(trial.into()), asked)
        };
        Self(authz.iter().map(judge).collect())
    }

    /// Judges that count for themselves.
    pub fn new(authz: &[Arc<Authz>]) -> Self {
        Self::of_requests(authz, |_| Arc::default(), |_| Arc::default())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service of the set of rules at this place, and where it is counted what it says.
    pub fn external(&self, at: usize) -> Option<(&External, &Block<ExternalStat>)> {
        let judge = self.0.get(at)?;
        Some((judge.authz.external.as_ref()?, &judge.external))
    }

    /// Judges, and counts it. Nobody is asked here: what would have to be is denied.
    ///
    /// # Errors
    /// If it may not go on.
    pub fn judge(&self, facts: &Facts<'_>, shard: Shard) -> Result<(), Denied> {
        match self.step(0..usize::MAX, facts, shard)? {
            Step::Admitted => Ok(()),
            Step::Ask(_) => Err(Denied { policy: None }),
        }
    }

    /// Judges, and counts it, by the sets of rules at these places, the first of which is at 0, until
    /// somebody has to be asked.
    ///
    /// # Errors
    /// If it may not go on.
    pub fn step(
        &self,
        places: Range<usize>,
        facts: &Facts<'_>,
        shard: Shard,
    ) -> Result<Step, Denied> {
        self.step_on(OnRoute::default(), places, facts, shard)
    }

    /// As [`step`](Self::step), of a request whose route may say something of the filters.
    ///
    /// # Errors
    /// If it may not go on.
    pub fn step_on(
        &self,
        route: OnRoute<'_>,
        places: Range<usize>,
        facts: &Facts<'_>,
        shard: Shard,
    ) -> Result<Step, Denied> {
        let judges = self.0.iter().enumerate().take(places.end);
        for (at, judge) in judges.skip(places.start) {
            let rules = route.rules(&judge.authz);
            let forms = rules.map(Forms::of);
            let trial = forms.and_then(|forms| forms.trial.as_ref());
            let trial = trial.map(|trial| ask(trial.as_ref(), facts));
            if let Some(verdict) = &trial {
                judge.trial.inc(shard, stat(verdict.allowed));
            }
            if let Some(rules) = forms.and_then(|forms| forms.rules.as_ref()) {
                let verdict = ask(rules.as_ref(), facts);
                judge.rules.inc(shard, stat(verdict.allowed));
                if !verdict.allowed {
                    let policy = verdict.policy.cloned();
                    return Err(Denied { policy });
                }
            }
            let Some(external) = &judge.authz.external else {
                continue;
            };
            if !route.may_ask(external) {
                continue;
            }
            if !is_asked(external, route.notes(&judge.authz), trial.as_ref()) {
                judge.external.inc(shard, ExternalStat::Disabled);
                continue;
            }
            return Ok(Step::Ask(at));
        }
        Ok(Step::Admitted)
    }
}

/// Whether a service is to be asked, by what the rules on trial beside it note, if they do.
fn is_asked(external: &External, rules: Option<&Authz>, trial: Option<&Verdict<'_>>) -> bool {
    let Some(only) = &external.only else {
        return true;
    };
    let Some(rules) = rules else {
        return false;
    };
    if matches!(Forms::of(rules).trial, Some(None)) {
        // Nobody knows what they would say.
        return true;
    }
    let policy = trial.and_then(|trial| trial.policy);
    policy.is_some_and(|policy| only.matches(policy.name.as_bytes()))
}

/// What rules would say, until one set denies. Nothing is counted.
pub fn explain<'a>(
    authz: impl IntoIterator<Item = &'a Arc<Authz>>,
    route: OnRoute<'a>,
    facts: &Facts<'_>,
) -> Vec<Judged<'a>> {
    let mut all = Vec::new();
    for authz in authz {
        let told = |rules, form: &'a Option<Compiled>, on_trial| Judged {
            rules: Some(rules),
            on_trial,
            verdict: ask(form.as_ref(), facts),
            asked: None,
        };
        let external = authz.external.as_ref();
        let external = external.filter(|external| route.may_ask(external));
        if let Some(own) = route.rules(authz) {
            let forms = Forms::of(own);
            if let (Some(rules), Some(form)) = (&own.trial, &forms.trial) {
                let mut judged = told(rules, form, true);
                let notes = route.notes(authz);
                judged.asked = external.filter(|one| is_asked(one, notes, Some(&judged.verdict)));
                all.push(judged);
            }
            if let (Some(rules), Some(form)) = (&own.rules, &forms.rules) {
                let judged = told(rules, form, false);
                all.push(judged);
                if !judged.verdict.allowed {
                    break;
                }
            }
        }
        if let Some(external) = external.filter(|external| external.only.is_none()) {
            all.push(Judged {
                rules: None,
                on_trial: false,
                verdict: Verdict {
                    allowed: true,
                    policy: None,
                },
                asked: Some(external),
            });
        }
    }
    all
}

fn ask<'a>(rules: Option<&'a Compiled>, facts: &Facts<'_>) -> Verdict<'a> {
    const NOT: Verdict<'_> = Verdict {
        allowed: false,
        policy: None,
    };
    rules.map_or(NOT, |rules| decide(rules, facts))
}

/// A prefix as Envoy puts it before other names: with a dot at its end, unless it is empty.
fn dotted(prefix: &str) -> String {
    match prefix.is_empty() || prefix.ends_with('.') {
        true => prefix.to_owned(),
        false => format!("{prefix}."),
    }
}

fn stat(allowed: bool) -> AuthzStat {
    match allowed {
        true => AuthzStat::Allowed,
        false => AuthzStat::Denied,
    }
}

// === impl Judge ===

impl Judge {
    fn new(
        authz: &Arc<Authz>,
        rules: Arc<Block<AuthzStat>>,
        trial: Arc<Block<AuthzStat>>,
        external: Arc<Block<ExternalStat>>,
    ) -> Self {
        // Now rather than at the first request.
        Forms::of(authz);
        Self {
            authz: authz.clone(),
            rules,
            trial,
            external,
        }
    }
}

// === impl Forms ===

impl Forms {
    fn of(authz: &Authz) -> &Self {
        let form = |rules: &AuthzRules| compile(rules).ok();
        authz.slot.get_or_init(|| Self {
            rules: authz.rules.as_ref().map(form),
            trial: authz.trial.as_ref().map(form),
        })
    }
}

// === impl Denied ===

impl Denied {
    /// The name of the policy that denies; `none` where none allows.
    pub fn name(&self) -> &str {
        self.policy.as_ref().map_or("none", |policy| &policy.name)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Denied {}
