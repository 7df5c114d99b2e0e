//! A real nginx, where there is one.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// One process that forwards. It ends with this.
pub struct Nginx {
    pub process: Child,
}

impl Nginx {
    /// Starts it with an address for HTTP/1 and one for HTTP/2, which it took on different ones until
    /// 1.25. None, which is said, where there is no nginx. Its limits are its defaults.
    pub async fn start(
        backend: SocketAddr,
        (plain, framed): (SocketAddr, SocketAddr),
        directory: &Path,
    ) -> Option<Self> {
        let place = directory.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/error.log crit;\n\
             worker_rlimit_nofile 65536;\nevents {{ worker_connections 60000; }}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {place}/body;\nproxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/f;\nuwsgi_temp_path {place}/u;\nscgi_temp_path {place}/s;\n\
             upstream backend {{ server {backend}; keepalive 64; }}\n\
             server {{ listen {plain} backlog=4096; listen {framed} http2 backlog=4096;\n\
             location / {{ proxy_pass http://backend; proxy_http_version 1.1; \
             proxy_set_header connection \"\"; }} }}\n}}\n"
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let started = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            println!("not compared with nginx: there is none on the path");
            return None;
        };
        let nginx = Self { process };
        let ready = async {
            while TcpStream::connect(framed).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = timeout(Duration::from_secs(10), ready).await;
        ready.expect("nginx is ready in time");
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
