//! Which listener a request comes to.
//!
//! A client decides that by connecting, and a question only has a URL. So the listener that fits it
//! best is taken: whose port is asked for, and whose routes know the host. Which of the listener's
//! chains a connection belongs to is decided as for connections ([`Matcher`]).

use super::{BadQuestion, Question};
use crate::chain::{Matcher, Traits};
use mesh_core::Name;
use mesh_core::model::{Direction, Filter, FilterChain, Listener, Snapshot, TransportProtocol};
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The listener of a request, and why not the others.
pub(super) struct Choice<'a> {
    pub(super) chosen: Option<Chosen<'a>>,
    pub(super) others: Vec<(&'a Listener, String)>,
}

/// A listener and its chain.
pub(super) struct Chosen<'a> {
    pub(super) listener: &'a Listener,
    pub(super) chain: &'a Arc<FilterChain>,
    pub(super) why: String,
}

/// How well a listener fits.
struct Fit<'a> {
    chain: &'a Arc<FilterChain>,
    rank: u32,
    why: String,
}

/// Somebody outside, where nobody says who calls (RFC 5737).
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Chooses.
///
/// # Errors
/// If the question names a listener that does not exist.
pub(super) fn choose<'a>(
    snapshot: &'a Snapshot,
    question: &Question,
) -> Result<Choice<'a>, BadQuestion> {
    let named = question.listener.as_deref();
    let mut fits = Vec::new();
    let mut others = Vec::new();
    for listener in snapshot.listeners() {
        if named.is_some_and(|name| !is_called(listener, name)) {
            others.push((&**listener, "another one is asked for".to_owned()));
            continue;
        }
        match fit(snapshot, listener, question) {
            Ok(fit) => fits.push((&**listener, fit)),
            Err(why) => others.push((&**listener, why)),
        }
    }
    if let Some(name) = named
        && !snapshot.listeners().iter().any(|one| is_called(one, name))
    {
        let known: Vec<&str> = snapshot.listeners().iter().map(|one| &*one.name).collect();
        return Err(BadQuestion(format!(
            "there is no listener {name:?}; expected a name, an address or a port of {}",
            known.join(", ")
        )));
    }
    // The first of those that fit equally well.
    fits.sort_by_key(|(_, fit)| Reverse(fit.rank));
    let mut fits = fits.into_iter();
    let chosen = fits.next().map(|(listener, fit)| Chosen {
        listener,
        chain: fit.chain,
        why: match named {
            Some(_) => "it is asked for".to_owned(),
            None => fit.why,
        },
    });
    others.extend(fits.map(|(listener, fit)| (listener, format!("fits less: {}", fit.why))));
    Ok(Choice { chosen, others })
}

fn is_called(listener: &Listener, name: &str) -> bool {
    *listener.name == *name
        || listener.address.to_string() == name
        || name
            .parse()
            .is_ok_and(|port: u16| listener.address.port() == port)
}

fn fit<'a>(
    snapshot: &Snapshot,
    listener: &'a Listener,
    question: &Question,
) -> Result<Fit<'a>, String> {
    let chain = chain(listener, question).ok_or("none of its filter chains is for it")?;
    let has_port = listener.address.port() == question.port();
    let manager = match &chain.filter {
        Filter::Http(manager) => manager,
        Filter::Tcp(_) if question.listener.is_some() || has_port || listener.hand_off => {
            let rank = if has_port { 3 } else { 1 };
            let why = match has_port {
                true => format!("its port is {}", question.port()),
                false => "it takes every connection that is intercepted".to_owned(),
            };
            return Ok(Fit { chain, rank, why });
        }
        _ => return Err(other_port(listener, question)),
    };
    if question.listener.is_none() {
        match (question.is_secure(), chain.tls.is_some()) {
            (true, false) => return Err("it speaks no TLS".to_owned()),
            (false, true) => return Err("it speaks TLS only".to_owned()),
            _ => {}
        }
        let address: Option<IpAddr> = question.host().trim_matches(['[', ']']).parse().ok();
        if manager.direction == Direction::Inbound && !(address.is_some() && has_port) {
            return Err("it is for what others send to this workload".to_owned());
        }
    }
    let request = question.request();
    let told = snapshot
        .table(&manager.routes)
        .map(|table| mesh_route::explain(table, &mesh_route::Head::of(&request), 0));
    let domain = told.as_ref().and_then(|told| told.domain.as_deref());
    let (rank, knows) = match domain {
        Some("*") => (2, Some("its routes are for any host".to_owned())),
        Some(domain) => (4, Some(format!("its routes know the host ({domain})"))),
        None => (0, None),
    };
    if !has_port && knows.is_none() && question.listener.is_none() {
        return Err(format!(
            "{}, and its routes do not know the host",
            other_port(listener, question)
        ));
    }
    let port = has_port.then(|| format!("its port is {}", question.port()));
    let why: Vec<String> = port.into_iter().chain(knows).collect();
    Ok(Fit {
        chain,
        rank: rank + if has_port { 3 } else { 0 },
        why: why.join(", "),
    })
}

fn other_port(listener: &Listener, question: &Question) -> String {
    match listener.address.socket() {
        Some(address) => format!("its port is {}, not {}", address.port(), question.port()),
        None => "it is a Unix domain socket".to_owned(),
    }
}

/// The chain for a connection as the question's, as far as the listener would look.
fn chain<'a>(listener: &'a Listener, question: &Question) -> Option<&'a Arc<FilterChain>> {
    let host = question.host().trim_matches(['[', ']']);
    let bound = listener.address.socket();
    let usual = bound.map_or(OUTSIDE, |address| match address.ip() {
        ip if ip.is_unspecified() => OUTSIDE,
        ip => ip,
    });
    let ip: IpAddr = host.parse().unwrap_or(usual);
    let port = match bound {
        Some(address) if listener.bind && !listener.inspect.original_destination => address.port(),
        _ => question.port(),
    };
    let source = match bound.is_some_and(|address| address.ip().is_loopback()) {
        true => SocketAddr::new(usual, 0),
        false => SocketAddr::new(OUTSIDE, 0),
    };
    let looks_at_tls = question.is_secure() && listener.inspect.tls.is_some();
    let server_name = host.to_ascii_lowercase();
    let protocols: &[Name] = match (looks_at_tls, question.is_secure()) {
        (true, _) => &["h2".into(), "http/1.1".into()],
        (false, false) if listener.inspect.http.is_some() => &["http/1.1".into()],
        _ => &[],
    };
    let traits = Traits {
        destination: SocketAddr::new(ip, port),
        server_name: if looks_at_tls { &server_name } else { "" },
        transport: match looks_at_tls {
            true => TransportProtocol::Tls,
            false => TransportProtocol::Plain,
        },
        protocols,
        direct_source: source,
        source,
    };
    match Matcher::of(listener).choose(&traits) {
        Some(at) => listener.chains.get(at),
        None => listener.default_chain.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{
        HttpManager, RouteTable, Rule, SnapshotBuilder, TcpProxy, TcpTarget, VirtualHost,
    };

    fn snapshot() -> Arc<Snapshot> {
        let mut builder = SnapshotBuilder::new();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let http = |name: &str, port, table: &str, direction| {
            let mut manager = HttpManager::new(name, table);
            manager.direction = direction;
            Listener::http(name, at(port), manager)
        };
        builder
            .listener(http("proxy", 15001, "all", Direction::Outbound))
            .listener(http("one", 9080, "9080", Direction::Outbound))
            .listener(http("in", 9081, "all", Direction::Inbound));
        let mut tcp = TcpProxy::to("db", "db");
        tcp.target = TcpTarget::ServerName("db".into());
        builder.listener(Listener::tcp("db", at(5432), tcp));
        let host = |name: &str, domains: &[&str]| {
            VirtualHost::new(name, domains.iter().copied()).rule(Rule::prefix_to("/", "c"))
        };
        builder.routes(
            RouteTable::new("all")
                .host(host("reviews", &["reviews:9082"]))
                .host(host("any", &["*"])),
        );
        builder.routes(RouteTable::new("9080").host(host("details", &["details:9080"])));
        builder.build().unwrap().0
    }

    fn chosen(url: &str, listener: Option<&str>) -> Result<(String, String), String> {
        let question = Question::parse(url, ["a: b"]).unwrap();
        let question = question.listener(listener.map(str::to_owned));
        let snapshot = snapshot();
        let choice = choose(&snapshot, &question).map_err(|error| error.to_string())?;
        let chosen = choice.chosen.ok_or("none")?;
        assert_eq!(choice.others.len(), 3, "all are accounted for");
        Ok((chosen.listener.name.to_string(), chosen.why))
    }

    #[test]
    fn the_port_and_the_host_decide() {
        for (url, name, why) in [
            (
                "http://details:9080/",
                "one",
                "its port is 9080, its routes know the host (details:9080)",
            ),
            ("http://other:9080/", "one", "its port is 9080"),
            (
                "http://reviews:9082/",
                "proxy",
                "its routes know the host (reviews:9082)",
            ),
            ("http://other/", "proxy", "its routes are for any host"),
            ("http://db:5432/", "db", "its port is 5432"),
            (
                "http://127.0.0.1:9081/",
                "in",
                "its port is 9081, its routes are for any host",
            ),
        ] {
            assert_eq!(chosen(url, None), Ok((name.into(), why.into())), "{url}");
        }
        assert_eq!(chosen("https://other/", None), Err("none".into()));
    }

    #[test]
    fn a_listener_is_named_by_name_address_or_port() {
        for name in ["in", "127.0.0.1:9081", "9081"] {
            let (name, why) = chosen("http://other/", Some(name)).unwrap();
            assert_eq!((&*name, &*why), ("in", "it is asked for"));
        }
        let error = chosen("http://other/", Some("out")).unwrap_err();
        assert!(error.contains("proxy, one, in, db"), "{error}");
    }
}
