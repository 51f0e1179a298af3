//! Reloads that change listeners, limits of connections, and the times of a drain.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::gate::ask_admin;
use crate::harness::h2::{H2, read};
use crate::harness::load::Barrier;
use crate::harness::pki::Pki;
use crate::harness::{Conn, Gate, RecordingUpstream, config, get, wait_until};
use crate::reload::reload;

/// A port of this machine that no process uses now.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn addresses_are_added_and_removed_and_their_connections_end_in_order() {
    let upstream = RecordingUpstream::start();
    let barrier = Barrier::default();
    let held = barrier.clone();
    upstream.answers(move |exchange| {
        if exchange.head.first.contains("held") {
            held.wait();
        }
        exchange.ok()
    });
    let port = free_port();
    let more = |more: &str| {
        let listen = format!("listen = [\"127.0.0.1:0\"{more}]");
        config().app(&upstream).public("/x").server(&listen)
    };
    let gate = Gate::start(&more(""));
    let mut kept = gate.connect();
    assert_eq!(kept.call(&get("/x")).status, 200);

    assert!(reload(
        &gate,
        &more(&format!(", \"127.0.0.1:{port}\", \"unix:more.sock\""))
    ));
    let added = SocketAddr::from(([127, 0, 0, 1], port));
    let (mut idle, mut busy, mut unix) = (Conn::plain(added), Conn::plain(added), gate.connect_over("more.sock"));
    let mut h2 = H2::plain(added);
    for conn in [&mut idle, &mut unix, &mut busy] {
        assert_eq!(conn.call(&get("/x")).status, 200);
    }
    assert_eq!(h2.call(&get("/x")).status, 200);
    busy.send(get("/x?held").bytes());
    let sent = h2.sender.send_request(h2.request(&get("/x?held")));
    let under_way = h2.runtime.spawn(async { read(sent.await.expect("an answer")).await });
    upstream.wait_for_calls(2);
    let before = gate.probe("/status.json").json()["listeners"].as_array().unwrap().len();

    assert!(reload(&gate, &more("")));
    assert!(TcpStream::connect(added).is_err(), "no worker listens");
    assert!(!gate.folder.path().join("more.sock").exists());
    gate.logged(&["an address is closed, and its connections drain", "more.sock"]);
    let listeners = gate.probe("/status.json").json()["listeners"].clone();
    assert_eq!(listeners.as_array().unwrap().len(), before - 2);
    // A request that was under way ends, and with it its connection.
    barrier.open();
    let reply = busy.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(h2.runtime.block_on(under_way).unwrap().status, 200);
    wait_until("the client has received GOAWAY", Duration::from_secs(5), || {
        h2.sender.is_closed() || h2.runtime.block_on(h2.sender.ready()).is_err()
    });
    // A request that was sent before the client knows is answered too.
    for mut conn in [idle, unix] {
        let reply = conn.call(&get("/x"));
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        conn.ends().unwrap();
    }
    let reply = kept.call(&get("/x"));
    assert_eq!((reply.status, reply.header("connection")), (200, None));
    // It can be added again.
    assert!(reload(&gate, &more(&format!(", \"127.0.0.1:{port}\""))));
    assert_eq!(Conn::plain(added).call(&get("/x")).status, 200);
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_file() {
    let upstream = RecordingUpstream::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let port = free_port();
    let first = config().app(&upstream).public("/x");
    let gate = Gate::start(&first);
    let listen = format!("listen = [\"127.0.0.1:0\", \"127.0.0.1:{port}\", \"{taken}\"]");
    assert!(!reload(&gate, &first.clone().server(&listen).public("/new")));
    gate.logged(&["an error in the configuration", "server.listen", "cannot listen on"]);
    assert_eq!(gate.get("/new").status, 404);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is closed again");
}

#[test]
fn limits_of_connections_and_times_of_a_drain_change() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        if exchange.head.first.contains("slow") {
            let _ = exchange.wire.some();
        }
        exchange.ok()
    });
    let with = |connections: usize| {
        let limit = format!("connections = {connections}");
        config().app(&upstream).public("/x").limits(&limit)
    };
    let gate = Gate::start(&with(1));
    let mut first = gate.connect();
    assert_eq!(first.call(&get("/x")).status, 200);
    let mut second = gate.connect();
    second.send(get("/x").bytes());
    second.set_timeout(Duration::from_millis(300));
    assert!(second.try_reply("GET").is_err(), "it waits for the first connection");
    second.set_timeout(Duration::from_secs(10));
    assert!(reload(&gate, &with(2).drain("timeout = \"100ms\"")));
    assert_eq!(second.reply().status, 200);
    assert!(reload(&gate, &with(1).drain("timeout = \"100ms\"")));
    assert_eq!(
        (first.call(&get("/x")).status, second.call(&get("/x")).status),
        (200, 200)
    );
    drop(second);
    let mut third = gate.connect();
    third.send(get("/x").bytes());
    third.set_timeout(Duration::from_millis(300));
    assert!(third.try_reply("GET").is_err(), "it waits for the first connection");
    drop((first, third));
    let mut slow = gate.connect();
    slow.send(get("/x?slow").bytes());
    upstream.wait_for_calls(5);
    let stopped = Instant::now();
    assert!(gate.stop().contains("drain timeout reached"));
    assert!(
        stopped.elapsed() < Duration::from_secs(4),
        "not after the 5 s of the first file"
    );
}

#[test]
fn addresses_for_probes_and_redirects_are_added_and_removed() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let first = config().app(&upstream).public("/x").tls(&pki, &[&["localhost"]]);
    let gate = Gate::start(&first);
    let (probes, redirects) = (free_port(), free_port());
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let both = first
        .clone()
        .server(&format!("redirect_http = [\"127.0.0.1:{redirects}\"]"))
        .tables(&format!("[probes]\nlisten = \"127.0.0.1:{probes}\""));
    for _ in 0..2 {
        assert!(reload(&gate, &both));
        assert_eq!(ask_admin(address(probes), &get("/readyz")).status, 200);
        let reply = ask_admin(address(redirects), &get("/x").host("localhost"));
        assert_eq!(reply.status, 308);
        let to = format!("https://localhost:{}/x", gate.address.port());
        assert_eq!(reply.header("location"), Some(&*to));
        assert!(reload(&gate, &first));
        for port in [probes, redirects] {
            wait_until("the address is closed", Duration::from_secs(5), || {
                TcpStream::connect(address(port)).is_err()
            });
        }
    }
}

#[test]
fn clients_are_redirected_to_the_first_address_of_the_file() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let (redirects, added) = (free_port(), free_port());
    let with = |listen: &str| {
        config()
            .app(&upstream)
            .public("/x")
            .tls(&pki, &[&["localhost"]])
            .server(&format!("listen = [{listen}]"))
            .server(&format!("redirect_http = [\"127.0.0.1:{redirects}\"]"))
    };
    let (old, new) = ("\"127.0.0.1:0\"", format!("\"127.0.0.1:{added}\""));
    let gate = Gate::start(&with(old));
    let redirected_to = |port: u16| {
        let to = SocketAddr::from(([127, 0, 0, 1], redirects));
        let reply = ask_admin(to, &get("/x").host("localhost"));
        let expected = format!("https://localhost:{port}/x");
        assert_eq!(reply.header("location"), Some(&*expected));
    };
    let first = gate.address.port();
    redirected_to(first);
    for (listen, port) in [
        (format!("{new}, {old}"), added),
        (format!("{old}, {new}"), first),
        (format!("\"unix:gate.sock\", {new}, {old}"), added),
        (old.to_owned(), first),
    ] {
        assert!(reload(&gate, &with(&listen)));
        redirected_to(port);
    }
}
