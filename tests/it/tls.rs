//! TLS as clients meet it.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::version::{TLS12, TLS13};

use crate::harness::h2::H2;
use crate::harness::h2server::{Answer, H2Server};
use crate::harness::pki::{Pki, self_signed, server_showing, show, show_with};
use crate::harness::program::authgate;
use crate::harness::{Config, Conn, Gate, RecordingUpstream, config, get, wait_until};

fn public(upstream: &RecordingUpstream, pki: &Arc<Pki>) -> Config {
    config().app(upstream).public("/*").tls(
        pki,
        &[&["localhost", "one.example"], &["two.example", "*.wild.example"]],
    )
}

#[test]
fn both_versions_and_both_protocols_are_spoken() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki));
    for version in [&TLS12, &TLS13] {
        let mut conn = Conn::tls(gate.address, "localhost", pki.client(&["http/1.1"], &[version])).unwrap();
        assert_eq!(conn.session().protocol_version(), Some(version.version));
        assert_eq!(conn.session().alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(conn.call(&get("/x")).status, 200);
        assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
    }
    let mut without = Conn::tls(gate.address, "localhost", pki.client(&[], rustls::ALL_VERSIONS)).unwrap();
    assert_eq!(without.call(&get("/x")).status, 200);
    assert_eq!(H2::connect(&gate).call(&get("/x")).status, 200);
    assert!(Conn::tls(gate.address, "localhost", pki.client(&["spdy/3"], rustls::ALL_VERSIONS)).is_err());
}

#[test]
fn a_connection_that_agreed_on_h2_never_speaks_http1() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki));
    let mut conn = Conn::tls(gate.address, "localhost", pki.client(&["h2"], rustls::ALL_VERSIONS)).unwrap();
    let _ = conn.wire.write(&get("/x").bytes());
    let mut answer = Vec::new();
    let _ = conn.wire.stream.read_to_end(&mut answer);
    assert!(
        !answer.windows(4).any(|four| four == b"HTTP"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn cleartext_http2_needs_no_upgrade() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    assert_eq!(H2::connect(&gate).call(&get("/x")).status, 200);
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
}

#[test]
fn sni_chooses_and_the_first_is_for_all_others() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki));
    for (name, good) in [
        ("one.example", true),
        ("two.example", true),
        ("a.wild.example", true),
        ("localhost", true),
        ("a.b.wild.example", false),
        ("other.example", false),
    ] {
        let shaken = Conn::tls(gate.address, name, pki.client(&["http/1.1"], rustls::ALL_VERSIONS));
        assert_eq!(shaken.is_ok(), good, "{name}: {:?}", shaken.err());
    }
}

#[test]
fn the_oldest_version_can_be_raised() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki).tls_line("min_version = \"1.3\""));
    assert!(Conn::tls(gate.address, "localhost", pki.client(&["http/1.1"], &[&TLS12])).is_err());
    assert!(Conn::tls(gate.address, "localhost", pki.client(&["http/1.1"], &[&TLS13])).is_ok());
}

#[test]
fn sessions_are_resumed_by_any_worker_and_without_early_data() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki).server("workers = 3"));
    for version in [&TLS12, &TLS13] {
        let mut client = pki.client(&["http/1.1"], &[version]);
        client.enable_early_data = true;
        for at in 0..8 {
            let mut conn = Conn::tls(gate.address, "localhost", client.clone()).unwrap();
            assert_eq!(conn.call(&get("/x")).status, 200);
            let resumed = conn.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, at > 0, "connection {at}");
            assert!(!conn.session().is_early_data_accepted());
        }
    }
    gate.metric_reaches("authgate_tls_handshakes_total{outcome=\"resumed\"}", 14.0);
}

#[test]
fn a_client_that_does_not_shake_hands_is_let_go() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream, &pki).limits("tls_handshake_timeout = \"300ms\""));
    let mut tcp = TcpStream::connect(gate.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(tcp.read(&mut [0; 1]), Ok(0)));
    // The socket is closed a moment before it is counted.
    wait_until("it is counted", Duration::from_secs(5), || {
        gate.metric("authgate_tls_handshakes_total{outcome=\"timeout\"}") >= 1.0
    });
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// What a client gets that connects anew: whether it was served, and whether its session was resumed.
fn served(gate: &Gate, client: &rustls::ClientConfig) -> (bool, bool) {
    let Ok(mut conn) = Conn::tls(gate.address, "localhost", client.clone()) else {
        return (false, false);
    };
    let _ = conn.wire.write(&get("/x").bytes());
    let reply = conn.try_reply("GET").ok().flatten();
    let resumed = conn.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    (reply.is_some_and(|reply| reply.status == 200), resumed)
}

#[test]
fn a_client_certificate_that_has_ended_does_not_pass_by_resumption() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let config = public(&upstream, &pki).file("clients.pem", pki.root_pem());
    for mode in ["required", "optional"] {
        let line = format!("client_auth = {{ mode = \"{mode}\", ca = \"clients.pem\" }}");
        let gate = Gate::start(&config.clone().tls_line(&line));
        let until = unix_now() + 4;
        let clients = [&TLS12, &TLS13].map(|version| {
            let mut client = pki.client(&["http/1.1"], &[version]);
            show(&mut client, pki.leaf_until(&["client.example"], until));
            assert_eq!(served(&gate, &client), (true, false), "{mode}: the first time");
            assert_eq!(served(&gate, &client), (true, true), "{mode}: by resumption");
            client
        });
        // A connection that is open lives no longer than the certificate.
        let mut open = Conn::tls(gate.address, "localhost", clients[0].clone()).expect("a handshake");
        for client in &clients {
            wait_until("the certificate passes no longer", Duration::from_secs(20), || {
                !served(&gate, client).0
            });
            assert!(unix_now() > until, "{mode}: it has passed to its end");
        }
        assert!(open.wire.closes(), "{mode}: it ends with the certificate");
        let mut valid = pki.client(&["http/1.1"], &[&TLS13]);
        show(&mut valid, pki.leaf(&["client.example"]));
        assert_eq!(served(&gate, &valid), (true, false));
        assert_eq!(
            served(&gate, &valid),
            (true, true),
            "{mode}: certificates that are valid resume"
        );
    }
}

#[test]
fn an_unreadable_extra_certificate_does_not_lift_the_expiry_of_a_client() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let config = public(&upstream, &pki).file("clients.pem", pki.root_pem());
    let gate = Gate::start(&config.tls_line("client_auth = { mode = \"required\", ca = \"clients.pem\" }"));
    let until = unix_now() + 4;
    let open = [&TLS12, &TLS13].map(|version| {
        let mut client = pki.client(&["http/1.1"], &[version]);
        show_with(
            &mut client,
            pki.leaf_until(&["client.example"], until),
            &[b"x", &[0x30, 0x03, 2, 1, 1]],
        );
        let mut full = Conn::tls(gate.address, "localhost", client.clone()).expect("a handshake");
        assert_eq!(full.call(&get("/x")).status, 200);
        assert_eq!(served(&gate, &client), (true, true), "its session has the same expiry");
        let resumed = Conn::tls(gate.address, "localhost", client.clone()).expect("a handshake");
        (client, full, resumed)
    });
    for (client, mut full, mut resumed) in open {
        assert!(
            full.wire.closes() && resumed.wire.closes(),
            "they end with the certificate"
        );
        assert!(unix_now() >= until, "and not before");
        wait_until(
            "the certificate is not accepted any more",
            Duration::from_secs(20),
            || !served(&gate, &client).0,
        );
    }
}

#[test]
fn a_client_certificate_without_a_readable_expiry_is_refused() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let config = public(&upstream, &pki).file("clients.pem", pki.root_pem());
    for mode in ["required", "optional"] {
        let line = format!("client_auth = {{ mode = \"{mode}\", ca = \"clients.pem\" }}");
        let gate = Gate::start(&config.clone().tls_line(&line));
        for version in [&TLS12, &TLS13] {
            let mut client = pki.client(&["http/1.1"], &[version]);
            show(&mut client, pki.leaf_with_unreadable_subject());
            assert_eq!(served(&gate, &client), (false, false), "{mode}");
        }
        assert_eq!(upstream.calls(), 0);
        wait_until("both are counted", Duration::from_secs(5), || {
            gate.metric("authgate_tls_handshakes_total{outcome=\"failed\"}") == 2.0
        });
    }
}

/// A file of ticket keys, the first one first.
fn ticket_keys(fills: &[u8]) -> String {
    let lines = fills.iter().map(|fill| BASE64.encode([*fill; 80]) + "\n");
    lines.collect()
}

/// A client of each version that has a session with this gateway.
fn clients_with_a_session(gate: &Gate, pki: &Pki) -> [rustls::ClientConfig; 2] {
    [&TLS12, &TLS13].map(|version| {
        let mut client = pki.client(&["http/1.1"], &[version]);
        show(&mut client, pki.leaf(&["client.example"]));
        assert_eq!(served(gate, &client), (true, false), "the first time");
        client
    })
}

#[test]
fn gateways_with_the_same_ticket_keys_resume_sessions_of_each_other() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let base = public(&upstream, &pki);
    let start = |keys: &[u8]| {
        let config = base.clone().file("tickets.keys", ticket_keys(keys));
        Gate::start(&config.tls_line("tickets = { file = \"tickets.keys\" }"))
    };
    let (old, rotated, without_old) = (start(&[1]), start(&[2, 1]), start(&[2]));
    for client in clients_with_a_session(&old, &pki) {
        assert_eq!(served(&rotated, &client), (true, true), "the old key still decrypts");
        assert_eq!(served(&without_old, &client), (true, true), "the new key had encrypted");
    }
    for client in clients_with_a_session(&old, &pki) {
        assert_eq!(
            served(&without_old, &client),
            (true, false),
            "without the key: a full handshake"
        );
        assert_eq!(served(&rotated, &client), (true, true));
    }
}

#[test]
fn sessions_that_were_begun_under_other_settings_are_not_resumed() {
    let (upstream, pki, others) = (RecordingUpstream::start(), Pki::new(), Pki::new());
    let base = public(&upstream, &pki)
        .file("clients.pem", pki.root_pem())
        .file("both.pem", pki.root_pem() + &others.root_pem())
        .file("tickets.keys", ticket_keys(&[1]))
        .tls_line("tickets = { file = \"tickets.keys\" }");
    let mode = |mode: &str, ca: &str| {
        let line = format!("client_auth = {{ mode = \"{mode}\", ca = \"{ca}\" }}");
        Gate::start(&base.clone().tls_line(&line))
    };
    let gates = [
        Gate::start(&base),
        mode("optional", "clients.pem"),
        mode("required", "clients.pem"),
        mode("required", "both.pem"),
        // The same names, and another certificate.
        Gate::start(
            &public(&upstream, &pki)
                .file("tickets.keys", ticket_keys(&[1]))
                .tls_line("tickets = { file = \"tickets.keys\" }"),
        ),
    ];
    for (from, gate) in gates.iter().enumerate() {
        for (to, other) in gates.iter().enumerate() {
            for client in clients_with_a_session(gate, &pki) {
                assert_eq!(served(other, &client), (true, from == to), "from {from} to {to}");
            }
        }
    }
}

#[test]
fn a_client_whose_certificate_is_refused_can_read_why() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(
        &public(&upstream, &pki)
            .file("clients.pem", pki.root_pem())
            .tls_line("client_auth = { mode = \"optional\", ca = \"clients.pem\" }"),
    );
    let mut client = pki.client(&["http/1.1"], &[&TLS13]);
    show(&mut client, pki.leaf_until(&["client.example"], unix_now() - 10));
    // A client of TLS 1.3 is through with its handshake before its certificate is looked at.
    let mut conn = Conn::tls(gate.address, "localhost", client).expect("half a handshake");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        conn.wire
            .write(&get("/x").bytes())
            .expect("what comes late is read, and not reset");
    }
    let error = conn.try_reply_strictly().expect_err("no answer").to_string();
    assert!(error.contains("CertificateExpired"), "{error}");
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn streams_end_with_the_certificate_of_their_client() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(
        &public(&upstream, &pki)
            .file("clients.pem", pki.root_pem())
            .tls_line("client_auth = { mode = \"required\", ca = \"clients.pem\" }"),
    );
    let mut client = pki.client(&["h2"], rustls::ALL_VERSIONS);
    show(&mut client, pki.leaf_until(&["client.example"], unix_now() + 3));
    let mut h2 = H2::connect_as(&gate, client);
    assert_eq!(h2.call(&get("/x")).status, 200);
    wait_until("the connection is closed", Duration::from_secs(20), || {
        h2.sender.is_closed()
    });
}

#[test]
fn the_certificate_of_a_server_is_accepted_where_it_stands_in_its_ca_itself() {
    let pki = Pki::new();
    let url = |server: &H2Server| server.url().replace("127.0.0.1", "localhost");
    // Of what the log says where there is no answer, these words.
    let answers = |shown: &(String, String), ca: &str, more: &str, words: Option<&str>| {
        let server = H2Server::start(Some(server_showing(shown)), |_, _| Answer::ok("ok".to_owned()));
        let config = config()
            .file("ca.pem", ca)
            .upstream("app", &[url(&server)])
            .with(&format!("tls = {{ ca = \"ca.pem\"{more} }}"))
            .public("/*");
        let gate = Gate::start(&config);
        assert_eq!(gate.get("/x").status, if words.is_some() { 502 } else { 200 });
        if let Some(words) = words {
            gate.logged(&["upstream_unreachable", words]);
        }
    };
    for shown in [
        self_signed(&["localhost"], true),
        self_signed(&["localhost"], false),
        pki.leaf(&["localhost"]),
    ] {
        answers(&shown, &shown.0, "", None);
        let other_name = ", server_name = \"other.example\"";
        answers(&shown, &shown.0, other_name, Some("not valid for name"));
    }
    let one = pki.leaf(&["localhost"]);
    answers(&pki.leaf(&["localhost"]), &one.0, "", Some("UnknownIssuer"));
    let ended = pki.leaf_until(&["localhost"], unix_now() - 1);
    answers(&ended, &ended.0, "", Some("expired"));
    let authority = self_signed(&["localhost"], true);
    answers(&authority, &one.0, "", Some("write that certificate in `tls.ca`"));
}

/// As `openssl x509 -req` makes one where it gets no extensions.
const VERSION_1: [&str; 2] = [
    "\
-----BEGIN CERTIFICATE-----
MIIBIzCBywIUImAj2uClk7qM1cBMGbaNi7L+HVgwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODA2MTI0NloYDzIxMjYxMTA0MDYxMjQ2
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAToVOvT+Quy/IBxnsupWfwkuiO6+6taBpFQUeb3iOmV3tGhCBUnhHgV+M8mJ66k
QP5E87WwusgfpIzl4C2RAploMAoGCCqGSM49BAMCA0cAMEQCIDtk7rBwEkP3ZrYv
q0QyIzBHWi4RnTNYojTMqTqpaFvEAiAp4aMRXgJcovGXQqdd0epfkX7nJkb1D0/C
HEmL7WLNcA==
-----END CERTIFICATE-----
",
    "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgALMWsMtu+MbExF4K
PIlILrUArFvuTosp+xq4izqjQsChRANCAAToVOvT+Quy/IBxnsupWfwkuiO6+6ta
BpFQUeb3iOmV3tGhCBUnhHgV+M8mJ66kQP5E87WwusgfpIzl4C2RAplo
-----END PRIVATE KEY-----
",
];

#[test]
fn a_certificate_that_is_wrong_itself_is_not_said_to_have_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let [certificate, key] = VERSION_1;
    write("server.pem", certificate);
    write("server.key", key);
    let text = config().tables(
        "[server.tls]\ncertificates = [{ chain = \"server.pem\", key = \"server.key\" }]\n\
         [upstreams.app]\nservers = [\"http://127.0.0.1:9\"]",
    );
    write("gateway.toml", &text.public("/*").text());
    let ended = authgate(folder.path(), &["check"]);
    for words in ["version 1", "sign it as version 3", "server.pem"] {
        assert!(ended.code == 2 && ended.err.contains(words), "{words}: {}", ended.err);
    }
    assert!(!ended.err.contains("belongs to no certificate"), "{}", ended.err);
    let (other, _) = Pki::new().leaf(&["localhost"]);
    write("server.pem", &other);
    let ended = authgate(folder.path(), &["check"]);
    assert!(
        ended.code == 2 && ended.err.contains("belongs to no certificate"),
        "{}",
        ended.err
    );
}
