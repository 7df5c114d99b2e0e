//! The name server between a resolver that is not ours and a name server that is none.

use mesh_core::discovery::{NameInfo, NameTable};
use mesh_core::model::DnsFamily;
use mesh_core::{Feed, Publisher};
use mesh_discovery::dns::server::{Place, ResolvConf, Server, Statistics};
use mesh_discovery::dns::{Lookup, System};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::UdpSocket;

fn table(name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Option<NameTable> {
    Some(
        [(name.into(), NameInfo::new(addresses))]
            .into_iter()
            .collect(),
    )
}

/// Answers every question with one address, until it is dropped; an impostor speaks first.
async fn elsewhere(socket: UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let question = &buffer[..length];
        // A question without EDNS ends with its type and class.
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut answer = question[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 9, 9]);
        let mut wrong = answer.clone();
        wrong[0] ^= 0xff;
        *wrong.last_mut().unwrap() = 66;
        socket.send_to(&wrong, client).await.unwrap();
        socket.send_to(&answer, client).await.unwrap();
    }
}

struct Town {
    server: Server,
    address: SocketAddr,
    statistics: Arc<Statistics>,
}

async fn town(tables: Feed<Option<NameTable>>, servers: Vec<SocketAddr>) -> Town {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let mut resolv = ResolvConf::default();
    resolv.servers = servers;
    let server = Server::bind(any, tables, Place::default(), &resolv)
        .await
        .unwrap();
    let statistics = Arc::<Statistics>::default();
    Town {
        address: server.address().unwrap(),
        server: server.statistics(statistics.clone()),
        statistics,
    }
}

#[tokio::test]
async fn a_resolver_finds_the_mesh_here_and_the_rest_at_its_name_servers() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let theirs = upstream.local_addr().unwrap();
    let ours: IpAddr = "240.240.0.7".parse().unwrap();
    let publisher = Publisher::new(table("db.example.com", [ours]));
    let town = town(publisher.feed(), vec![theirs]).await;
    let asking = async {
        let system = System::with_servers([town.address]);
        let ask = |name: &'static str| system.lookup(name, DnsFamily::V4Only);
        assert_eq!(ask("db.example.com.").await.unwrap().addresses, [ours]);
        let other = ask("www.example.org.").await.unwrap().addresses;
        assert_eq!(other, [IpAddr::from([10, 9, 9, 9])]);
        let counts = town.statistics.counts();
        let both = (counts.requests, counts.upstream_requests);
        assert_eq!((both, counts.upstream_failures), ((2, 1), 0));
        assert_eq!(counts.buckets[5], 1);
        // A new table counts at once.
        publisher.publish(Arc::new(table("www.example.org", [ours])));
        assert_eq!(ask("www.example.org.").await.unwrap().addresses, [ours]);
        let other = ask("db.example.com.").await.unwrap().addresses;
        assert_eq!(other, [IpAddr::from([10, 9, 9, 9])]);
    };
    tokio::select! {
        () = asking => {}
        () = town.server.run() => panic!("it runs for ever"),
        () = elsewhere(upstream) => panic!("it answers for ever"),
    }
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let all: Vec<IpAddr> = (1..=200).map(|one| IpAddr::from([10, 0, 0, one])).collect();
    let tables = Feed::fixed(table("many.example.com", all.clone()));
    let town = town(tables, Vec::new()).await;
    let asking = async {
        let system = System::with_servers([town.address]);
        let answer = system.lookup("many.example.com.", DnsFamily::V4Only).await;
        let mut found = answer.unwrap().addresses;
        found.sort();
        assert_eq!(found, all);
        assert_eq!(town.statistics.counts().requests, 2);
    };
    tokio::select! {
        () = asking => {}
        () = town.server.run() => panic!("it runs for ever"),
    }
}

#[tokio::test]
async fn without_a_table_or_a_name_server_that_answers_there_is_an_error() {
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let theirs = gone.local_addr().unwrap();
    drop(gone);
    let publisher = Publisher::new(None);
    let town = town(publisher.feed(), vec![theirs]).await;
    let asking = async {
        let system = System::with_servers([town.address]);
        let ask = || system.lookup("db.example.com.", DnsFamily::V4Only);
        assert!(ask().await.is_err());
        assert_eq!(town.statistics.counts().upstream_requests, 0);
        publisher.publish(Arc::new(Some(NameTable::default())));
        assert!(ask().await.is_err());
        let counts = town.statistics.counts();
        assert!(counts.upstream_failures > 0);
        assert_eq!(counts.upstream_failures, counts.upstream_requests);
    };
    tokio::select! {
        () = asking => {}
        () = town.server.run() => panic!("it runs for ever"),
    }
}
