//! How hosts and clusters are called.

/// The suffix of every Kubernetes service's full name.
const SUFFIX: &str = "svc.cluster.local";

/// The cluster that everything unknown goes to under `ALLOW_ANY`.
pub const PASSTHROUGH: &str = "PassthroughCluster";

/// The cluster that has no endpoint, on purpose.
pub const BLACK_HOLE: &str = "BlackHoleCluster";

/// The cluster whose endpoints are like the proxy itself: istiod's name for it, in bootstraps too.
pub const LOCAL: &str = "local_cluster";

/// The full name of a Kubernetes service.
pub fn service_host(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.{SUFFIX}")
}

/// Completes a host as istiod does: only names without a dot, in the namespace
/// of the object that uses them.
pub(crate) fn complete(host: &str, namespace: &str) -> String {
    match host == "*" || host.contains('.') {
        true => host.to_owned(),
        false => service_host(host, namespace),
    }
}

/// `outbound|9080|v1|reviews.default.svc.cluster.local`
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.9080_.v1_.reviews.default.svc.cluster.local`, the server name by which a gateway
/// knows a cluster (`AUTO_PASSTHROUGH`).
pub(crate) fn server_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|9080||`
pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// Whether the host or wildcard `pattern` takes in `host`, which may be a wildcard too.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    if pattern == "*" || pattern == host {
        return true;
    }
    // `*.example.com` takes in `a.example.com`, `*.a.example.com`, and not `example.com`.
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => false,
    }
}

/// Whether there is a host that both take in.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    covers(one, other) || covers(other, one)
}

/// How specific a host is, to prefer an exact one, then the longest wildcard.
pub(crate) fn specificity(host: &str) -> (bool, usize) {
    (!host.starts_with('*'), host.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_names_without_a_dot_only() {
        assert_eq!(
            complete("reviews", "default"),
            "reviews.default.svc.cluster.local"
        );
        assert_eq!(complete("reviews.default", "pay"), "reviews.default");
        assert_eq!(complete("*", "pay"), "*");
    }

    #[test]
    fn a_wildcard_takes_in_what_is_below_it() {
        assert!(covers("*.a.b", "x.a.b") && covers("*.a.b", "*.x.a.b") && covers("*", "a"));
        assert!(!covers("*.a.b", "a.b") && !covers("x.a.b", "*.a.b") && !covers("*.a.b", "*.b"));
        assert!(overlap("x.a.b", "*.a.b") && overlap("*.b", "*.a.b") && !overlap("a", "b"));
        assert!(specificity("a.b") > specificity("*.a.b.c"));
        assert!(specificity("*.a.b") > specificity("*.b"));
    }
}
