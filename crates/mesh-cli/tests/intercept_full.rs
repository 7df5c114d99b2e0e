//! `mesh intercept` on the real iptables, in network namespaces that the tests make and take away.
//!
//! Needs root, iptables, iproute2 and python3; elsewhere the tests say so and pass, but fail where
//! `CI=true`.

#[path = "intercept_full/town.rs"]
mod town;

use serde_json::json;
use town::{ELSEWHERE, OUTSIDE, POD, Town, can_run, ok};

const APPLICATION: &[&str] = &["--uid", "1000", "--gid", "1000"];
const PROXY: &[&str] = &["--uid", "1337", "--gid", "1337"];

/// A pod with an application on 8080 and 9090 and a proxy, and somebody outside.
fn town(transparent: &[u16]) -> Option<Town> {
    if !can_run() {
        return None;
    }
    let mut town = Town::build();
    let (pod, outside) = (town.pod.clone(), town.outside.clone());
    town.listen(&pod, &[8080, 9090, 15001, 15006, 15021], transparent);
    town.listen(&outside, &[80, 3306], &[]);
    Some(town)
}

#[test]
fn what_an_application_sends_arrives_at_the_proxy_with_its_destination() {
    let Some(town) = town(&[]) else { return };
    for address in OUTSIDE {
        assert_eq!(town.answers(&town.pod, address, 80, APPLICATION), 80);
    }
    town.intercepted("apply");
    // The last two are nobody's: a service address need not be.
    for address in OUTSIDE
        .into_iter()
        .chain(ELSEWHERE)
        .chain(["10.96.0.10", "fd96::10"])
    {
        let seen = town.call(&town.pod, address, 80, APPLICATION);
        assert_eq!(seen["port"], 15001, "{address}: {seen}");
        assert_eq!(seen["original"], json!([address, 80]));
    }
    // Loops: what the proxy sends goes where it wants, whether the user or the group says it.
    for owner in [PROXY, &["--uid", "1337"], &["--gid", "1337"]] {
        for address in OUTSIDE {
            assert_eq!(town.answers(&town.pod, address, 80, owner), 80);
        }
    }
}

#[test]
fn what_an_application_is_sent_arrives_at_the_proxy_with_its_destination() {
    let Some(town) = town(&[]) else { return };
    town.intercepted("apply --exclude-inbound-ports 9090");
    for (address, from) in POD.into_iter().zip(OUTSIDE) {
        let seen = town.call(&town.outside, address, 8080, &[]);
        assert_eq!(seen["port"], 15006, "{address}: {seen}");
        assert_eq!(seen["original"], json!([address, 8080]));
        assert_eq!(seen["peer"], from);
        for port in [9090, 15021] {
            assert_eq!(town.answers(&town.outside, address, port, &[]), port);
        }
    }
    town.intercepted("apply --include-inbound-ports 9090");
    for address in POD {
        assert_eq!(town.answers(&town.outside, address, 9090, &[]), 15006);
        assert_eq!(town.answers(&town.outside, address, 8080, &[]), 8080);
    }
}

#[test]
fn on_the_machine_only_calls_by_way_of_the_proxy_pass_inbound() {
    let Some(town) = town(&[]) else { return };
    town.intercepted("apply");
    for (address, loopback, source) in [(POD[0], "127.0.0.1", "127.0.0.6"), (POD[1], "::1", "::6")]
    {
        let call = |address, more: &[&str]| town.call(&town.pod, address, 8080, more);
        // The application and its neighbours among themselves.
        for to in [address, loopback] {
            assert_eq!(call(to, APPLICATION)["port"], 8080);
        }
        // The application called its service, and the proxy chose this very machine.
        let seen = call(address, PROXY);
        assert_eq!(seen["port"], 15006, "{seen}");
        assert_eq!(seen["original"], json!([address, 8080]));
        // The proxy's inbound side calls the application.
        assert_eq!(call(loopback, PROXY)["port"], 8080);
        let passed = [PROXY, &["--source", source]].concat();
        let seen = call(address, &passed);
        assert_eq!(
            (&seen["port"], &seen["peer"]),
            (&json!(8080), &json!(source))
        );
    }
}

#[test]
fn what_is_excluded_goes_straight_on_the_way_out() {
    let Some(town) = town(&[]) else { return };
    let answers = |address, port| town.answers(&town.pod, address, port, APPLICATION);
    town.intercepted(
        "apply --exclude-outbound-ports 3306 --exclude-outbound-ip-ranges 10.97.0.0/16,fd97::/16",
    );
    for (outside, elsewhere) in OUTSIDE.into_iter().zip(ELSEWHERE) {
        assert_eq!(answers(outside, 3306), 3306);
        assert_eq!(answers(elsewhere, 80), 80);
        assert_eq!(answers(outside, 80), 15001);
    }
    town.intercepted(
        "apply --include-outbound-ip-ranges 10.97.0.0/16,fd97::/16 --include-outbound-ports 3306",
    );
    for (outside, elsewhere) in OUTSIDE.into_iter().zip(ELSEWHERE) {
        assert_eq!(answers(outside, 80), 80);
        assert_eq!(answers(outside, 3306), 15001);
        assert_eq!(answers(elsewhere, 80), 15001);
    }
    town.intercepted("apply --exclude-interfaces eth0");
    for (outside, pod) in OUTSIDE.into_iter().zip(POD) {
        assert_eq!(answers(outside, 80), 80);
        assert_eq!(town.answers(&town.outside, pod, 8080, &[]), 8080);
    }
    // As if a virtual machine were behind it: what comes in is outbound.
    town.intercepted("apply --kubevirt-interfaces eth0");
    for pod in POD {
        let seen = town.call(&town.outside, pod, 8080, &[]);
        assert_eq!(
            (&seen["port"], &seen["original"]),
            (&json!(15001), &json!([pod, 8080]))
        );
    }
    town.intercepted("apply --no-ipv6");
    assert_eq!(answers(OUTSIDE[0], 80), 15001);
    assert_eq!(answers(OUTSIDE[1], 80), 80);
}

#[test]
fn with_tproxy_a_connection_keeps_both_its_addresses() {
    let Some(town) = town(&[15006]) else { return };
    town.intercepted("apply --mode tproxy --exclude-inbound-ports 9090");
    let as_root_of_the_proxy = ["--uid", "0", "--gid", "1337"];
    for (pod, outside) in POD.into_iter().zip(OUTSIDE) {
        let seen = town.call(&town.outside, pod, 8080, &[]);
        assert_eq!(seen["port"], 15006, "{seen}");
        assert_eq!(seen["peer"], outside);
        // Not rewritten: the socket itself has the destination.
        assert_eq!(seen["local"], json!([pod, 8080]));
        assert_eq!(town.answers(&town.outside, pod, 9090, &[]), 9090);
        // Outbound is redirected as ever.
        let seen = town.call(&town.pod, outside, 80, APPLICATION);
        assert_eq!(seen["port"], 15001);
        assert_eq!(seen["original"], json!([outside, 80]));
        assert_eq!(town.answers(&town.pod, outside, 80, PROXY), 80);
        // The proxy calls the application as the client; the answer comes back to the proxy.
        let as_client = ["--source", outside, "--mark", "1337"];
        let more = [&as_root_of_the_proxy[..], &as_client].concat();
        let seen = town.call(&town.pod, pod, 8080, &more);
        assert_eq!(
            (&seen["port"], &seen["peer"]),
            (&json!(8080), &json!(outside))
        );
        // A call of the service that ends here passes inbound; one of a neighbour does not.
        for owner in [PROXY, &as_root_of_the_proxy] {
            assert_eq!(town.answers(&town.pod, pod, 8080, owner), 15006);
        }
        assert_eq!(town.answers(&town.pod, pod, 8080, APPLICATION), 8080);
    }
    town.intercepted("clean");
    town.assert_clean();
}

#[test]
fn applied_twice_it_is_as_once_and_cleaned_it_leaves_no_trace() {
    let Some(town) = town(&[]) else { return };
    town.intercepted("apply");
    let once = town.settings();
    town.intercepted("apply");
    assert_eq!(town.settings(), once);
    // By way of another set-up too.
    town.intercepted("apply --mode tproxy --kubevirt-interfaces tap0 --exclude-outbound-ports 25");
    assert_ne!(town.settings(), once);
    town.intercepted("apply");
    assert_eq!(town.settings(), once);
    assert_eq!(
        town.intercepted("clean"),
        "cleaned IPv4 and IPv6: nothing is intercepted any more\n"
    );
    town.assert_clean();
    assert_eq!(town.intercepted("clean"), "there was nothing of ours\n");
    for address in OUTSIDE {
        assert_eq!(town.answers(&town.pod, address, 80, APPLICATION), 80);
    }
}

/// Runs `mesh intercept` with a program of the system's replaced by a script.
fn with_instead(town: &Town, program: &str, script: &str, words: &[&str]) -> (i32, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(program);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["intercept", words[0], "--netns", &town.pod])
        .args(&words[1..])
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn what_fails_half_way_is_rolled_back_and_the_error_says_which_rule() {
    let Some(town) = town(&[]) else { return };
    let refuse = "cat >/dev/null; echo 'ip6tables-restore: line 7 failed: No chain' >&2; exit 1";
    let go = |words: &[&str]| with_instead(&town, "ip6tables-restore", refuse, words);
    let (code, said) = go(&["apply"]);
    assert_eq!(code, 1);
    // IPv4 was in already.
    town.assert_clean();
    let rule = "\"-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\"";
    assert!(
        said.contains(&format!("ip6tables-restore refused {rule}")),
        "{said}"
    );
    assert!(said.contains("all is as before"), "{said}");

    // And back to an earlier set-up, if there was one.
    town.intercepted("apply --exclude-outbound-ports 25 --kubevirt-interfaces tap0");
    let earlier = town.settings();
    assert_eq!(go(&["apply", "--mode", "tproxy"]).0, 1);
    assert_eq!(town.settings(), earlier);
    assert_eq!(go(&["clean"]).0, 1);
    assert_eq!(town.settings(), earlier);
    town.intercepted("clean");
    town.assert_clean();
}

#[test]
fn chains_of_istio_itself_are_left_alone() {
    let Some(town) = town(&[]) else { return };
    let add = |words: &str| {
        let output = std::process::Command::new("ip")
            .args(["netns", "exec", &town.pod, "iptables", "-t", "nat"])
            .args(words.split(' '))
            .output();
        ok(&output.unwrap());
    };
    add("-N ISTIO_OUTPUT");
    add("-A OUTPUT -p tcp -j ISTIO_OUTPUT");
    let before = town.settings();
    for words in ["apply", "clean"] {
        let output = town.intercept(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains("\"-A OUTPUT -p tcp -j ISTIO_OUTPUT\" in table nat"),
            "{said}"
        );
        assert!(said.contains("istio-clean-iptables"), "{said}");
        assert_eq!(town.settings(), before);
    }
}

#[test]
fn without_ipv6_there_is_a_note() {
    let Some(town) = town(&[]) else { return };
    let off = "net.ipv6.conf.all.disable_ipv6=1";
    let output = std::process::Command::new("ip")
        .args(["netns", "exec", &town.pod, "sh", "-c"])
        .arg(format!(
            "echo 1 > /proc/sys/{}",
            off.replace('.', "/").replace("=1", "")
        ))
        .output();
    ok(&output.unwrap());
    let output = town.intercept("apply");
    assert_eq!(
        ok(&output),
        "intercepted IPv4: outbound to port 15001, inbound to port 15006\n"
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "note: IPv6 is switched off here and is left alone\n");
    assert_eq!(town.answers(&town.pod, OUTSIDE[0], 80, APPLICATION), 15001);
}

#[test]
fn without_the_right_it_says_what_is_missing() {
    let Some(town) = town(&[]) else { return };
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
        .args([
            env!("CARGO_BIN_EXE_mesh"),
            "intercept",
            "apply",
            "--netns",
            &town.pod,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("needs the capability NET_ADMIN"), "{said}");
    town.assert_clean();
}
