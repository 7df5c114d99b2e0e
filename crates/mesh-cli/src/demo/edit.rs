//! What is changed in YAML so that it fits the machine: ports, the gateway's address, and where
//! certificates lie.

use std::net::SocketAddr;
use std::path::Path;

/// The port of the first node in the YAML that is built in.
pub(crate) const FIRST_PORT: u16 = 20000;

/// Node ports of the built-in YAML lie in this range.
const PORTS: std::ops::Range<u16> = FIRST_PORT..FIRST_PORT + 1000;

/// Where certificates lie in the YAML that is built in.
const CERTIFICATES: &str = "/etc/certs/";

/// The text with its node ports moved: whole numbers in [`PORTS`], wherever they stand.
pub(crate) fn moved(text: &str, base_port: u16) -> String {
    if base_port == FIRST_PORT {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        let end = number
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(number.len());
        let (digits, after) = number.split_at(end);
        out.push_str(before);
        match digits.parse::<u16>() {
            Ok(port) if PORTS.contains(&port) => {
                out.push_str(&(base_port + (port - FIRST_PORT)).to_string());
            }
            _ => out.push_str(digits),
        }
        rest = after;
    }
    out + rest
}

/// The text with the files of [`CERTIFICATES`] in this directory.
pub(crate) fn certified(text: &str, certificates: &Path) -> String {
    text.replace(CERTIFICATES, &format!("{}/", certificates.display()))
}

/// The text with its gateway nodes on this address: what a Gateway has on port 80 is served there.
pub(crate) fn opened(text: &str, listen: SocketAddr) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let documents = lines.chunk_by(|_, next| !next.starts_with("---"));
    let mut out = String::with_capacity(text.len());
    for document in documents {
        let is_gateway = |line: &&str| line.trim() == "mesh-rs.dev/role: gateway";
        if !document.iter().any(is_gateway) {
            out.extend(document.iter().copied());
            continue;
        }
        for line in document {
            let (indent, said) = line.split_at(line.len() - line.trim_start().len());
            out.push_str(indent);
            if said.starts_with("mesh-rs.dev/map-port:") {
                out.push_str(&remapped(said, listen.port()));
            } else if said.starts_with("address:") {
                out.push_str(&format!("address: \"{}\"\n", listen.ip()));
            } else {
                out.push_str(said);
            }
        }
    }
    out
}

/// A line with `80=8080` in it, with another port than 8080.
fn remapped(line: &str, port: u16) -> String {
    // Not that of 9080=…
    let mut found = line.match_indices("80=");
    let whole = |at: &usize| !line[..*at].ends_with(|c: char| c.is_ascii_digit());
    let Some(at) = found.find_map(|(at, _)| Some(at).filter(whole)) else {
        return line.to_owned();
    };
    let (before, pair) = line.split_at(at + "80=".len());
    let digits = pair
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(pair.len());
    format!("{before}{port}{}", &pair[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_node_ports_are_moved() {
        assert_eq!(
            moved("20106=20180, 9080, 120100, \"20000\"", 31000),
            "31106=31180, 9080, 120100, \"31000\""
        );
    }

    #[test]
    fn only_port_80_is_remapped() {
        for (line, expected) in [
            ("\"80=8080\"", "\"80=9999\""),
            ("\"9080=1,80=8080,443=2\"", "\"9080=1,80=9999,443=2\""),
            ("\"9080=1\"", "\"9080=1\""),
        ] {
            assert_eq!(remapped(line, 9999), expected);
        }
    }

    #[test]
    fn files_of_certificates_are_moved() {
        assert_eq!(
            certified("privateKey: /etc/certs/key.pem", Path::new("/x/y")),
            "privateKey: /x/y/key.pem"
        );
    }
}
