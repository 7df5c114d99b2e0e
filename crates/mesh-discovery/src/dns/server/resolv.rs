//! What `resolv.conf` says (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Who is asked about names that are not of the mesh, and what resolvers add to names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvConf {
    /// The name servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// The search domains, without a dot at their end.
    pub search: Vec<String>,
}

/// A file that names more servers than these names them in vain; resolvers stop at three.
const MOST_SERVERS: usize = 16;
/// The same for search domains: resolvers stop at six, or 256 bytes.
const MOST_SEARCH: usize = 32;

const PORT: u16 = 53;

// === impl ResolvConf ===

impl ResolvConf {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        std::fs::read_to_string(path).map(|text| Self::parse(&text))
    }

    /// Reads a text. What cannot be understood is left out, as resolvers do it; of several lines
    /// with search domains the last counts.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(address);
                    let room = conf.servers.len() < MOST_SERVERS;
                    conf.servers.extend(address.filter(|_| room));
                }
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_end_matches('.').to_owned());
                    let domains = domains.filter(|domain| !domain.is_empty());
                    conf.search = domains.take(MOST_SEARCH).collect();
                }
                _ => {}
            }
        }
        conf
    }
}

/// An address, of IPv6 also with the number of an interface.
fn address(word: &str) -> Option<SocketAddr> {
    match word.parse::<IpAddr>() {
        Ok(address) => Some((address, PORT).into()),
        Err(_) => format!("[{word}]:{PORT}").parse().ok(),
    }
}
