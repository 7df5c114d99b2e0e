//! Plain forwarders: nginx, haproxy, and hyper with nothing around it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    mutual::{HOST, Mutual},
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
    let both = joined(
        &setting.certificate,
        &setting.key,
        &setting.file(peer.kind, "pem"),
    )?;
    let mut text = haproxy_config(setting, &both);
    if let Some(mutual) = &setting.mutual {
        let [server, proxy] = ["server", "proxy"].map(|name| {
            let [certificate, key] = ["pem", "key"].map(|end| format!("{name}.{end}"));
            let both = setting.file(peer.kind, &format!("{name}.pem"));
            joined(
                &mutual.folder.join(certificate),
                &mutual.folder.join(key),
                &both,
            )
        });
        text += &haproxy_mutual(setting, mutual, &server?, &proxy?);
    }
    write(&file, &text)?;
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

/// haproxy wants certificate and key in one file.
fn joined(certificate: &Path, key: &Path, both: &Path) -> anyhow::Result<PathBuf> {
    let text = read(certificate)? + &read(key)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(both)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {both:?}"))?;
    Ok(both.to_owned())
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
    let folder = folder.display();
    let certificate = setting.certificate.display();
    let key = setting.key.display();
    let [h1, h2c, tls] = [listens.h1, listens.h2c, listens.tls];
    let mutual =
        (setting.mutual.as_ref()).map_or_else(String::new, |mutual| nginx_mutual(setting, mutual));
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
{servers}    {KEEP}
  }}
  # Kept apart: nginx would take a connection of one protocol for the other.
  upstream backend_h2 {{
{servers}    {KEEP}
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
{PASS}    }}
    location /h2/ {{ grpc_pass grpc://backend_h2; grpc_buffer_size 16k; }}
    location /bench.Echo/ {{ grpc_pass grpc://backend_h2; grpc_buffer_size 16k; }}
  }}
{mutual}}}
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

/// How nginx keeps its connections.
const KEEP: &str = "keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h;";
/// How it passes on HTTP/1.1.
const PASS: &str = "      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
      proxy_busy_buffers_size 64k;
      proxy_max_temp_file_size 0;
";

/// A server of nginx for callers with a certificate, which shows the backend one.
fn nginx_mutual(setting: &Setting, mutual: &Mutual) -> String {
    let servers: String = (mutual.upstreams.iter())
        .map(|port| format!("    server 127.0.0.1:{port};\n"))
        .collect();
    let port = setting.listens.mtls;
    let [ca, server, server_key, proxy, proxy_key] = [
        "ca.pem",
        "server.pem",
        "server.key",
        "proxy.pem",
        "proxy.key",
    ]
    .map(|name| mutual.file(name));
    format!(
        "  upstream backend_mtls {{
{servers}    {KEEP}
  }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {server};
    ssl_certificate_key {server_key};
    ssl_client_certificate {ca};
    ssl_verify_client on;
    location / {{
      proxy_pass https://backend_mtls;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate {proxy};
      proxy_ssl_certificate_key {proxy_key};
      proxy_ssl_trusted_certificate {ca};
      proxy_ssl_verify on;
      proxy_ssl_name {HOST};
      proxy_ssl_server_name on;
{PASS}    }}
  }}
"
    )
}

/// What haproxy has more with mutual TLS: server and proxy are certificates with keys.
fn haproxy_mutual(setting: &Setting, mutual: &Mutual, server: &Path, proxy: &Path) -> String {
    let (server, proxy, ca) = (server.display(), proxy.display(), mutual.file("ca.pem"));
    let tls = format!(
        "ssl crt {proxy} ca-file {ca} verify required sni str({HOST}) verifyhost {HOST} \
         ssl-min-ver TLSv1.3 pool-max-conn 1024"
    );
    let ports = mutual.upstreams.iter().enumerate();
    let servers: String = ports
        .map(|(at, port)| format!("  server m{at} 127.0.0.1:{port} {tls}\n"))
        .collect();
    let port = setting.listens.mtls;
    format!(
        "frontend mtls
  bind 127.0.0.1:{port} ssl crt {server} ca-file {ca} verify required alpn http/1.1 \
         ssl-min-ver TLSv1.3 backlog 4096
  default_backend mtls
backend mtls
{servers}"
    )
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
