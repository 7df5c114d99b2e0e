//! Plain forwarders: nginx, haproxy, and hyper with nothing around it.

use std::{fs, path::Path};

use anyhow::Context as _;

use super::{
    peer::{Peer, Setting, Start},
    process::Program,
};

pub(crate) fn nginx(peer: &Peer, setting: &Setting) -> anyhow::Result<Start> {
    let file = setting.file(peer.kind, "conf");
    write(&file, &nginx_config(peer, setting))?;
    // As its own user: another could not read the key.
    let program = Program::new(&peer.program)
        .arguments(["-p".to_owned(), setting.folder.display().to_string()])
        .arguments(["-c".to_owned(), file.display().to_string()])
        .arguments(["-e", "stderr"]);
    Ok(Start {
        program,
        access_log: None,
    })
}

pub(crate) fn haproxy(peer: &Peer, setting: &Setting) -> anyhow::Result<Start> {
    let file = setting.file(peer.kind, "cfg");
    // It wants both in one file.
    let both = setting.file(peer.kind, "pem");
    let mut text = read(&setting.certificate)?;
    text += &read(&setting.key)?;
    write(&both, &text)?;
    write(&file, &haproxy_config(setting, &both))?;
    let program = Program::new(&peer.program)
        .arguments(["-db", "-q", "-f"])
        .arguments([file.display().to_string()]);
    Ok(Start {
        program,
        access_log: None,
    })
}

pub(crate) fn hyper(peer: &Peer, setting: &Setting) -> Start {
    let upstreams = setting.upstreams.iter();
    let addresses = std::iter::once(&setting.listens.h1).chain(upstreams);
    let addresses = addresses.map(|port| format!("127.0.0.1:{port}"));
    Start {
        program: Program::new(&peer.program).arguments(addresses),
        access_log: None,
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {file:?}"))
}

fn nginx_config(peer: &Peer, setting: &Setting) -> String {
    let Setting {
        listens,
        workers,
        folder,
        ..
    } = setting;
    let servers: String = (setting.upstreams.iter())
        .map(|port| format!("    server 127.0.0.1:{port};\n"))
        .collect();
    let keep = "keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h;";
    let folder = folder.display();
    let certificate = setting.certificate.display();
    let key = setting.key.display();
    let [h1, h2c, tls] = [listens.h1, listens.h2c, listens.tls];
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|it| format!("  {it}_temp_path {folder}/nginx-{it};\n"))
        .concat();
    let module = (peer.module.as_ref())
        .map_or_else(String::new, |it| format!("load_module {};\n", it.display()));
    let mut text = format!(
        "{module}worker_processes {workers};
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
{temporary}  upstream backend {{
{servers}    {keep}
  }}
  # Kept apart: nginx would take a connection of one protocol for the other.
  upstream backend_h2 {{
{servers}    {keep}
  }}
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.3;
  server {{
    listen 127.0.0.1:{h1} backlog=4096;
    listen 127.0.0.1:{h2c} http2 backlog=4096;
    listen 127.0.0.1:{tls} ssl http2 backlog=4096;
    http2_max_concurrent_streams 1024;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
      proxy_busy_buffers_size 64k;
      proxy_max_temp_file_size 0;
    }}
    location /h2/ {{ grpc_pass grpc://backend_h2; grpc_buffer_size 16k; }}
    location /bench.Echo/ {{ grpc_pass grpc://backend_h2; grpc_buffer_size 16k; }}
  }}
}}
"
    );
    if peer.has_tcp {
        text += &format!(
            "stream {{
  access_log off;
  tcp_nodelay on;
  upstream bytes {{
{servers}  }}
  server {{ listen 127.0.0.1:{} backlog=4096; proxy_pass bytes; }}
}}
",
            listens.tcp
        );
    }
    text
}

fn haproxy_config(setting: &Setting, both: &Path) -> String {
    let Setting {
        listens, workers, ..
    } = setting;
    let servers = |more: &str| -> String {
        let ports = setting.upstreams.iter().enumerate();
        ports
            .map(|(at, port)| format!("  server s{at} 127.0.0.1:{port}{more}\n"))
            .collect()
    };
    let (http, h2, bytes) = (
        servers(" pool-max-conn 1024"),
        servers(" proto h2 pool-max-conn 1024"),
        servers(""),
    );
    let both = both.display();
    let [h1, h2c, tls, tcp] = [listens.h1, listens.h2c, listens.tls, listens.tcp];
    format!(
        "global
  nbthread {workers}
  maxconn 9000
  tune.h2.max-concurrent-streams 1024
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
  balance roundrobin
frontend http
  bind 127.0.0.1:{h1} backlog 4096
  bind 127.0.0.1:{h2c} proto h2 backlog 4096
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3 backlog 4096
  use_backend h2 if {{ path_beg /h2/ /bench.Echo/ }}
  default_backend http
backend http
{http}backend h2
{h2}frontend bytes
  mode tcp
  bind 127.0.0.1:{tcp} backlog 4096
  default_backend bytes
backend bytes
  mode tcp
{bytes}"
    )
}
