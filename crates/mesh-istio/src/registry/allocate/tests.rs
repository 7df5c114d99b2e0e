use super::*;
use crate::files::Files;
use crate::world::World;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A service entry; `more` is what else its spec says.
fn entry(name: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\n\
         spec: {{hosts: [{name}.example.com], ports: [{{number: 9000, name: tcp, protocol: TCP}}], \
         resolution: STATIC, endpoints: [{{address: 10.0.0.1}}]{more}}}\n---\n"
    )
}

fn update(world: &mut World, text: &str) -> BTreeMap<Name, Vec<IpAddr>> {
    let findings = world.update(&Files::from_text("a.yaml", text));
    assert!(findings.is_empty(), "{findings:?}");
    crate::registry::allocated(world)
}

fn allocated(text: &str) -> BTreeMap<Name, Vec<IpAddr>> {
    update(&mut World::default(), text)
}

#[test]
fn a_host_without_an_address_gets_one_of_each_family() {
    let all = allocated(&entry("a", ""));
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = all["a.example.com"][..] else {
        panic!("{all:?}")
    };
    assert_eq!(v4.octets()[..2], [240, 240]);
    assert!(![0, 255].contains(&v4.octets()[3]));
    assert_eq!(v6.segments()[..6], [0x2001, 2, 0, 0, 0, 0]);
    assert_eq!(v6.octets()[14..], v4.octets()[2..]);
}

#[test]
fn who_has_an_address_or_could_not_use_one_gets_none() {
    let with = |more: &str| entry("a", more);
    let plain = with("");
    let resolved = plain.replace("STATIC", "NONE");
    for (text, why) in [
        (with(", addresses: [10.1.1.1]"), "has its own"),
        (
            resolved.replace(", endpoints: [{address: 10.0.0.1}]", ""),
            "NONE goes where the address says",
        ),
        (
            plain.replace("hosts: [a.example.com]", "hosts: [\"*.example.com\"]"),
            "a wildcard",
        ),
        (
            plain.replace(
                "{name: a}",
                "{name: a, labels: {networking.istio.io/enable-autoallocate-ip: \"False\"}}",
            ),
            "somebody objects",
        ),
    ] {
        assert!(allocated(&text).is_empty(), "{why}");
    }
    let label = "{name: a, labels: {networking.istio.io/enable-autoallocate-ip: \"true\"}}";
    assert_eq!(allocated(&plain.replace("{name: a}", label)).len(), 1);
}

#[test]
fn what_a_controller_wrote_wins() {
    let status = "status: {addresses: [{value: 240.240.7.7, host: a.example.com}, \
                  {value: \"2001:2::7\", host: a.example.com}, {value: 240.240.7.8, host: b}, \
                  {value: nonsense, host: a.example.com}], conditions: [{type: Ready}]}\n---\n";
    let text = entry("a", "").replace("---\n", status);
    let expected = ["240.240.7.7", "2001:2::7"].map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!(allocated(&text)["a.example.com"], expected);
    // But not over what a user wrote.
    let text = entry("a", ", addresses: [10.1.1.1]").replace("---\n", status);
    assert!(allocated(&text).is_empty());
}

#[test]
fn an_address_that_somebody_claims_is_not_given_away() {
    let own = allocated(&entry("a", ""))["a.example.com"].clone();
    let taken = format!(", addresses: [{}]", own[0]);
    let mut world = World::default();
    assert_eq!(update(&mut world, &entry("a", ""))["a.example.com"], own);
    let text = entry("a", "") + &entry("b", &taken);
    let moved = update(&mut world, &text)["a.example.com"].clone();
    assert_ne!(moved[0], own[0]);
    // A block that holds them all leaves nothing, and that is said.
    let text = entry("a", "") + &entry("b", ", addresses: [240.240.0.0/16]");
    let mut world = World::default();
    assert!(update(&mut world, &text).is_empty());
    let findings = world.catalog().findings().to_vec();
    assert!(
        findings[0].message.contains("a.example.com"),
        "{findings:?}"
    );
}

#[test]
fn two_that_were_written_the_same_address_do_not_share_it() {
    let status = |name: &str| {
        let status = format!(
            "status: {{addresses: [{{value: 240.240.7.7, host: {name}.example.com}}]}}\n---\n"
        );
        entry(name, "").replace("---\n", &status)
    };
    let all = allocated(&(status("a") + &status("b")));
    assert_eq!(all["a.example.com"][0].to_string(), "240.240.7.7");
    assert_ne!(all["b.example.com"][0].to_string(), "240.240.7.7");
}

proptest! {
    #[test]
    fn numbers_are_addresses_and_different_ones(one in 0..NUMBERS, other in 0..NUMBERS) {
        let (v4, v6) = addresses(one);
        prop_assert!(![0, 255].contains(&v4.octets()[3]));
        prop_assert!(overlaps(&Cidr::single(v4.into())) && overlaps(&Cidr::single(v6.into())));
        prop_assert_eq!(one == other, addresses(other).0 == v4);
        prop_assert_eq!(one == other, addresses(other).1 == v6);
    }

    /// Names that collide are the interesting ones: a few numbers for all.
    #[test]
    fn nobody_moves_and_nobody_shares_while_others_come_and_go(
        rounds in proptest::collection::vec(
            proptest::collection::btree_set(0_u32..40, 0..20), 1..6),
    ) {
        let mut world = World::default();
        let mut before: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
        for there in rounds {
            let text: String = there.iter().map(|one| entry(&format!("n{one}"), "")).collect();
            let now = update(&mut world, &text);
            prop_assert_eq!(now.len(), there.len());
            let addresses: BTreeSet<_> = now.values().flatten().collect();
            prop_assert_eq!(addresses.len(), 2 * there.len());
            for (host, addresses) in &before {
                if let Some(again) = now.get(host) {
                    prop_assert_eq!(addresses, again);
                }
            }
            before = now;
        }
    }

    /// The ledger itself, where hashes do collide.
    #[test]
    fn a_collision_finds_the_next_free_number(
        taken in proptest::collection::hash_set(0..NUMBERS, 0..50),
        first in 0..NUMBERS,
    ) {
        let taken = Taken { numbers: taken, ..Taken::default() };
        let found = taken.next(first).unwrap();
        prop_assert!(!taken.numbers.contains(&found));
        let passed = (u32::from(found) + u32::from(NUMBERS) - u32::from(first)) % u32::from(NUMBERS);
        for step in 0..passed.min(60) {
            let between = u16::try_from((u32::from(first) + step) % u32::from(NUMBERS));
            prop_assert!(taken.numbers.contains(&between.unwrap()));
        }
    }
}

#[test]
fn a_full_house_has_nothing_left() {
    let taken = Taken {
        numbers: (0..NUMBERS).collect(),
        ..Taken::default()
    };
    assert_eq!(taken.next(7), None);
}

#[test]
fn a_restart_gives_the_same_addresses() {
    let text: String = (0..200).map(|one| entry(&format!("n{one}"), "")).collect();
    assert_eq!(allocated(&text), allocated(&text));
}
