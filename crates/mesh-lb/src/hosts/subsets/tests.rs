use super::*;
use crate::hash::Table;
use crate::hosts::{HostSet, Members, Setting};
use crate::{Ask, Picker};
use mesh_core::model::{
    Balancing, Cluster, Endpoint, EndpointSet, LocalityBalancing, LocalityEndpoints, Maglev,
    SubsetSelector,
};

/// Endpoints with a version each, in a cluster whose subsets are those.
fn versions(hosts: &[(u8, &str)], previous: Option<&HostSet>) -> HostSet {
    let endpoints = hosts.iter().map(|(at, version)| {
        let address = mesh_test::fixture::address(&format!("127.0.77.{at}:81"));
        let mut endpoint = Endpoint::new(address);
        endpoint.subset = Arc::new(BTreeMap::from([("version".into(), (*version).into())]));
        Arc::new(endpoint)
    });
    let endpoints = EndpointSet::from_endpoints(endpoints.collect());
    let old = previous.map(|set| set.members().clone());
    let members = Members::build(1, &endpoints, &old.unwrap_or_default());
    let mut subsets = SubsetBalancing::default();
    let mut selector = SubsetSelector::default();
    selector.keys = vec!["version".into()];
    subsets.selectors = vec![selector];
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::Maglev(Maglev::default());
    cluster.subsets = Some(Arc::new(subsets));
    let setting = Setting {
        previous,
        ..Setting::default()
    };
    HostSet::build(1, Arc::new(cluster), Arc::new(members), setting)
}

/// The table of a version, if it was built.
fn table_of(set: &HostSet, version: &str) -> Option<Arc<Table>> {
    let wanted = BTreeMap::from([("version".into(), version.into())]);
    match &set.subsets()?.find(&wanted)?.held {
        Held::Group(group) => group.tiers()[0].built_table().cloned(),
        Held::Single(_) => None,
    }
}

#[test]
fn subsets_keep_their_tables_while_their_hosts_stay() {
    let first = versions(&[(1, "a"), (2, "a"), (3, "b"), (4, "c")], None);
    for version in ["a", "b"] {
        let wanted = BTreeMap::from([("version".into(), version.into())]);
        let mut ask = Ask::new(0).hash(Some(7));
        ask.subset = Some(&wanted);
        assert!(Picker::default().choose(&first, &ask).is_some());
    }
    let built = |version| table_of(&first, version).expect("somebody asked for it");
    let second = versions(&[(1, "a"), (2, "a"), (5, "b"), (4, "c")], Some(&first));
    let kept = table_of(&second, "a").expect("it is carried over");
    assert!(Arc::ptr_eq(&kept, &built("a")));
    assert!(table_of(&second, "b").is_none(), "other hosts");
    assert!(table_of(&second, "c").is_none(), "nobody asked for it");
    let third = versions(&[(1, "a"), (2, "a")], Some(&second));
    assert!(Arc::ptr_eq(&table_of(&third, "a").unwrap(), &kept));
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A set of endpoints with these labels, each in a locality of its own unless it is the same.
fn labelled(endpoints: &[(u8, Labels<'_>)], change: impl FnOnce(&mut SubsetBalancing)) -> HostSet {
    let mut set = EndpointSet::default();
    let mut next = 0;
    for (zone, labels) in endpoints {
        next += 1;
        let address = mesh_test::fixture::address(&format!("127.0.77.{next}:81"));
        let mut endpoint = Endpoint::new(address);
        let labels = labels.iter().map(|(k, v)| (Name::from(*k), Name::from(*v)));
        endpoint.subset = Arc::new(labels.collect());
        let zone = Name::from(format!("z{zone}"));
        let at = set
            .localities
            .iter()
            .position(|it| it.locality.zone == zone);
        let at = at.unwrap_or_else(|| {
            let mut locality = LocalityEndpoints::default();
            locality.locality.zone = zone;
            locality.weight = 10;
            set.localities.push(locality);
            set.localities.len() - 1
        });
        set.localities[at].endpoints.push(Arc::new(endpoint));
    }
    let mut subsets = SubsetBalancing::default();
    change(&mut subsets);
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster.localities = LocalityBalancing::Weighted;
    cluster.subsets = Some(Arc::new(subsets));
    let members = Members::build(1, &set, &Members::default());
    HostSet::build(1, Arc::new(cluster), Arc::new(members), Setting::default())
}

fn by(keys: &[&str]) -> SubsetSelector {
    let mut selector = SubsetSelector::default();
    selector.keys = keys.iter().map(|key| Name::from(*key)).collect();
    selector
}

/// The last parts of the addresses that a request gets which asks for this.
fn got(set: &HostSet, wanted: Labels<'_>) -> Vec<u16> {
    let wanted = wanted.iter().map(|(k, v)| (Name::from(*k), Name::from(*v)));
    let wanted: BTreeMap<_, _> = wanted.collect();
    let mut picker = Picker::default();
    let mut found: Vec<u16> = Vec::new();
    for word in 0..60 {
        let mut ask = Ask::new(mesh_core::rng::mix(word));
        ask.subset = Some(&wanted);
        let host = picker.choose(set, &ask).map(|pick| pick.host);
        found.extend(host.map(|host| {
            let address = host.address().to_string();
            let last = address.rsplit('.').next().unwrap();
            last.split(':').next().unwrap().parse::<u16>().unwrap()
        }));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_list_puts_an_endpoint_into_the_subsets_of_its_entries_where_that_is_said() {
    let hosts: &[(u8, Labels<'_>)] = &[
        (1, &[("v", r#"["a","b"]"#), ("w", "1")]),
        (1, &[("v", r#""b""#), ("w", "1")]),
        (1, &[("v", "[]"), ("w", "2")]),
    ];
    for list_as_any in [true, false] {
        let set = labelled(hosts, |subsets| {
            subsets.selectors = vec![by(&["v"]), by(&["v", "w"])];
            subsets.list_as_any = list_as_any;
        });
        let of = |wanted| got(&set, wanted);
        let both: &[u16] = if list_as_any { &[1, 2] } else { &[2] };
        assert_eq!(of(&[("v", r#""b""#)]), both);
        assert_eq!(of(&[("v", r#""b""#), ("w", "1")]), both);
        let one: &[u16] = if list_as_any { &[1] } else { &[] };
        assert_eq!(of(&[("v", r#""a""#)]), one);
        let whole: &[u16] = if list_as_any { &[] } else { &[1] };
        assert_eq!(of(&[("v", r#"["a","b"]"#)]), whole);
        // As in Envoy, which begins anew after an empty list.
        let rest: &[u16] = if list_as_any { &[3] } else { &[] };
        assert_eq!(of(&[("w", "2")]), rest);
    }
}

#[test]
fn fewer_keys_are_asked_by_where_there_is_nobody_for_all() {
    let hosts: &[(u8, Labels<'_>)] = &[
        (1, &[("a", "1"), ("b", "1"), ("c", "1")]),
        (1, &[("a", "1"), ("b", "2")]),
        (1, &[("a", "2")]),
    ];
    let set = labelled(hosts, |subsets| {
        let mut all = by(&["a", "b", "c"]);
        all.fallback = Some(SubsetFallback::Keys);
        all.fallback_keys = vec!["a".into(), "b".into()];
        let mut two = by(&["a", "b"]);
        two.fallback = Some(SubsetFallback::Keys);
        two.fallback_keys = vec!["a".into()];
        subsets.selectors = vec![all, two, by(&["a"])];
    });
    assert_eq!(got(&set, &[("a", "1"), ("b", "1"), ("c", "1")]), [1]);
    assert_eq!(got(&set, &[("a", "1"), ("b", "2"), ("c", "1")]), [2]);
    assert_eq!(got(&set, &[("a", "2"), ("b", "2"), ("c", "1")]), [3]);
    assert_eq!(got(&set, &[("a", "3"), ("b", "2"), ("c", "1")]), [0; 0]);
}

#[test]
fn further_wishes_are_met_in_turn_where_they_are_read() {
    let hosts: &[(u8, Labels<'_>)] = &[
        (1, &[("v", "1"), ("hw", "1")]),
        (1, &[("v", "1"), ("hw", "2")]),
        (1, &[("v", "2"), ("hw", "3")]),
    ];
    for reads in [true, false] {
        let set = labelled(hosts, |subsets| {
            subsets.selectors = vec![by(&["v", "hw"]), by(&["v"])];
            subsets.fallback_list = reads;
        });
        let of = |list| got(&set, &[("v", "1"), ("fallback_list", list)]);
        let when = |found: &[u16]| if reads { found.to_vec() } else { Vec::new() };
        let wishes = r#"[{"v":9},{"hw":2},{"v":2}]"#;
        assert_eq!(of(wishes), when(&[2]));
        assert_eq!(of(r#"[{"hw":3,"v":2}]"#), when(&[3]));
        assert_eq!(of(r#"[{"v":9}]"#), [0; 0]);
        assert_eq!(of("[]"), when(&[1, 2]));
        assert_eq!(of("7"), when(&[1, 2]), "no list is an empty one");
    }
}

#[test]
fn localities_have_their_weights_in_subsets_where_that_is_said() {
    let a: Labels<'_> = &[("v", "1")];
    let b: Labels<'_> = &[("v", "2")];
    // Of the first locality one of four is in the subset, of the second both are.
    let hosts = &[(1, a), (1, b), (1, b), (1, b), (2, a), (2, a)];
    for (localities, expected) in [
        (SubsetLocalities::Ignored, [400, 400, 400]),
        (SubsetLocalities::Weighted, [600, 300, 300]),
        // 10 × 1 / 4 is 2.5, which is 3.
        (SubsetLocalities::Scaled, [277, 461, 461]),
    ] {
        let set = labelled(hosts, |subsets| {
            subsets.selectors = vec![by(&["v"])];
            subsets.localities = localities;
        });
        let wanted = BTreeMap::from([("v".into(), "1".into())]);
        let mut picker = Picker::default();
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        for word in 0..1200 {
            let mut ask = Ask::new(mesh_core::rng::mix(word));
            ask.subset = Some(&wanted);
            let host = picker.choose(&set, &ask).unwrap().host;
            *counts.entry(host.address().to_string()).or_default() += 1;
        }
        let close = counts
            .values()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 5);
        assert!(close && counts.len() == 3, "{localities:?} {counts:?}");
    }
}

#[test]
fn the_first_selector_that_a_request_has_all_keys_of_decides_where_more_are_allowed() {
    let endpoints: &[(u8, Labels<'_>)] = &[
        (1, &[("stage", "prod"), ("version", "a")]),
        (1, &[("stage", "test"), ("version", "a")]),
        (1, &[("stage", "test"), ("version", "b")]),
    ];
    let set = |allowed| {
        labelled(endpoints, |subsets| {
            let mut first = by(&["id", "stage"]);
            first.fallback = Some(SubsetFallback::Keys);
            first.fallback_keys = vec!["stage".into()];
            subsets.selectors = vec![first, by(&["version"]), by(&["stage", "version"])];
            subsets.redundant_keys = allowed;
        })
    };
    let exact = set(false);
    let wanted: Labels<'_> = &[("stage", "test"), ("version", "a")];
    assert_eq!(got(&exact, wanted), [2]);
    assert!(got(&exact, &[("colour", "red"), ("version", "a")]).is_empty());
    let more = set(true);
    assert_eq!(
        got(&more, wanted),
        [1, 2],
        "by the version alone, which comes first"
    );
    assert_eq!(got(&more, &[("colour", "red"), ("version", "b")]), [3]);
    assert!(
        got(&more, &[("stage", "test")]).is_empty(),
        "no selector has enough"
    );
    // The first selector has no such subset, and what is left of the request is for no other.
    assert!(got(&more, &[("id", "9"), ("stage", "test"), ("version", "a")]).is_empty());
}
