//! The route table as it travels: the few fields of Envoy's `RouteConfiguration` that it has, by their
//! numbers.

use super::{
    MARK,
    config::{HOSTS, ROUTES, domain, prefix},
};

/// The table `held` of which the last route marks answers like this.
pub(super) fn table(mark: &str) -> Vec<u8> {
    let mut table = Message::default().text(1, "held");
    for host in 0..HOSTS {
        let mut bytes = Message::default()
            .text(1, &format!("h{host}"))
            .text(2, &domain(host));
        for at in 0..ROUTES {
            bytes = bytes.message(3, route(&format!("r{at}"), &prefix(at)));
        }
        table = table.message(2, bytes);
    }
    let header = Message::default().text(1, MARK).text(2, mark);
    let last = route("last", "/").message(10, Message::default().message(1, header));
    let host = Message::default().text(1, "last").text(2, "*");
    table.message(2, host.message(3, last)).0
}

/// To the cluster `http`.
fn route(name: &str, prefix: &str) -> Message {
    Message::default()
        .message(1, Message::default().text(1, prefix))
        .message(2, Message::default().text(1, "http"))
        .text(14, name)
}

/// An encoded message.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

// === impl Message ===

impl Message {
    fn text(self, number: u8, text: &str) -> Self {
        self.field(number, text.as_bytes())
    }

    fn message(self, number: u8, message: Self) -> Self {
        self.field(number, &message.0)
    }

    /// Numbers are below 16, so that a key is one byte.
    fn field(mut self, number: u8, bytes: &[u8]) -> Self {
        self.0.push(number << 3 | 2);
        let mut length = bytes.len();
        while length > 0x7f {
            self.0.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_keys_lengths_and_bytes() {
        let message = Message::default().text(14, "ab").text(1, &"c".repeat(300));
        assert_eq!(message.0[..7], [0x72, 2, b'a', b'b', 0x0a, 0xac, 0x02]);
        assert_eq!(message.0.len(), 7 + 300);
    }

    #[test]
    fn only_the_last_route_differs_between_two_tables() {
        let [one, two] = ["1", "2"].map(table);
        assert_eq!(one.len(), two.len());
        let differ = (0..one.len()).filter(|at| one[*at] != two[*at]).count();
        assert_eq!(differ, 1);
        assert!(one.len() > (HOSTS * ROUTES) as usize * 20);
    }
}
