//! Routing: requests without a route, and requests with an ambiguous path, are not forwarded.

use crate::harness::h2server::{Answer, H2Server};
use crate::harness::{Config, Conn, Gate, RecordingUpstream, Redis, call, config, get};

fn routes(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .tokens(redis)
        .app(upstream)
        .protected("/api/*")
        .route("/api/*", "methods = [\"OPTIONS\"]\npublic = true")
        .route("/read", "methods = [\"GET\"]\npublic = true")
        .public("/public/*")
        .route("/only/*", "host = \"one.example\"\nauthenticate = [\"token\"]")
        .route("/*", "host = \"*.wild.example\"\npublic = true")
}

#[test]
fn routes_match_host_then_path_then_method_without_fallback() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&routes(&redis, &upstream));
    for (method, host, target, status) in [
        ("GET", "localhost", "/api", 401),
        ("GET", "localhost", "/api/", 401),
        ("GET", "localhost", "/apix", 404),
        ("OPTIONS", "localhost", "/api/x", 200),
        ("GET", "localhost", "/public/x?a=../b", 200),
        ("GET", "localhost", "/read", 200),
        ("HEAD", "localhost", "/read", 200),
        ("POST", "localhost", "/read", 405),
        ("GET", "localhost", "/read/", 404),
        ("GET", "localhost", "/", 404),
        ("GET", "ONE.example.:8443", "/only/x", 401),
        ("GET", "one.example", "/public/x", 404),
        ("GET", "localhost", "/only/x", 404),
        ("GET", "a.b.wild.example", "/anything", 200),
        ("GET", "wild.example", "/anything", 404),
        ("CONNECT", "localhost", "/public/x", 501),
        ("TRACE", "localhost", "/public/x", 501),
    ] {
        let before = upstream.calls();
        let reply = gate.call(&call(method, target).host(host));
        // This target is invalid for CONNECT, so the whole message may be refused.
        assert!(
            reply.status == status || (method == "CONNECT" && reply.status == 400),
            "{method} {host}{target}: {}",
            reply.status
        );
        assert_eq!(
            upstream.calls() - before,
            usize::from(status == 200),
            "{method} {host}{target}"
        );
        if status == 405 {
            assert_eq!(reply.header("allow"), Some("GET, HEAD"));
            assert_eq!(reply.detail(), "Method \"POST\" not allowed.");
        }
        if status == 404 && method == "GET" {
            assert_eq!(reply.detail(), "Not found.");
        }
    }
}

#[test]
fn bytes_outside_uri_syntax_are_routed_as_sent_and_encoded_for_http2_upstreams() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&routes(&redis, &upstream));
    for target in ["/api/`", "/api/<x>?\"", "http://localhost/api/`"] {
        assert_eq!(gate.get(target).status, 401, "{target}");
        assert_eq!(gate.call(&get(target).token("canary-ada")).status, 200, "{target}");
    }
    let reply = gate.get("http://localhost/public?<\"");
    assert_eq!((reply.status, upstream.last().line()), (200, "GET /public?<\""));
    assert_eq!(gate.get("http://localhost?<").status, 404);
    // Its encoded form is longer than a `Uri` may be.
    assert_eq!(gate.get(&format!("/public/{}", "`".repeat(25_000))).status, 414);

    let server = H2Server::start(None, |request, _| Answer::ok(request.uri().to_string()));
    let gate = Gate::start(&config().upstream("app", &[server.url()]).public("/*"));
    assert_eq!(
        gate.get("/`<x>?q=\"<`>\"").text(),
        "http://localhost/%60%3Cx%3E?q=%22%3C`%3E%22"
    );
}

#[test]
fn an_ambiguous_path_is_refused_and_not_forwarded() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&routes(&redis, &upstream));
    for target in [
        "/public/../api/x",
        "/public/%2e%2e/api/x",
        "/public/%2E%2E%2Fapi/x",
        "/public/..%2fapi/x",
        "/public/..;/api/x",
        "/public/..%3b/api/x",
        "/public/..\\api/x",
        "/public/..%5capi",
        "/public/%252e%252e/api",
        "//api/x",
        "/Api/x",
        "/%61pi/x",
        "/public/x/../../api",
        "/public/;/../../api/",
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%00",
        "/public/%0a",
        "/public/%0d%0aX:1",
        "/public/%7f",
        "/public/`/../../api/x",
        "/public/<x>/..%2f..%2fapi",
        "/public/`/..;/..;/Api",
        "/public/`#",
        "/public/`\u{e9}",
        "/public/`\x7f",
        "/public/?\"#",
        "/public/?\"\u{e9}",
    ] {
        let reply = gate.call(&get(target).token("canary-ada"));
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (400, "Malformed request."),
            "{target}"
        );
        assert_eq!(upstream.calls(), 0, "{target}");
    }
}

#[test]
fn a_path_is_forwarded_byte_for_byte() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&routes(&redis, &upstream));
    for target in [
        "/public/a%20b/%C3%A9;v=1//x/./y?q=%2e%2e/&r=a+b",
        "/public/~a_b-c.d!$&'()*+,=:@",
        "/public/?",
        "/public/100%25",
        "/public/x/../y",
        "/public/a`b<c>\"d{e}|f^g?h=\"<`>{}|^\\\"",
        "/public/?filter={\"name\":\"<ada>\"}",
    ] {
        assert_eq!(gate.get(target).status, 200, "{target}");
        assert_eq!(upstream.last().line(), format!("GET {target}"));
    }
}

#[test]
fn a_request_without_exactly_one_host_is_refused() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&routes(&redis, &upstream));
    for head in [
        "GET /public/x HTTP/1.1\r\n\r\n",
        "GET /public/x HTTP/1.0\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://other.example/public/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut conn = Conn::plain(gate.address);
        assert_eq!(conn.send(head).reply().status, 400, "{head:?}");
    }
    assert_eq!(upstream.calls(), 0);
    let mut conn = Conn::plain(gate.address);
    let reply = conn
        .send("GET http://LOCALHOST:80/public/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .reply();
    assert_eq!((reply.status, upstream.last().line()), (200, "GET /public/x"));
}

#[test]
fn connect_trace_and_targets_without_a_path_are_refused() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (head, status) in [
        ("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ] {
        let mut conn = Conn::plain(gate.address);
        let reply = conn.send(head).reply();
        let detail = if status == 501 {
            "Not implemented."
        } else {
            "Malformed request."
        };
        assert_eq!((reply.status, reply.detail().as_str()), (status, detail), "{head:?}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_host_that_differs_from_the_target_is_refused() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (target, host, status) in [
        ("http://localhost:81/x", "localhost", 400),
        ("http://localhost/x", "localhost:81", 400),
        ("http://canary@localhost/x", "localhost", 400),
        ("http://localhost.evil.example/x", "localhost", 400),
        ("http://localhost/x", "LOCALHOST:80", 200),
    ] {
        let before = upstream.calls();
        let mut conn = Conn::plain(gate.address);
        let reply = conn
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .reply();
        assert_eq!(reply.status, status, "{target} {host}");
        assert_eq!(upstream.calls() - before, usize::from(status == 200), "{target} {host}");
    }
}

#[test]
fn allow_lists_the_methods_of_all_routes_of_the_path() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .route("/x", "methods = [\"GET\"]\nauthenticate = [\"token\"]")
            .route("/x", "methods = [\"POST\", \"OPTIONS\"]\npublic = true")
            .public("/*"),
    );
    for method in ["DELETE", "PUT", "PATCH"] {
        let reply = gate.call(&call(method, "/x").token("canary-ada"));
        let mut allowed: Vec<&str> = reply.header("allow").unwrap().split(", ").collect();
        allowed.sort_unstable();
        assert_eq!(
            (reply.status, allowed),
            (405, vec!["GET", "HEAD", "OPTIONS", "POST"]),
            "{method}"
        );
    }
    assert_eq!(upstream.calls(), 0, "nothing falls back to the public route below it");
    assert_eq!(
        gate.call(&call("HEAD", "/x")).status,
        401,
        "HEAD is protected as GET is"
    );
}
