use super::*;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{Cluster, TlsVersion};
use mesh_core::stats::HttpStat;
use mesh_core::usage::Resource;
use mesh_core::{Shard, stats::Histogram};
use mesh_test::fixture;
use proptest::prelude::*;

const ALL: &str = "usedonly";

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

/// A cluster with three requests, one of them 503, that took 3 ms each.
fn cluster(name: &str, stat_name: Option<&str>) -> Arc<ClusterEntry> {
    let mut cluster = Cluster::new(name);
    cluster.stat_name = stat_name.map(Into::into);
    cluster.limits.max_requests = 1;
    let snapshot = fixture::snapshot(Vec::new(), vec![cluster]);
    let entry = snapshot.cluster(name).unwrap().clone();
    let stats = entry.live().stats();
    let shard = Shard::of_worker(1);
    stats.block().add(shard, ClusterStat::RqTotal, 3);
    stats.block().add(shard, ClusterStat::Rq2xx, 2);
    stats.block().add(shard, ClusterStat::Rq5xx, 1);
    stats.block().inc(shard, ClusterStat::OutlierActive);
    for _ in 0..3 {
        stats.request_time().record(shard, 3.0);
    }
    entry
}

#[test]
fn text_is_sorted_and_counters_come_before_histograms() {
    let mut scrape = Scrape::new();
    scrape
        .cluster(&cluster("b", None))
        .value("server.live", Kind::Gauge, 1);
    scrape.cluster(&cluster("a:1", None));
    assert_eq!(
        scrape.text(&query("usedonly&filter=rq_(total|time)|live")),
        "cluster.a_1.upstream_rq_total: 3\n\
         cluster.b.upstream_rq_total: 3\n\
         server.live: 1\n\
         cluster.a_1.upstream_rq_time: P0(nan,1) P25(nan,2) P50(nan,3) P75(nan,4) P90(nan,4.6) \
         P95(nan,4.8) P99(nan,4.96) P99.5(nan,4.98) P99.9(nan,4.996) P100(nan,5)\n\
         cluster.b.upstream_rq_time: P0(nan,1) P25(nan,2) P50(nan,3) P75(nan,4) P90(nan,4.6) \
         P95(nan,4.8) P99(nan,4.96) P99.5(nan,4.98) P99.9(nan,4.996) P100(nan,5)\n"
    );
}

#[test]
fn everything_is_shown_unless_only_what_is_used_is_asked_for() {
    let mut scrape = Scrape::new();
    scrape.cluster(&cluster("a", None));
    let all = scrape.text(&Query::default());
    // But the size of a ring or a table, and health checks, which this cluster has not got.
    assert_eq!(all.lines().count(), ClusterStat::ALL.len() - 5 - 8 + 2);
    assert!(all.contains("cluster.a.upstream_cx_connect_ms: No recorded values\n"));
    assert!(!scrape.text(&query(ALL)).contains(": 0\n"));
    let gauges = scrape.text(&query("usedonly&type=Gauges"));
    assert_eq!(gauges, "cluster.a.outlier_detection.ejections_active: 1\n");
    assert_eq!(scrape.text(&query("type=TextReadouts")), "");
    assert_eq!(scrape.text(&query("type=Histograms")).lines().count(), 2);
}

/// As Envoy 1.40 names them, in both formats.
#[test]
fn what_handshakes_agreed_on_is_shown_once_it_counts() {
    let mut agreed = TlsInfo::default();
    agreed.version = Some(TlsVersion::V1_3);
    agreed.cipher = "TLS_AES_256_GCM_SHA384".into();
    agreed.group = "P-256".into();
    let cluster = cluster("c", None);
    let of = "filter=ssl\\.(ciphers|curves|versions)";
    assert_eq!(Scrape::new().cluster(&cluster).text(&query(of)), "");
    cluster.live().stats().count_tls(Shard::default(), &agreed);
    let block = Block::default();
    TlsStat::count(&block, Shard::default(), &agreed);
    let mut scrape = Scrape::new();
    scrape
        .cluster(&cluster)
        .listener_tls("127.0.0.1:443", &block);
    assert_eq!(
        scrape.text(&query(of)),
        "cluster.c.ssl.ciphers.TLS_AES_256_GCM_SHA384: 1\n\
         cluster.c.ssl.curves.P-256: 1\n\
         cluster.c.ssl.versions.TLSv1.3: 1\n\
         listener.127.0.0.1_443.ssl.ciphers.TLS_AES_256_GCM_SHA384: 1\n\
         listener.127.0.0.1_443.ssl.curves.P-256: 1\n\
         listener.127.0.0.1_443.ssl.versions.TLSv1.3: 1\n"
    );
    let page = scrape.prometheus(&query(of));
    let numbers: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        numbers,
        [
            "envoy_cluster_ssl_ciphers{cipher_suite=\"TLS_AES_256_GCM_SHA384\",cluster_name=\"c\"} 1",
            "envoy_cluster_ssl_curves{envoy_ssl_curve=\"P-256\",cluster_name=\"c\"} 1",
            "envoy_cluster_ssl_versions{envoy_ssl_version=\"TLSv1.3\",cluster_name=\"c\"} 1",
            "envoy_listener_ssl_ciphers{envoy_ssl_cipher=\"TLS_AES_256_GCM_SHA384\",\
             envoy_listener_address=\"127.0.0.1_443\"} 1",
            "envoy_listener_ssl_curves{envoy_ssl_curve=\"P-256\",\
             envoy_listener_address=\"127.0.0.1_443\"} 1",
            "envoy_listener_ssl_versions{envoy_ssl_version=\"TLSv1.3\",\
             envoy_listener_address=\"127.0.0.1_443\"} 1",
        ]
    );
}

#[test]
fn clusters_with_one_name_in_statistics_are_added_up() {
    let mut scrape = Scrape::new();
    scrape
        .cluster(&cluster("a", Some("same")))
        .cluster(&cluster("b", Some("same")));
    let query = query("filter=upstream_rq_(total|time)$");
    assert!(
        scrape
            .text(&query)
            .starts_with("cluster.same.upstream_rq_total: 6\n")
    );
    let metrics = scrape.prometheus(&query);
    assert!(metrics.contains("envoy_cluster_upstream_rq_total{cluster_name=\"same\"} 6\n"));
    assert!(metrics.contains("envoy_cluster_upstream_rq_time_count{cluster_name=\"same\"} 6\n"));
}

#[test]
fn answers_are_told_by_their_code_once_there_was_one() {
    let entry = cluster("a", None);
    let query = query("usedonly&filter=upstream_rq_[0-9]");
    for (worker, status) in [(1, 200), (2, 200), (2, 503)] {
        let status = http::StatusCode::from_u16(status).unwrap();
        let stats = entry.live().stats();
        stats.answered(Shard::of_worker(worker), status);
    }
    let mut scrape = Scrape::new();
    scrape.cluster(&entry);
    // With what the cluster was made with.
    let text = "cluster.a.upstream_rq_200: 2\ncluster.a.upstream_rq_2xx: 4\n\
                cluster.a.upstream_rq_503: 1\ncluster.a.upstream_rq_5xx: 2\n";
    assert_eq!(scrape.text(&query), text);
    let metrics = scrape.prometheus(&query);
    assert_eq!(
        metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<Vec<_>>(),
        [
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",cluster_name=\"a\"} 2",
            "envoy_cluster_upstream_rq{envoy_response_code=\"503\",cluster_name=\"a\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",cluster_name=\"a\"} 4",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",cluster_name=\"a\"} 2",
        ]
    );
}

#[test]
fn circuit_breakers_are_told_from_what_is_in_use() {
    let entry = cluster("a", None);
    let breaker = |entry: &ClusterEntry| {
        let mut scrape = Scrape::new();
        scrape
            .cluster(entry)
            .text(&query("filter=circuit_breakers.default.rq_open"))
    };
    let taken = entry.live().usage().take(Resource::Requests, 1);
    assert_eq!(
        breaker(&entry),
        "cluster.a.circuit_breakers.default.rq_open: 1\n"
    );
    drop(taken);
    assert_eq!(
        breaker(&entry),
        "cluster.a.circuit_breakers.default.rq_open: 0\n"
    );
}

#[test]
fn prometheus_has_envoys_names_and_labels() {
    let block = Block::default();
    block.add(Shard::default(), HttpStat::RqTotal, 7);
    block.add(Shard::default(), HttpStat::Rq4xx, 7);
    block.add(Shard::default(), HttpStat::RateLimited, 2);
    let mut scrape = Scrape::new();
    scrape
        .cluster(&cluster("outbound|80||a", None))
        .http("in", &block);
    let metrics = scrape.prometheus(&query(ALL));
    let expected = "\
# HELP envoy_cluster_outlier_detection_ejections_active Envoy statistic cluster.*.outlier_detection.ejections_active.
# TYPE envoy_cluster_outlier_detection_ejections_active gauge
envoy_cluster_outlier_detection_ejections_active{cluster_name=\"outbound|80||a\"} 1
# HELP envoy_cluster_upstream_rq_time Envoy statistic cluster.*.upstream_rq_time.
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"0.5\"} 0
envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"1\"} 0
envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"5\"} 3
";
    assert!(metrics.starts_with(expected), "{metrics}");
    for line in [
        "envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"3600000\"} 3",
        "envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"+Inf\"} 3",
        "envoy_cluster_upstream_rq_time_sum{cluster_name=\"outbound|80||a\"} 9",
        "envoy_cluster_upstream_rq_time_count{cluster_name=\"outbound|80||a\"} 3",
        "envoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||a\"} 3",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",cluster_name=\"outbound|80||a\"} 2",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",cluster_name=\"outbound|80||a\"} 1",
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"in\"} 7",
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"4\",envoy_http_conn_manager_prefix=\"in\"} 7",
        "envoy_http_local_rate_limit_rate_limited{envoy_http_conn_manager_prefix=\"in\"} 2",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
    assert_eq!(
        metrics
            .matches("# TYPE envoy_cluster_upstream_rq_xx counter")
            .count(),
        1
    );
}

#[test]
fn every_metric_is_one_group_after_its_type() {
    let mut scrape = Scrape::new();
    scrape
        .cluster(&cluster("a", None))
        .cluster(&cluster("b", None));
    let metrics = scrape.prometheus(&Query::default());
    let mut seen: Vec<&str> = Vec::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!seen.contains(&name), "{name} comes twice");
            seen.push(name);
        } else if !line.starts_with('#') {
            assert!(line.starts_with(seen.last().unwrap()), "{line}");
        }
    }
}

#[test]
fn json_has_envoys_shape() {
    let mut scrape = Scrape::new();
    scrape
        .value("a", Kind::Counter, 1)
        .value("b", Kind::Gauge, 2);
    assert_eq!(
        scrape.json(&Query::default()),
        "{\"stats\":[{\"name\":\"a\",\"value\":1},{\"name\":\"b\",\"value\":2}]}"
    );
    assert_eq!(Scrape::new().json(&Query::default()), "{\"stats\":[]}");
    scrape.cluster(&cluster("c", None));
    let json = scrape.json(&query("filter=^a|rq_time$|connect_ms&format=json"));
    let nothing = ["{\"interval\":null,\"cumulative\":null}"; 10].join(",");
    let expected = format!(
        "{{\"stats\":[{{\"name\":\"a\",\"value\":1}},{{\"histograms\":{{\"supported_quantiles\":\
         [0,25,50,75,90,95,99,99.5,99.9,100],\"computed_quantiles\":[{{\"name\":\
         \"cluster.c.upstream_cx_connect_ms\",\"values\":[{nothing}]}},{{\"name\":\
         \"cluster.c.upstream_rq_time\",\"values\":[{{\"interval\":null,\"cumulative\":1}},"
    );
    assert!(json.starts_with(&expected), "{json}");
    assert!(json.ends_with("{\"interval\":null,\"cumulative\":5}]}]}}]}"));
}

/// Reads the labels of a line of Prometheus' format.
fn labels(line: &str) -> Vec<(String, String)> {
    let mut chars = line[line.find('{').unwrap() + 1..].chars();
    let mut labels = Vec::new();
    loop {
        let name: String = chars.by_ref().take_while(|c| *c != '=').collect();
        assert_eq!(chars.next(), Some('"'));
        let mut value = String::new();
        loop {
            match chars.next().unwrap() {
                '"' => break,
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("escape {other:?}"),
                }),
                c => value.push(c),
            }
        }
        labels.push((name, value));
        match chars.next() {
            Some(',') => {}
            Some('}') => return labels,
            other => panic!("{other:?} after a label"),
        }
    }
}

proptest! {
    #[test]
    fn a_name_in_a_label_is_read_back_as_it_was(name in "[^:\\p{Cc}]{1,20}") {
        let mut scrape = Scrape::new();
        let block = Block::default();
        block.inc(Shard::default(), HttpStat::RqTotal);
        scrape.http(&name, &block);
        let metrics = scrape.prometheus(&query(ALL));
        let line = metrics.lines().last().unwrap();
        prop_assert_eq!(metrics.lines().count(), 3);
        prop_assert_eq!(labels(line), [("envoy_http_conn_manager_prefix".to_owned(), name)]);
    }

    #[test]
    fn no_name_makes_a_line_of_its_own(name in "\\PC{0,9}[\n\r\t\0]\\PC{0,9}") {
        let mut scrape = Scrape::new();
        let block = Block::default();
        block.inc(Shard::default(), HttpStat::RqTotal);
        scrape.http(&name, &block);
        prop_assert_eq!(scrape.text(&query(ALL)).lines().count(), 1);
        prop_assert_eq!(scrape.prometheus(&query(ALL)).lines().count(), 3);
    }

    #[test]
    fn a_name_in_json_is_read_back_as_it_was(name in "[^\\x00-\\x1f]{0,20}|[\"\\\\\n\t\0a]{0,9}") {
        let mut out = String::new();
        json::string(&name, &mut out);
        let mut chars = out[1..out.len() - 1].chars();
        let mut read = String::new();
        while let Some(c) = chars.next() {
            prop_assert!(c != '"' && c >= ' ');
            if c != '\\' {
                read.push(c);
                continue;
            }
            match chars.next().unwrap() {
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&digits, 16).unwrap();
                    read.push(char::from_u32(code).unwrap());
                }
                c => read.push(c),
            }
        }
        prop_assert_eq!(read, name);
    }

    #[test]
    fn the_buckets_of_histograms_that_are_added_up_stay_cumulative(
        values in prop::collection::vec(0.0..1e7_f64, 0..20), more in prop::collection::vec(0.0..1e7_f64, 0..20),
    ) {
        let both = Histogram::default();
        let summary = |values: &[f64]| {
            let histogram = Histogram::default();
            for value in values {
                histogram.record(Shard::default(), *value);
                both.record(Shard::default(), *value);
            }
            histogram.summary()
        };
        let mut sum = summary(&values);
        add(&mut sum, &summary(&more));
        let together = both.summary();
        prop_assert_eq!(sum.cumulative, together.cumulative);
        prop_assert_eq!(sum.count, together.count);
        prop_assert!((sum.sum - together.sum).abs() < 0.01);
    }
}
