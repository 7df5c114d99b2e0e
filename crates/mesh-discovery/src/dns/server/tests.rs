use super::wire;
use super::*;
use hickory_resolver::proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mesh_core::discovery::{NameInfo, NameTable};
use proptest::prelude::*;
use std::net::IpAddr;

fn info(addresses: &[&str]) -> NameInfo {
    NameInfo::new(addresses.iter().map(|text| text.parse().unwrap()))
}

fn table() -> NameTable {
    let names = [
        ("db.example.com", info(&["240.240.0.1"])),
        ("*.wild.com", info(&["240.240.0.2", "2001:2::2"])),
        ("*.deep.wild.com", info(&["240.240.0.3"])),
        (
            "web.shop.svc.cluster.local",
            info(&["10.1.0.1"]).short("web", "shop"),
        ),
        (
            "cart.other.svc.cluster.local",
            info(&["10.1.0.2"]).short("cart", "other"),
        ),
        (
            "far.shop.svc.other.mesh",
            info(&["10.9.0.1"]).short("far", "shop"),
        ),
        ("nothing.example.com", info(&[])),
    ];
    names
        .map(|(name, info)| (name.into(), info))
        .into_iter()
        .collect()
}

fn place() -> Place {
    Place {
        namespace: "shop".into(),
        domain: "svc.cluster.local".into(),
        search: Some("shop.svc.cluster.local".into()),
    }
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(
        7,
        hickory_resolver::proto::op::MessageType::Query,
        OpCode::Query,
    );
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn names() -> Names {
    Names::new(&table(), &place())
}

/// What is answered: the code, and the addresses with the names they are under. None is forwarded.
fn ask(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    match answer(&query(name, kind, None), Some(&names()), true, 1) {
        Step::Answer(bytes) => {
            let message = Message::from_vec(&bytes).unwrap();
            assert!(message.metadata.authoritative && message.metadata.recursion_desired);
            assert_eq!(message.metadata.id, 7);
            let text = |record: &hickory_resolver::proto::rr::Record| {
                assert_eq!(record.ttl, 30);
                format!("{} {}", record.name, record.data)
            };
            let records = message.answers.iter().map(text).collect();
            Some((message.metadata.response_code, records))
        }
        Step::Forward { limit } => {
            assert_eq!(limit, 512);
            None
        }
        Step::Ignore => panic!("a query is not ignored"),
    }
}

fn found(name: &str, kind: RecordType) -> Vec<String> {
    let (code, records) = ask(name, kind).unwrap_or_else(|| panic!("{name} is known"));
    assert_eq!(code, ResponseCode::NoError);
    records
}

#[test]
fn a_name_of_the_mesh_is_answered_in_any_case_and_others_are_not() {
    let answer = found("DB.example.COM.", RecordType::A);
    assert_eq!(answer, ["DB.example.COM. 240.240.0.1"]);
    assert_eq!(ask("www.example.com.", RecordType::A), None);
    assert_eq!(ask("com.", RecordType::A), None);
    assert_eq!(ask(".", RecordType::A), None);
    assert_eq!(ask("nothing.example.com.", RecordType::A), None);
}

#[test]
fn of_the_other_family_there_is_nothing_and_no_error() {
    assert_eq!(found("db.example.com.", RecordType::AAAA), [""; 0]);
    assert_eq!(
        found("a.wild.com.", RecordType::AAAA),
        ["a.wild.com. 2001:2::2"]
    );
}

#[test]
fn other_records_are_asked_for_elsewhere() {
    for kind in [
        RecordType::TXT,
        RecordType::SRV,
        RecordType::MX,
        RecordType::ANY,
    ] {
        assert_eq!(ask("db.example.com.", kind), None);
    }
}

#[test]
fn the_closest_wildcard_answers() {
    for (name, address) in [
        ("a.wild.com.", "240.240.0.2"),
        ("a.b.wild.com.", "240.240.0.2"),
        ("deep.wild.com.", "240.240.0.2"),
        ("a.deep.wild.com.", "240.240.0.3"),
    ] {
        assert_eq!(found(name, RecordType::A), [format!("{name} {address}")]);
    }
    assert_eq!(ask("wild.com.", RecordType::A), None);
}

#[test]
fn services_have_short_names_the_shortest_in_their_own_namespace() {
    for name in [
        "web.",
        "web.shop.",
        "web.shop.svc.",
        "web.shop.svc.cluster.local.",
    ] {
        assert_eq!(found(name, RecordType::A), [format!("{name} 10.1.0.1")]);
    }
    assert_eq!(
        found("cart.other.", RecordType::A),
        ["cart.other. 10.1.0.2"]
    );
    assert_eq!(ask("cart.", RecordType::A), None);
    assert_eq!(ask("web.shop.svc.cluster.", RecordType::A), None);
    // Of another cluster, where the same short name may mean somebody else.
    assert_eq!(ask("far.shop.", RecordType::A), None);
    assert_eq!(ask("far.", RecordType::A), None);
}

#[test]
fn a_name_with_the_search_domain_behind_it_is_an_alias() {
    let long = "db.example.com.shop.svc.cluster.local.";
    let expected = [
        format!("{long} db.example.com."),
        "db.example.com. 240.240.0.1".to_owned(),
    ];
    assert_eq!(found(long, RecordType::A), expected);
    // As Istio's agent has it: nothing, rather than the alias alone.
    assert_eq!(found(long, RecordType::AAAA), [""; 0]);
    let wild = "a.wild.com.shop.svc.cluster.local.";
    let expected = [
        format!("{wild} a.wild.com."),
        "a.wild.com. 240.240.0.2".to_owned(),
    ];
    assert_eq!(found(wild, RecordType::A), expected);
}

#[test]
fn what_is_called_so_in_full_means_that() {
    let mut table = table();
    table.names.insert("web".into(), info(&["240.240.9.9"]));
    let names = Names::new(&table, &place());
    let Step::Answer(bytes) = answer(&query("web.", RecordType::A, None), Some(&names), true, 0)
    else {
        panic!("known");
    };
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.answers[0].data.to_string(), "240.240.9.9");
}

#[test]
fn before_there_is_a_table_nobody_is_led_past_the_mesh() {
    let query = query("www.example.com.", RecordType::A, None);
    let Step::Answer(bytes) = answer(&query, None, true, 0) else {
        panic!("an error");
    };
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(message.queries.len(), 1);
}

#[test]
fn what_cannot_be_read_is_said_to_be_so_and_responses_are_ignored() {
    let good = query("db.example.com.", RecordType::A, None);
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(answer(&response, Some(&names()), true, 0), Step::Ignore);
    assert_eq!(answer(&good[..11], Some(&names()), true, 0), Step::Ignore);
    // A name that points at itself.
    let mut looped = good[..12].to_vec();
    looped.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut two = good.clone();
    two[5] = 2;
    two.extend_from_slice(&good[12..]);
    let mut none = good[..12].to_vec();
    none[5] = 0;
    for bad in [&good[..20], &looped, &two, &none] {
        let Step::Answer(bytes) = answer(bad, Some(&names()), true, 0) else {
            panic!("an error");
        };
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(message.metadata.id, 7);
    }
}

fn many(count: u32) -> Names {
    let each = (0..count).map(|one| IpAddr::from((0x0a00_0000 + one).to_be_bytes()));
    let table = [("many.example.com".into(), NameInfo::new(each))];
    Names::new(&table.into_iter().collect(), &place())
}

#[test]
fn what_does_not_fit_is_cut_and_that_is_said() {
    for (payload, datagram, limit) in [
        (None, true, 512),
        (Some(1232), true, 1232),
        (Some(100), true, 512),
        (None, false, 65535),
    ] {
        for name in [
            "many.example.com.",
            "many.example.com.shop.svc.cluster.local.",
        ] {
            let query = query(name, RecordType::A, payload);
            let Step::Answer(bytes) = answer(&query, Some(&many(5000)), datagram, 3) else {
                panic!("known");
            };
            assert!(
                bytes.len() <= limit && bytes.len() + 16 > limit,
                "{}",
                bytes.len()
            );
            let message = Message::from_vec(&bytes).unwrap();
            assert!(message.metadata.truncation);
            assert_eq!(message.edns.is_some(), payload.is_some());
        }
    }
}

#[test]
fn several_addresses_come_in_an_order_of_chance() {
    let names = many(4);
    let query = query("many.example.com.", RecordType::A, None);
    let mut first = std::collections::BTreeMap::new();
    for word in 0..400 {
        let Step::Answer(bytes) = answer(&query, Some(&names), true, word) else {
            panic!("known");
        };
        let message = Message::from_vec(&bytes).unwrap();
        let all: std::collections::BTreeSet<_> = message
            .answers
            .iter()
            .map(|one| one.data.to_string())
            .collect();
        assert_eq!(all.len(), 4);
        let RData::A(address) = message.answers[0].data.clone() else {
            panic!("an address");
        };
        *first.entry(address.0).or_insert(0) += 1;
    }
    assert!(
        first.len() == 4 && first.values().all(|count| (60..140).contains(count)),
        "{first:?}"
    );
}

#[test]
fn resolv_conf_is_read_as_resolvers_read_it() {
    let conf = ResolvConf::parse(
        "# a comment\nnameserver 10.96.0.10\nnameserver fd00::a # here\nnameserver fe80::1%2\n\
         nameserver nonsense\nsearch first.\ndomain second\n\
         search shop.svc.cluster.local. svc.cluster.local\noptions ndots:5\n",
    );
    let servers = ["10.96.0.10:53", "[fd00::a]:53", "[fe80::1%2]:53"];
    assert_eq!(conf.servers, servers.map(|text| text.parse().unwrap()));
    assert_eq!(conf.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
}

/// A query or what is left of one after a few bytes were changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::sample::select(vec![
        "db.example.com.",
        "a.wild.com.shop.svc.cluster.local.",
        "web.",
        "www.example.org.",
    ]);
    let payload = proptest::option::of(any::<u16>());
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    let broken = (name, payload, changes).prop_map(|(name, payload, changes)| {
        let mut bytes = query(name, RecordType::A, payload);
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    });
    prop_oneof![broken, proptest::collection::vec(any::<u8>(), 0..600)]
}

proptest! {
    #[test]
    fn an_answer_to_whatever_comes_is_a_response_that_fits(
        query in bytes(), datagram: bool, word: u64,
    ) {
        if let Step::Answer(said) = answer(&query, Some(&names()), datagram, word) {
            let message = Message::from_vec(&said).unwrap();
            prop_assert_eq!(&said[..2], &query[..2]);
            prop_assert!(wire::is_response(&said));
            prop_assert!(!datagram || said.len() <= 512.max(query.len()));
            let code = message.metadata.response_code;
            if code == ResponseCode::NoError {
                prop_assert!(wire::answers(&said, &query));
            }
        }
    }

    #[test]
    fn what_is_cut_or_refused_can_still_be_read(message in bytes(), other in bytes()) {
        let _ = wire::answers(&message, &other);
        if let Some(cut) = wire::cut(&message) {
            prop_assert!(cut.len() <= message.len());
            prop_assert_eq!(cut[2] & 2, 2);
        }
        if message.len() >= wire::HEADER {
            prop_assert!(Message::from_vec(&wire::server_failure(&message)).is_ok());
        }
    }

    #[test]
    fn any_name_and_any_table_go_together(
        names in proptest::collection::vec("[*a-c.]{0,12}", 0..8),
        asked in "[a-c.]{0,20}",
    ) {
        let table: NameTable = names
            .iter()
            .map(|name| (name.as_str().into(), info(&["10.0.0.1"]).short(name.as_str(), "b")))
            .collect();
        let place = Place { namespace: "b".into(), domain: "c".into(), search: Some("a.b".into()) };
        let known = Names::new(&table, &place);
        for name in &names {
            prop_assert!(known.contains(name) || name.is_empty());
        }
        let _ = known.contains(&asked);
    }
}
