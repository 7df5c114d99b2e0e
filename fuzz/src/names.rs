//! What applications ask the name server beside the proxy.

use crate::{Input, Target};
use mesh_core::discovery::{NameInfo, NameTable};
use mesh_discovery::dns::server::{Names, Place, Step, answer};
use std::net::IpAddr;
use std::sync::OnceLock;

/// `dns_query`: a byte whose lowest bit says whether it came in a datagram, then the message
/// (RFC 1035 §4).
pub(crate) const TARGET: Target = Target {
    name: "dns_query",
    run,
    input: Input::Bytes,
};

/// What everybody takes in a datagram.
const SMALLEST: usize = 512;

fn run(data: &[u8]) {
    let Some((&how, query)) = data.split_first() else {
        return;
    };
    static NAMES: OnceLock<Names> = OnceLock::new();
    let names = NAMES.get_or_init(names);
    let datagram = how & 1 == 0;
    let step = answer(query, Some(names), datagram, u64::from(how));
    // Chance settles the order of addresses and nothing else.
    let again = answer(query, Some(names), datagram, u64::from(how) + 1);
    match (step, again) {
        (Step::Answer(said), Step::Answer(again)) => {
            assert!(said.len() >= 12, "no header: {said:?}");
            assert_eq!(said.get(..2), query.get(..2), "another id");
            assert!(said[2] & 0x80 != 0, "not a response");
            assert!(said.len() <= usize::from(u16::MAX).max(query.len()));
            assert_eq!(said.len(), again.len());
            let none = answer(query, None, datagram, 0);
            assert!(matches!(none, Step::Answer(_)), "led past the mesh");
        }
        (Step::Forward { limit }, again) => {
            assert!((SMALLEST..=usize::from(u16::MAX)).contains(&limit));
            assert_eq!(again, Step::Forward { limit });
        }
        (step, again) => assert_eq!(step, again),
    }
}

fn names() -> Names {
    let many = (0..100_u8).map(|one| IpAddr::from([10, 0, 1, one]));
    let both = ["240.240.0.1", "2001:2::f0f0:1"].map(|text| text.parse::<IpAddr>());
    let both = both.into_iter().filter_map(Result::ok);
    let table: NameTable = [
        ("a.test".into(), NameInfo::new(both.clone())),
        ("*.b.test".into(), NameInfo::new(both)),
        (
            "web.shop.svc.cluster.local".into(),
            NameInfo::new(many).short("web", "shop"),
        ),
    ]
    .into_iter()
    .collect();
    let place = Place {
        namespace: "shop".into(),
        domain: "svc.cluster.local".into(),
        search: Some("shop.svc.cluster.local".into()),
    };
    Names::new(&table, &place)
}
