//! What is asked of a client while it runs, and given to it by others: from files and services.

use super::core::{Core, GIVEN};
use super::sotw;
use crate::TypeUrl;
use crate::assemble::{Change, To};
use crate::client::handle::Command;
use crate::client::machine::Variant;
use crate::read::{Resource, Source};
use mesh_core::{Invalid, Name};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

// === impl Core ===

impl Core {
    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Ask { missing, answer } => self.ask(&missing, answer, now),
            Command::Resources { kind, answer } => {
                // Who asked may have lost interest; that is no concern of ours.
                let resources = self.machines.iter().flat_map(|one| one.resources(kind));
                let resources = resources.map(|mut resource| {
                    resource.waits = self.assemble.waits(kind, &resource.name);
                    resource
                });
                let _ = answer.send(resources.collect());
            }
            Command::SupplySecrets {
                cluster,
                variant,
                opening,
                secrets,
                gone,
                answer,
            } => {
                let from = Source::Service {
                    cluster,
                    delta: variant == Variant::Delta,
                    opening,
                };
                let gone = gone.into_iter().map(|name| To::Gone(TypeUrl::Secret, name));
                let came = secrets.into_iter().map(|one| To::Is(Resource::Secret(one)));
                let changes = gone.chain(came).map(|to| Change {
                    from: from.clone(),
                    ticket: GIVEN,
                    to,
                });
                let step = self.assemble.apply(changes.collect(), now);
                let refused = self.act(step, now);
                self.work(now);
                let _ = answer.send(refused);
            }
            Command::Supply {
                kind,
                path,
                resources,
                answer,
            } => {
                let refused = self.supply(kind, path, resources, now);
                self.work(now);
                let _ = answer.send(refused);
            }
        }
    }

    fn supply(
        &mut self,
        kind: TypeUrl,
        path: PathBuf,
        resources: Vec<Resource>,
        now: Instant,
    ) -> Vec<(Name, Invalid)> {
        let names: BTreeSet<Name> = resources.iter().map(name_of).collect();
        let (resources, unanswered) = self.answerable(resources);
        let from = Source::Path(path.clone());
        let before = self.supplied.insert((kind, path), names.clone());
        let gone = before
            .into_iter()
            .flatten()
            .filter(|name| !names.contains(name));
        let changes = gone
            .map(|name| To::Gone(kind, name))
            .chain(resources.into_iter().map(To::Is))
            .map(|to| Change {
                from: from.clone(),
                ticket: GIVEN,
                to,
            });
        let step = self.assemble.apply(changes.collect(), now);
        let mut refused = self.act(step, now);
        refused.extend(unanswered);
        refused
    }

    /// Without those that ask for something on demand where nobody answers.
    fn answerable(&self, resources: Vec<Resource>) -> (Vec<Resource>, Vec<(Name, Invalid)>) {
        let mut refused = Vec::new();
        let mut usable = resources;
        if !self.answers_demands {
            usable.retain(|resource| match sotw::check(resource) {
                Ok(()) => true,
                Err(error) => {
                    refused.push((name_of(resource), error));
                    false
                }
            });
        }
        (usable, refused)
    }
}

/// What a resource is called where something is wrong with it.
pub(super) fn called(resource: &Resource) -> String {
    let kind = match resource {
        Resource::Cluster(_) => TypeUrl::Cluster,
        Resource::Endpoints(_) => TypeUrl::Endpoints,
        Resource::Listener(_) => TypeUrl::Listener,
        Resource::Routes(_) => TypeUrl::Routes,
        Resource::Secret(_) => TypeUrl::Secret,
        Resource::NameTable(_) => TypeUrl::NameTable,
        Resource::VirtualHost(_) => TypeUrl::VirtualHost,
    };
    format!("{}[{}]", kind.short(), name_of(resource))
}

fn name_of(resource: &Resource) -> Name {
    match resource {
        Resource::Cluster(cluster) => cluster.cluster.name.clone(),
        Resource::Endpoints(endpoints) => endpoints.name.clone(),
        Resource::Listener(listener) => listener.listener.name.clone(),
        Resource::Routes(table) => table.name.clone(),
        Resource::Secret(secret) => secret.name.clone(),
        Resource::NameTable(_) => crate::names::NAME.into(),
        Resource::VirtualHost(host) => host.name.clone(),
    }
}
