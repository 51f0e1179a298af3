//! The operator's listener.

use crate::harness::{Gate, RecordingUpstream, call, config, get};

#[test]
fn it_tells_that_it_lives_is_ready_and_what_it_counts() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/public/*"));
    gate.get("/public/x");
    gate.get("/nowhere");
    assert_eq!(
        (
            gate.probe("/livez").status,
            gate.probe("/readyz").status,
            gate.probe("/other").status
        ),
        (200, 200, 404)
    );
    assert_eq!(
        gate.metric("authgate_requests_total{route=\"/public/*\",outcome=\"forwarded\",status=\"2xx\"}"),
        1.0
    );
    assert_eq!(
        gate.metric("authgate_requests_total{route=\"none\",outcome=\"no_route\",status=\"4xx\"}"),
        1.0
    );
    assert_eq!(gate.metric("authgate_requests_in_flight"), 0.0);
    let page = gate.probe("/metrics").text();
    assert!(
        !page.contains("/public/x") && !page.contains("/nowhere"),
        "no label holds a path:\n{page}"
    );
}

#[test]
fn it_answers_to_addresses_and_localhost_and_only_get() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:9901", 200),
        ("[::1]", 200),
        ("evil.example", 403),
    ] {
        assert_eq!(gate.ask_admin(&get("/metrics").host(host)).status, status, "{host}");
    }
    assert_eq!(
        gate.ask_admin(&call("POST", "/metrics").host("127.0.0.1").header("Content-Length", "0"))
            .status,
        405
    );
}

#[test]
fn every_metric_is_in_the_reference() {
    let upstream = RecordingUpstream::start();
    let redis = crate::harness::Redis::start().with_ada();
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).protected("/*"));
    gate.call(&get("/x").token("canary-ada"));
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let metrics = gate.probe("/metrics").text();
    let names = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(
            page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}_total`")),
            "{name} is not in docs/operations.md"
        );
    }
}
