//! Tests of what is looked up when.

use super::*;
use mesh_core::model::{Cluster, SnapshotBuilder};
use proptest::prelude::*;

const REFRESH: Duration = Duration::from_secs(60);

struct World {
    plan: Plan,
    snapshot: Arc<Snapshot>,
    now: Instant,
}

impl World {
    fn new(cluster: Cluster, names: &[&str]) -> Self {
        let (snapshot, _) = snapshot(None, Some((cluster, names)));
        let now = tokio::time::Instant::now().into_std();
        let mut plan = Plan::default();
        plan.adopt(&snapshot, now);
        Self {
            plan,
            snapshot,
            now,
        }
    }

    fn change(&mut self, to: Option<(Cluster, &[&str])>) {
        self.snapshot = snapshot(Some(&self.snapshot), to).0;
        self.plan.adopt(&self.snapshot, self.now);
    }

    fn ask(&mut self) -> Vec<Question> {
        self.plan.take_due(self.now)
    }

    /// The only question there is.
    fn question(&mut self) -> Question {
        let mut questions = self.ask();
        assert_eq!(questions.len(), 1, "{questions:?}");
        questions.remove(0)
    }

    fn found(&mut self, question: &Question, addresses: &[&str], ttl: u64) {
        let answer = Answer {
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
        };
        self.plan.answer(question.id, Ok(answer), self.now, 0);
    }

    fn failed(&mut self, question: &Question, word: u64) {
        let error = LookupError {
            name: question.name.to_string(),
            reason: "timed out".to_owned(),
        };
        self.plan.answer(question.id, Err(error), self.now, word);
    }

    /// How long until the next question.
    fn wait(&self) -> Duration {
        self.plan.next().unwrap() - self.now
    }

    fn addresses(&self) -> Vec<String> {
        let cluster = self.snapshot.cluster("c").unwrap();
        let endpoints = cluster.live().endpoints().load();
        endpoints
            .iter()
            .map(|one| one.address.to_string())
            .collect()
    }

    fn stat(&self, stat: ClusterStat) -> i64 {
        let cluster = self.snapshot.cluster("c").unwrap();
        cluster.live().stats().block().get(stat).try_into().unwrap()
    }
}

fn snapshot(
    previous: Option<&Arc<Snapshot>>,
    cluster: Option<(Cluster, &[&str])>,
) -> (Arc<Snapshot>, ()) {
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    if let Some((cluster, names)) = cluster {
        let names = names.iter().map(|name| name.parse::<Address>().unwrap());
        builder.endpoints(cluster.name.clone(), EndpointSet::of(names));
        builder.cluster(cluster);
    }
    (builder.build().unwrap().0, ())
}

fn strict() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.discovery = DiscoveryKind::StrictDns;
    cluster.dns.refresh = REFRESH;
    cluster
}

#[test]
fn each_address_of_each_name_is_an_endpoint_once() {
    let mut world = World::new(strict(), &["a:80", "b:80", "10.9.9.9:1"]);
    assert_eq!(world.addresses(), ["a:80", "b:80", "10.9.9.9:1"]);
    let questions = world.ask();
    let names: Vec<&str> = questions.iter().map(|question| &*question.name).collect();
    assert_eq!(names, ["a", "b"]);
    world.found(&questions[0], &["10.0.0.1", "10.0.0.2"], 0);
    // b is still looked up for each connection.
    let so_far = ["10.0.0.1:80", "10.0.0.2:80", "b:80", "10.9.9.9:1"];
    assert_eq!(world.addresses(), so_far);
    world.found(&questions[1], &["10.0.0.2", "::1"], 0);
    let all = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "10.9.9.9:1"];
    assert_eq!(world.addresses(), all);
    let cluster = world.snapshot.cluster("c").unwrap();
    let first = cluster.live().endpoints().load();
    assert_eq!(first.iter().next().unwrap().hostname, "a");
    assert_eq!(cluster.live().given().load().len(), 3);
}

#[test]
fn logical_dns_is_one_endpoint_at_the_first_address() {
    let mut cluster = strict();
    cluster.discovery = DiscoveryKind::LogicalDns;
    let mut world = World::new(cluster, &["a:80"]);
    let question = world.question();
    world.found(&question, &["10.0.0.2", "10.0.0.1"], 0);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
}

#[test]
fn a_failure_changes_nothing_and_an_empty_answer_takes_the_endpoints_away() {
    let mut world = World::new(strict(), &["a:80"]);
    let question = world.question();
    world.found(&question, &["10.0.0.1"], 0);
    world.now += REFRESH;
    let question = world.question();
    world.failed(&question, 0);
    assert_eq!(world.addresses(), ["10.0.0.1:80"]);
    world.now += REFRESH;
    let question = world.question();
    world.found(&question, &[], 5);
    assert!(world.addresses().is_empty());
    // A name without addresses has no time to live.
    assert_eq!(world.wait(), REFRESH);
    let counted = [
        ClusterStat::UpdateAttempt,
        ClusterStat::UpdateSuccess,
        ClusterStat::UpdateFailure,
        ClusterStat::UpdateNoRebuild,
    ];
    assert_eq!(counted.map(|stat| world.stat(stat)), [3, 2, 1, 0]);
}

#[test]
fn the_time_to_live_counts_only_where_it_is_asked_for() {
    for (respect, ttl, wait) in [
        (false, 5, 60),
        (true, 5, 5),
        (true, 0, 60),
        (true, 600, 600),
    ] {
        let mut cluster = strict();
        cluster.dns.respect_ttl = respect;
        let mut world = World::new(cluster, &["a:80"]);
        let question = world.question();
        world.found(&question, &["10.0.0.1"], ttl);
        assert_eq!(world.wait(), Duration::from_secs(wait));
    }
}

#[test]
fn failures_wait_in_windows_that_double_up_to_the_longest() {
    let mut cluster = strict();
    let seconds = Duration::from_secs;
    cluster.dns.failure_refresh = Some((seconds(2), seconds(5)));
    let mut world = World::new(cluster, &["a:80"]);
    // The word is one less than the window in milliseconds: the longest wait that it allows.
    for window in [2000, 4000, 5000, 5000] {
        let question = world.question();
        world.failed(&question, window - 1);
        assert_eq!(world.wait(), Duration::from_millis(window - 1));
        world.now += world.wait();
    }
    let question = world.question();
    world.found(&question, &["10.0.0.1"], 0);
    world.now += REFRESH;
    let question = world.question();
    world.failed(&question, 2000);
    // 2000 of 2000 is none at all, but nobody is asked again at once.
    assert_eq!(world.wait(), SHORTEST);
}

#[test]
fn an_answer_to_a_name_that_left_is_not_used() {
    let mut world = World::new(strict(), &["a:80"]);
    let question = world.question();
    world.change(Some((strict(), &["b:80"])));
    world.found(&question, &["10.0.0.1"], 0);
    assert_eq!(world.addresses(), ["b:80"]);
    assert_eq!(world.question().name, "b");
    // Back again it is another name, and asked anew.
    world.change(Some((strict(), &["a:80"])));
    world.found(&question, &["10.0.0.1"], 0);
    assert_eq!(world.addresses(), ["a:80"]);
    assert_eq!(world.question().name, "a");
}

#[test]
fn a_name_that_stays_keeps_its_addresses_and_its_timer() {
    let mut world = World::new(strict(), &["a:80"]);
    let question = world.question();
    world.found(&question, &["10.0.0.1"], 0);
    world.now += REFRESH / 2;
    world.change(Some((strict(), &["a:81", "b:80"])));
    assert_eq!(world.addresses(), ["10.0.0.1:81", "b:80"]);
    assert_eq!(world.question().name, "b");
    assert_eq!(world.wait(), REFRESH / 2);
}

#[test]
fn another_family_is_asked_for_at_once() {
    let mut world = World::new(strict(), &["a:80"]);
    let question = world.question();
    assert_eq!(question.family, DnsFamily::Auto);
    world.found(&question, &["::1"], 0);
    let mut cluster = strict();
    cluster.dns.family = DnsFamily::V4Only;
    world.change(Some((cluster, &["a:80"])));
    assert_eq!(world.question().family, DnsFamily::V4Only);
}

#[test]
fn a_cluster_that_leaves_or_changes_kind_has_its_endpoints_as_they_are_given() {
    let mut world = World::new(strict(), &["a:80"]);
    let question = world.question();
    world.found(&question, &["10.0.0.1"], 0);
    let mut cluster = strict();
    cluster.discovery = DiscoveryKind::Endpoints;
    world.change(Some((cluster, &["10.7.7.7:7"])));
    assert_eq!(world.addresses(), ["10.7.7.7:7"]);
    assert_eq!(world.plan.next(), None);
    world.change(Some((strict(), &["a:80"])));
    let question = world.question();
    world.found(&question, &["10.0.0.1"], 0);
    world.plan = Plan::default();
    assert_eq!(world.addresses(), ["a:80"]);
}

#[test]
fn no_more_than_a_bounded_number_is_asked_at_a_time() {
    let names: Vec<String> = (0..200).map(|n| format!("n{n}:80")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(strict(), &names);
    let questions = world.ask();
    assert_eq!(questions.len(), MOST_AT_ONCE);
    assert_eq!(world.plan.next(), None);
    world.found(&questions[0], &["10.0.0.1"], 0);
    assert_eq!(world.ask().len(), 1);
}

proptest! {
    #[test]
    fn jitter_only_adds_and_less_than_asked_for(word: u64, jitter in 1u64..5000) {
        let mut cluster = strict();
        cluster.dns.jitter = Duration::from_millis(jitter);
        let mut world = World::new(cluster, &["a:80"]);
        let question = world.question();
        let answer = Ok(Answer::default());
        world.plan.answer(question.id, answer, world.now, word);
        let wait = world.wait();
        prop_assert!(wait >= REFRESH && wait < REFRESH + Duration::from_millis(jitter));
    }

    /// Whatever happens in whatever order, the endpoints are the last answers of the names that
    /// are there.
    #[test]
    fn the_endpoints_are_always_the_last_answers(
        steps in proptest::collection::vec((0usize..3, any::<[bool; 3]>(), 0u8..4), 1..60)
    ) {
        let all = ["a:80", "b:80", "c:80"];
        let mut world = World::new(strict(), &all);
        let mut there = vec!["a", "b", "c"];
        let mut known: HashMap<&str, Option<u8>> = HashMap::new();
        let mut open: Vec<Question> = Vec::new();
        for (what, which, ip) in steps {
            match what {
                0 => {
                    let names: Vec<&str> = all
                        .iter()
                        .zip(which)
                        .filter_map(|(name, take)| take.then_some(*name))
                        .collect();
                    there = names.iter().map(|name| &name[..1]).collect();
                    known.retain(|name, _| there.contains(name));
                    world.change(Some((strict(), &names)));
                }
                1 => {
                    world.now += REFRESH * 2;
                    open.extend(world.ask());
                }
                _ => {
                    let Some(question) = open.pop() else { continue };
                    let counts = world.plan.asking.contains(&question.id);
                    let name = all.iter().find(|n| n[..1] == *question.name).unwrap();
                    if ip == 0 {
                        world.failed(&question, 5);
                    } else {
                        let address = format!("10.0.0.{ip}");
                        world.found(&question, &[&address], 0);
                        if counts {
                            known.insert(&name[..1], Some(ip));
                        }
                    }
                }
            }
            let mut expected: Vec<String> = Vec::new();
            for name in &there {
                let one = match known.get(name).copied().flatten() {
                    Some(ip) => format!("10.0.0.{ip}:80"),
                    None => format!("{name}:80"),
                };
                if !expected.contains(&one) {
                    expected.push(one);
                }
            }
            prop_assert_eq!(world.addresses(), expected);
        }
    }
}
