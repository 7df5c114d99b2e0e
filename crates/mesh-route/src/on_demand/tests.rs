use super::*;
use http::HeaderName;
use mesh_core::demand::Provide;
use mesh_core::model::{
    Action, Cluster, Condition, Forward, Fraction, HostsOnDemand, RouteTable, Rule, Snapshot,
    SnapshotBuilder, VirtualHost,
};
use mesh_core::stats::Block;
use mesh_core::{Failure, Publisher, Rng};
use mesh_test::{BoxedBody, Probe, contract, fixture, text};
use std::sync::Mutex;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// Somebody who is asked, and answers when the test says so.
#[derive(Debug, Default)]
struct Provider {
    asked: Mutex<Vec<Missing>>,
    open: Mutex<Vec<oneshot::Sender<Outcome>>>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Provider>);

impl Provide for Shared {
    fn ask(&self, missing: Missing) -> Answered {
        let (sender, receiver) = oneshot::channel();
        self.0.asked.lock().unwrap().push(missing);
        self.0.open.lock().unwrap().push(sender);
        Box::pin(async move { receiver.await.unwrap_or(Outcome::Absent) })
    }
}

impl Shared {
    fn asked(&self) -> Vec<Missing> {
        self.0.asked.lock().unwrap().clone()
    }

    fn answer(&self, outcome: Outcome) {
        for sender in self.0.open.lock().unwrap().drain(..) {
            // Whoever asked may be gone.
            let _ = sender.send(outcome);
        }
    }

    /// Whether somebody still waits.
    fn is_awaited(&self) -> bool {
        let open = self.0.open.lock().unwrap();
        open.iter().any(|sender| !sender.is_closed())
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<BoxedBody>, Error>> + Send>>;

/// A configuration, somebody who is asked, and a stack of the two routing layers over a probe.
struct Bench {
    publisher: Publisher<Snapshot>,
    provider: Shared,
    probe: Probe,
    stats: Arc<Block<HttpStat>>,
    manager: HttpManager,
}

fn table(hosts: Vec<VirtualHost>) -> RouteTable {
    let mut table = hosts
        .into_iter()
        .fold(RouteTable::new("t"), RouteTable::host);
    table.on_demand = Some(HostsOnDemand {
        table: "known".into(),
        wait: Some(Duration::from_secs(15)),
    });
    table
}

fn host(domain: &str, cluster: &str) -> VirtualHost {
    VirtualHost::new(domain, [domain]).rule(Rule::prefix_to("/", cluster))
}

fn snapshot(table: RouteTable, clusters: &[&str]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    builder.routes(table);
    for name in clusters {
        builder.cluster(Cluster::new(*name));
    }
    builder.build().unwrap().0
}

impl Bench {
    fn new(table: RouteTable, clusters: &[&str]) -> Self {
        let mut manager = HttpManager::new("in", "t");
        let within = ClustersOnDemand::Within(Duration::from_secs(5));
        manager.on_demand = Some(within);
        Self {
            publisher: Publisher::from_arc(snapshot(table, clusters)),
            provider: Shared::default(),
            probe: Probe::new(),
            stats: Arc::default(),
            manager,
        }
    }

    fn layer(&self) -> OnDemandLayer {
        let demand = Demand::new(self.provider.clone());
        OnDemandLayer::new(RouteLayer::new(self.publisher.feed()), Some(demand))
    }

    fn request(&self, uri: &str) -> Request<BoxedBody> {
        let mut caller = Caller::default();
        caller.stats = Some(self.stats.clone());
        caller.manager = Some(Arc::new(self.manager.clone()));
        let now = tokio::time::Instant::now().into_std();
        let exchange = Exchange::new(now, caller);
        fixture::with(Request::get(uri).body(text("")).unwrap(), &exchange)
    }

    fn send(&self, request: Request<BoxedBody>) -> tokio::task::JoinHandle<Result<(), Failure>> {
        let route = RouteLayer::new(self.publisher.feed()).layer(self.probe.clone());
        let sending = self.layer().layer(route).oneshot(request);
        let sending: Sending = Box::pin(sending);
        tokio::spawn(async move { sending.await.map(drop).map_err(|error| error.failure()) })
    }

    /// The clusters that requests went to.
    fn went(&self) -> Vec<String> {
        let requests = self.probe.requests();
        let name = |request: &Request<bytes::Bytes>| {
            let matched = Exchange::of(request).and_then(Exchange::matched).unwrap();
            let there = matched.cluster().is_some();
            format!("{}:{there}", matched.cluster_name().unwrap())
        };
        requests.iter().map(name).collect()
    }
}

async fn turns() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn wants_host(host: &str) -> Missing {
    Missing::VirtualHost {
        table: "known".into(),
        host: host.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract_of_layers() {
    let bench = Bench::new(table(vec![host("*", "a")]), &["a"]);
    contract::check(bench.layer()).await;
    contract::check(OnDemandLayer::new(
        RouteLayer::new(bench.publisher.feed()),
        None,
    ))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_host_and_meets_the_snapshot_of_then() {
    let bench = Bench::new(table(vec![]), &["a"]);
    let sent = bench.send(bench.request("http://New.Example:80/"));
    turns().await;
    // In lower case, with its port.
    assert_eq!(bench.provider.asked(), [wants_host("new.example:80")]);
    assert!(!sent.is_finished());
    bench
        .publisher
        .publish(snapshot(table(vec![host("new.example:80", "a")]), &["a"]));
    bench.provider.answer(Outcome::Came);
    assert_eq!(sent.await.unwrap(), Ok(()));
    assert_eq!(bench.went(), ["a:true"]);
    assert_eq!(bench.stats.get(HttpStat::OnDemandSuccess), 1);
    assert_eq!(bench.stats.get(HttpStat::NoRoute), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_may_be_followed_by_its_cluster() {
    let bench = Bench::new(table(vec![]), &[]);
    let sent = bench.send(bench.request("http://new/"));
    turns().await;
    bench
        .publisher
        .publish(snapshot(table(vec![host("new", "a")]), &[]));
    bench.provider.answer(Outcome::Came);
    turns().await;
    assert_eq!(bench.provider.asked()[1..], [Missing::Cluster("a".into())]);
    bench
        .publisher
        .publish(snapshot(table(vec![host("new", "a")]), &["a"]));
    bench.provider.answer(Outcome::Came);
    assert_eq!(sent.await.unwrap(), Ok(()));
    assert_eq!(bench.went(), ["a:true"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_exist_is_asked_for_once_and_has_no_route() {
    for (outcome, counted) in [
        (Outcome::Absent, HttpStat::OnDemandMissing),
        (Outcome::Refused, HttpStat::OnDemandRefused),
        // There, but without a rule for the request.
        (Outcome::Came, HttpStat::OnDemandSuccess),
    ] {
        let bench = Bench::new(table(vec![]), &[]);
        let sent = bench.send(bench.request("http://new/"));
        turns().await;
        bench.provider.answer(outcome);
        assert_eq!(sent.await.unwrap(), Err(Failure::NoRoute));
        assert_eq!(bench.provider.asked().len(), 1);
        assert_eq!(bench.stats.get(counted), 1);
        assert_eq!(bench.stats.get(HttpStat::NoRoute), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_limit() {
    let began = tokio::time::Instant::now();
    let bench = Bench::new(table(vec![host("old", "gone")]), &[]);
    let failed = bench.send(bench.request("http://new/")).await.unwrap();
    assert_eq!(failed, Err(Failure::NoRoute));
    assert_eq!(began.elapsed().as_secs(), 15);
    assert!(!bench.provider.is_awaited());
    // Without its cluster the request goes on to whoever answers for that.
    bench
        .send(bench.request("http://old/"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(bench.went(), ["gone:false"]);
    assert_eq!(bench.stats.get(HttpStat::OnDemandTimeout), 2);
}

#[tokio::test(start_paused = true)]
async fn a_host_may_be_waited_for_as_long_as_the_request_lives() {
    let mut forever = table(vec![]);
    forever.on_demand.as_mut().unwrap().wait = None;
    let bench = Bench::new(forever, &[]);
    let sent = bench.send(bench.request("http://new/"));
    sleep(Duration::from_secs(1_000_000)).await;
    assert!(!sent.is_finished() && bench.provider.is_awaited());
    sent.abort();
    turns().await;
    assert!(
        !bench.provider.is_awaited(),
        "nobody waits for a caller that went"
    );
}

#[tokio::test(start_paused = true)]
async fn of_rule_host_and_manager_the_closest_says_whether_clusters_are_asked_for() {
    let within = |seconds| Some(ClustersOnDemand::Within(Duration::from_secs(seconds)));
    let off = Some(ClustersOnDemand::Off);
    for (rule, of_host, manager, waits) in [
        (None, None, within(5), 5),
        (None, within(7), within(5), 7),
        (within(9), within(7), within(5), 9),
        (within(9), within(7), off, 9),
        (off, within(7), within(5), 0),
        (None, off, within(5), 0),
        (None, None, off, 0),
        // Without the filter nothing that routes say of it has an effect.
        (within(9), None, None, 0),
    ] {
        let mut one = Rule::prefix_to("/", "gone");
        one.on_demand = rule;
        let mut host = VirtualHost::new("h", ["*"]).rule(one);
        host.on_demand = of_host;
        let mut bench = Bench::new(table(vec![host]), &[]);
        bench.manager.on_demand = manager;
        let began = tokio::time::Instant::now();
        bench
            .send(bench.request("http://a/"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(began.elapsed().as_secs(), waits);
        assert_eq!(bench.provider.asked().len(), usize::from(waits > 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_a_header_names_is_asked_for_by_that_name() {
    let mut forward = Forward::default();
    forward.to = Target::Header(HeaderName::from_static("x-cluster"));
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let bench = Bench::new(table(vec![VirtualHost::new("h", ["*"]).rule(rule)]), &[]);
    let mut request = bench.request("http://a/");
    request
        .headers_mut()
        .insert("x-cluster", "wanted".parse().unwrap());
    let _sent = bench.send(request);
    turns().await;
    assert_eq!(bench.provider.asked(), [Missing::Cluster("wanted".into())]);
    // Without the header there is nothing to ask for.
    let answered = bench.send(bench.request("http://a/"));
    answered.await.unwrap().unwrap();
    assert_eq!(bench.provider.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_part_of_a_split_that_was_drawn_stays_drawn() {
    let parts = Action::Forward(Forward::split([("a", 1), ("b", 1)]));
    let rule = || Rule::new(Condition::default(), parts.clone());
    let hosts = || vec![VirtualHost::new("h", ["*"]).rule(rule())];
    for _ in 0..32 {
        let bench = Bench::new(table(hosts()), &[]);
        let sent = bench.send(bench.request("http://a/"));
        turns().await;
        let [Missing::Cluster(asked)] = &bench.provider.asked()[..] else {
            panic!("one cluster is asked for");
        };
        bench
            .publisher
            .publish(snapshot(table(hosts()), &["a", "b"]));
        bench.provider.answer(Outcome::Came);
        sent.await.unwrap().unwrap();
        assert_eq!(bench.went(), [format!("{asked}:true")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_without_hosts_on_demand_asks_for_none() {
    let mut plain = table(vec![]);
    plain.on_demand = None;
    let bench = Bench::new(plain, &[]);
    let failed = bench.send(bench.request("http://new/")).await.unwrap();
    assert_eq!(failed, Err(Failure::NoRoute));
    assert_eq!(bench.provider.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_rule_with_a_share_gets_its_share_and_no_more() {
    let mut rule = Rule::prefix_to("/", "c");
    rule.condition.share = Some(Fraction::percent(50.0).unwrap());
    let mut plain = table(vec![VirtualHost::new("h", ["*"]).rule(rule)]);
    plain.on_demand = None;
    let bench = Bench::new(plain, &["c"]);
    let route = RouteLayer::new(bench.publisher.feed()).rng(Arc::new(Rng::with_seed(7)));
    let demand = Demand::new(bench.provider.clone());
    let layer = OnDemandLayer::new(route.clone(), Some(demand));
    let service = layer.layer(route.layer(bench.probe.clone()));
    let mut met = 0;
    for _ in 0..1000 {
        let sent = service.clone().oneshot(bench.request("http://a/")).await;
        met += u64::from(sent.is_ok());
    }
    assert!((440..560).contains(&met), "{met} of 1000");
    assert_eq!(bench.stats.get(HttpStat::NoRoute), 1000 - met);
    assert_eq!(bench.stats.get(HttpStat::RouterRqTotal), 1000 - met);
}
