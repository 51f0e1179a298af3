//! Hosts that vanish without closing their connections are noticed: the kernel probes every connection that the gateway opens or accepts.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::h2server::{Answer, H2Server};
use crate::harness::upstream::closed_port;
use crate::harness::{Gate, Next, RecordingUpstream, config, get, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
/// The timer of `/proc/net/tcp` that sends keep-alive probes.
const KEEPALIVE: &str = "02";

/// The timers of established connections to or from a port of 127.0.0.1, as the end that has the other port sees them.
fn timers(port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let remote = format!("0100007F:{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 5 && words[2] == remote && words[3] == "01")
        .map(|words| words[5][..2].to_owned())
        .collect()
}

/// Waits until there are so many connections to a port, and all of them are probed.
fn probed(what: &str, port: u16, count: usize) {
    wait_until(&format!("{what}: connections are probed"), PATIENCE, || {
        let timers = timers(port);
        timers.len() >= count && timers.iter().collect::<BTreeSet<_>>() == BTreeSet::from([&KEEPALIVE.to_owned()])
    });
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').expect("a port").1.parse().expect("a port")
}

#[test]
fn connections_to_upstreams_have_keepalive() {
    let app = RecordingUpstream::start();
    let live = RecordingUpstream::start();
    live.answers(|mut exchange| {
        match exchange.head.header("upgrade") {
            Some(_) => exchange.switch(""),
            None => {
                exchange.write("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            }
        };
        let _ = exchange.wire.some();
        Next::Close
    });
    // Its checks get no answer.
    let checked = RecordingUpstream::start();
    checked.answers(|exchange| {
        let _ = exchange.wire.some();
        Next::Close
    });
    let h2 = H2Server::start(None, |_, _| Answer::ok("h2".to_owned()));
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &[app.url()])
            .public("/*")
            .upstream("live", &[live.url()])
            .route_to("live", "/live/*", "public = true")
            .upstream("checked", &[checked.url()])
            .with("health = { path = \"/healthz\", interval = \"5s\" }")
            .route_to("checked", "/checked", "public = true")
            .upstream("h2", &[h2.url()])
            .route_to("h2", "/h2", "public = true"),
    );
    assert_eq!(gate.get("/x").status, 200);
    probed("an idle connection of the pool", app.address.port(), 1);
    let mut events = gate.connect();
    events.send(get("/live/events").bytes());
    let mut websocket = gate.connect();
    websocket.send(
        get("/live/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .bytes(),
    );
    let head = websocket.wire.head().unwrap().expect("an answer");
    assert!(head.first.contains(" 101 "), "{}", head.first);
    probed("a stream of events, and a WebSocket", live.address.port(), 2);
    assert_eq!(gate.get("/h2").text(), "h2");
    probed("HTTP/2", port(&h2.url()), 1);
    probed("a check", checked.address.port(), 1);
}

#[test]
fn connections_to_redis_have_keepalive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It accepts, and never answers.
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let _gate = Gate::spawn(
        &config()
            .tables(&format!(
                "[stores.redis]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}/0\"\ntimeout = \"5s\"\n"
            ))
            .token("store = \"redis\"")
            .upstream("app", &[format!("http://{}", closed_port())])
            .protected("/*"),
    );
    probed("Redis", port, 1);
}

#[test]
fn connections_of_clients_have_keepalive() {
    let app = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&app).public("/*"));
    let client = TcpStream::connect(gate.address).unwrap();
    let own = client.local_addr().unwrap().port();
    wait_until("the client is probed", PATIENCE, || timers(own) == [KEEPALIVE]);
}
