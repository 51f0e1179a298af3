//! Long-lived streams when the configuration changes: WebSockets, server-sent events and gRPC end if it would not admit them again.
//! `stream_ends.rs` has the tests of credentials that are revoked or expire.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::load::Barrier;
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::streams::{Application, CLOSE_1008, Http2Call, Stream, send_events};
use crate::harness::websocket::Over;
use crate::harness::{Config, Gate, Next, Redis, config, get, wait_until};
use crate::reload::reload;

pub const TOKEN: &str = "Token canary-ada";
pub const BOTH: &str = "authenticate = [\"token\", \"jwt\"]";
const JWT: &str = "authenticate = [\"jwt\"]";

pub struct Site {
    pub redis: Redis,
    pub app: Application,
    pub one: Signer,
    pub two: Signer,
}

impl Site {
    pub fn start() -> Self {
        Self {
            redis: Redis::start().with_ada(),
            app: Application::start(),
            one: Signer::new(Algorithm::ES256),
            two: Signer::new(Algorithm::ES256),
        }
    }

    pub fn one(&self) -> String {
        format!("Bearer {}", self.one.with(&json!({ "iss": "https://issuer.test" })))
    }

    pub fn two(&self) -> String {
        format!("Bearer {}", self.two.with(&json!({ "iss": "https://issuer.test" })))
    }

    /// Without routes, tokens and keys.
    pub fn upstreams(&self) -> Config {
        config()
            .file("one.pem", self.one.file())
            .file("two.pem", self.two.file())
            .app(&self.app.http)
            .upstream("grpc", &[self.app.grpc.url()])
            .public("/public")
    }

    pub fn keys(&self, config: Config, keys: &[&str]) -> Config {
        let keys = keys.iter().map(|key| match *key {
            "one" => self.one.key("one.pem"),
            _ => self.two.key("two.pem"),
        });
        let keys: Vec<String> = keys.collect();
        config
            .jwt(&format!("keys = [{}]", keys.join(", ")))
            .jwt("users = \"none\"")
    }

    /// A stream of events and a WebSocket of `/a`. The application gets their requests before `change`, and responds after it.
    pub fn streams_begun_before(&self, gate: &Gate, change: impl FnOnce()) -> [Stream; 2] {
        let barrier = Barrier::default();
        let held = barrier.clone();
        self.app.http.answers(move |mut exchange| {
            let is_upgrade = exchange.head.header("upgrade").is_some();
            if !is_upgrade && !exchange.head.first.contains("/events") {
                return exchange.ok();
            }
            held.wait();
            if !is_upgrade {
                return send_events(exchange);
            }
            exchange.switch("");
            let _ = exchange.wire.up_to(usize::MAX);
            Next::Close
        });
        std::thread::scope(|scope| {
            let events = scope.spawn(|| Stream::events_http1(gate, "/a/events", TOKEN));
            let websocket = scope.spawn(|| Stream::websocket_http1(gate, "/a/ws", TOKEN));
            self.app.http.wait_for_calls(2);
            change();
            barrier.open();
            [events, websocket].map(|stream| stream.join().expect("no panic"))
        })
    }

    fn first(&self) -> Config {
        let config = self.keys(self.upstreams().tokens(&self.redis), &["one", "two"]);
        routes(routes(config, "/a", BOTH), "/b", BOTH)
    }
}

/// A route for each kind of stream.
pub fn routes(config: Config, path: &str, lines: &str) -> Config {
    config
        .route(&format!("{path}/ws"), lines)
        .route(&format!("{path}/events"), lines)
        .route_to("grpc", &format!("{path}/talk"), lines)
}

pub fn check_open(streams: &mut [Stream]) {
    for stream in streams {
        stream.check_open();
    }
}

/// All of these streams end, at both sides, and the log gives this reason.
fn check_ended(gate: &Gate, app: &Application, streams: Vec<Stream>, reason: &str) {
    let count = streams.len();
    for stream in streams {
        stream.check_ended();
    }
    app.wait_until_ended(count);
    let ended = || {
        let lines = gate.log();
        let ended = lines
            .lines()
            .filter(|line| line.contains("\"stream_ended\"") && line.contains(reason));
        ended.count()
    };
    wait_until("the streams are logged", Duration::from_secs(10), || ended() == count);
}

#[test]
fn streams_of_a_removed_key_end_and_all_others_go_on() {
    let site = Site::start();
    let gate = Gate::start(&site.first());
    let mut ending = Stream::open_all(&gate, "/a", &site.one());
    let mut others = Stream::open_all(&gate, "/a", &site.two());
    others.extend(Stream::open_all(&gate, "/a", TOKEN));
    check_open(&mut ending);
    check_open(&mut others);
    let second = site.keys(site.upstreams().tokens(&site.redis), &["two"]);
    assert!(reload(&gate, &routes(second, "/a", BOTH)));
    check_ended(&gate, &site.app, ending, "the key that verified the credential is gone");
    check_open(&mut others);
}

#[test]
fn streams_of_a_removed_store_end_and_all_others_go_on() {
    let site = Site::start();
    let gate = Gate::start(&site.first());
    let mut ending = Stream::open_all(&gate, "/a", TOKEN);
    let mut others = Stream::open_all(&gate, "/a", &site.one());
    check_open(&mut ending);
    check_open(&mut others);
    let second = site.keys(site.upstreams(), &["one", "two"]);
    assert!(reload(&gate, &routes(second, "/a", JWT)));
    check_ended(&gate, &site.app, ending, "the authenticator is gone");
    check_open(&mut others);
}

#[test]
fn streams_of_a_removed_route_end_and_all_others_go_on() {
    let site = Site::start();
    let gate = Gate::start(&site.first());
    let mut ending = Stream::open_all(&gate, "/a", TOKEN);
    ending.extend(Stream::open_all(&gate, "/a", &site.one()));
    let mut others = Stream::open_all(&gate, "/b", TOKEN);
    check_open(&mut ending);
    check_open(&mut others);
    // Another route would take their requests now.
    let second = site.keys(site.upstreams().tokens(&site.redis), &["one", "two"]);
    assert!(reload(&gate, &routes(second, "/b", BOTH).route("/*", BOTH)));
    check_ended(&gate, &site.app, ending, "its route is gone");
    check_open(&mut others);
}

#[test]
fn streams_go_on_through_reloads_that_do_not_concern_them() {
    let (site, elsewhere) = (Site::start(), Application::start());
    let gate = Gate::start(&site.first());
    let mut streams = Stream::open_all(&gate, "/a", TOKEN);
    streams.extend(Stream::open_all(&gate, "/a", &site.one()));
    // The routes lead to another upstream, and have a further requirement that is met. Names, limits and caches change too.
    let second = config()
        .file("one.pem", site.one.file())
        .app(&elsewhere.http)
        .upstream("grpc", &[elsewhere.grpc.url()])
        .public("/public");
    let second = site
        .keys(second.redis_with_long_timeout(&site.redis), &["one"])
        .token("scheme = [\"Token\", \"Key\"]")
        .jwt("cache = { entries = 10 }")
        .jwt("audience = false")
        .identity("headers = { X-Account = \"id\" }")
        .limits("headers = 50");
    let (first, second) = (site.first(), routes(second, "/a", BOTH));
    for number in 0..6 {
        check_open(&mut streams);
        assert!(reload(&gate, if number % 2 == 0 { &second } else { &first }));
    }
    check_open(&mut streams);
    assert_eq!((elsewhere.http.calls(), elsewhere.grpc.received()), (0, 0));
    assert!(!gate.log().contains("stream_ended"));
}

#[test]
fn a_stream_goes_on_only_if_the_new_configuration_would_admit_it() {
    let (site, other_redis) = (Site::start(), Redis::start().with_ada());
    let plain = || site.keys(site.upstreams().tokens(&site.redis), &["one", "two"]);
    let events = |config: Config, lines: &str| config.route("/a/events", lines);
    let first = events(plain(), BOTH);
    let moved = site.upstreams().tokens(&other_redis);
    let gate = Gate::start(&first);
    let (optional, public) = ("authenticate = [\"token\"]\noptional = true", "public = true");
    let required = "authenticate = [\"token\"]\nrequire = { groups = { any = [\"an-empty-group\"] } }";
    let (jwt, none) = (site.one(), "");
    let with = |more: &str| format!("{BOTH}\n{more}");
    // The first configuration, the credential, the second configuration, and the reason why the stream ends.
    let cases: Vec<(&Config, &str, Config, &str)> = vec![
        (&first, TOKEN, events(plain(), &with("methods = [\"GET\"]")), ""),
        (
            &first,
            TOKEN,
            events(plain(), &with("methods = [\"POST\"]")),
            "route is gone",
        ),
        (&first, TOKEN, events(plain(), required), "does not admit"),
        (&first, TOKEN, events(plain(), JWT), "does not admit"),
        (&first, &jwt, events(plain(), JWT), ""),
        (&first, TOKEN, events(plain(), public), ""),
        (&first, TOKEN, events(site.upstreams(), public), "authenticator is gone"),
        (
            &first,
            TOKEN,
            events(site.keys(moved, &["one"]), BOTH),
            "a store that the credential depends on is gone",
        ),
        (
            &first,
            &jwt,
            events(plain().jwt("issuer = [\"https://issuer.test\"]"), BOTH),
            "stricter",
        ),
        (
            &first,
            &jwt,
            events(plain().jwt("revocation = \"redis\""), BOTH),
            "stricter",
        ),
    ];
    let wide = plain().route("/a/*", BOTH);
    let issued = events(plain().jwt("issuer = \"https://issuer.test\""), BOTH);
    let (anonymous, open) = (events(plain(), optional), events(plain(), public));
    let revoking = events(plain().jwt("revocation = \"redis\""), BOTH);
    let (kept, unknown) = (
        "authenticate = [\"token\"]\ncredential = \"keep\"",
        "Token canary-unknown",
    );
    let forwarding = events(plain().token("on_unknown = \"forward\""), kept);
    let further_route = forwarding.clone().public("/further");
    let observed = events(plain(), &with("mode = \"observe\""));
    let further: Vec<(&Config, &str, Config, &str)> = vec![
        (&wide, TOKEN, events(plain().route("/a/*", BOTH), BOTH), ""),
        (&wide, TOKEN, events(plain(), BOTH), "route is gone"),
        (&wide, TOKEN, events(wide.clone(), required), "does not admit"),
        (
            &issued,
            &jwt,
            events(
                plain().jwt("issuer = [\"https://issuer.test\", \"https://other.test\"]"),
                BOTH,
            ),
            "",
        ),
        (
            &revoking,
            &jwt,
            first.clone(),
            "a store that the credential depends on is gone",
        ),
        (
            &anonymous,
            none,
            events(plain().token("scheme = \"Key\""), optional),
            "",
        ),
        (&anonymous, none, events(plain(), BOTH), "does not admit"),
        (&open, none, events(site.upstreams(), public), ""),
        (&open, none, events(plain(), BOTH), "does not admit"),
        (&open, none, plain(), "route is gone"),
        (
            &observed,
            TOKEN,
            events(
                site.keys(site.upstreams(), &["one"]),
                &format!("{JWT}\nmode = \"observe\""),
            ),
            "",
        ),
        (&observed, TOKEN, events(plain(), BOTH), "does not admit"),
        (&forwarding, unknown, further_route, ""),
        (&forwarding, unknown, events(plain(), kept), "does not admit"),
        (&first, TOKEN, observed.clone(), ""),
    ];
    for (number, (before, credential, after, reason)) in cases.into_iter().chain(further).enumerate() {
        assert!(reload(&gate, before), "case {number}");
        let mut stream = Stream::events_http1(&gate, "/a/events", credential);
        stream.check_open();
        assert!(reload(&gate, &after), "case {number}");
        let logged = |word: &str| gate.log().lines().filter(|line| line.contains(word)).count();
        let ended = logged("\"stream_ended\"");
        if reason.is_empty() {
            stream.check_open();
            assert_eq!(logged("\"stream_ended\""), ended, "case {number}");
        } else {
            stream.check_ended();
            let line = gate.logged(&["\"stream_ended\"", reason]);
            assert!(line.contains("/a/"), "case {number}: {line}");
        }
    }
}

/// Routes for a WebSocket of a test's own.
fn websocket_routes(site: &Site) -> [Config; 2] {
    let config = || site.upstreams().tokens(&site.redis);
    [
        config().route("/own", "authenticate = [\"token\"]"),
        config().public("/other"),
    ]
}

fn open(gate: &Gate, over: Over) -> Stream {
    match over {
        Over::Http1 => Stream::websocket_http1(gate, "/own", TOKEN),
        Over::Http2 => Stream::websocket_http2(gate, "/own", TOKEN),
    }
}

/// The first fragment of a message, and a second one of 200,000 bytes.
fn fragments() -> (Vec<u8>, Vec<u8>) {
    let first = [&[0x02, 3], &b"abc"[..]].concat();
    let second = [&[0x00, 127, 0, 0, 0, 0, 0, 3, 0x0d, 0x40], &[0x88; 200_000][..]].concat();
    (first, second)
}

#[test]
fn a_frame_that_is_under_way_is_completed_before_the_close_frame() {
    for (over, has_tls) in Over::BOTH.into_iter().flat_map(|over| [(over, false), (over, true)]) {
        let (site, pki) = (Site::start(), Pki::new());
        let [first, second] = websocket_routes(&site).map(|config| match has_tls {
            true => config.tls(&pki, &[&["localhost"]]),
            false => config,
        });
        let (sender, heard) = mpsc::channel();
        let sender = Mutex::new(sender);
        site.app.http.answers(move |mut exchange| {
            if exchange.head.header("upgrade").is_none() {
                return exchange.ok();
            }
            exchange.switch("");
            let (first, second) = fragments();
            exchange.write([&first, &second[..100_000]].concat());
            // The gateway sends nothing more of the client.
            let rest = exchange.wire.up_to(usize::MAX).expect("in time");
            sender.lock().unwrap().send(rest).expect("the test listens");
            exchange.write([&second[100_000..], &b"\x81\x05never"[..]].concat());
            Next::Close
        });
        let gate = Gate::start(&first);
        let mut stream = open(&gate, over);
        let (begin, second_frame) = fragments();
        assert_eq!(stream.up_to(begin.len()), begin);
        assert!(reload(&gate, &second));
        let rest = stream.up_to(usize::MAX);
        let expected = second_frame.len() + CLOSE_1008.len();
        assert_eq!(rest.len(), expected, "{over:?}, TLS: {has_tls}");
        assert!(rest.starts_with(&second_frame) && rest.ends_with(CLOSE_1008));
        // A masked Close frame with 1008.
        let close = heard.recv_timeout(Duration::from_secs(10)).expect("a Close frame");
        assert_eq!((close.len(), &close[..2]), (8, &[0x88, 0x82][..]));
        assert_eq!([close[6] ^ close[2], close[7] ^ close[3]], [0x03, 0xf0]);
    }
}

#[test]
fn a_frame_that_does_not_end_is_cut() {
    for over in Over::BOTH {
        let site = Site::start();
        let [first, second] = websocket_routes(&site);
        let barrier = Barrier::default();
        let held = barrier.clone();
        site.app.http.answers(move |mut exchange| {
            if exchange.head.header("upgrade").is_none() {
                return exchange.ok();
            }
            exchange.switch("");
            exchange.write(&fragments().1[..100_000]);
            held.wait();
            Next::Close
        });
        let gate = Gate::start(&first);
        let mut stream = open(&gate, over);
        // The client is in the middle of a frame too.
        stream.send(b"\x82\xfe\x10\x00");
        assert_eq!(stream.up_to(100_000).len(), 100_000);
        assert!(reload(&gate, &second));
        assert_eq!(stream.up_to(usize::MAX), b"", "{over:?}");
        barrier.open();
    }
}

#[test]
fn a_websocket_that_its_server_has_closed_receives_no_second_close_frame() {
    let site = Site::start();
    let [first, second] = websocket_routes(&site);
    site.app.http.answers(move |mut exchange| {
        if exchange.head.header("upgrade").is_none() {
            return exchange.ok();
        }
        exchange.switch("");
        exchange.write(b"\x88\x02\x03\xe8");
        let _ = exchange.wire.up_to(usize::MAX);
        Next::Close
    });
    let gate = Gate::start(&first);
    let mut stream = open(&gate, Over::Http1);
    assert_eq!(stream.up_to(4), b"\x88\x02\x03\xe8");
    assert!(reload(&gate, &second));
    assert_eq!(stream.up_to(usize::MAX), b"");
}

#[test]
fn a_stream_whose_response_comes_after_the_reload_ends_at_once() {
    let site = Site::start();
    let first = routes(site.upstreams().tokens(&site.redis), "/a", "authenticate = [\"token\"]");
    let gate = Gate::start(&first);
    let streams = site.streams_begun_before(&gate, || assert!(reload(&gate, &site.upstreams())));
    for stream in streams {
        stream.check_ended();
    }
}

#[test]
fn a_grpc_call_that_only_uploads_ends_with_16() {
    let site = Site::start();
    let config = || site.upstreams().tokens(&site.redis);
    let gate = Gate::start(&config().route_to("grpc", "/upload", "authenticate = [\"token\"]"));
    let mut call = Http2Call::grpc(&gate, "/upload", TOKEN, 65_535);
    call.send(b"\0\0\0\0\x04ping");
    wait_until("the upload has begun", Duration::from_secs(10), || {
        site.app.grpc.received() == 9
    });
    assert!(reload(&gate, &config()));
    assert_eq!(call.head()["grpc-status"], "16");
    site.app.wait_until_ended(1);
}

#[test]
fn a_client_that_reads_nothing_cannot_keep_its_stream() {
    let site = Site::start();
    let config = || site.upstreams().tokens(&site.redis);
    let first = config().protected("/events");
    let gate = Gate::start(&first.route_to("grpc", "/talk", "authenticate = [\"token\"]"));
    let mut events = Http2Call::events(&gate, "/events", TOKEN, 0);
    events.head();
    let mut call = Http2Call::grpc(&gate, "/talk", TOKEN, 0);
    call.head();
    call.send(b"\0\0\0\0\x04ping");
    wait_until("the upload has begun", Duration::from_secs(10), || {
        site.app.grpc.received() == 9
    });
    assert!(reload(&gate, &config()));
    site.app.wait_until_ended(2);
    call.send(b"\0\0\0\0\x05never");
    assert_eq!(gate.get("/public").status, 200);
    assert_eq!(site.app.grpc.received(), 9);
}

#[test]
fn a_download_is_no_stream_and_goes_on() {
    let site = Site::start();
    let barrier = Barrier::default();
    let held = barrier.clone();
    site.app.http.answers(move |mut exchange| {
        let kind = match exchange.head.first.contains("length") {
            true => "text/event-stream\r\nContent-Length: 10",
            false => "text/csv\r\nTransfer-Encoding: chunked",
        };
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: {kind}\r\n\r\n"
        ));
        held.wait();
        exchange.write(match kind.contains("chunked") {
            true => "a\r\n0123456789\r\n0\r\n\r\n",
            false => "0123456789",
        });
        Next::Keep
    });
    let config = || site.upstreams().tokens(&site.redis);
    let gate = Gate::start(&config().protected("/download"));
    let mut conns = ["/download", "/download?length"].map(|target| {
        let mut conn = gate.connect();
        conn.send(get(target).token("canary-ada").bytes());
        conn
    });
    site.app.http.wait_for_calls(2);
    assert!(reload(&gate, &config()));
    barrier.open();
    for conn in &mut conns {
        assert_eq!(conn.reply().text(), "0123456789");
    }
}
