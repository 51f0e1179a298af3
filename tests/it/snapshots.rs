//! Replacing the snapshot of a gateway that serves: no request fails, each one is served by one configuration, and nothing leaks.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::thread::{self};
use std::time::Duration;

use crate::harness::h2::{H2, read};
use crate::harness::h2server::{Answer, H2Server};
use crate::harness::load::{Barrier, Load, echo};
use crate::harness::pki::Pki;
use crate::harness::upstream::MARK;
use crate::harness::{Config, Conn, InProcess, Next, RecordingUpstream, Redis, config, get, post, wait_until};
use rustls::HandshakeKind;

/// Two configurations that differ in upstream, identity header, policy, routes and limits. Both have the upstream `pooled` and the store.
struct Pair {
    redis: Redis,
    one: RecordingUpstream,
    two: RecordingUpstream,
    pooled: RecordingUpstream,
}

impl Pair {
    fn start() -> Self {
        Self {
            redis: Redis::start().with_ada(),
            one: RecordingUpstream::named("1"),
            two: RecordingUpstream::named("2"),
            pooled: RecordingUpstream::named("pooled"),
        }
    }

    fn config(&self, app: &RecordingUpstream) -> Config {
        config()
            .redis(&self.redis)
            .token("")
            .app(app)
            .protected("/common")
            .protected("/ws")
            .upstream("pooled", &[self.pooled.url()])
            .route_to("pooled", "/pooled", "public = true")
    }

    fn first(&self) -> Config {
        self.config(&self.one)
            .identity("headers = { X-User-Id = \"id\" }")
            .limits("body_bytes = \"1KiB\"")
            .protected("/policy")
            .protected("/only-first")
    }

    fn second(&self) -> Config {
        self.config(&self.two)
            .identity("headers = { X-Account = \"id\" }")
            .limits("body_bytes = \"8KiB\"")
            .route(
                "/policy",
                "authenticate = [\"token\"]\nrequire = { groups = { any = [\"root\"] } }",
            )
    }

    /// Each upstream has received the identity header of its own configuration, and never the other one.
    fn check_upstreams(&self) {
        for (upstream, own, other) in [
            (&self.one, "X-User-Id", "X-Account"),
            (&self.two, "X-Account", "X-User-Id"),
        ] {
            assert!(upstream.calls() > 0);
            for seen in upstream.all() {
                assert_eq!(
                    (seen.header(own), seen.header(other)),
                    (Some("42"), None),
                    "{:?}",
                    seen.head
                );
            }
        }
    }
}

#[test]
fn no_request_fails_while_snapshots_are_replaced() {
    let pair = Pair::start();
    pair.one.answers(echo);
    let (first, second) = (pair.first(), pair.second());
    let gate = InProcess::start(&first);
    let mut load = Load::default();
    for _ in 0..3 {
        load.http1(gate.connect());
    }
    for _ in 0..2 {
        load.http2(H2::plain(gate.address));
    }
    load.websocket_http1(gate.connect());
    load.websocket_http2(H2::plain(gate.address));
    let (mut conn, mut h2) = (gate.connect(), H2::plain(gate.address));
    let mut checked = 0;
    for number in 0..60 {
        let is_second = number % 2 == 0;
        gate.apply(if is_second { &second } else { &first });
        // The next request on an open connection is served by the new configuration.
        let (name, policy, only_first, large) = if is_second {
            ("2", 403, 404, 200)
        } else {
            ("1", 200, 200, 413)
        };
        for over_http2 in [false, true] {
            let mut call = |call: &crate::harness::Call| match over_http2 {
                false => conn.call(call),
                true => h2.call(call),
            };
            let reply = call(&get("/common").token("canary-ada"));
            assert_eq!((reply.status, reply.json()["upstream"].as_str()), (200, Some(name)));
            assert_eq!(call(&get("/policy").token("canary-ada")).status, policy);
            assert_eq!(call(&get("/only-first").token("canary-ada")).status, only_first);
            assert_eq!(call(&get("/pooled")).status, 200);
            checked += 1;
        }
        let reply = gate
            .connect()
            .call(&post("/common", "x".repeat(4000)).token("canary-ada"));
        assert_eq!(reply.status, large);
        checked += 1;
    }
    let sent = load.stop() + checked;
    pair.check_upstreams();
    assert!(pair.pooled.accepted() <= 2, "{} connections", pair.pooled.accepted());
    // Counters go on from one snapshot to the next.
    let counted = || gate.metric("authgate_requests_total{route=\"/common\"");
    wait_until("all requests are counted", Duration::from_secs(5), || {
        counted() as usize >= sent
    });
    assert_eq!(counted() as usize, sent);
    gate.stop();
}

#[test]
fn requests_that_have_begun_end_with_the_configuration_that_they_began_with() {
    let pair = Pair::start();
    let barrier = Barrier::default();
    let held = barrier.clone();
    pair.one.answers(move |mut exchange| {
        if exchange.head.first.starts_with("POST") {
            return exchange.ok();
        }
        if exchange.head.first.contains("download") {
            exchange.write(format!(
                "HTTP/1.1 200 OK\r\n{MARK}: 1\r\nContent-Length: 10\r\n\r\n01234"
            ));
            held.wait();
            exchange.write("56789");
            return Next::Keep;
        }
        held.wait();
        exchange.ok()
    });
    let gate = InProcess::start(&pair.first());
    // A slow response.
    let mut slow = gate.connect();
    slow.send(get("/common").token("canary-ada").bytes());
    // A download.
    let mut download = gate.connect();
    download.send(get("/common?download").token("canary-ada").bytes());
    // An upload.
    let mut upload = gate.connect();
    let bytes = post("/common", "x".repeat(1000)).token("canary-ada").bytes();
    upload.send(&bytes[..bytes.len() - 500]);
    // All three over HTTP/2.
    let h2 = H2::plain(gate.address);
    let streams: Vec<_> = ["/common", "/common?download"]
        .into_iter()
        .map(|target| {
            let sent = h2
                .sender
                .clone()
                .send_request(h2.request(&get(target).token("canary-ada")));
            h2.runtime.spawn(async { read(sent.await.expect("an answer")).await })
        })
        .collect();
    pair.one.wait_for_calls(4);
    let in_flight = || gate.metric("authgate_requests_in_flight") as usize;
    wait_until("the upload has begun", Duration::from_secs(5), || in_flight() == 5);

    gate.apply(&pair.second());
    assert_eq!(
        gate.connect().call(&get("/common").token("canary-ada")).json()["upstream"],
        "2"
    );
    upload.send(&bytes[bytes.len() - 500..]);
    assert_eq!(upload.reply().json()["upstream"], "1");
    barrier.open();
    assert_eq!(slow.reply().json()["upstream"], "1");
    assert_eq!(download.reply().text(), "0123456789");
    let replies = streams.into_iter().map(|stream| h2.runtime.block_on(stream));
    let bodies: Vec<String> = replies.map(|reply| reply.expect("no panic").text()).collect();
    assert_eq!(bodies, ["{\"upstream\":\"1\"}", "0123456789"]);
    // The next request on each of these connections is served by the new configuration.
    for conn in [&mut slow, &mut download, &mut upload] {
        assert_eq!(conn.call(&get("/common").token("canary-ada")).json()["upstream"], "2");
    }
    pair.check_upstreams();
    gate.stop();
}

#[test]
fn a_token_of_a_removed_authenticator_is_refused_by_the_next_request_on_the_connection() {
    let pair = Pair::start();
    let old = "[authenticators.old]\nkind = \"token\"\nscheme = \"Old\"\n";
    let both = pair.config(&pair.one).tables(old);
    let first = both.clone().route("/x", "authenticate = [\"old\", \"token\"]");
    let unused = both.route("/x", "authenticate = [\"token\"]");
    let removed = pair.config(&pair.one).protected("/x");
    let gate = InProcess::start(&first);
    let (mut conn, mut h2) = (gate.connect(), H2::plain(gate.address));
    let call = get("/x").authorization("Old canary-ada");
    // Twice, so that the decision is in the cache.
    for next in [&unused, &removed] {
        for _ in 0..2 {
            assert_eq!((conn.call(&call).status, h2.call(&call).status), (200, 200));
        }
        gate.apply(next);
        assert_eq!((conn.call(&call).status, h2.call(&call).status), (401, 401));
        gate.apply(&first);
    }
    gate.stop();
}

#[test]
fn forwarding_fields_of_a_proxy_that_is_not_trusted_any_more_are_ignored_on_its_open_connections() {
    let pair = Pair::start();
    let public = || config().app(&pair.one).public("/x");
    let trusting = public().server("trusted_proxies = [\"127.0.0.0/8\"]");
    let with_header = trusting.clone().server("proxy_protocol = true");
    let gate = InProcess::start(&trusting);
    let (mut conn, mut h2) = (gate.connect(), H2::plain(gate.address));
    let call = get("/x").header("X-Forwarded-For", "198.51.100.9");
    let mut check = |expected: &str| {
        for over_http2 in [false, true] {
            assert_eq!(if over_http2 { h2.call(&call) } else { conn.call(&call) }.status, 200);
            assert_eq!(pair.one.last().header("x-forwarded-for"), Some(expected));
        }
    };
    let trusted = "198.51.100.9, 127.0.0.1";
    check(trusted);
    gate.apply(&public());
    check("127.0.0.1");
    gate.apply(&trusting);
    check(trusted);
    // The proxy should send a PROXY protocol header now. This connection has none, so its fields may come from a client.
    gate.apply(&with_header);
    check("127.0.0.1");

    // The address in a PROXY protocol header is used as long as the proxy is trusted.
    let mut named = gate.connect();
    named.send("PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n");
    for (config, expected) in [
        (with_header, "192.0.2.1"),
        (trusting, "192.0.2.1"),
        (public(), "127.0.0.1"),
    ] {
        gate.apply(&config);
        assert_eq!(named.call(&call).status, 200);
        assert_eq!(pair.one.last().header("x-forwarded-for"), Some(expected));
    }
    gate.stop();
}

/// Bytes of memory of this process that are its own.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.expect("a line of RssAnon").trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

/// The ids of the connections at a Redis server, without the one that asks.
fn redis_clients(redis: &Redis) -> BTreeSet<String> {
    let redis::Value::VerbatimString { text, .. } = redis.run(&["CLIENT", "LIST"]) else {
        let redis::Value::BulkString(bytes) = redis.run(&["CLIENT", "LIST"]) else {
            panic!("a text")
        };
        return client_ids(&String::from_utf8_lossy(&bytes));
    };
    client_ids(&text)
}

fn client_ids(list: &str) -> BTreeSet<String> {
    let others = list.lines().filter(|line| !line.contains("cmd=client|list"));
    others
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn two_hundred_replacements_leak_nothing_and_keep_what_has_equal_settings() {
    let pair = Pair::start();
    let (other_redis, checked) = (Redis::start(), RecordingUpstream::named("checked"));
    let barrier = Barrier::default();
    let held = barrier.clone();
    pair.pooled.answers(move |exchange| {
        if exchange.head.first.contains("held") {
            held.wait();
        }
        exchange.ok()
    });
    let health = "health = { path = \"/healthz\", interval = \"200ms\" }";
    let checks = |config: Config| {
        let config = config.upstream("checked", &[checked.url()]).with(health);
        config.route_to("checked", "/checked", "public = true")
    };
    let first = checks(pair.first());
    // A further store, which is opened and closed with each replacement.
    let url = other_redis.url();
    let second = checks(pair.second())
        .tables(&format!("[stores.other]\nkind = \"redis\"\nurl = \"{url}\"\n"))
        .token("store = \"redis\"")
        .tables("[authenticators.other]\nkind = \"token\"\nscheme = \"Other\"\nstore = \"other\"\n")
        .route("/other", "authenticate = [\"other\"]");
    let gate = InProcess::start(&first);
    // Connections of both workers. The kernel chooses the worker of a connection.
    let mut conns: Vec<Conn> = (0..16).map(|_| gate.connect()).collect();
    let mut use_all = |config: &Config| {
        gate.apply(config);
        for conn in &mut conns {
            assert_eq!(conn.call(&get("/common").token("canary-ada")).status, 200);
            assert_eq!(conn.call(&get("/pooled")).status, 200);
        }
        if config.text().contains("/other") {
            for conn in &mut conns {
                assert_eq!(conn.call(&get("/other").authorization("Other canary-none")).status, 401);
            }
        }
    };
    for _ in 0..2 {
        use_all(&second);
        use_all(&first);
    }
    // The upstreams in this process keep a descriptor of each connection that they have accepted.
    let settle = || {
        let upstreams = [&pair.one, &pair.two, &pair.pooled, &checked];
        for upstream in upstreams {
            upstream.close_connections();
        }
        // The gateway finds closed connections within a second.
        thread::sleep(Duration::from_millis(1500));
        checked.close_connections();
    };
    settle();
    let redis_before = redis_clients(&pair.redis);
    assert!(
        redis_before.len() >= 3,
        "one for each worker, and one that receives changes"
    );
    let (pooled_before, descriptors_before, memory_before) = (pair.pooled.accepted(), descriptors(), memory());
    let mut requests = Vec::new();
    for number in 0..100 {
        // Requests that keep the proxies of old snapshots.
        if number % 10 == 0 {
            let mut conn = gate.connect();
            conn.send(get("/pooled?held").bytes());
            requests.push(conn);
            pair.pooled.wait_for_calls(1);
        }
        if number % 25 == 0 {
            use_all(&second);
            use_all(&first);
        } else {
            gate.apply(&second);
            gate.apply(&first);
        }
    }
    wait_until("requests are held", Duration::from_secs(5), || {
        gate.metric("authgate_requests_in_flight") as usize == requests.len()
    });
    // Health checks are those of one snapshot: each of two workers sends one in 180 ms to 220 ms.
    let before = checked.calls();
    thread::sleep(Duration::from_secs(2));
    let sent = checked.calls() - before;
    assert!((1..=24).contains(&sent), "{sent} health checks in 2 s");

    assert_eq!(
        redis_clients(&pair.redis),
        redis_before,
        "connections of the store in both configurations"
    );
    barrier.open();
    for conn in &mut requests {
        assert_eq!(conn.reply().status, 200);
    }
    drop(requests);
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let opened = pair.pooled.accepted() - pooled_before;
    assert!(
        opened <= 12,
        "{opened} connections for two workers and 10 held requests"
    );
    wait_until("the other store has no connection", Duration::from_secs(10), || {
        redis_clients(&other_redis).is_empty()
    });
    settle();
    let leaked = || descriptors().saturating_sub(descriptors_before);
    // Health checks are under way at any time.
    wait_until("descriptors are returned", Duration::from_secs(10), || leaked() <= 4);
    gate.stop();
}

#[test]
fn cached_decisions_live_on_while_settings_identity_headers_and_stores_are_the_same() {
    let pair = Pair::start();
    let other_redis = Redis::start().with_ada();
    let first = pair.first();
    let gate = InProcess::subscribed(&first);
    let mut conn = gate.connect();
    // Store lookups for one request after this configuration was applied.
    let mut lookups_after = |config: &Config, header: &str| {
        gate.apply(config);
        // Both stores of a test have this name.
        let count = || gate.metric("authgate_store_lookup_duration_seconds_count{store=\"redis\"}");
        let before = count();
        assert_eq!(conn.call(&get("/common").token("canary-ada")).status, 200);
        assert_eq!(pair.one.last().header(header), Some("42"));
        count() - before
    };
    assert_eq!(lookups_after(&first, "X-User-Id"), 1.0);
    assert_eq!(lookups_after(&first, "X-User-Id"), 0.0, "nothing has changed");
    let further = first.clone().public("/further").limits("headers = 50");
    assert_eq!(lookups_after(&further, "X-User-Id"), 0.0, "another route and limit");
    let renamed = further.clone().identity("headers = { X-Renamed = \"id\" }");
    assert_eq!(lookups_after(&renamed, "X-Renamed"), 1.0, "another identity header");
    let settings = renamed.clone().token("cache = { ttl = \"10s\" }");
    assert_eq!(lookups_after(&settings, "X-Renamed"), 1.0, "another ttl");
    // The store has the same name and another address.
    let moved = Pair {
        redis: other_redis,
        one: pair.one.clone(),
        two: pair.two.clone(),
        pooled: pair.pooled.clone(),
    };
    let moved = moved
        .first()
        .identity("headers = { X-Renamed = \"id\" }")
        .token("cache = { ttl = \"10s\" }");
    assert_eq!(lookups_after(&moved, "X-Renamed"), 1.0, "another store");
    gate.stop();
}

#[test]
fn tls_sessions_and_connections_live_on_while_the_certificates_are_the_same() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = H2Server::start(Some(pki.server(&["localhost"], false)), |_, _| {
        Answer::ok("{}".to_owned())
    });
    let url = server.url();
    let config = |authorities: String| {
        let config = config().server("workers = 1").file("ca.pem", authorities);
        let config = config
            .upstream("app", std::slice::from_ref(&url))
            .with("tls = { ca = \"ca.pem\", server_name = \"localhost\" }");
        config.public("/x")
    };
    let first = config(pki.root_pem()).tls(&pki, &[&["localhost"]]);
    let gate = InProcess::start(&first);
    let client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    // The kind of a new handshake, and the number of connections that the upstream has accepted.
    let after = |config: &Config| {
        gate.apply(config);
        let mut conn = Conn::tls(gate.address, "localhost", client.clone()).expect("a handshake");
        assert_eq!(conn.call(&get("/x")).status, 200);
        (conn.session().handshake_kind(), server.accepted())
    };
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    assert_eq!(after(&first), (full, 1));
    assert_eq!(after(&first), (resumed, 1));
    assert_eq!(after(&first.clone().public("/further")), (resumed, 1), "another route");
    // A further authority for the upstream.
    let changed = first.clone().file("ca.pem", pki.root_pem() + &other.root_pem());
    assert_eq!(after(&changed), (resumed, 2));
    // A new certificate of the gateway. A client that has connected before, and begins its handshake now, receives it too.
    let renewed = changed.tls(&pki, &[&["localhost"]]);
    let connected = TcpStream::connect(gate.address).expect("the gateway listens");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(after(&renewed), (full, 2));
    let fresh = || pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let certificate = |conn: Conn| conn.session().peer_certificates().expect("a certificate")[0].clone();
    let late = certificate(Conn::tls_over(connected, "localhost", fresh()).expect("a handshake"));
    assert_eq!(
        late,
        certificate(Conn::tls(gate.address, "localhost", fresh()).expect("a handshake"))
    );
    assert_eq!(after(&renewed), (resumed, 2));
    gate.stop();
}

#[test]
fn concurrent_replacements_end_with_one_configuration_on_all_workers() {
    let pair = Pair::start();
    let gate = InProcess::start(&pair.first());
    let mut threads = Vec::new();
    for number in 0..4 {
        let reloader = gate.reloader.clone();
        let configs: Vec<_> = (0..10)
            .map(|turn| {
                gate.load(&if (number + turn) % 2 == 0 {
                    pair.first()
                } else {
                    pair.second()
                })
            })
            .collect();
        threads.push(thread::spawn(move || {
            for config in configs {
                reloader.apply(config).expect("it is applied");
            }
        }));
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    gate.wait_for_workers();
    let served = || gate.connect().call(&get("/common").token("canary-ada")).json()["upstream"].clone();
    let expected = served();
    for _ in 0..16 {
        assert_eq!(served(), expected);
    }
    gate.stop();
}
