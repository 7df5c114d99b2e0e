//! Endpoints that are told who calls.

use super::*;
use mesh_core::model::ProxyProtocol;
use mesh_core::{Caller, Exchange};
use tokio::io::AsyncReadExt;

type Headers = Arc<Mutex<Vec<String>>>;

/// Reads a header of version 1, then serves HTTP/1.1.
fn told(headers: &Headers) -> impl Fn(usize, DuplexStream) + Send + Sync + use<> {
    let headers = headers.clone();
    move |number, mut stream| {
        let headers = headers.clone();
        tokio::spawn(async move {
            let mut header = Vec::new();
            while !header.ends_with(b"\r\n") {
                header.push(stream.read_u8().await.unwrap());
            }
            let header = String::from_utf8(header).unwrap();
            headers.lock().unwrap().push(header.trim_end().to_owned());
            serve(stream, move |_| async move { text(number.to_string()) });
        });
    }
}

fn telling() -> Cluster {
    let mut cluster = cluster();
    cluster.proxy_protocol = Some(ProxyProtocol::V1);
    cluster
}

impl Net {
    /// The answer to a request of this caller.
    async fn call_from(&self, port: u16) -> Result<String, Error> {
        let mut caller = Caller::default();
        caller.peer = Some(([10, 0, 0, 9], port).into());
        caller.local = Some(([10, 0, 0, 1], 80).into());
        let exchange = Exchange::new(std::time::Instant::now(), caller);
        let mut request = get();
        exchange.attach(&mut request);
        Ok(mesh_test::read(self.send(request).await?.into_body()).await)
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_belongs_to_the_caller_that_it_named() {
    let headers = Headers::default();
    let net = Net::new(telling(), told(&headers));
    for (port, connection) in [(1, "0"), (2, "1"), (1, "0"), (2, "1")] {
        assert_eq!(net.call_from(port).await.unwrap(), connection);
    }
    assert_eq!(net.get().await.unwrap(), "2", "nobody's");
    assert_eq!(
        *headers.lock().unwrap(),
        [
            "PROXY TCP4 10.0.0.9 10.0.0.1 1 80",
            "PROXY TCP4 10.0.0.9 10.0.0.1 2 80",
            "PROXY UNKNOWN"
        ]
    );
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn connections_of_the_callers_that_came_least_recently_make_room_for_others() {
    let net = Net::new(telling(), told(&Headers::default()));
    for port in 0..1024 {
        net.call_from(port).await.unwrap();
    }
    assert_eq!(net.in_use(Resource::Connections), 1024);
    assert_eq!(net.call_from(0).await.unwrap(), "0");
    assert_eq!(net.call_from(5000).await.unwrap(), "1024");
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 1024);
    assert_eq!(net.call_from(0).await.unwrap(), "0", "came again since");
    assert_eq!(net.call_from(1).await.unwrap(), "1025", "forgotten");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn kinds_of_connections_without_a_connection_are_forgotten() {
    let mut cluster = telling();
    cluster.idle_timeout = Some(std::time::Duration::from_secs(10));
    let net = Net::new(cluster, told(&Headers::default()));
    net.call_from(1).await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    let now = tokio::time::Instant::now().into_std();
    net.upstreams.sweep(now);
    settle().await;
    net.upstreams.sweep(now);
    assert_eq!(net.in_use(Resource::Connections), 0);
    assert_eq!(net.upstreams.kinds(), 0);
    net.finish().await;
}
