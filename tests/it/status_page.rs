//! `/status` in Debian's Chromium: every state in both colour schemes and at four widths, without a violation of accessibility, of the policy, or of
//! the layout. With `AUTHGATE_SCREENSHOTS`, the pages are also written to that folder.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::browser::{Browser, Tab};
use crate::harness::mint::now;
use crate::harness::oidc_provider::reserved_port;
use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::reload::reload;

const DAY: u64 = 24 * 60 * 60;
/// Far more than any step takes.
const SOON: Duration = Duration::from_secs(30);

fn url(gate: &Gate) -> String {
    format!("http://{}/status", gate.admin)
}

fn usual(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .redis_with_long_timeout(redis)
        .token("cache = { ttl = \"1m\" }")
        .app(upstream)
        .protected("/api/orders/*")
        .public("/healthz")
}

/// Sends some requests that are accepted and refused, and waits until a sample has them.
fn serve(gate: &Gate) {
    for at in 0..40 {
        let key = if at % 4 == 3 { "canary-unknown" } else { "canary-ada" };
        gate.call(&get("/api/orders/1").token(key));
    }
    gate.get("/healthz");
    gate.get("/nowhere");
    wait_until("a sample has the requests", SOON, || {
        let traffic = gate.probe("/status.json").json()["traffic"].clone();
        let rates = traffic["history"]["requests_per_second"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let counted: f64 = rates.iter().filter_map(Value::as_f64).sum::<f64>() * 5.0;
        counted > 41.0
    });
}

fn strings(report: &Value) -> Vec<String> {
    let list = report.as_array().expect("a list").iter();
    list.map(|text| text.as_str().expect("text").to_owned()).collect()
}

fn check(tab: &Tab<'_>, what: &str) -> String {
    let report = tab.run("report", json!({}));
    assert_eq!(
        strings(&report["errors"]),
        [""; 0],
        "{what}: errors of the page and of its policy"
    );
    assert_eq!(strings(&report["outside"]), [""; 0], "{what}: requests to other hosts");
    assert!(
        report["scroll_width"].as_u64() <= report["width"].as_u64(),
        "{what}: it scrolls sideways: {} > {}",
        report["scroll_width"],
        report["width"]
    );
    report["text"].as_str().expect("text").to_owned()
}

/// Opens the page in both schemes and at all widths. Each of them must have these texts.
fn looks_right(gate: &Gate, name: &str, texts: &[&str]) {
    let Some(browser) = Browser::start() else { return };
    for scheme in ["light", "dark"] {
        for (width, height) in [(360, 740), (768, 1024), (1280, 900), (2560, 1440)] {
            let what = format!("{name}-{scheme}-{width}");
            let options = json!({ "width": width, "height": height, "scheme": scheme });
            let tab = browser.open(&url(gate), options.clone());
            tab.wait("Live");
            let text = check(&tab, &what);
            for expected in texts {
                assert!(text.contains(expected), "{what}: {expected} is not in\n{text}");
            }
            if let Some(folder) = std::env::var_os("AUTHGATE_SCREENSHOTS").map(PathBuf::from) {
                let file = folder.join(format!("{what}.png"));
                tab.run("screenshot", json!({ "file": file }));
            }
            // The widths between have the same elements, and no other colours.
            if !matches!(width, 360 | 1280) {
                continue;
            }
            // The checks are a script of their own, which the policy would not permit.
            let mut options = options;
            options["withPolicy"] = false.into();
            let tab = browser.open(&url(gate), options);
            tab.wait("Live");
            let found = tab.run("axe", json!({}));
            assert_eq!(strings(&found["violations"]), [""; 0], "{what}: accessibility");
        }
    }
}

#[test]
fn a_gateway_that_is_well_says_so_and_shows_its_traffic() {
    let (redis, upstream, pki) = (Redis::start().with_ada(), RecordingUpstream::start(), Pki::new());
    let until = now() as u64 + 60 * DAY;
    let pair = pki.leaf_between(&["localhost", "api.example"], now() as u64 - 30 * DAY, until);
    let gate = Gate::subscribed(&usual(&redis, &upstream).tls_pair(&pki, pair));
    serve(&gate);
    let texts = [
        "Everything is well.",
        "Requests since start\n42",
        "token_unknown",
        "/api/orders/*",
        "Changes are reported.",
        "59 days",
    ];
    looks_right(&gate, "well", &texts);
}

#[test]
fn a_store_that_is_down_is_named_at_the_top_and_shown_in_its_section() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&usual(&redis, &upstream));
    serve(&gate);
    redis.kill();
    wait_until("the store is down", SOON, || {
        gate.call(&get("/api/orders/1").token("canary-other"));
        gate.probe("/status.json").json()["stores"][0]["usable"] == false
    });
    let texts = [
        "Store redis cannot be used since",
        "Requests that need it get 503.",
        "unusable",
    ];
    looks_right(&gate, "store-down", &texts);
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let (redis, upstream, pki) = (Redis::start().with_ada(), RecordingUpstream::start(), Pki::new());
    let pair = pki.leaf_until(&["localhost"], now() as u64 + 5 * DAY + 3600);
    let gate = Gate::subscribed(&usual(&redis, &upstream).tls_pair(&pki, pair));
    serve(&gate);
    looks_right(
        &gate,
        "certificate-ending",
        &["a.pem expires at", "Renew it.", "5 days"],
    );
}

#[test]
fn a_gateway_without_traffic_has_a_page_too() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/x"));
    let texts = [
        "Everything is well.",
        "No request was refused since the start.",
        "The configuration has no store.",
    ];
    looks_right(&gate, "no-traffic", &texts);
}

#[test]
fn a_refused_reload_and_a_server_that_is_down_are_shown_with_the_reason() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gone = format!("http://{}", crate::harness::upstream::closed_port());
    let with_other = |config: Config| {
        config
            .upstream("billing", &[gone.clone(), upstream.url()])
            .with("health = { path = \"/x\", interval = \"1s\" }")
            .route_to("billing", "/billing/*", "public = true")
    };
    let gate = Gate::subscribed(&with_other(usual(&redis, &upstream)));
    serve(&gate);
    let broken = with_other(usual(&redis, &upstream))
        .limits("headers = 0")
        .limits("boddy_bytes = 1");
    assert!(!reload(&gate, &broken));
    wait_until("the server is down for all workers", SOON, || {
        let server = &gate.probe("/status.json").json()["upstreams"][1]["servers"][0];
        server["failing_workers"] == server["workers"] && server["state"] == "down"
    });
    let texts = [
        "was refused because of 2 problems",
        "server.limits.boddy_bytes",
        "In upstream billing, 1 of 2 servers fails",
        "Connection refused",
    ];
    looks_right(&gate, "reload-refused", &texts);
}

#[test]
fn of_many_routes_the_busiest_are_shown() {
    let upstream = RecordingUpstream::start();
    let mut config = config().app(&upstream);
    for at in 0..10_000 {
        config = config.public(&format!(
            "/service-{at}/with-a-long-name-that-does-not-fit-into-a-narrow-window/*"
        ));
    }
    let gate = Gate::start(&config);
    for at in 0..60 {
        for _ in 0..1 + at / 10 {
            gate.get(&format!(
                "/service-{at}/with-a-long-name-that-does-not-fit-into-a-narrow-window/x"
            ));
        }
    }
    let texts = [
        "The 50 busiest of 10\u{202f}000 routes. 60 had a request",
        "/service-59/",
    ];
    looks_right(&gate, "many-routes", &texts);
    let page = gate.probe("/status").text();
    assert!(
        page.len() < 200_000 && !page.contains("/service-9/"),
        "{} bytes",
        page.len()
    );
}

#[test]
fn the_page_follows_the_gateway_without_a_shift_of_its_layout_and_keeps_the_focus() {
    let Some(browser) = Browser::start() else { return };
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&usual(&redis, &upstream));
    serve(&gate);
    for width in [360, 1280] {
        let tab = browser.open(&url(&gate), json!({ "width": width }));
        tab.wait("Live");
        tab.run("focus", json!({ "selector": "nav a[href='#stores']" }));
        for _ in 0..2 {
            for _ in 0..60 {
                gate.call(&get("/api/orders/1").token("canary-ada"));
            }
            tab.update();
        }
        check(&tab, "live");
        let shifts = tab.run("shifts", json!({}));
        assert_eq!(strings(&shifts["shifts"]), [""; 0], "a window of {width} pixels");
        assert_eq!(tab.run("focused", json!({}))["text"], "Stores");
    }
}

#[test]
fn the_page_can_be_read_without_javascript() {
    let Some(browser) = Browser::start() else { return };
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&usual(&redis, &upstream));
    serve(&gate);
    let tab = browser.open(&url(&gate), json!({ "javaScript": false }));
    let text = check(&tab, "without JavaScript");
    for expected in [
        "Everything is well.",
        "This page is not live without JavaScript.",
        "Requests since start\n42",
        "/api/orders/*",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn the_page_is_used_with_the_keyboard_and_the_focus_can_be_seen() {
    let Some(browser) = Browser::start() else { return };
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/x"));
    for scheme in ["light", "dark"] {
        let tab = browser.open(&url(&gate), json!({ "scheme": scheme, "motion": "reduce" }));
        tab.wait("Live");
        let focused = tab.run("tab", json!({ "times": 12 }))["focused"].clone();
        let focused = focused.as_array().expect("a list");
        let texts: Vec<&str> = focused.iter().filter_map(|element| element["text"].as_str()).collect();
        assert_eq!(texts[0], "Skip to the state of the gateway");
        assert_eq!(texts[1..4], ["Traffic", "Routes", "Upstreams"]);
        assert_eq!(texts[10..], ["status.json", "metrics"]);
        let hidden: Vec<&Value> = focused.iter().filter(|element| element["seen"] != true).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

#[test]
fn the_page_is_live_again_after_a_restart_of_the_gateway() {
    let Some(browser) = Browser::start() else { return };
    let upstream = RecordingUpstream::start();
    let (_reserved, port) = reserved_port();
    let config = config()
        .app(&upstream)
        .public("/x")
        .admin(&format!("listen = \"127.0.0.1:{port}\""));
    let gate = Gate::start(&config);
    let tab = browser.open(&url(&gate), json!({}));
    tab.wait("Live");
    gate.stop();
    tab.wait("Connection lost. The numbers are old.");
    let gate = Gate::start(&config.public("/another"));
    tab.wait("Live");
    tab.wait("/another");
    assert!(tab.text().contains("Everything is well."));
    drop(tab);
    gate.stop();
}

#[test]
fn with_a_token_a_browser_asks_for_a_password_and_the_stream_ends_with_the_token() {
    let Some(browser) = Browser::start() else { return };
    let upstream = RecordingUpstream::start();
    let with_token = |token: &str| {
        config()
            .app(&upstream)
            .public("/x")
            .file("admin.token", format!("{token}\n"))
            .admin("token = { file = \"admin.token\" }")
    };
    let gate = Gate::start(&with_token("canary-of-operators"));
    let tab = browser.open(&url(&gate), json!({ "password": "canary-of-operators" }));
    assert_eq!(tab.response["status"], 200);
    tab.wait("Live");
    tab.update();
    check(&tab, "with a token");
    assert_eq!(gate.probe("/status").status, 401);
    assert_eq!(gate.probe("/status/events").status, 401);
    with_token("canary-of-other-operators").write(gate.folder.path());
    gate.signal("HUP");
    tab.wait("Connection lost. The numbers are old.");
}
