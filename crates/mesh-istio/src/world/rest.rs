//! A world that is not needed for a while: texts instead of what was read from them.
//!
//! What is compiled from objects lives on its own, and whoever compiles seldom, as a proxy does, has
//! no use for them between one change and the next. They take several times as much memory as their
//! text, from which they are read again when they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use mesh_core::model::KeyBook;

use super::{ObjectKey, Round, State, World, lock};
use crate::files::File;
use crate::registry::Services;
use crate::spec::{Kind, Object};

/// A [`World`] that rests: [`World::rest`].
#[derive(Clone, Debug, Default)]
pub struct Resting {
    /// What is not read again: a secret's text is kept nowhere, and a mesh configuration's may be
    /// that of a file which holds nothing else.
    whole: BTreeMap<ObjectKey, Arc<Object>>,
    texts: Vec<Text>,
    /// Of the services no more than the addresses that were allocated.
    services: Option<Arc<Services>>,
    keys: Arc<KeyBook>,
}

/// A file as it was when it was read, and which of its objects are in force.
#[derive(Clone)]
struct Text {
    name: Arc<str>,
    text: Arc<str>,
    objects: BTreeSet<ObjectKey>,
}

// === impl World ===

impl World {
    /// Keeps the texts of objects instead of what was read from them.
    ///
    /// ```
    /// use mesh_istio::{Files, World};
    ///
    /// let text = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";
    /// let mut world = World::default();
    /// world.update(&Files::from_text("a.yaml", text));
    /// let resting = world.clone().rest();
    /// assert!(resting.anew().is_empty());
    /// assert!(resting.wake().objects().eq(world.objects()));
    /// ```
    #[must_use]
    pub fn rest(self) -> Resting {
        let made = self.state.services.get().cloned();
        let services = made.or_else(|| lock(&self.state.before).clone());
        let mut resting = Resting {
            services: services.map(|services| Arc::new(services.at_rest())),
            keys: self.keys,
            ..Resting::default()
        };
        // Texts by where they are: that of a file is shared by its objects.
        let mut places = BTreeMap::new();
        for (key, object) in &self.state.objects {
            let meta = &object.meta;
            if matches!(key.kind, Kind::Secret | Kind::MeshConfig) {
                resting.whole.insert(key.clone(), Arc::clone(object));
                continue;
            }
            let texts = &mut resting.texts;
            let place = places.entry(meta.source.as_ptr()).or_insert_with(|| {
                texts.push(Text {
                    name: Arc::clone(&meta.file),
                    text: Arc::clone(&meta.source),
                    objects: BTreeSet::new(),
                });
                texts.len() - 1
            });
            texts[*place].objects.insert(key.clone());
        }
        resting
    }
}

// === impl Resting ===

impl Resting {
    /// The world as it was: all objects are read again.
    #[must_use]
    pub fn wake(&self) -> World {
        let mut objects = self.whole.clone();
        let nothing = BTreeMap::new();
        for text in &self.texts {
            let mut round = Round::after(&nothing);
            // What is refused in it was refused before, and is not among those in force.
            round.read(&File {
                name: Arc::clone(&text.name),
                text: Ok(Arc::clone(&text.text)),
                mesh_config: false,
            });
            let read = round.next.into_iter();
            objects.extend(read.filter(|(key, _)| text.objects.contains(key)));
        }
        self.world(objects)
    }

    /// A world without objects, in which hosts keep the addresses that were allocated to them. With
    /// files of which nothing is refused it becomes what the one that rests would.
    #[must_use]
    pub fn anew(&self) -> World {
        self.world(BTreeMap::new())
    }

    /// [`World::keys`].
    pub fn keys(&self) -> &Arc<KeyBook> {
        &self.keys
    }

    fn world(&self, objects: BTreeMap<ObjectKey, Arc<Object>>) -> World {
        World {
            state: Arc::new(State {
                objects,
                services: OnceLock::new(),
                before: Mutex::new(self.services.clone()),
            }),
            keys: Arc::clone(&self.keys),
            ..World::default()
        }
    }
}

// === impl Text ===

impl std::fmt::Debug for Text {
    /// Leaves the text out: there may be secrets in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text")
            .field("name", &self.name)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Files, allocated};
    use proptest::prelude::*;

    const BROKEN: &str =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 7}\n";
    const SECRET: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n\
                          stringData: {ca.crt: '-----BEGIN CERTIFICATE-----'}\n";

    fn service(name: &str, port: u16) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    fn same(one: &World, other: &World) -> bool {
        let at = |world: &World| -> Vec<_> {
            let metas = world.objects().map(|object| &object.meta);
            metas.map(|meta| (meta.file.clone(), meta.at)).collect()
        };
        one.objects().eq(other.objects()) && at(one) == at(other)
    }

    #[test]
    fn the_last_good_version_of_an_object_is_found_in_an_older_text() {
        let mut world = World::default();
        world.update(&Files::from_text("f.yaml", &service("a", 80)));
        let text = format!("{BROKEN}{}{SECRET}", service("b", 81));
        world.update(&Files::from_text("f.yaml", &text));
        assert_eq!(world.len(), 3);
        let mut woken = world.clone().rest().wake();
        assert!(same(&world, &woken));
        let next = Files::from_text("f.yaml", BROKEN);
        assert_eq!(world.update(&next), woken.update(&next));
        assert!(same(&world, &woken) && world.len() == 1);
    }

    #[test]
    fn of_two_objects_with_one_name_the_one_in_force_wakes() {
        let mut world = World::default();
        let files = Files::from_text("a.yaml", &service("a", 80));
        world.update(&files.and_text("b.yaml", &service("a", 81)));
        assert!(same(&world, &world.clone().rest().wake()));
    }

    #[test]
    fn a_host_keeps_its_address_through_rest() {
        // Both want the same number, and the first in order gets it if nobody has it.
        let [rival, late] = ["a26780", "z"];
        let entry = |name: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {{name: {name}}}\nspec:\n  hosts: [{name}.example]\n  resolution: DNS\n  \
                 ports: [{{number: 80, name: tcp, protocol: TCP}}]\n"
            )
        };
        let address = |world: &World| allocated(world)["z.example"].clone();
        let both = Files::from_text("f.yaml", &(entry(rival) + &entry(late)));
        let mut first = World::default();
        first.update(&Files::from_text("f.yaml", &entry(late)));
        let own = address(&first);
        let mut at_once = World::default();
        at_once.update(&both);
        assert_ne!(address(&at_once), own);
        let resting = first.rest();
        for mut world in [resting.wake(), resting.anew(), resting.wake().rest().anew()] {
            world.update(&both);
            assert_eq!(address(&world), own);
        }
    }

    proptest! {
        #[test]
        fn a_world_wakes_as_it_went_to_rest(
            steps in prop::collection::vec(prop::collection::vec((0..4_u8, 1..4_u16), 0..5), 1..4),
        ) {
            let (mut world, mut rested) = (World::default(), World::default());
            for step in steps {
                let mut files = [String::new(), String::new()];
                for (name, port) in step {
                    let text = match port {
                        3 => BROKEN.replace("name: a", &format!("name: s{name}")),
                        port => service(&format!("s{name}"), port),
                    };
                    files[usize::from(name % 2)] += &text;
                }
                let files = Files::from_text("a.yaml", &files[0]).and_text("b.yaml", &files[1]);
                prop_assert_eq!(world.update(&files), rested.update(&files));
                rested = rested.rest().wake();
                prop_assert!(same(&world, &rested));
            }
        }
    }
}
