//! Long-lived streams whose credential is revoked or expires: they end within a second, and all others stay open.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::load::Barrier;
use crate::harness::mint::{Signer, now};
use crate::harness::program::authgate;
use crate::harness::redis::PREFIX;
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::streams::{CLOSE_1008, Stream};
use crate::harness::websocket::accept_of;
use crate::harness::{Config, Gate, Next, Redis, get, wait_until};
use crate::introspection::Idp;
use crate::reload::reload;
use crate::streams::{BOTH, Site, TOKEN, check_open, routes};

/// Far more than anything takes, and far less than the `ttl` of cached decisions.
const SOON: Duration = Duration::from_secs(15);
const CACHE: &str = "cache = { ttl = \"60s\", negative_ttl = \"60s\" }";
/// Decisions expire during a test.
const SHORT: &str = "cache = { ttl = \"1s\", negative_ttl = \"1s\" }";

/// Tokens, and JWTs with users and revocations, in Redis. Decisions are cached.
fn cached(site: &Site) -> Config {
    site.keys(site.upstreams().redis(&site.redis), &["one", "two"])
        .token(CACHE)
        .jwt(CACHE)
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
}

/// All of these streams end, and the log has this reason.
fn check_ended(gate: &Gate, streams: Vec<Stream>, reason: &str) {
    for stream in streams {
        stream.check_ended();
    }
    gate.logged(&["\"stream_ended\"", reason]);
}

/// How many streams have ended with this reason, by the log.
fn logged_ends(gate: &Gate, reason: &str) -> usize {
    let is_end = |line: &&str| line.contains("\"stream_ended\"") && line.contains(reason);
    gate.log().lines().filter(is_end).count()
}

fn lookups(gate: &Gate) -> f64 {
    gate.metric("authgate_store_lookup_duration_seconds_count{store=\"redis\"}")
}

fn becomes(gate: &Gate, target: &str, authorization: &str, status: u16) {
    wait_until(&format!("{target} is answered {status}"), SOON, || {
        gate.call(&get(target).authorization(authorization)).status == status
    });
}

#[test]
fn streams_end_on_every_gateway_however_their_credential_is_revoked() {
    let site = Site::start();
    let config = routes(cached(&site), "/a", BOTH).route("/x", BOTH);
    let gates = [Gate::subscribed(&config), Gate::subscribed(&config)];
    let jwt = |user: &str, jti: &str| {
        let claims = json!({ "iss": "https://issuer.test", "user_id": user, "jti": jti });
        format!("Bearer {}", site.one.with(&claims))
    };
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        site.redis.put_user(id, &json!({}));
        let token = json!({ "user": id, "created": 1_700_000_000 });
        site.redis.put_token(&format!("canary-{id}"), &token);
    }
    let kid = site.two.jwk["kid"].clone();
    assert!(kid.is_null(), "it is named by its thumbprint");
    let revoke = |words: &[&str]| {
        let ended = authgate(gates[0].folder.path(), words);
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
    };
    type Way<'w> = (&'w str, String, Box<dyn Fn() + 'w>, &'w str);
    let ways: [Way<'_>; 8] = [
        (
            "one token",
            "Token canary-1".into(),
            Box::new(|| revoke(&["revoke", "--token", "canary-1"])),
            "it is revoked",
        ),
        (
            "the tokens of a user",
            "Token canary-2".into(),
            Box::new(|| revoke(&["revoke", "--user", "2"])),
            "the tokens of its user are revoked",
        ),
        (
            "the JWTs of a user",
            jwt("3", "canary-3"),
            Box::new(|| revoke(&["revoke", "--user", "3"])),
            "jwt_revoked",
        ),
        (
            "one JWT",
            jwt("42", "canary-4"),
            Box::new(|| revoke(&["revoke", "--jti", "canary-4"])),
            "jwt_revoked",
        ),
        (
            "the tokens of a disabled user",
            "Token canary-5".into(),
            Box::new(|| revoke(&["user", "disable", "5"])),
            "token_user_inactive",
        ),
        (
            "the JWTs of a disabled user",
            jwt("6", "canary-6"),
            Box::new(|| revoke(&["user", "disable", "6"])),
            "jwt_user_inactive",
        ),
        (
            "a token whose record is deleted",
            "Token canary-7".into(),
            Box::new(|| site.redis.del(&Redis::token_key("canary-7"))),
            "token_unknown",
        ),
        (
            "a token whose user is deleted",
            "Token canary-3".into(),
            Box::new(|| site.redis.del("user:3")),
            "its user does not exist",
        ),
    ];
    let mut others = Stream::open_all(&gates[0], "/a", TOKEN);
    others.extend(Stream::open_all(&gates[1], "/a", &jwt("42", "canary-other")));
    for (what, credential, end, reason) in ways {
        if what.contains("user is deleted") {
            // It was revoked as a credential of user 3 before.
            site.redis.del("revoked:user:3");
            becomes(&gates[0], "/x", &credential, 200);
            becomes(&gates[1], "/x", &credential, 200);
        }
        let mut ending: Vec<Vec<Stream>> = gates
            .iter()
            .map(|gate| Stream::open_all(gate, "/a", &credential))
            .collect();
        ending.iter_mut().for_each(|streams| check_open(streams));
        // Other ways have the same reason.
        let before = gates.each_ref().map(|gate| logged_ends(gate, reason));
        end();
        for ((gate, streams), before) in gates.iter().zip(ending).zip(before) {
            let count = streams.len();
            check_ended(gate, streams, reason);
            wait_until(&format!("{what}: the log has {reason}"), SOON, || {
                logged_ends(gate, reason) == before + count
            });
        }
        check_open(&mut others);
    }
    // The key of all JWTs.
    let mut tokens = others.drain(..5).collect::<Vec<Stream>>();
    revoke(&["revoke", "--kid", &thumbprint(&site.one)]);
    check_ended(&gates[1], others, "jwt_revoked");
    check_open(&mut tokens);
    gates[1].metric_reaches("authgate_streams_ended_total{reason=\"refused\"}", 45.0);
}

/// RFC 7638, as `authgate jwt` prints it.
fn thumbprint(signer: &Signer) -> String {
    let member = |name: &str| signer.jwk[name].as_str().expect("a member").to_owned();
    let canonical = format!(
        "{{\"crv\":\"{}\",\"kty\":\"{}\",\"x\":\"{}\",\"y\":\"{}\"}}",
        member("crv"),
        member("kty"),
        member("x"),
        member("y")
    );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes());
    crate::harness::mint::base64(digest)
}

#[test]
fn streams_end_when_their_credential_expires() {
    let site = Site::start();
    let config = site
        .keys(site.upstreams().redis(&site.redis), &["one"])
        .token(CACHE)
        .jwt(CACHE);
    let gate = Gate::subscribed(&routes(config, "/a", BOTH));
    let end = now() + 8;
    let with_expiry = |end: i64| {
        let claims = json!({ "iss": "https://issuer.test", "exp": end });
        format!("Bearer {}", site.one.with(&claims))
    };
    let token = |expires: i64| json!({ "user": "42", "created": 1_700_000_000, "expires": expires });
    site.redis.put_token("canary-short", &token(end));
    site.redis.put_token("canary-extended", &token(end));
    let mut ending = Stream::open_all(&gate, "/a", &with_expiry(end));
    ending.extend(Stream::open_all(&gate, "/a", "Token canary-short"));
    let mut others = Stream::open_all(&gate, "/a", &with_expiry(end + 600));
    others.extend(Stream::open_all(&gate, "/a", "Token canary-extended"));
    check_open(&mut ending);
    site.redis.put_token("canary-extended", &token(end + 600));
    check_ended(&gate, ending, "its credential has expired");
    assert!(now() >= end);
    check_open(&mut others);
    gate.metric_reaches("authgate_streams_ended_total{reason=\"expired\"}", 10.0);
}

#[test]
fn streams_that_are_kept_go_on_until_the_configuration_says_otherwise() {
    let site = Site::start();
    let keep = format!("{BOTH}\nstreams = \"keep\"");
    let config = |lines: &str| routes(routes(cached(&site), "/a", lines), "/b", BOTH);
    let gate = Gate::subscribed(&config(&keep));
    let mut kept = Stream::open_all(&gate, "/a", TOKEN);
    let ended = Stream::open_all(&gate, "/b", TOKEN);
    assert_eq!(authgate(gate.folder.path(), &["user", "disable", "42"]).code, 0);
    check_ended(&gate, ended, "token_user_inactive");
    check_open(&mut kept);
    // Neither a route that is gone nor an authenticator that is gone.
    assert!(reload(&gate, &routes(cached(&site), "/b", BOTH)));
    check_open(&mut kept);
    assert!(reload(&gate, &site.upstreams()));
    check_open(&mut kept);
    assert!(reload(&gate, &config(&keep)));
    check_open(&mut kept);
    assert!(reload(&gate, &config(BOTH)));
    check_ended(&gate, kept, "/a/");
}

#[test]
fn an_outage_ends_no_stream_and_what_was_revoked_meanwhile_ends_after_it() {
    let cases = [
        (CACHE, "deny"),
        ("cache = { entries = 0, negative_entries = 0 }", "deny"),
        (CACHE, "serve-cached"),
    ];
    for (cache, on_outage) in cases {
        let site = Site::start();
        for token in ["canary-deleted", "canary-other"] {
            site.redis.put_token(token, &json!({ "user": "42" }));
        }
        let config = site.upstreams().redis(&site.redis).token(cache);
        let config = config.token(&format!("on_outage = \"{on_outage}\""));
        let gate = Gate::subscribed(&routes(config, "/a", "authenticate = [\"token\"]"));
        let mut ending = Stream::open_all(&gate, "/a", "Token canary-deleted");
        let mut others = Stream::open_all(&gate, "/a", "Token canary-other");
        // The gateway cannot connect, and the test can.
        let (socket, hidden) = (site.redis.socket(), site.redis.socket().with_extension("hidden"));
        fs::rename(&socket, &hidden).expect("the socket is renamed");
        let url = format!("unix://{}", hidden.display());
        let mut connection = redis::Client::open(url)
            .unwrap()
            .get_connection()
            .expect("a connection");
        let mut run = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            for word in &words[1..] {
                command.arg(word);
            }
            command.query::<redis::Value>(&mut connection).expect("an answer");
        };
        run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        becomes(&gate, "/a/events", "Token canary-unknown", 503);
        run(&["DEL", &format!("{PREFIX}{}", Redis::token_key("canary-deleted"))]);
        if on_outage == "serve-cached" {
            ending.extend(Stream::open_all(&gate, "/a", "Token canary-deleted"));
        }
        // Longer than a credential waits that could not be checked.
        for _ in 0..4 {
            check_open(&mut ending);
            check_open(&mut others);
            thread::sleep(Duration::from_millis(200));
        }
        fs::rename(&hidden, &socket).expect("the socket is renamed");
        check_ended(&gate, ending, "token_unknown");
        check_open(&mut others);
    }
}

#[test]
fn without_reports_of_changes_streams_are_checked_again_after_the_ttl() {
    let site = Site::start();
    site.redis.put_token("canary-deleted", &json!({ "user": "42" }));
    let config = site.upstreams().redis_without_invalidation(&site.redis).token(SHORT);
    let gate = Gate::start(&routes(config, "/a", "authenticate = [\"token\"]"));
    let mut ending = Stream::open_all(&gate, "/a", "Token canary-deleted");
    let mut others = Stream::open_all(&gate, "/a", TOKEN);
    let before = lookups(&gate);
    wait_until("the credentials are confirmed again", SOON, || {
        lookups(&gate) > before + 3.0
    });
    check_open(&mut ending);
    site.redis.del(&Redis::token_key("canary-deleted"));
    check_ended(&gate, ending, "token_unknown");
    check_open(&mut others);
}

#[test]
fn a_change_between_admission_and_the_response_ends_the_stream_at_once() {
    let site = Site::start();
    let config = site.upstreams().redis(&site.redis).token(CACHE).protected("/x");
    let config = routes(config, "/a", "authenticate = [\"token\"]");
    let gate = Gate::subscribed(&config);
    let streams = site.streams_begun_before(&gate, || {
        site.redis.del(&Redis::token_key("canary-ada"));
        becomes(&gate, "/x", TOKEN, 401);
    });
    check_ended(&gate, streams.into(), "token_unknown");
}

#[test]
fn a_download_of_a_revoked_credential_is_let_finish() {
    let site = Site::start();
    let barrier = Barrier::default();
    let held = barrier.clone();
    site.app.http.answers(move |mut exchange| {
        if !exchange.head.first.contains("download") {
            return exchange.ok();
        }
        exchange.write("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
        held.wait();
        exchange.write("a\r\n0123456789\r\n0\r\n\r\n");
        Next::Keep
    });
    let gate = Gate::subscribed(&site.upstreams().redis(&site.redis).token(CACHE).protected("/*"));
    let mut conn = gate.connect();
    conn.send(get("/download").token("canary-ada").bytes());
    site.app.http.wait_for_calls(1);
    assert_eq!(authgate(gate.folder.path(), &["user", "disable", "42"]).code, 0);
    becomes(&gate, "/x", TOKEN, 401);
    barrier.open();
    assert_eq!(conn.reply().text(), "0123456789");
}

#[test]
fn a_stream_ends_when_its_user_does_not_meet_the_requirements_any_more() {
    let site = Site::start();
    let staff = "authenticate = [\"token\"]\nrequire = { groups = { any = [\"staff\"] } }";
    let config = site.upstreams().redis(&site.redis).token(CACHE);
    let gate = Gate::subscribed(&routes(routes(config, "/a", staff), "/b", "authenticate = [\"token\"]"));
    let ending = Stream::open_all(&gate, "/a", TOKEN);
    let mut others = Stream::open_all(&gate, "/b", TOKEN);
    site.redis
        .put_user("42", &json!({ "username": "ada", "groups": ["guests"] }));
    check_ended(&gate, ending, "its route does not admit its user any more");
    check_open(&mut others);
}

#[test]
fn a_websocket_whose_credential_is_a_cookie_or_a_subprotocol_ends_too() {
    let site = Site::start();
    let page = "authenticate = [\"token\"]\n\
                websocket = { origins = [\"https://app.example.com\"], subprotocol = true, cookie = \"key\", scheme = \"Token\" }";
    let config = site.upstreams().redis(&site.redis).token(CACHE).route("/ws", page);
    let gate = Gate::subscribed(&config);
    let carriers = [
        ("Cookie", "key=canary-ada"),
        ("Sec-WebSocket-Protocol", "authgate.bearer.canary-ada"),
    ];
    let opened = carriers.map(|(name, value)| {
        let call = get("/ws")
            .header("Origin", "https://app.example.com")
            .header("Sec-WebSocket-Version", "13")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header(name, value);
        let mut conn = gate.connect();
        conn.send(call.bytes());
        let head = conn.wire.head().expect("in time").expect("an answer");
        assert!(head.first.starts_with("HTTP/1.1 101 "), "{}", head.first);
        Stream::WebSocketHttp1(conn)
    });
    assert_eq!(authgate(gate.folder.path(), &["user", "disable", "42"]).code, 0);
    check_ended(&gate, opened.into(), "token_user_inactive");
}

#[test]
fn a_change_of_an_embedded_store_ends_streams() {
    let site = Site::start();
    let config = site
        .upstreams()
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .token(CACHE);
    let gate = Gate::spawn(&routes(config, "/a", "authenticate = [\"token\"]").protected("/x"));
    for (user, key) in [("1", "canary-one"), ("2", "canary-two")] {
        let words = ["token", "create", "--user", user, "--username", user, "--key", key];
        assert_eq!(authgate(gate.folder.path(), &words).code, 0);
        becomes(&gate, "/x", &format!("Token {key}"), 200);
    }
    let ending = Stream::open_all(&gate, "/a", "Token canary-one");
    let mut others = Stream::open_all(&gate, "/a", "Token canary-two");
    assert_eq!(authgate(gate.folder.path(), &["user", "disable", "1"]).code, 0);
    check_ended(&gate, ending, "token_user_inactive");
    check_open(&mut others);
}

#[test]
fn streams_of_a_key_that_leaves_the_set_of_its_provider_end() {
    let (site, provider) = (Site::start(), ScriptedProvider::start());
    let (one, two) = (
        Signer::new(Algorithm::ES256).kid("kid-1"),
        Signer::new(Algorithm::ES256).kid("kid-2"),
    );
    let publish = |keys: &[&Signer]| {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk.clone()).collect();
        provider.serves("/jwks", Script::json(&json!({ "keys": keys })));
    };
    publish(&[&one, &two]);
    let (issuer, keys) = (provider.url(""), provider.url("/jwks"));
    let idp = format!(
        "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\nalgorithms = [\"ES256\"]\nissuer = \"{issuer}\"\n\
         audience = \"api\"\njwks = {{ url = \"{keys}\", refresh = \"1s\", cooldown = \"1s\" }}\n"
    );
    let gate = Gate::start(&routes(site.upstreams().tables(&idp), "/a", "authenticate = [\"idp\"]"));
    let bearer = |key: &Signer| {
        let claims = json!({ "iss": issuer, "aud": "api", "sub": "42", "exp": now() + 600 });
        format!("Bearer {}", key.sign(&claims))
    };
    let ending = Stream::open_all(&gate, "/a", &bearer(&one));
    let mut others = Stream::open_all(&gate, "/a", &bearer(&two));
    publish(&[&two]);
    check_ended(&gate, ending, "jwt_invalid");
    check_open(&mut others);
}

#[test]
fn streams_of_an_introspected_token_end_when_it_is_inactive_or_expires() {
    let (site, idp) = (Site::start(), Idp::start());
    for token in ["canary-one", "canary-two"] {
        idp.knows(token, &json!({}));
    }
    let config = site.upstreams().tables(&idp.authenticator(SHORT));
    let gate = Gate::start(&routes(config, "/a", "authenticate = [\"idp\"]"));
    let ending = Stream::open_all(&gate, "/a", "Bearer canary-one");
    let mut others = Stream::open_all(&gate, "/a", "Bearer canary-two");
    idp.says("canary-one", Script::json(&json!({ "active": false })));
    check_ended(&gate, ending, "introspected_inactive");
    let asked = idp.asked("canary-two");
    wait_until("the token is confirmed again", SOON, || idp.asked("canary-two") > asked);
    check_open(&mut others);
    idp.knows("canary-two", &json!({ "exp": now() + 3 }));
    check_ended(&gate, others, "its credential has expired");
}

/// WebSockets without threads: the client holds sockets, and the application is one task.
struct Many {
    application: String,
    _runtime: tokio::runtime::Runtime,
}

impl Many {
    /// An application that accepts every WebSocket, and sends back what it receives.
    fn start() -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let application = format!("http://{}", listener.local_addr().expect("bound"));
        runtime.spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if tcp.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let accept = accept_of("dGhlIHNhbXBsZSBub25jZQ==");
                    let head = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {accept}\r\n\r\n"
                    );
                    let _ = tcp.write_all(head.as_bytes()).await;
                    let (mut read, mut write) = tcp.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Self {
            application,
            _runtime: runtime,
        }
    }

    fn open(gate: &Gate, token: &str) -> TcpStream {
        let mut tcp = TcpStream::connect(gate.address).expect("the gateway listens");
        tcp.set_read_timeout(Some(SOON)).expect("a timeout");
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\nSec-WebSocket-Version: 13\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).expect("it is open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        tcp
    }
}

fn check_ended_with_1008(websocket: &mut TcpStream) {
    let mut rest = Vec::new();
    websocket.read_to_end(&mut rest).expect("no reset");
    assert_eq!(rest, CLOSE_1008);
}

#[test]
fn of_two_thousand_websockets_the_three_that_are_revoked_end_and_no_other_is_looked_up() {
    const FRAME: &[u8] = b"\x81\x84\x01\x02\x03\x04ping";
    const COUNT: usize = 2000;
    const SHARED: usize = 300;
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let (redis, app) = (Redis::start().with_ada(), Many::start());
    let config = crate::harness::config()
        .redis_with_long_timeout(&redis)
        .token("cache = { ttl = \"10m\" }")
        .upstream("app", std::slice::from_ref(&app.application))
        .protected("/ws");
    let gate = Gate::subscribed(&config);
    for number in 0..COUNT {
        redis.put_user(&format!("u{number}"), &json!({}));
        redis.put_token(&format!("canary-{number}"), &json!({ "user": format!("u{number}") }));
    }
    let mut websockets: Vec<TcpStream> = (0..COUNT)
        .map(|number| Many::open(&gate, &format!("canary-{number}")))
        .collect();
    let before = lookups(&gate);
    redis.del(&Redis::token_key("canary-7"));
    redis.del("user:u1000");
    redis.put_user("u1999", &json!({ "active": false }));
    for number in [7, 1000, 1999] {
        check_ended_with_1008(&mut websockets[number]);
    }
    gate.metric_becomes("authgate_streams_ended_total{reason=\"refused\"}", 3.0);
    for (number, websocket) in websockets.iter_mut().enumerate() {
        if ![7, 1000, 1999].contains(&number) {
            websocket.write_all(FRAME).expect("it is open");
            let mut echo = [0; FRAME.len()];
            websocket.read_exact(&mut echo).expect("it is open");
            assert_eq!(echo, FRAME);
        }
    }
    // Few credentials share a counter with those.
    let asked = lookups(&gate) - before;
    assert!((3.0..20.0).contains(&asked), "{asked} look-ups");

    // One credential of many streams is one look-up in each worker.
    let mut shared: Vec<TcpStream> = (0..SHARED).map(|_| Many::open(&gate, "canary-ada")).collect();
    let before = lookups(&gate);
    redis.del(&Redis::token_key("canary-ada"));
    for websocket in &mut shared {
        check_ended_with_1008(websocket);
    }
    let asked = lookups(&gate) - before;
    assert!((1.0..8.0).contains(&asked), "{asked} look-ups");
    gate.metric_becomes("authgate_streams_ended_total{reason=\"refused\"}", 303.0);
}
