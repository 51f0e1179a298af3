//! Listening on socket files: the same gateway as over TCP, a peer without an address, and who owns the file.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::pki::Pki;
use crate::harness::program::{authgate, program};
use crate::harness::{Call, Config, Conn, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

const FILE: &str = "gate.sock";

fn listening(upstream: &RecordingUpstream) -> Config {
    config()
        .server("listen = [\"127.0.0.1:0\", \"unix:gate.sock\"]")
        .app(upstream)
}

fn public(upstream: &RecordingUpstream) -> Config {
    listening(upstream).public("/*")
}

fn forwarded_request() -> Call {
    forwarded_request_without_client().header("X-Forwarded-For", "198.51.100.9")
}

fn forwarded_request_without_client() -> Call {
    get("/x")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.example")
        .header("X-Request-Id", "id-of-the-proxy")
}

/// A gateway on a file in that folder.
fn start_in(folder: &Path, config: &Config) -> Gate {
    let own = TempDir::new().unwrap();
    config.clone().server(&listen_on(folder)).write(own.path());
    let mut command = program();
    command.arg("run").arg("--config").arg(own.path().join("gateway.toml"));
    Gate::of(command, own, None)
}

fn listen_on(folder: &Path) -> String {
    format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", folder.join(FILE).display())
}

#[test]
fn requests_are_authenticated_as_over_tcp() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(
        &listening(&upstream)
            .tokens(&redis)
            .protected("/api/*")
            .public("/open/*"),
    );
    let mut conn = gate.connect_over(FILE);
    let token = get("/api/x").header("Authorization", "Token canary-ada");
    assert_eq!(conn.call(&token).status, 200);
    assert!(upstream.last().header("x-user-id").is_some());
    assert_eq!(
        conn.call(&get("/api/x").header("Authorization", "Token nobodys"))
            .status,
        401
    );
    assert_eq!(conn.call(&get("/api/x")).status, 401);
    assert_eq!(conn.call(&get("/open/x").header("X-User-Id", "root")).status, 200);
    assert_eq!(upstream.last().header("x-user-id"), None);
    assert_eq!(gate.get("/open/x").status, 200, "and over TCP");
    // Far more than fits into the socket at once, both ways.
    let body = vec![b'x'; 3_000_000];
    let answer = body.clone();
    upstream.answers(move |exchange| exchange.answer("200 OK", "", &answer));
    let reply = conn.call(&post("/open/x", body.clone()));
    assert!(reply.status == 200 && reply.body.data == body);
    assert!(upstream.last().body.data == body);
}

#[test]
fn clients_of_a_socket_have_no_address_and_are_not_trusted() {
    let upstream = RecordingUpstream::start();
    for trusted in ["[]", "[\"127.0.0.0/8\"]"] {
        let gate = Gate::start(&public(&upstream).server(&format!("trusted_proxies = {trusted}")));
        assert_eq!(gate.connect_over(FILE).call(&forwarded_request()).status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), None);
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
        assert_ne!(seen.header("x-request-id"), Some("id-of-the-proxy"));
        assert_eq!(gate.requests(1)[0]["client.ip"], "unix:");
    }
}

#[test]
fn a_trusted_proxy_on_a_socket_is_believed_and_nothing_is_appended() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("trusted_proxies = [\"10.0.0.0/8\", \"unix\"]"));
    for (list, client) in [
        ("198.51.100.9", "198.51.100.9"),
        ("203.0.113.4, 198.51.100.9, 10.0.0.7", "198.51.100.9"),
    ] {
        let call = forwarded_request_without_client().header("X-Forwarded-For", list);
        assert_eq!(gate.connect_over(FILE).call(&call).status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), Some(list));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
        assert_eq!(seen.header("x-request-id"), Some("id-of-the-proxy"));
        assert_eq!(gate.requests(1).last().unwrap()["client.ip"], client);
    }
    assert_eq!(gate.connect_over(FILE).call(&get("/x")).status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), None);
    // Who comes over TCP is not meant by it.
    assert_eq!(gate.call(&forwarded_request()).status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn the_proxy_protocol_works_on_a_socket() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .server("trusted_proxies = [\"unix\"]")
            .server("proxy_protocol = true"),
    );
    for (header, client) in [
        (&b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n"[..], Some("192.0.2.1")),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x02\x13\x88\x01\xbb",
            Some("192.0.2.7"),
        ),
        (b"PROXY UNKNOWN\r\n", None),
    ] {
        let mut conn = gate.connect_over(FILE);
        conn.send(header);
        assert_eq!(conn.call(&forwarded_request()).status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), client);
        assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
    }
    let mut conn = gate.connect_over(FILE);
    conn.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(conn.wire.closes());
    gate.logged(&["proxy.ip", "unix:", "without a PROXY protocol header"]);
    // Over TCP no client is trusted to send one.
    assert_eq!(gate.get("/x").status, 200);
}

#[test]
fn tls_works_on_a_socket() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream).tls(&pki, &[&["localhost"]]));
    let unix = UnixStream::connect(gate.folder.path().join(FILE)).unwrap();
    let client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut tls = rustls::StreamOwned::new(client, unix);
    tls.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    tls.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
}

#[test]
fn limits_apply_on_a_socket() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .limits("connections = 2")
            .limits("header_timeout = \"300ms\"")
            .limits("idle_timeout = \"30s\""),
    );
    let mut slow = gate.connect_over(FILE);
    slow.send("GET /x HT");
    assert_eq!(slow.reply().status, 408);
    let (mut one, mut two) = (gate.connect_over(FILE), gate.connect_over(FILE));
    assert_eq!((one.call(&get("/x")).status, two.call(&get("/x")).status), (200, 200));
    let mut third = gate.connect_over(FILE);
    third.send(get("/x").bytes());
    third.set_timeout(Duration::from_millis(300));
    assert!(third.try_reply("GET").is_err(), "no slot for it");
    drop(one);
    third.set_timeout(Duration::from_secs(10));
    assert_eq!(third.reply().status, 200);
}

#[test]
fn a_stale_socket_file_is_replaced_and_removed_at_the_end() {
    let (folder, upstream) = (TempDir::new().unwrap(), RecordingUpstream::start());
    let path = folder.path().join(FILE);
    drop(UnixListener::bind(&path).unwrap());
    let gate = start_in(folder.path(), &public(&upstream));
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(
        found.permissions().mode() & 0o660,
        0o660,
        "a proxy of its group may connect"
    );
    assert_eq!(Conn::unix(&path).call(&get("/x")).status, 200);
    gate.stop();
    assert!(!path.exists());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn a_file_with_a_listener_or_that_is_not_a_socket_is_refused_and_kept() {
    let (folder, upstream) = (TempDir::new().unwrap(), RecordingUpstream::start());
    let path = folder.path().join(FILE);
    let first = start_in(folder.path(), &public(&upstream));
    let second = |path: &PathBuf| {
        let own = TempDir::new().unwrap();
        public(&upstream)
            .server(&format!("listen = [\"unix:{}\"]", path.display()))
            .write(own.path());
        let ended = authgate(own.path(), &["run"]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.err.contains("server.listen") && ended.err.contains(FILE),
            "{ended:?}"
        );
        ended.err
    };
    let why = second(&path);
    assert!(why.contains("in use"), "{why}");
    assert_eq!(Conn::unix(&path).call(&get("/x")).status, 200);
    first.stop();
    fs::write(&path, "precious").unwrap();
    let why = second(&path);
    assert!(why.contains("no socket"), "{why}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_socket_file_of_a_newer_gateway_is_kept() {
    let (folder, upstream) = (TempDir::new().unwrap(), RecordingUpstream::start());
    let path = folder.path().join(FILE);
    let first = start_in(folder.path(), &public(&upstream));
    fs::remove_file(&path).unwrap();
    let second = start_in(folder.path(), &public(&upstream));
    first.stop();
    assert_eq!(Conn::unix(&path).call(&get("/x")).status, 200);
    second.stop();
    assert!(!path.exists());
}

#[test]
fn a_drain_closes_idle_connections_and_finishes_requests() {
    let upstream = RecordingUpstream::start();
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(30));
        exchange.ok()
    });
    let mut gate = Gate::start(&public(&upstream).server("listen = [\"unix:gate.sock\"]"));
    let path = gate.folder.path().join(FILE);
    let mut idle = gate.connect_over(FILE);
    let mut conn = gate.connect_over(FILE);
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    gate.signal("TERM");
    assert!(idle.wire.closes(), "idle connections end at once");
    wait_until("the file is gone", Duration::from_secs(5), || !path.exists());
    assert!(!gate.has_ended());
    release.send(()).unwrap();
    let reply = conn.reply();
    assert!(reply.status == 200 && reply.body.complete);
    assert!(gate.stop().contains("drained"));
}
