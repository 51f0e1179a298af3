//! Reading the configuration again while the gateway serves: all of the file comes into force, or nothing changes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use rustls::ClientConfig;
use serde_json::Value;

use crate::harness::h2::H2;
use crate::harness::load::{Load, echo};
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::{Config, Conn, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

/// How often the gateway has read its file again: with success, and without.
pub fn reloads(gate: &Gate) -> (f64, f64) {
    let metric = |outcome| gate.metric(&format!("authgate_reloads_total{{outcome=\"{outcome}\"}}"));
    (metric("applied"), metric("refused"))
}

/// Sends SIGHUP, and waits until the gateway has read its file again. Returns whether it is in force.
pub fn hangup(gate: &Gate) -> bool {
    let before = reloads(gate);
    gate.signal("HUP");
    wait_until("the file is read again", Duration::from_secs(20), || {
        reloads(gate) != before
    });
    reloads(gate).0 > before.0
}

/// Writes this configuration, and makes the gateway read it.
pub fn reload(gate: &Gate, config: &Config) -> bool {
    config.write(gate.folder.path());
    hangup(gate)
}

#[test]
fn sighup_puts_a_changed_file_into_force() {
    let (one, two) = (RecordingUpstream::named("1"), RecordingUpstream::named("2"));
    let first = config().app(&one).public("/x");
    let gate = Gate::start(&first);
    let started = gate.metric("authgate_reload_last_applied_timestamp_seconds");
    assert!(started > 0.0);
    let (mut conn, mut h2) = (gate.connect(), H2::connect(&gate));
    let mut upstream = |target: &str| {
        let (over_http1, over_http2) = (conn.call(&get(target)), h2.call(&get(target)));
        assert_eq!(over_http1.status, over_http2.status);
        (over_http1.status == 200).then(|| over_http1.json()["upstream"].clone())
    };
    assert_eq!(upstream("/x"), Some("1".into()));
    assert_eq!(upstream("/new"), None);

    assert!(reload(&gate, &config().app(&two).public("/x").public("/new")));
    // The next request on the same connection is served by the new configuration.
    assert_eq!(upstream("/x"), Some("2".into()));
    assert_eq!(upstream("/new"), Some("2".into()));
    let line = gate.logged(&["the configuration was read again and is in force"]);
    for words in ["signal", "routes[1]: added", "upstreams.app.servers: changed from"] {
        assert!(line.contains(words), "{line}");
    }
    assert!(gate.metric("authgate_reload_last_applied_timestamp_seconds") >= started);
    assert!(hangup(&gate));
    assert_eq!(reloads(&gate), (2.0, 0.0));
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let (upstream, pki, other) = (RecordingUpstream::start(), Pki::new(), Pki::new());
    let first = config().app(&upstream).public("/x").tls(&pki, &[&["localhost"]]);
    let gate = Gate::start(&first);
    let mut conn = gate.connect();
    let file = gate.folder.path().join("gateway.toml");
    let text = first.text();
    let (_, strange_key) = other.leaf(&["localhost"]);
    let write = |text: &str| fs::write(&file, text).unwrap();
    type Change<'c> = Box<dyn Fn() + 'c>;
    let refused: Vec<(&str, Change<'_>)> = vec![
        ("`server` is missing", Box::new(|| write(""))),
        ("syntax", Box::new(|| write(&text[..text.len() / 2 - 3]))),
        (
            "unknown key `lisen`",
            Box::new(|| write(&text.replace("listen =", "lisen ="))),
        ),
        (
            "the configuration cannot be read",
            Box::new(|| {
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
            }),
        ),
        (
            "the configuration cannot be read",
            Box::new(|| fs::remove_dir(&file).unwrap()),
        ),
        (
            "0.key",
            Box::new(|| {
                write(&text);
                fs::write(gate.folder.path().join("0.key"), &strange_key).unwrap();
            }),
        ),
        (
            "0.pem",
            Box::new(|| fs::write(gate.folder.path().join("0.pem"), "").unwrap()),
        ),
    ];
    let count = refused.len();
    for (reason, change) in refused {
        change();
        assert!(!hangup(&gate), "{reason}");
        if reason != "syntax" {
            gate.logged(&["an error in the configuration", reason]);
        }
        assert_eq!(conn.call(&get("/x")).status, 200);
        assert_eq!(gate.get("/x").status, 200, "a new connection");
    }
    gate.logged(&["cannot be used; nothing has changed"]);
    assert_eq!(reloads(&gate), (0.0, count as f64));
    // The file and its certificate are there again.
    assert!(reload(&gate, &first));
}

#[test]
fn what_cannot_change_is_named() {
    let upstream = RecordingUpstream::start();
    let first = config().app(&upstream).public("/x");
    let gate = Gate::start(&first);
    for (changed, key) in [
        (first.clone().server("workers = 3"), "server.workers"),
        (first.clone().admin("listen = \"127.0.0.1:1\""), "admin.listen"),
    ] {
        assert!(!reload(&gate, &changed.public("/new")));
        let line = gate.logged(&["an error in the configuration", key]);
        assert!(line.contains("cannot change while the gateway runs"), "{line}");
        assert_eq!(gate.get("/new").status, 404, "nothing of it is in force");
    }
    assert!(reload(&gate, &first));
}

#[test]
fn the_level_and_the_format_of_the_log_change() {
    let upstream = RecordingUpstream::start();
    let first = config().app(&upstream).public("/x").log("access = true");
    let gate = Gate::start(&first);
    let lines_of = |config: &Config| {
        assert!(reload(&gate, config));
        let before = gate.log().len();
        for _ in 0..2 {
            assert_eq!(gate.get("/x").status, 200);
        }
        // An event of the level `debug`: the connection ends before its first request.
        let mut conn = gate.connect();
        conn.send("PRI").end();
        conn.ends().unwrap();
        // Lines are written in order, so all lines before this one are there.
        let signals = gate.log().matches("is in force").count();
        assert!(hangup(&gate));
        wait_until("the next reload is logged", Duration::from_secs(5), || {
            config.text().contains("warn") || gate.log().matches("is in force").count() > signals
        });
        gate.log()[before..].to_owned()
    };
    let requests = |lines: &str| lines.lines().filter(|line| line.contains("/x")).count();
    let json = lines_of(&first);
    assert!(requests(&json) >= 2 && json.contains("\"level\":\"INFO\""), "{json}");
    let text = lines_of(&first.clone().log("format = \"text\""));
    assert!(requests(&text) >= 2 && !text.contains("\"level\""), "{text}");
    assert!(!lines_of(&first.clone().log("level = \"warn\"")).contains("INFO"));
    let debug = lines_of(&first.clone().log("level = \"debug\""));
    assert!(debug.contains("DEBUG"), "{debug}");
    assert!(!lines_of(&first).contains("DEBUG"));
}

#[test]
fn a_token_of_a_removed_key_is_refused_by_the_next_request() {
    let upstream = RecordingUpstream::start();
    let (old, new) = (
        Signer::new(Algorithm::ES256).kid("old"),
        Signer::new(Algorithm::ES256).kid("new"),
    );
    let with = |keys: &[String]| {
        config()
            .app(&upstream)
            .file("old.pem", old.file())
            .file("new.pem", new.file())
            .jwt("cache = { ttl = \"1h\" }")
            .jwt("users = \"none\"")
            .jwt(&format!("keys = [{}]", keys.join(", ")))
            .route("/x", "authenticate = [\"jwt\"]")
    };
    let (old_key, new_key) = (old.key("old.pem"), new.key("new.pem"));
    let gate = Gate::start(&with(std::slice::from_ref(&old_key)));
    let (mut conn, mut h2) = (gate.connect(), H2::connect(&gate));
    let mut statuses = |signer: &Signer| {
        let call = get("/x").bearer(&signer.access());
        let first = (conn.call(&call).status, h2.call(&call).status);
        // The second one is cached.
        assert_eq!((conn.call(&call).status, h2.call(&call).status), first);
        first
    };
    let (yes, no) = ((200, 200), (401, 401));
    assert_eq!((statuses(&old), statuses(&new)), (yes, no));
    assert!(reload(&gate, &with(&[old_key, new_key.clone()])));
    assert_eq!((statuses(&old), statuses(&new)), (yes, yes));
    assert!(reload(&gate, &with(&[new_key])));
    assert_eq!((statuses(&old), statuses(&new)), (no, yes));
}

#[test]
fn a_changed_secret_is_reported_and_not_shown() {
    let upstream = RecordingUpstream::start();
    let with = |password: &str| {
        let url = format!("redis://:canary-{password}@127.0.0.1:1");
        let store = format!("[stores.other]\nkind = \"redis\"\nurl = \"{url}\"\n");
        config().app(&upstream).public("/x").tables(&store)
    };
    let gate = Gate::spawn(&with("old"));
    assert!(reload(&gate, &with("new")));
    // The end of the test checks that the log has no credential.
    gate.logged(&["is in force", "stores.other.url: changed\""]);
}

#[test]
fn a_changed_password_file_of_a_store_is_reported() {
    let upstream = RecordingUpstream::start();
    let store =
        "[stores.other]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:1\"\npassword = { file = \"redis.secret\" }\n";
    let with = |password: &str| {
        let config = config().server("watch = \"off\"").app(&upstream).public("/x");
        config.tables(store).file("redis.secret", password)
    };
    let gate = Gate::spawn(&with("canary-old"));
    assert!(reload(&gate, &with("canary-new")));
    gate.logged(&["is in force", "stores.other.password"]);
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_blocks_nothing() {
    let upstream = RecordingUpstream::start();
    let config = || config().server("watch = \"off\"").app(&upstream);
    let gate = Gate::start(&config().public("/x"));
    let pipe = Command::new("mkfifo").arg(gate.folder.path().join("pipe")).status();
    assert!(pipe.expect("mkfifo").success());
    let value = "secret_header = { name = \"X-Gateway-Secret\", value = { file = \"pipe\" } }";
    assert!(!reload(&gate, &config().with(value).public("/x")));
    gate.logged(&["pipe", "it is not a regular file"]);
    assert!(reload(&gate, &config().public("/x").public("/y")));
}

#[test]
fn a_command_is_answered_with_the_changes_or_every_problem() {
    let upstream = RecordingUpstream::start();
    let first = config().app(&upstream).public("/x");
    let gate = Gate::start(&first);
    let command = || {
        let call = post("/reload", "").header("X-Authgate-Command", "reload");
        gate.ask_admin(&call.host("127.0.0.1"))
    };
    let status = || gate.probe("/status.json").json()["configuration"].clone();
    first.clone().public("/new").write(gate.folder.path());
    let reply = command();
    assert_eq!(
        (reply.status, &reply.json()["changes"][0]),
        (200, &"routes[1]: added".into())
    );
    assert_eq!(gate.get("/new").status, 200);
    assert_eq!(status()["changes"][0], "routes[1]: added");

    let broken = first
        .server("workers = 3")
        .limits("headers = 0")
        .limits("boddy_bytes = 1");
    broken.write(gate.folder.path());
    let reply = command();
    assert_eq!(reply.status, 422);
    let keys = |problems: &Value| -> Vec<String> {
        let problems = problems.as_array().unwrap().iter();
        problems
            .map(|problem| problem["key"].as_str().unwrap().to_owned())
            .collect()
    };
    let problems = &reply.json()["problems"];
    assert_eq!(keys(problems), ["server.limits.headers", "server.limits.boddy_bytes"]);
    assert_eq!(status()["refused"]["problems"], *problems);
    assert_eq!(gate.get("/new").status, 200);
}

#[test]
fn no_request_fails_while_the_file_and_the_certificate_change() {
    let (redis, pki) = (Redis::start().with_ada(), Pki::new());
    let (one, two) = (RecordingUpstream::named("1"), RecordingUpstream::named("2"));
    one.answers(echo);
    two.answers(echo);
    let with = |app: &RecordingUpstream| {
        let config = config().redis(&redis).token("").app(app);
        config
            // Otherwise it may read a certificate before the test has written its key.
            .server("watch = \"off\"")
            .protected("/common")
            .protected("/ws")
            .tls(&pki, &[&["localhost"]])
    };
    let (mut first, mut second) = (with(&one), with(&two).limits("headers = 50").public("/second"));
    let gate = Gate::start(&first);
    let mut load = Load::default();
    for _ in 0..2 {
        load.http1(gate.connect());
        load.http2(H2::connect(&gate));
    }
    load.websocket_http1(gate.connect());
    load.websocket_http2(H2::connect(&gate));
    let certificate = |gate: &Gate| {
        let mut conn = gate.connect();
        assert_eq!(conn.call(&get("/common").token("canary-ada")).status, 200);
        conn.session().peer_certificates().unwrap()[0].clone()
    };
    for number in 0..70 {
        if number % 7 < 2 {
            let before = certificate(&gate);
            (first, second) = (first.tls(&pki, &[&["localhost"]]), second.tls(&pki, &[&["localhost"]]));
            assert!(reload(&gate, if number % 2 == 0 { &first } else { &second }));
            assert_ne!(certificate(&gate), before);
        } else {
            assert!(reload(&gate, if number % 2 == 0 { &first } else { &second }));
        }
        assert_eq!(gate.get("/second").status, if number % 2 == 0 { 404 } else { 200 });
    }
    assert!(load.stop() > 100);
    assert_eq!(reloads(&gate), (70.0, 0.0));
}

#[test]
fn two_hundred_reloads_leave_descriptors_and_memory_flat() {
    let (redis, other, pki) = (Redis::start().with_ada(), Redis::start().with_ada(), Pki::new());
    let upstream = RecordingUpstream::start();
    let with = |redis: &Redis| {
        let config = config().redis(redis).token("").app(&upstream).protected("/x");
        config.tls(&pki, &[&["localhost"]])
    };
    let listen = "listen = [\"127.0.0.1:0\", \"unix:more.sock\"]";
    let (first, second) = (with(&redis), with(&other).server(listen).public("/more"));
    let gate = Gate::start(&first);
    let mut conn = gate.connect();
    let mut turns = |count: usize| {
        for number in 0..count {
            assert!(reload(&gate, if number % 2 == 0 { &second } else { &first }));
            assert_eq!(conn.call(&get("/x").token("canary-ada")).status, 200);
        }
        upstream.close_connections();
    };
    turns(20);
    let (sockets, memory) = (gate.sockets(), gate.memory());
    turns(200);
    wait_until("descriptors are returned", Duration::from_secs(10), || {
        gate.sockets() <= sockets + 2
    });
    let grown = gate.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

/// Sends a request over both versions of HTTP on connections that were made before a change: each is refused with 421, or the connection has
/// ended before it.
fn are_refused(mut conn: Conn, mut h2: H2) {
    let reply = conn.call(&get("/x"));
    assert_eq!((reply.status, reply.header("connection")), (421, Some("close")));
    conn.ends().unwrap();
    let sent = h2.sender.send_request(h2.request(&get("/x")));
    if let Ok(response) = h2.runtime.block_on(sent) {
        assert_eq!(response.status(), 421);
    }
    wait_until("the client has received GOAWAY", Duration::from_secs(5), || {
        h2.sender.is_closed() || h2.runtime.block_on(h2.sender.ready()).is_err()
    });
}

#[test]
fn connections_that_were_made_under_other_client_auth_take_no_more_requests() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let open = config().app(&upstream).public("/x").tls(&pki, &[&["localhost"]]);
    let open = open.file("clients.pem", pki.root_pem());
    let required = open
        .clone()
        .tls_line("client_auth = { mode = \"required\", ca = \"clients.pem\" }");
    let gate = Gate::start(&open);
    let connect = |client: ClientConfig| Conn::tls(gate.address, "localhost", client);
    let with_certificate = |alpn: &str| pki.client_as(Some(&pki), &[alpn]);
    let (mut conn, mut h2) = (gate.connect(), H2::connect(&gate));
    assert_eq!((conn.call(&get("/x")).status, h2.call(&get("/x")).status), (200, 200));
    // A session of this client is not resumed.
    let client = pki.client(&["http/1.1"], &[&rustls::version::TLS13]);
    assert_eq!(connect(client.clone()).unwrap().call(&get("/x")).status, 200);

    assert!(reload(&gate, &required));
    are_refused(conn, h2);
    gate.logged(&["outdated_connection", "421"]);
    let mut late = connect(client).expect("half a handshake");
    late.send(get("/x").bytes());
    assert!(late.try_reply("GET").is_err(), "without a certificate");
    let mut conn = connect(with_certificate("http/1.1")).unwrap();
    let mut h2 = H2::connect_as(&gate, with_certificate("h2"));
    assert_eq!((conn.call(&get("/x")).status, h2.call(&get("/x")).status), (200, 200));
    // Another change leaves them open.
    assert!(reload(&gate, &required.clone().public("/new")));
    assert_eq!(
        (conn.call(&get("/new")).status, h2.call(&get("/new")).status),
        (200, 200)
    );
    assert!(reload(&gate, &open));
    are_refused(conn, h2);
}

#[test]
fn connections_below_a_raised_min_version_take_no_more_requests() {
    use rustls::version::{TLS12, TLS13};
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    // The same ticket keys before and after the change: they alone would let sessions go on.
    let low = config().app(&upstream).public("/x").tls(&pki, &[&["localhost"]]);
    let low = low
        .file("tickets.keys", "YWFh".repeat(26) + "YWE=\n")
        .tls_line("tickets = { file = \"tickets.keys\" }");
    let high = low.clone().tls_line("min_version = \"1.3\"");
    let gate = Gate::start(&low);
    let client = |alpn: &str, version| pki.client(&[alpn], &[version]);
    let connect = |client: ClientConfig| Conn::tls(gate.address, "localhost", client);
    let (old, new) = (client("http/1.1", &TLS12), client("http/1.1", &TLS13));
    let mut conns = [&old, &new].map(|client| connect(client.clone()).unwrap());
    let mut h2s = [&TLS12, &TLS13].map(|version| H2::connect_as(&gate, client("h2", version)));
    let statuses = |conns: &mut [Conn], h2s: &mut [H2]| {
        let http1 = conns.iter_mut().map(|conn| conn.call(&get("/x")).status);
        let h2 = h2s.iter_mut().map(|h2| h2.call(&get("/x")).status);
        http1.chain(h2).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&mut conns, &mut h2s), [200; 4]);

    assert!(reload(&gate, &high));
    let ([old_conn, mut new_conn], [old_h2, mut new_h2]) = (conns, h2s);
    are_refused(old_conn, old_h2);
    assert!(connect(old).is_err(), "its session is not resumed");
    let mut resumed = connect(new).unwrap();
    assert_eq!(resumed.call(&get("/x")).status, 200);
    assert_eq!(resumed.session().handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    // Connections of the new minimum drain, and lose no request.
    assert_eq!(new_conn.call(&get("/x")).status, 200);
    let reply = new_h2.call_unless_goaway(&get("/x")).unwrap();
    assert_eq!(reply.map_or(200, |reply| reply.status), 200);
    // A lower minimum leaves connections open.
    let (mut conns, mut h2s) = ([resumed], [H2::connect_as(&gate, client("h2", &TLS13))]);
    assert_eq!(statuses(&mut conns, &mut h2s), [200; 2]);
    for _ in 0..2 {
        assert!(reload(&gate, &low));
        assert_eq!(statuses(&mut conns, &mut h2s), [200; 2]);
    }
}

#[test]
fn connections_without_tls_take_no_more_requests_once_it_is_on() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let cleartext = config().app(&upstream).public("/x");
    let gate = Gate::start(&cleartext);
    let (mut conn, mut h2) = (gate.connect(), H2::connect(&gate));
    assert_eq!((conn.call(&get("/x")).status, h2.call(&get("/x")).status), (200, 200));
    assert!(reload(&gate, &cleartext.tls(&pki, &[&["localhost"]])));
    are_refused(conn, h2);
    gate.logged(&["outdated_connection", "421"]);
    let client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let mut conn = Conn::tls(gate.address, "localhost", client).unwrap();
    assert_eq!(conn.call(&get("/x")).status, 200);
}
