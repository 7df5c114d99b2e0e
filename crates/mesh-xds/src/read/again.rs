//! Resources that come again with little of them changed.
//!
//! A route table is one resource, however many virtual hosts it has, and each change of one of them
//! sends them all. Those whose bytes were read before are not checked, decoded and converted again:
//! what came of them is taken as it is, for as long as somebody has it.

use super::{Resource, decode, name, resource, route};
use crate::schema::wire::Entries;
use crate::{TypeUrl, schema};
use mesh_core::model::{RouteTable, VirtualHost};
use mesh_core::{Invalid, Name};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Reads resources as [`resource`] does, and virtual hosts of route tables that it has read before
/// not again. Clients of the protocol have one ([`Machine`](crate::client::Machine)).
///
/// ```
/// use mesh_core::model::{RouteTable, VirtualHost};
/// use mesh_xds::read::{Reader, Resource};
/// use mesh_xds::{TypeUrl, write};
/// use prost::Message as _;
/// use std::sync::Arc;
///
/// let host = |name: &str| VirtualHost::new(name, [name]);
/// let read = |reader: &Reader, table: &RouteTable| {
///     let bytes = write::route::table(table).encode_to_vec();
///     match reader.resource(TypeUrl::Routes, &bytes) {
///         Ok(Resource::Routes(table)) => table.virtual_hosts,
///         other => panic!("{other:?}"),
///     }
/// };
/// let reader = Reader::default();
/// let before = read(&reader, &RouteTable::new("t").host(host("a")).host(host("b")));
/// let after = read(&reader, &RouteTable::new("t").host(host("a")).host(host("c")));
/// assert!(Arc::ptr_eq(&before[0], &after[0]));
/// assert_eq!(&*after[1].name, "c");
/// ```
#[derive(Debug, Default)]
pub struct Reader {
    tables: Mutex<Tables>,
    /// Bytes are told apart by two hashes with keys of their own: nobody can make others that have
    /// both.
    keys: [RandomState; 2],
}

type Digest = [u64; 2];

#[derive(Debug, Default)]
struct Tables {
    /// What came of virtual hosts, by the table's name and their bytes.
    known: HashMap<Name, HashMap<Digest, Weak<VirtualHost>>>,
    /// How many tables there were when those that nobody has any more were last forgotten.
    lived: usize,
}

/// Tables that may be known before it is looked whether anybody has them.
const FEW: usize = 64;

/// A virtual host of a table as it travels.
struct Sent {
    digest: Digest,
    /// What came of it before.
    before: Option<Arc<VirtualHost>>,
}

// === impl Reader ===

impl Reader {
    /// Reads a resource as it travels.
    ///
    /// # Errors
    /// As [`resource`].
    pub fn resource(&self, kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
        if kind != TypeUrl::Routes {
            return resource(kind, bytes);
        }
        let (sent, rest) = self.split(bytes);
        // Whatever is wrong is told as if nothing had been known.
        let known = joined(&sent, &rest).map(|table| Resource::Routes(Box::new(table)));
        let read = known.map_or_else(|| resource(kind, bytes), Ok)?;
        if let Resource::Routes(table) = &read {
            self.remember(table, &sent);
        }
        Ok(read)
    }

    /// The virtual hosts, and the table without those that are known. Of bytes that are damaged, nothing.
    fn split(&self, bytes: &[u8]) -> (Vec<Sent>, Vec<u8>) {
        let name = name(bytes).unwrap_or_default();
        let tables = self.lock();
        let known = tables.known.get(&name);
        let (mut sent, mut rest) = (Vec::new(), Vec::new());
        // What cannot be told apart is refused by whoever reads all of it.
        for entry in Entries::of(bytes) {
            let Ok(entry) = entry else {
                return Default::default();
            };
            let host = entry.value.bytes().filter(|_| entry.number == route::HOSTS);
            let before = host.map(|host| {
                let digest = self.keys.each_ref().map(|key| key.hash_one(host));
                let before = known.and_then(|known| known.get(&digest));
                let before = before.and_then(Weak::upgrade);
                let is_known = before.is_some();
                sent.push(Sent { digest, before });
                is_known
            });
            if before != Some(true) {
                rest.extend_from_slice(entry.whole);
            }
        }
        (sent, rest)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // It is as it was left: everything in it is put there in one step.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, table: &RouteTable, sent: &[Sent]) {
        let hosts = sent.iter().map(|sent| sent.digest);
        let hosts = hosts.zip(table.virtual_hosts.iter().map(Arc::downgrade));
        let mut tables = self.lock();
        tables.known.insert(table.name.clone(), hosts.collect());
        if tables.known.len() > FEW.max(2 * tables.lived) {
            let is_alive = |host: &Weak<_>| host.strong_count() > 0;
            tables.known.retain(|_, hosts| hosts.values().any(is_alive));
            tables.lived = tables.known.len();
        }
    }
}

/// The table of all virtual hosts, if some of them are known and the rest can be read.
fn joined(sent: &[Sent], rest: &[u8]) -> Option<RouteTable> {
    if sent.iter().all(|sent| sent.before.is_none()) {
        return None;
    }
    schema::check(schema::name_in_url(TypeUrl::Routes.url()), rest).ok()?;
    let hosts = sent.iter().map(|sent| sent.before.clone());
    route::table_with(&decode(rest).ok()?, hosts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
    use crate::pb::envoy::config::route::v3 as pb;
    use crate::pb::google::protobuf::UInt32Value;
    use proptest::prelude::*;
    use prost::Message as _;

    /// A virtual host of which only some can be read.
    fn host(name: u8, path: u8) -> pb::VirtualHost {
        let mut host = pb::VirtualHost {
            name: format!("h{name}"),
            domains: vec![format!("{name}.example.com")],
            ..pb::VirtualHost::default()
        };
        let action = pb::route::Action::DirectResponse(pb::DirectResponseAction {
            // Envoy's rules have 200 to 599.
            status: if path == 7 { 99 } else { 200 },
            body: Some(DataSource {
                specifier: Some(Specifier::InlineString("b".repeat(path.into()))),
                ..DataSource::default()
            }),
            ..pb::DirectResponseAction::default()
        });
        let prefix = format!("/{path}");
        host.routes.push(pb::Route {
            r#match: Some(pb::RouteMatch {
                path_specifier: Some(pb::route_match::PathSpecifier::Prefix(prefix)),
                ..pb::RouteMatch::default()
            }),
            action: Some(action),
            ..pb::Route::default()
        });
        host
    }

    fn table(name: &str, hosts: &[(u8, u8)], most: Option<u32>) -> Vec<u8> {
        let hosts = hosts.iter().map(|(name, path)| host(*name, *path));
        pb::RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts: hosts.collect(),
            max_direct_response_body_size_bytes: most.map(|value| UInt32Value { value }),
            ..pb::RouteConfiguration::default()
        }
        .encode_to_vec()
    }

    fn hosts(read: Result<Resource, Invalid>) -> Vec<Arc<VirtualHost>> {
        match read {
            Ok(Resource::Routes(table)) => table.virtual_hosts,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        /// Domains that are there twice, hosts that cannot be read, bodies that are too long, bytes that
        /// are cut short: whatever came before, it is read as if it came first.
        #[test]
        fn what_came_before_changes_nothing(
            tables in proptest::collection::vec(
                (
                    0_u8..2,
                    proptest::collection::vec((0_u8..6, 0_u8..8), 0..5),
                    proptest::option::of(0_u32..8),
                    proptest::option::of(0_usize..200),
                ),
                1..8,
            )
        ) {
            let reader = Reader::default();
            let mut all = Vec::new();
            for (name, hosts, most, cut) in tables {
                let mut bytes = table(&format!("t{name}"), &hosts, most);
                bytes.truncate(cut.unwrap_or(bytes.len()));
                let read = reader.resource(TypeUrl::Routes, &bytes);
                prop_assert_eq!(&read, &resource(TypeUrl::Routes, &bytes));
                all.push(read);
            }
        }
    }

    #[test]
    fn only_what_changed_is_read_wherever_it_stands() {
        let reader = Reader::default();
        let read = |hosts: &[(u8, u8)]| {
            self::hosts(reader.resource(TypeUrl::Routes, &table("t", hosts, None)))
        };
        let first = read(&[(1, 1), (2, 2), (3, 3)]);
        let second = read(&[(4, 4), (3, 3), (2, 5), (1, 1)]);
        assert!(Arc::ptr_eq(&second[1], &first[2]));
        assert!(Arc::ptr_eq(&second[3], &first[0]));
        let names: Vec<_> = second.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["h4", "h3", "h2", "h1"]);
    }

    #[test]
    fn what_a_table_adds_is_for_all_of_its_hosts() {
        let reader = Reader::default();
        let read = |most| reader.resource(TypeUrl::Routes, &table("t", &[(1, 5), (2, 1)], most));
        let kept = read(None).unwrap();
        let error = read(Some(3)).unwrap_err();
        assert_eq!(
            error.to_string(),
            resource(TypeUrl::Routes, &table("t", &[(1, 5), (2, 1)], Some(3)))
                .unwrap_err()
                .to_string()
        );
        drop(kept);
    }

    #[test]
    fn damage_behind_what_is_known_is_seen() {
        let reader = Reader::default();
        let mut bytes = table("t", &[(1, 1), (2, 2)], None);
        let _kept = reader.resource(TypeUrl::Routes, &bytes).unwrap();
        bytes.extend([0x12, 0x7f]);
        let error = reader.resource(TypeUrl::Routes, &bytes).unwrap_err();
        assert_eq!(Err(error), resource(TypeUrl::Routes, &bytes));
    }

    #[test]
    fn tables_that_nobody_has_are_forgotten() {
        let reader = Reader::default();
        let kept = hosts(reader.resource(TypeUrl::Routes, &table("kept", &[(1, 1)], None)));
        for index in 0..10 * FEW {
            let bytes = table(&format!("t{index}"), &[(1, 1)], None);
            drop(reader.resource(TypeUrl::Routes, &bytes).unwrap());
        }
        assert!(reader.lock().known.len() <= FEW + 1);
        let again = hosts(reader.resource(TypeUrl::Routes, &table("kept", &[(1, 1)], None)));
        assert!(Arc::ptr_eq(&kept[0], &again[0]));
    }
}
