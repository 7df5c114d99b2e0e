//! Tasks about which endpoint a request goes to.

use super::{REVIEWS, version};
use crate::demo::Demo;
use crate::support::{Client, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Callers with names or cookies of their own: more than enough to be at every endpoint.
const CALLERS: usize = 80;

pub fn task_17_a_caller_stays_with_an_endpoint_by_a_cookie_or_a_header(demo: &Demo) {
    demo.apply("17");
    // Who has no cookie is given one, which leads to where the first request went.
    for _ in 0..10 {
        let first = demo.call(REVIEWS, &[]);
        let made = first.headers["set-cookie"].as_str();
        let (pair, attributes) = made.split_once("; ").unwrap();
        assert!(pair.starts_with("reviews-stay="), "{made}");
        assert_eq!(attributes, "Max-Age=3600; Path=/; HttpOnly");
        for _ in 0..5 {
            let again = demo.call(REVIEWS, &[("cookie", pair)]);
            assert_eq!(version(&again), version(&first));
            assert!(!again.headers.contains_key("set-cookie"), "{again:?}");
        }
    }
    let mut client = Client::connect(demo.outbound());
    let mut met = BTreeMap::new();
    for _ in 0..3 {
        for caller in 0..CALLERS {
            let cookie = format!("a=b; reviews-stay=caller-{caller}");
            let answer = client.get(REVIEWS, &[("cookie", &cookie)]);
            assert_eq!(answer.status, 200);
            let first = met
                .entry(caller)
                .or_insert_with(|| version(&answer).to_owned());
            assert_eq!(first, version(&answer), "{caller}");
        }
    }
    let versions: BTreeSet<_> = met.into_values().collect();
    assert_eq!(versions.len(), 3, "{versions:?}");

    demo.change(|dir| {
        let file = dir.join("task/reviews.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let cookie = "httpCookie: {name: reviews-stay, path: /, ttl: 3600s}";
        assert!(text.contains(cookie));
        fs::write(&file, text.replace(cookie, "httpHeaderName: end-user")).unwrap();
    });
    let mut met = BTreeMap::new();
    for _ in 0..3 {
        for caller in 0..CALLERS {
            let answer = demo.call(REVIEWS, &[("end-user", &format!("user-{caller}"))]);
            assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
            let first = met
                .entry(caller)
                .or_insert_with(|| version(&answer).to_owned());
            assert_eq!(first, version(&answer), "{caller}");
        }
    }
    let versions: BTreeSet<_> = met.into_values().collect();
    assert_eq!(versions.len(), 3, "{versions:?}");
}

pub fn task_18_requests_stay_near_until_nobody_is_there_or_follow_shares(demo: &Demo) {
    demo.apply("18");
    for _ in 0..50 {
        assert_eq!(version(&demo.call(REVIEWS, &[])), "reviews-v1");
    }
    // Endpoints whose machine is gone: nobody has the ports that are left to them.
    let gone = |nodes: &[u16]| {
        demo.change(|dir| {
            let file = dir.join("nodes.yaml");
            let mut text = fs::read_to_string(&file).unwrap();
            for node in 3..6 {
                let [own, free] =
                    [6, 99].map(|at| format!("http: {}}}", demo.base + node * 100 + at));
                let (from, to) = match nodes.contains(&node) {
                    true => (own, free),
                    false => (free, own),
                };
                text = text.replace(&from, &to);
            }
            fs::write(&file, text).unwrap();
        });
    };
    let served = || version(&demo.call(REVIEWS, &[])).to_owned();
    gone(&[3]);
    wait_until(|| {
        let served = served();
        assert_ne!(served, "reviews-v3", "somebody is nearer");
        served == "reviews-v2"
    });
    gone(&[3, 4]);
    wait_until(|| served() == "reviews-v3");
    gone(&[]);
    wait_until(|| served() == "reviews-v1");
    for _ in 0..50 {
        assert_eq!(served(), "reviews-v1");
    }

    demo.change(|dir| {
        let file = dir.join("task/reviews.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let failover = "failover: [{from: us-east, to: us-west}]";
        assert!(text.contains(failover));
        let shares = "distribute: [{from: us-east/*, to: {us-east/*: 20, us-west/*: 80}}]";
        fs::write(&file, text.replace(failover, shares)).unwrap();
    });
    let mut client = Client::connect(demo.outbound());
    let mut shares = BTreeMap::<String, usize>::new();
    for _ in 0..1_000 {
        let answer = client.get(REVIEWS, &[]);
        assert_eq!(answer.status, 200);
        *shares.entry(version(&answer).to_owned()).or_default() += 1;
    }
    // Five standard deviations to each side of 80 %.
    assert!((737..=863).contains(&shares["reviews-v3"]), "{shares:?}");
    assert_eq!(shares.len(), 3, "{shares:?}");
}
