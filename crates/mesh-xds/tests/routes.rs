//! Route tables to protobuf and back.

#[path = "routes/build.rs"]
mod build;
#[path = "routes/generate.rs"]
mod generate;
#[path = "routes/policies.rs"]
mod policies;
#[path = "routes/refusals.rs"]
mod refusals;
#[path = "routes/refused_actions.rs"]
mod refused_actions;
#[path = "routes/spellings.rs"]
mod spellings;
#[path = "routes/written.rs"]
mod written;

use mesh_core::model::RouteTable;
use mesh_xds::pb::envoy::config::route::v3::RouteConfiguration;
use mesh_xds::{read, schema, write};
use proptest::prelude::*;
use prost::Message;

fn through_bytes(table: &RouteTable) -> Result<RouteTable, mesh_core::Invalid> {
    let bytes = write::route::table(table).encode_to_vec();
    let proto = RouteConfiguration::decode(bytes.as_slice()).expect("what is encoded decodes");
    read::route::table(&proto)
}

/// Changes some bytes of an encoded message, without regard for what they mean.
fn damage(mut bytes: Vec<u8>, blows: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (at, kind, with) in blows {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match kind % 4 {
            0 => bytes[at] = *with,
            1 => bytes[at] ^= 1 << (with % 8),
            2 => bytes.insert(at, *with),
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}

/// Whatever is accepted can be written, and is then accepted as the same message.
fn stays_the_same(bytes: &[u8]) -> Result<(), TestCaseError> {
    const NAME: &str = "envoy.config.route.v3.RouteConfiguration";
    let Ok(proto) = RouteConfiguration::decode(bytes) else {
        return Ok(());
    };
    let Ok(table) = read::route::table(&proto) else {
        return Ok(());
    };
    let written = write::route::table(&table);
    let again = read::route::table(&written);
    prop_assert!(again.is_ok(), "{again:?}\n{table:?}");
    // In one order: maps inside of extensions are bytes already.
    let bytes = |table: &RouteConfiguration| schema::canonical(NAME, table.encode_to_vec());
    let twice = write::route::table(&again.unwrap());
    prop_assert_eq!(bytes(&twice), bytes(&written), "{:?}\n{:?}", twice, written);
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_as_the_same_table(table in generate::table()) {
        prop_assert_eq!(through_bytes(&table), Ok(table));
    }

    #[test]
    fn what_is_written_keeps_the_rules_of_envoys_protobuf(table in generate::table()) {
        let bytes = write::route::table(&table).encode_to_vec();
        prop_assert_eq!(schema::check("envoy.config.route.v3.RouteConfiguration", &bytes), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        stays_the_same(&bytes)?;
    }

    #[test]
    fn a_damaged_table_is_read_or_refused(
        table in generate::table(),
        blows in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let bytes = write::route::table(&table).encode_to_vec();
        stays_the_same(&damage(bytes, &blows))?;
    }
}
