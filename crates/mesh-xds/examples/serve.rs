//! A control plane of raw resources, driven by lines on standard input: what a conformance harness
//! or a test of a client needs.
//!
//! ```text
//! cargo run -p mesh-xds --features server --example serve -- 127.0.0.1:18000
//! set CDS backend cluster.bin     sets a resource to the protobuf bytes in a file
//! remove CDS backend              removes it
//! clear CDS                       removes all of a type; without a type, everything
//! status                          prints who is connected and how far they are
//! ```
//!
//! What happens on the streams is printed as it happens.

use mesh_core::Feed;
use mesh_xds::server::{Changes, Client, Event, Refused, ResourceSet, Server, Timing, View};
use mesh_xds::{Encoded, Node, TypeUrl};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:18000".to_owned());
    let set = ResourceSet::new();
    let shared = set.clone();
    let view = move |_: &Node| Ok::<_, Refused>(Feed::fixed(View::of([shared.clone()])));
    let mut timing = Timing::default();
    timing.removal = Duration::from_secs(60);
    let server = Server::builder(view)
        .identifier("serve")
        .timing(timing)
        .observer(print)
        .build();

    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let commands = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match obey(&line, &set, &server) {
                Ok(done) => println!("{done}"),
                Err(error) => println!("error: {error}"),
            }
        }
    };
    server.serve(listener, commands).await?;
    Ok(())
}

fn obey(line: &str, set: &ResourceSet, server: &Server) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kind = |short: &str| {
        let known = TypeUrl::ALL.into_iter().find(|kind| kind.short() == short);
        known.ok_or_else(|| format!("no type {short}; there is CDS, EDS, LDS, RDS and so on"))
    };
    let changed = match words[..] {
        ["set", short, name, file] => {
            let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            set.apply(Changes::new().set(kind(short)?, Encoded::new(name, bytes)))
        }
        ["remove", short, name] => set.apply(Changes::new().remove(kind(short)?, name)),
        ["clear", short] => set.replace(kind(short)?, Vec::new()),
        ["clear"] => set.clear(),
        ["status"] => return Ok(status(server)),
        _ => return Err("commands: set TYPE NAME FILE, remove TYPE NAME, clear, status".into()),
    };
    Ok(format!("changed {changed}"))
}

fn status(server: &Server) -> String {
    let mut text = String::new();
    for connection in server.connections() {
        let id = connection.client.node.id();
        for kind in connection.types {
            let (short, sync, count) = (kind.kind.short(), kind.sync, kind.resources);
            text += &format!("{id} {short} {sync:?} with {count} resources\n");
        }
    }
    text
}

fn print(client: &Client, event: &Event) {
    println!("{}: {event:?}", client.node.id());
}
