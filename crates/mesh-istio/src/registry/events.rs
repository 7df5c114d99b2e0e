//! Changes from one world to the next, as events of discovery.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use mesh_core::discovery::{Event, Registry};

use super::Services;
use crate::world::World;

/// The services of a directory of YAML, as a registry.
///
/// ```
/// use mesh_istio::{FileRegistry, Files, World};
///
/// let (registry, handle) = FileRegistry::new();
/// let mut world = World::default();
/// let yaml = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";
/// world.update(&Files::from_text("a.yaml", yaml));
/// handle.update(&world);
/// assert_eq!(registry.pending(), 1);
/// ```
#[derive(Debug)]
pub struct FileRegistry {
    shared: Arc<Mutex<Shared>>,
}

/// Tells a [`FileRegistry`] what the world is like now. The registry ends when it is dropped.
#[derive(Debug)]
pub struct FileRegistryHandle {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Arc<Services>,
    queue: VecDeque<Event>,
    waker: Option<Waker>,
    finished: bool,
}

// === impl FileRegistry ===

impl FileRegistry {
    /// A registry and the handle that feeds it.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (Self, FileRegistryHandle) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        (
            Self {
                shared: Arc::clone(&shared),
            },
            FileRegistryHandle { shared },
        )
    }

    /// How many events wait to be taken.
    pub fn pending(&self) -> usize {
        lock(&self.shared).queue.len()
    }
}

impl Registry for FileRegistry {
    async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| {
            let mut shared = lock(&self.shared);
            if let Some(event) = shared.queue.pop_front() {
                return Poll::Ready(Some(event));
            }
            if shared.finished {
                return Poll::Ready(None);
            }
            shared.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

// === impl FileRegistryHandle ===

impl FileRegistryHandle {
    /// Reports what changed since the last time.
    pub fn update(&self, world: &World) {
        let next = Arc::clone(world.catalog());
        let mut shared = lock(&self.shared);
        let events = diff(&shared.known, &next);
        shared.queue.extend(events);
        shared.known = next;
        wake(shared);
    }
}

impl Drop for FileRegistryHandle {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.finished = true;
        wake(shared);
    }
}

fn wake(mut shared: MutexGuard<'_, Shared>) {
    let waker = shared.waker.take();
    // The woken side takes the same lock.
    drop(shared);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing in here can be left half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has to be said so that who knows `old` knows `new`.
fn diff(old: &Services, new: &Services) -> Vec<Event> {
    let mut events = Vec::new();
    for entry in old.iter() {
        if new
            .get(entry.host())
            .is_none_or(|now| now.service.id != entry.service.id)
        {
            events.push(Event::ServiceRemoved(entry.service.id.clone()));
        }
    }
    for entry in new.iter() {
        let before = old
            .get(entry.host())
            .filter(|was| was.service.id == entry.service.id);
        match before {
            None => events.push(Event::ServiceAdded(Arc::clone(&entry.service))),
            Some(was) if was.service != entry.service => {
                events.push(Event::ServiceChanged(Arc::clone(&entry.service)));
            }
            Some(_) => {}
        }
        let endpoints_changed = match before {
            None => !entry.instances.is_empty(),
            Some(was) => was.instances != entry.instances,
        };
        if endpoints_changed {
            let (id, instances) = (entry.service.id.clone(), Arc::clone(&entry.instances));
            events.push(Event::EndpointsChanged(id, instances));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    fn service(port: u16, address: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{selector: {{app: a}}, \
             ports: [{{name: http, port: {port}}}]}}}}\n---\n\
             {{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: a-1}}, \
             spec: {{address: {address}, labels: {{app: a}}}}}}\n"
        )
    }

    fn drain(registry: &mut FileRegistry) -> Vec<&'static str> {
        let mut seen = Vec::new();
        loop {
            let mut next = pin!(registry.next());
            let Poll::Ready(event) = next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            else {
                return seen;
            };
            seen.push(match event {
                Some(Event::ServiceAdded(_)) => "added",
                Some(Event::ServiceChanged(_)) => "changed",
                Some(Event::ServiceRemoved(_)) => "removed",
                Some(Event::EndpointsChanged(..)) => "endpoints",
                _ => {
                    seen.push("end");
                    return seen;
                }
            });
        }
    }

    #[test]
    fn tells_what_changed_and_nothing_else() {
        let (mut registry, handle) = FileRegistry::new();
        let mut world = World::default();
        let mut step = |text: &str| {
            world.update(&Files::from_text("a.yaml", text));
            handle.update(&world);
            drain(&mut registry)
        };
        assert_eq!(step(&service(80, "10.0.0.1")), ["added", "endpoints"]);
        assert!(step(&format!("# moved\n{}", service(80, "10.0.0.1"))).is_empty());
        assert_eq!(step(&service(80, "10.0.0.2")), ["endpoints"]);
        assert_eq!(step(&service(81, "10.0.0.2")), ["changed", "endpoints"]);
        assert_eq!(step(""), ["removed"]);
        drop(handle);
        assert_eq!(drain(&mut registry), ["end"]);
    }
}
