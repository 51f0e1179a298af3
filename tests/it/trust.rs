//! Whose word counts: proxies in front, certificates on both sides; and how many requests there may be at once.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::{Call, Config, Conn, Gate, RecordingUpstream, config, get};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

fn forwarded_request() -> Call {
    get("/x")
        .header("X-Forwarded-For", "198.51.100.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.example")
        .header("X-Forwarded-User", "1")
        .header("Forwarded", "for=198.51.100.9")
        .header("X-Real-IP", "198.51.100.9")
        .header("X-Request-Id", "id-of-the-balancer")
}

#[test]
fn forwarding_fields_of_peers_that_are_not_trusted_are_ignored() {
    let upstream = RecordingUpstream::start();
    for trusted in ["[]", "[\"10.0.0.0/8\", \"::1\"]"] {
        let gate = Gate::start(&public(&upstream).server(&format!("trusted_proxies = {trusted}")));
        assert_eq!(gate.call(&forwarded_request()).status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
        assert_ne!(seen.header("x-request-id"), Some("id-of-the-balancer"));
        assert_eq!(gate.requests(1)[0]["client.ip"], "127.0.0.1");
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_appended() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("trusted_proxies = [\"127.0.0.0/8\"]"));
    assert_eq!(gate.call(&forwarded_request()).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.9, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("x-request-id"), Some("id-of-the-balancer"));
    for name in ["x-forwarded-user", "forwarded", "x-real-ip"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let event = &gate.requests(1)[0];
    assert_eq!(
        (&event["client.ip"], &event["request.id"]),
        (&"198.51.100.9".into(), &"id-of-the-balancer".into())
    );
}

#[test]
fn of_a_list_of_a_trusted_proxy_the_last_value_counts_and_what_is_not_used_is_logged() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("trusted_proxies = [\"127.0.0.0/8\"]"));
    let sent = |name: &str, lines: &[&str]| {
        let call = lines.iter().fold(get("/x"), |call, line| call.header(name, *line));
        assert_eq!(gate.call(&call).status, 200);
        upstream.last().header(name).unwrap_or_default().to_owned()
    };
    for lines in [
        &["https,https"][..],
        &["http, https"],
        &["HTTPS"],
        &["http", "https"],
        &["https,"],
    ] {
        assert_eq!(sent("X-Forwarded-Proto", lines), "https", "{lines:?}");
    }
    assert_eq!(sent("X-Forwarded-Proto", &["https, http"]), "http");
    assert_eq!(
        sent("X-Forwarded-Host", &["a.example", "b.example, shop.example:8443"]),
        "shop.example:8443"
    );
    assert_eq!(sent("X-Request-Id", &["one, two", "three"]), "three");
    let quiet = gate.log();
    assert!(!quiet.contains("is not used"), "{quiet}");
    for (name, bad) in [
        ("X-Forwarded-Proto", "wss"),
        ("X-Forwarded-Host", "bad@host"),
        ("X-Forwarded-For", "not-an-address"),
        ("X-Forwarded-Port", "99999"),
        ("X-Request-Id", "bad id"),
    ] {
        for _ in 0..20 {
            sent(name, &[bad]);
        }
        // Not once a request, and not what it was: that may be a client's word.
        gate.logged(&["a field of a trusted proxy is ignored", name]);
        let log = gate.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("\"{name}\"")))
            .collect();
        assert!((1..20).contains(&lines.len()), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains(bad)), "{lines:?}");
    }
}

#[test]
fn the_address_and_the_port_of_a_client_are_sent_where_the_file_asks_for_them() {
    let upstream = RecordingUpstream::start();
    let forwarded_request = || {
        get("/x")
            .host("api.example:8443")
            .header("X-Real-IP", "198.51.100.9")
            .header("X-Forwarded-Port", "1")
            .header("X-Forwarded-For", "198.51.100.9")
    };
    let fields = || {
        let seen = upstream.last();
        let field = |name: &str| seen.header(name).map(str::to_owned);
        (field("x-real-ip"), field("x-forwarded-port"))
    };
    let pair = |ip: &str, port: &str| (Some(ip.to_owned()), Some(port.to_owned()));
    let gate = Gate::start(&public(&upstream));
    gate.call(&forwarded_request());
    assert_eq!(fields(), (None, None), "neither is sent unasked");
    let both = public(&upstream).tables("[forwarded]\nreal_ip = true\nport = true");
    let gate = Gate::start(&both);
    gate.call(&forwarded_request());
    assert_eq!(fields(), pair("127.0.0.1", "8443"));
    gate.call(&get("/x"));
    assert_eq!(fields(), pair("127.0.0.1", "80"));
    let gate = Gate::start(&both.clone().server("trusted_proxies = [\"127.0.0.0/8\"]"));
    gate.call(&forwarded_request());
    assert_eq!(fields(), pair("198.51.100.9", "1"));
    gate.call(&get("/x").header("X-Forwarded-Proto", "https"));
    assert_eq!(fields(), pair("127.0.0.1", "443"));
}

#[test]
fn the_proxy_protocol_is_read_from_trusted_proxies() {
    let upstream = RecordingUpstream::start();
    let pki = Pki::new();
    let on = "trusted_proxies = [\"127.0.0.1\"]";
    let gate = Gate::start(&public(&upstream).server(on).server("proxy_protocol = true"));
    for (header, client) in [
        (&b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n"[..], "192.0.2.1"),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x02\x13\x88\x01\xbb",
            "192.0.2.7",
        ),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut conn = Conn::plain(gate.address);
        conn.send(header);
        assert_eq!(conn.call(&forwarded_request()).status, 200);
        let seen = upstream.last();
        // The balancer is trusted to say who connects, not for what the bytes behind its header say of themselves.
        assert_eq!(seen.header("x-forwarded-for"), Some(client));
        assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
    }
    for bad in [
        &b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"PROXY TCP9 x\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut conn = Conn::plain(gate.address);
        conn.send(bad);
        assert!(conn.wire.closes());
    }
    let before = upstream.calls();
    // From others it is no header, but a request that cannot be read.
    let gate = Gate::start(
        &public(&upstream)
            .server("trusted_proxies = [\"10.0.0.1\"]")
            .server("proxy_protocol = true"),
    );
    let mut conn = gate.connect();
    conn.send("PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(conn.reply().status, 400);
    assert_eq!(upstream.calls(), before);
    assert_eq!(gate.get("/x").status, 200);
    // Before TLS too.
    let config = public(&upstream)
        .server(on)
        .server("proxy_protocol = true")
        .tls(&pki, &[&["localhost"]]);
    let gate = Gate::start(&config);
    let mut tcp = std::net::TcpStream::connect(gate.address).unwrap();
    tcp.write_all(b"PROXY TCP6 2001:db8::9 2001:db8::2 5000 443\r\n")
        .unwrap();
    let mut conn = Conn::tls_over(tcp, "localhost", pki.client(&["http/1.1"], rustls::ALL_VERSIONS)).unwrap();
    assert_eq!(conn.call(&get("/x")).status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("2001:db8::9"));
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&public(&upstream).tls(
        &pki,
        &[
            &["localhost", "one.example"],
            &["two.example", "*.two.example"],
            &["deep.two.example"],
        ],
    ));
    let over = |sni: &str, host: &str| {
        let client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
        Conn::tls(gate.address, sni, client)
            .unwrap()
            .call(&get("/x").host(host))
    };
    for (sni, host, status) in [
        ("localhost", "localhost", 200),
        ("localhost", "One.Example.:8443", 200),
        ("localhost", "nobodys.example", 200),
        ("localhost", "two.example", 421),
        ("localhost", "a.two.example", 421),
        ("two.example", "a.two.example", 200),
        ("two.example", "localhost", 421),
        // Its own certificate is another one, but the one that was shown holds it too.
        ("two.example", "deep.two.example", 200),
        ("deep.two.example", "two.example", 421),
    ] {
        let reply = over(sni, host);
        assert_eq!(reply.status, status, "{sni} {host}");
        if status == 421 {
            assert_eq!(reply.detail(), "Misdirected request.");
        }
    }
    let mut h2 = H2::connect(&gate);
    assert_eq!(h2.call(&get("/x").host("two.example")).status, 421);
    assert_eq!(h2.call(&get("/x").host("one.example")).status, 200);
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (upstream, pki, other) = (RecordingUpstream::start(), Pki::new(), Pki::new());
    for (mode, without) in [("optional", true), ("required", false)] {
        let config = public(&upstream)
            .tls(&pki, &[&["localhost"]])
            .file("ca.pem", pki.root_pem())
            .tls_line(&format!("client_auth = {{ mode = \"{mode}\", ca = \"ca.pem\" }}"));
        let gate = Gate::start(&config);
        let call = |identity: Option<&Pki>| {
            let client = pki.client_as(identity, &["http/1.1"]);
            let mut conn = Conn::tls(gate.address, "localhost", client).ok()?;
            conn.send(get("/x").bytes());
            conn.try_reply("GET").ok()?.map(|reply| reply.status)
        };
        assert_eq!(call(Some(&pki)), Some(200), "{mode}");
        assert_eq!(call(None), without.then_some(200), "{mode}");
        assert_eq!(call(Some(&other)), None, "{mode}: a certificate of another authority");
    }
}

#[test]
fn beyond_in_flight_requests_are_told_to_come_back() {
    let upstream = RecordingUpstream::start();
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    upstream.answers(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        exchange.ok()
    });
    let gate = Gate::start(&public(&upstream).limits("in_flight = 2"));
    let (mut one, mut two) = (gate.connect(), gate.connect());
    one.send(get("/x").bytes());
    two.send(get("/x").bytes());
    upstream.wait_for_calls(2);
    let reply = gate.get("/x");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.detail(), "Service temporarily unavailable, try again later.");
    gate.logged(&["overloaded"]);
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(
        (one.reply().status, two.reply().status),
        (200, 200),
        "those under way finish"
    );
    release.send(()).unwrap();
    assert_eq!(gate.get("/x").status, 200);
}
