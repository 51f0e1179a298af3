//! The operator's listener.

use crate::harness::gunicorn;
use crate::harness::pki::Pki;
use crate::harness::program::run;
use crate::harness::{Gate, RecordingUpstream, Redis, call, config, get};
use crate::reload::hangup;

#[test]
fn livez_readyz_and_metrics_are_answered() {
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
    gate.metric_becomes(
        "authgate_requests_total{route=\"/public/*\",outcome=\"forwarded\",status=\"2xx\"}",
        1.0,
    );
    gate.metric_becomes(
        "authgate_requests_total{route=\"none\",outcome=\"no_route\",status=\"4xx\"}",
        1.0,
    );
    gate.metric_becomes("authgate_requests_in_flight", 0.0);
    let page = gate.probe("/metrics").text();
    assert!(
        !page.contains("/public/x") && !page.contains("/nowhere"),
        "no label holds a path:\n{page}"
    );
}

#[test]
fn only_get_requests_for_allowed_hosts_are_answered() {
    let upstream = RecordingUpstream::start();
    let hosts = "hosts = [\"authgate.internal\"]";
    let gate = Gate::start(&config().admin(hosts).app(&upstream).public("/*"));
    for (host, status) in [
        ("localhost", 200),
        ("authgate.internal:9901", 200),
        ("x.authgate.internal", 403),
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

/// What Prometheus 3 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

/// A gateway of which every metric has a value.
fn counted() -> (Gate, RecordingUpstream, Redis) {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let config = config().tls(&Pki::new(), &[&["localhost"]]).tokens(&redis);
    let gate = Gate::start(&config.app(&upstream).protected("/*"));
    gate.call(&get("/x").token("canary-ada"));
    gate.call(&get("/x").token("canary-unknown"));
    (gate, upstream, redis)
}

#[test]
fn prometheus_receives_valid_openmetrics() {
    let (gate, ..) = counted();
    let page = gate.ask_admin(&get("/metrics").host("127.0.0.1").header("Accept", PROMETHEUS));
    assert_eq!(
        page.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(page.text().ends_with("# EOF\n"));
    let Some(mut python) = gunicorn::command("python", gate.folder.path()) else {
        return;
    };
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
                  for family in families(sys.stdin.read()):\n    assert family.documentation, family.name";
    python.args(["-c", script]);
    run(python, page.text().as_bytes()).good();
}

#[test]
fn the_process_and_its_build_are_among_the_metrics() {
    let (gate, ..) = counted();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = now.as_secs_f64();
    let started = gate.metric("process_start_time_seconds");
    assert!(now - 600.0 < started && started < now + 2.0, "{started} beside {now}");
    let (open, most) = (gate.metric("process_open_fds"), gate.metric("process_max_fds"));
    assert!(10.0 < open && open < most, "{open} of {most} descriptors");
    let (resident, virtual_memory) = (
        gate.metric("process_resident_memory_bytes"),
        gate.metric("process_virtual_memory_bytes"),
    );
    assert!(
        1e6 < resident && resident < virtual_memory,
        "{resident} of {virtual_memory}"
    );
    let page = gate.probe("/metrics").text();
    assert!(page.contains("\nprocess_cpu_seconds_total "), "{page}");
    let build = format!(
        "authgate_build_info{{version=\"{}\",rustc=\"1.",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page.contains(&build), "{page}");
}

#[test]
fn the_configuration_in_force_is_shown_without_secrets_and_comments() {
    let (redis, upstream) = (Redis::start(), RecordingUpstream::start());
    let config = config()
        .tables("# canary-comment: the password was canary-old\n")
        .tokens(&redis)
        .tables(
            "[authenticators.jwt]\nkind = \"jwt\"\nusers = \"none\"\n\
             keys = [{ algorithm = \"HS256\", secret = \"canary-secret-of-more-than-32-bytes\" }] # canary\n",
        )
        .app(&upstream)
        .protected("/api/*");
    let gate = Gate::start(&config);
    let shown = gate.probe("/config");
    assert_eq!(
        (shown.status, shown.header("content-type")),
        (200, Some("text/plain; charset=utf-8"))
    );
    let text = shown.text();
    assert!(
        text.contains("keys = [{ algorithm = \"HS256\", secret = \"***\" }]\n"),
        "{text}"
    );
    assert!(text.contains("path = \"/api/*\"\n"), "{text}");
    assert!(!text.contains('#') && !text.contains("canary"), "{text}");

    // The file has changed, and the gateway does not know it yet.
    config.protected("/later/*").write(gate.folder.path());
    assert_eq!(gate.probe("/config").text(), text);
    assert!(hangup(&gate));
    assert!(gate.probe("/config").text().contains("path = \"/later/*\"\n"));
}
