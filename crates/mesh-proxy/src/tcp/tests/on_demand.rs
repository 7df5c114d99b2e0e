//! Callers whose cluster is not there, or has to be asked for.

use super::*;
use mesh_core::demand::{Answered, Missing, Outcome, Provide};

/// Answers when it is told to, with what it is told.
#[derive(Debug)]
struct Provider(watch::Receiver<Option<Outcome>>);

impl Provide for Provider {
    fn ask(&self, _: Missing) -> Answered {
        let mut told = self.0.clone();
        Box::pin(async move {
            let told = told.wait_for(Option::is_some).await;
            told.map_or(Outcome::Absent, |told| told.unwrap())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_its_cluster_is_asked_for_is_let_go_at_once() {
    let (_tell, told) = watch::channel(None);
    let mut world = World::new();
    world.proxy = TcpProxy::to("p", "nowhere");
    world.proxy.on_demand = ClustersOnDemand::Within(3600 * SECOND);
    world.forwarder.demand = Some(Demand::new(Provider(told)));
    let began = Instant::now();
    // It ends without a word, or breaks after some.
    let call = world.call();
    settle().await;
    drop(call.io);
    call.task.await.unwrap();
    let mut call = world.call();
    call.io.write_all(b"hello").await.unwrap();
    settle().await;
    call.fate.breaks();
    drop(call.io);
    call.task.await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert_eq!(world.stat(TcpStat::OnDemandAttempt), 2);
    assert_eq!(world.stat(TcpStat::OnDemandTimeout), 0);
    assert_eq!(
        world.forwarder.buffers.unused_buffers(),
        1,
        "they are given back"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_says_while_its_cluster_is_asked_for_is_passed_on() {
    for length in [5, buffers::SIZE, 3 * buffers::SIZE] {
        let (tell, told) = watch::channel(None);
        let mut world = World::new();
        // It is there when the answer comes.
        let publisher = Publisher::from_arc(SnapshotBuilder::new().build().unwrap().0);
        world.forwarder.feed = publisher.feed();
        world.proxy.on_demand = ClustersOnDemand::Within(3600 * SECOND);
        world.forwarder.demand = Some(Demand::new(Provider(told)));
        let mut call = world.call();
        let said: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let whole = said.clone();
        let saying = tokio::spawn(async move {
            call.io.write_all(&whole).await.unwrap();
            call.io.shutdown().await.unwrap();
            call
        });
        settle().await;
        let mut builder = SnapshotBuilder::new();
        builder.cluster(Cluster::new("a"));
        publisher.publish(builder.build().unwrap().0);
        tell.send_replace(Some(Outcome::Came));
        let mut made = world.connected().await;
        let mut seen = Vec::new();
        made.io.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, said);
        // Who has said all still gets the answer.
        let mut call = saying.await.unwrap();
        pass(&mut made.io, &mut call.io, "answer").await;
        drop(made.io);
        call.task.await.unwrap();
        assert_eq!(world.stat(TcpStat::CxRxBytes), length as u64);
        world.assert_quiet();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_cluster_is_closed_and_counted() {
    let mut world = World::new();
    world.proxy = TcpProxy::to("p", "nowhere");
    let mut call = world.call();
    assert_eq!(call.io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(world.stat(TcpStat::CxNoRoute), 1);
    assert_eq!(world.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_question_for_a_cluster_is_counted_apart() {
    for (outcome, stat) in [
        (Outcome::Absent, TcpStat::OnDemandMissing),
        (Outcome::Refused, TcpStat::OnDemandRefused),
    ] {
        let (_tell, told) = watch::channel(Some(outcome));
        let mut world = World::new();
        world.proxy = TcpProxy::to("p", "nowhere");
        world.proxy.on_demand = ClustersOnDemand::Within(SECOND);
        world.forwarder.demand = Some(Demand::new(Provider(told)));
        let mut call = world.call();
        assert_eq!(call.io.read(&mut [0; 8]).await.unwrap(), 0);
        let asked = [
            TcpStat::OnDemandMissing,
            TcpStat::OnDemandRefused,
            TcpStat::OnDemandSuccess,
        ];
        for one in asked {
            assert_eq!(world.stat(one), u64::from(one == stat), "{one:?}");
        }
    }
}
