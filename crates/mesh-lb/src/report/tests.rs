use super::*;
use http::HeaderValue;
use mesh_core::model::{Real, ReportedWeights};
use mesh_core::protobuf;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const BASE: &str = "rps_fractional:100,cpu_utilization:0.5";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// What one endpoint weighs after an answer with these headers; 1 is nothing.
fn weight_of(lines: &[(&'static str, &str)], policy: &ReportedWeights) -> u32 {
    let reported = Reported::default();
    let now = Instant::now();
    if let Some(report) = LoadReport::of(&headers(lines)) {
        reported.note(&report, policy, now);
    }
    weigh([&reported].into_iter(), policy, now)[0]
}

fn policy(names: &[&str]) -> ReportedWeights {
    let mut policy = ReportedWeights::default();
    policy.blackout = Duration::ZERO;
    policy.error_penalty = Real::ONE;
    policy.utilization = names.iter().copied().map(Into::into).collect();
    policy
}

fn native(value: &str) -> u32 {
    let policy = policy(&["named_metrics.foo", "utilization.foo"]);
    weight_of(&[("endpoint-load-metrics", value)], &policy)
}

fn double(field: u64, value: f64) -> Vec<u8> {
    let mut out = vec![(field << 3 | 1) as u8];
    out.extend(value.to_le_bytes());
    out
}

fn entry(field: u64, key: &str, value: f64) -> Vec<u8> {
    let (mut inner, mut out) = (Vec::new(), Vec::new());
    protobuf::put_bytes(1, key.as_bytes(), &mut inner);
    inner.extend(double(2, value));
    protobuf::put_bytes(field, &inner, &mut out);
    out
}

fn message(parts: &[Vec<u8>]) -> String {
    base64::encode(&parts.concat())
}

fn binary(parts: &[Vec<u8>], names: &[&str]) -> u32 {
    let both = [&[double(1, 0.5), double(6, 100.0)], parts].concat();
    let value = message(&both);
    weight_of(&[("endpoint-load-metrics-bin", &value)], &policy(names))
}

/// All of these were seen of Envoy 1.40.
#[test]
fn text_is_read_as_envoy_reads_it() {
    for (metrics, weight) in [
        (BASE, 200),
        ("rps_fractional:100, cpu_utilization:0.5", 200),
        ("rps_fractional: 100 ,cpu_utilization:0.5", 200),
        (",rps_fractional:100,,cpu_utilization:0.5,", 200),
        ("rps_fractional=100,cpu_utilization:0.5", 200),
        ("rps_fractional:0x64,cpu_utilization:0.5", 200),
        ("rps_fractional:+1E2,cpu_utilization:.5", 200),
        ("rps_fractional:100.,cpu_utilization:5e-1", 200),
        ("rps_fractional : 100 ,cpu_utilization:0.5", 1),
        (
            "rps_fractional:100,cpu_utilization:0.5,cpu_utilization:0.2",
            1,
        ),
        ("rps_fractional:100,cpu_utilization:0.5,foo:1", 1),
        ("rps:100,cpu_utilization:0.5", 1),
        ("RPS_fractional:100,cpu_utilization:0.5", 1),
        ("rps_fractional:100f,cpu_utilization:0.5", 1),
        ("rps_fractional:1_00,cpu_utilization:0.5", 1),
        ("rps_fractional:100,cpu_utilization:nan", 1),
        ("rps_fractional:100,cpu_utilization:inf", 1),
        ("rps_fractional:-100,cpu_utilization:-0.5", 1),
        ("rps_fractional:1,cpu_utilization:5", 1),
        ("rps_fractional:1,cpu_utilization:0.3", 3),
        ("rps_fractional:1e300,cpu_utilization:1e-300", u32::MAX),
        ("", 1),
    ] {
        assert_eq!(native(&format!("TEXT {metrics}")), weight, "{metrics}");
    }
    for (more, weight) in [
        ("named_metrics.foo:0.25", 400),
        ("named_metrics.foo:0.25,named_metrics.bar:0.4", 400),
        ("utilization.foo:0.25", 400),
        ("mem_utilization:0.9", 200),
        ("application_utilization:0.25", 400),
        ("application_utilization:0.1,named_metrics.foo:0.25", 400),
        ("eps:50", 100),
        ("eps:-0", 200),
        ("named_metrics.a :1", 200),
        ("named_metrics.a b:1", 200),
        ("utilization.a:2", 200),
        ("eps:-25", 1),
        ("mem_utilization:-1", 1),
        ("named_metrics.a:-1", 1),
        ("application_utilization:-0.25", 1),
        ("named_metrics.:0.25", 1),
        ("utilization.:0.25", 1),
        ("request_cost.a:1", 1),
        ("named_metrics.a:1:2", 1),
        ("named_metrics.a=1:2", 1),
        ("named_metrics.a:1,named_metrics.a:2", 1),
        ("eps:", 1),
        ("eps", 1),
        ("eps:1e999", 1),
    ] {
        assert_eq!(native(&format!("TEXT {BASE},{more}")), weight, "{more}");
    }
}

#[test]
fn the_kind_of_a_report_is_written_before_it() {
    let encoded = message(&[double(1, 0.5), double(6, 100.0)]);
    for (value, weight) in [
        (format!("BIN {encoded}"), 200),
        (format!("BIN {}", encoded.trim_end_matches('=')), 200),
        (format!("BIN {encoded}="), 200),
        (format!("BIN  {encoded}"), 1),
        (format!("text {BASE}"), 1),
        (format!("TEXT\t{BASE}"), 1),
        (BASE.to_owned(), 1),
        ("TEXT".to_owned(), 1),
        (
            format!("TEXT {BASE},named_metrics.{}:1", "a".repeat(16 << 10)),
            1,
        ),
    ] {
        assert_eq!(native(&value), weight, "{value:.60}");
    }
}

#[test]
fn the_binary_header_comes_before_the_other_one_and_the_first_line_before_the_rest() {
    let text = (
        "endpoint-load-metrics",
        "TEXT rps_fractional:100,cpu_utilization:0.5",
    );
    let worse = (
        "endpoint-load-metrics",
        "TEXT rps_fractional:100,cpu_utilization:1",
    );
    let encoded = message(&[double(1, 0.25), double(6, 100.0)]);
    let binary = ("endpoint-load-metrics-bin", encoded.as_str());
    let policy = policy(&[]);
    assert_eq!(weight_of(&[text, binary], &policy), 400);
    assert_eq!(weight_of(&[text, worse], &policy), 200);
    for wrong in ["", "!!!!", "AA"] {
        let lines = [("endpoint-load-metrics-bin", wrong), text];
        assert_eq!(weight_of(&lines, &policy), 1, "{wrong}");
    }
    let other = [("endpoint-load-metrics-json", r#"{"rps_fractional":1}"#)];
    assert_eq!(LoadReport::of(&headers(&other)), None);
}

/// All of these were seen of Envoy 1.40.
#[test]
fn messages_are_read_as_envoy_reads_them() {
    for (parts, weight) in [
        (vec![], 200),
        (vec![double(1, 0.25)], 400),
        (vec![b"\x7a\x01a".to_vec()], 200),
        (vec![b"\x7b\x7c".to_vec()], 200),
        (vec![b"\x08\x05".to_vec()], 200),
        (vec![double(7, -25.0)], 400),
        (vec![double(2, -1.0)], 200),
        (vec![double(6, f64::INFINITY)], u32::MAX),
        (vec![double(1, f64::INFINITY)], 1),
        (vec![double(1, f64::NAN)], 1),
        (vec![double(7, f64::NAN)], 1),
        (vec![b"\x00\x00".to_vec()], 1),
        (vec![b"\x42\x03\x0a\x01\xff".to_vec()], 1),
        (vec![b"\x09".to_vec()], 1),
    ] {
        assert_eq!(binary(&parts, &[]), weight, "{parts:?}");
    }
    let old = message(&[double(1, 0.5), b"\x18\x64".to_vec()]);
    assert_eq!(
        weight_of(&[("endpoint-load-metrics-bin", &old)], &policy(&[])),
        1,
        "requests per second as a whole number are none"
    );
}

#[test]
fn utilization_is_the_largest_of_the_names_that_are_asked_for() {
    let maps = [
        entry(8, "foo", 0.25),
        entry(5, "bar", 0.2),
        entry(5, "baz", 0.1),
        entry(4, "cost", 0.05),
        entry(8, "odd", f64::NAN),
        entry(8, "below", -3.0),
        double(2, 0.4),
    ];
    for (names, weight) in [
        (vec!["named_metrics.foo"], 400),
        (vec!["utilization.bar"], 500),
        (vec!["utilization.baz", "utilization.bar"], 500),
        (vec!["utilization.*"], 500),
        (vec!["utilization.*", "named_metrics.*"], 400),
        (vec!["request_cost.cost"], 2000),
        (vec!["mem_utilization"], 250),
        (vec!["cpu_utilization"], 200),
        (vec!["rps_fractional"], 1),
        (vec!["named_metrics.odd"], 200),
        (vec!["named_metrics.below"], 200),
        (vec!["foo"], 200),
        (vec!["named_metrics.nobody"], 200),
    ] {
        assert_eq!(binary(&maps, &names), weight, "{names:?}");
    }
}

#[test]
fn json_is_read_as_protobuf_maps_it() {
    for (object, weight) in [
        (r#"{"rps_fractional":100,"cpu_utilization":0.5}"#, 200),
        (r#"  {"rpsFractional":1e2,"cpuUtilization":"5e-1"}  "#, 200),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"eps":null}"#,
            200,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"rps":"7"}"#,
            200,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"eps":-25}"#,
            400,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"cpu_utilization":0.25}"#,
            400,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"named_metrics":{"foo":"0.2"}}"#,
            500,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"namedMetrics":{"a":null}}"#,
            200,
        ),
        (
            r#"{"rps_fractional":"Infinity","cpu_utilization":1}"#,
            u32::MAX,
        ),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"eps":"NaN"}"#,
            1,
        ),
        (r#"{"rps_fractional":100,"cpu_utilization":0.5,"x":1}"#, 1),
        (
            r#"{"rps_fractional":100,"cpu_utilization":0.5,"rps":-1}"#,
            1,
        ),
        (r#"{"rps_fractional":100,"cpu_utilization":true}"#, 1),
        (r#"{"rps_fractional":100,"cpu_utilization":0.5"#, 1),
        (r#"{"rps_fractional":100,"cpu_utilization":0.5} x"#, 1),
        ("[1]", 1),
    ] {
        assert_eq!(native(&format!("JSON {object}")), weight, "{object}");
    }
}

fn noted(weight: f64, policy: &ReportedWeights, now: Instant) -> Reported {
    let reported = Reported::default();
    reported.note(&load(weight), policy, now);
    reported
}

fn load(weight: f64) -> LoadReport {
    LoadReport {
        cpu: 1.0,
        requests_per_second: weight,
        ..LoadReport::default()
    }
}

fn weights(all: &[&Reported], policy: &ReportedWeights, now: Instant) -> Vec<u32> {
    weigh(all.iter().copied(), policy, now)
}

#[test]
fn who_reports_nothing_weighs_the_median_of_those_who_do() {
    let (policy, now) = (policy(&[]), Instant::now());
    let silent = Reported::default();
    let [five, six, eleven] = [5.0, 6.0, 11.0].map(|weight| noted(weight, &policy, now));
    assert_eq!(weights(&[&silent, &silent], &policy, now), [1, 1]);
    assert_eq!(weights(&[&six, &silent], &policy, now), [6, 6]);
    assert_eq!(
        weights(&[&eleven, &silent, &five, &six], &policy, now),
        [11, 6, 5, 6]
    );
    assert_eq!(
        weights(&[&five, &silent, &eleven], &policy, now),
        [5, 8, 11]
    );
    let most = noted(f64::MAX, &policy, now);
    assert_eq!(weights(&[&most, &most, &silent], &policy, now)[2], u32::MAX);
    // Less than one counts as nothing for the median, and as one for who has it.
    let least = noted(0.2, &policy, now);
    assert_eq!(
        weights(&[&least, &eleven, &silent], &policy, now),
        [1, 11, 5]
    );
}

#[test]
fn a_weight_counts_from_its_blackout_until_it_expires_and_then_begins_anew() {
    let mut policy = ReportedWeights::default();
    policy.blackout = Duration::from_secs(10);
    policy.expiration = Duration::from_secs(30);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let reported = noted(7.0, &policy, start);
    assert_eq!(weights(&[&reported], &policy, at(9)), [1]);
    assert_eq!(weights(&[&reported], &policy, at(10)), [7]);
    assert_eq!(weights(&[&reported], &policy, at(30)), [7]);
    assert_eq!(weights(&[&reported], &policy, at(31)), [1]);
    reported.note(&load(8.0), &policy, at(32));
    assert_eq!(
        weights(&[&reported], &policy, at(41)),
        [1],
        "another blackout"
    );
    assert_eq!(weights(&[&reported], &policy, at(42)), [8]);
    // What says nothing of the weight does not keep it.
    reported.note(&LoadReport::default(), &policy, at(60));
    assert_eq!(weights(&[&reported], &policy, at(63)), [1]);
}

proptest! {
    #[test]
    fn whatever_is_reported_has_a_weight_and_nothing_panics(value in "[ -~]{0,60}", kind in prop::sample::select(vec!["TEXT ", "JSON ", "BIN ", ""])) {
        let _ = native(&format!("{kind}{value}"));
    }

    #[test]
    fn whatever_message_is_read_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let value = base64::encode(&bytes);
        let _ = weight_of(&[("endpoint-load-metrics-bin", &value)], &policy(&["utilization.*"]));
    }
}
