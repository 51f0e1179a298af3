//! The identity headers that an upstream receives, and that clients cannot forge. Every assertion is about what the upstream received.

use serde_json::json;

use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get, post};

fn setup() -> (Redis, RecordingUpstream) {
    (Redis::start().with_ada(), RecordingUpstream::start())
}

fn both(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .tokens(redis)
        .app(upstream)
        .protected("/api/*")
        .public("/public/*")
}

#[test]
fn identity_fields_of_clients_are_removed_in_any_spelling() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    for name in [
        "X-User-Id",
        "x-user-id",
        "X_User_Id",
        "x_user-id",
        "X.User.Id",
        "XUserId",
        "X-User_Id",
        "x.user_id",
        "X-User-Name",
    ] {
        for (target, expected) in [("/api/x", vec!["42"]), ("/public/x", vec![])] {
            let call = get(target)
                .header(name, "1")
                .header(name, "2")
                .header("Authorization", "Token canary-ada");
            assert_eq!(gate.call(&call).status, 200, "{name}");
            let seen = upstream.last();
            let ids: Vec<&str> = seen.head.folded("x-user-id").iter().map(|(_, value)| *value).collect();
            assert_eq!(ids, expected, "{name} on {target}");
            assert_eq!(
                seen.head.folded("x-user-name").len(),
                expected.len(),
                "{name} on {target}"
            );
        }
    }
}

#[test]
fn what_connection_names_is_gone_before_our_own_fields_come() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    let call = get("/api/x")
        .token("canary-ada")
        .header("Connection", "X-User-Id, Host, X-Request-Id, X-Forwarded-For")
        .header("Connection", "x-mine, keep-alive")
        .header("X-Mine", "1")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "trailers")
        .header("Upgrade", "h2c")
        .header("Proxy-Connection", "keep-alive");
    assert_eq!(gate.call(&call).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-user-id"), Some("42"));
    assert_eq!(seen.header("host"), Some("localhost"));
    for name in ["x-forwarded-for", "x-request-id"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
    for name in [
        "x-mine",
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn forwarding_fields_are_ours_alone() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    for target in ["/api/x", "/public/x"] {
        let mut call = get(target).token("canary-ada").host("api.example:8443");
        for name in [
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Prefix",
            "X-Forwarded-User",
            "Forwarded",
            "X-Real-IP",
            "Remote-User",
            "X-Remote-User",
            "X-Original-URL",
            "X-Original-Method",
            "X-Rewrite-URL",
            "X-HTTP-Method",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "Proxy",
            "X-SSL-Client-Verify",
            "X-Client-Cert",
            "X-Authgate-User",
            "SCRIPT_NAME",
            "PATH_INFO",
            "REMOTE_USER",
            "X-Request-Id",
        ] {
            call = call.header(name, "spoofed");
        }
        assert_eq!(gate.call(&call).status, 200);
        let seen = upstream.last();
        assert!(
            !String::from_utf8_lossy(&seen.head.raw).contains("spoofed"),
            "{:?}",
            seen.head
        );
        assert_eq!(seen.head.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.head.all("x-forwarded-proto"), ["http"]);
        assert_eq!(seen.head.all("x-forwarded-host"), ["api.example:8443"]);
        assert_eq!(seen.header("x-request-id").map(str::len), Some(32));
        assert!(seen.header("traceparent").is_some());
    }
}

#[test]
fn a_good_traceparent_of_a_trusted_proxy_is_handed_on_and_any_other_replaced() {
    let (redis, upstream) = setup();
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for trusted in ["[]", "[\"10.0.0.0/8\", \"unix\"]"] {
        let gate = Gate::start(&both(&redis, &upstream).server(&format!("trusted_proxies = {trusted}")));
        gate.call(&get("/public/x").header("Traceparent", good).header("Tracestate", "a=1"));
        let seen = upstream.last();
        assert!(
            seen.header("traceparent")
                .is_some_and(|made| made != good && made.len() == 55)
        );
        assert_eq!(seen.header("tracestate"), None, "a client chooses no trace");
    }
    let gate = Gate::start(&both(&redis, &upstream).server("trusted_proxies = [\"127.0.0.1\"]"));
    gate.call(&get("/public/x").header("Traceparent", good).header("Tracestate", "a=1"));
    assert_eq!(
        (
            upstream.last().header("traceparent"),
            upstream.last().header("tracestate")
        ),
        (Some(good), Some("a=1"))
    );
    gate.call(
        &get("/public/x")
            .header("Traceparent", "00-0-0-0")
            .header("Tracestate", "a=1"),
    );
    assert_ne!(upstream.last().header("traceparent"), Some("00-0-0-0"));
    assert_eq!(upstream.last().header("tracestate"), None);
}

#[test]
fn values_are_written_as_the_table_says() {
    let (redis, upstream) = setup();
    let user = json!({ "username": "zo\u{eb} 5%", "email": "z@example.com", "groups": ["a b", "c,d"], "attributes": { "org": { "name": "Acme" } } });
    redis.put_user("7", &user);
    redis.put_token("canary-zoe", &json!({ "user": "7", "scopes": ["r", "w"] }));
    let headers = "headers = { X-Id = \"id\", X-Name = \"username\", X-Mail = \"email\", X-Groups = \"groups\", X-Scopes = \"scopes\", \
                   X-By = \"authenticator\", X-Org = \"attributes.org.name\", X-None = \"attributes.none\" }";
    for (encoding, name) in [("percent", "zo%C3%AB%205%25"), ("utf8", "zo\u{eb} 5%")] {
        let config = both(&redis, &upstream)
            .identity(headers)
            .identity(&format!("encoding = \"{encoding}\""));
        let gate = Gate::start(&config);
        assert_eq!(gate.call(&get("/api/x").token("canary-zoe")).status, 200);
        let seen = upstream.last();
        let raw = String::from_utf8_lossy(&seen.head.raw).into_owned();
        assert!(
            raw.to_lowercase()
                .contains(&format!("x-name: {}\r\n", name.to_lowercase())),
            "{raw}"
        );
        for (field, expected) in [
            ("x-id", Some("7")),
            ("x-mail", Some("z@example.com")),
            ("x-groups", Some("a%20b,c%2Cd")),
            ("x-scopes", Some("r,w")),
            ("x-by", Some("token")),
            ("x-org", Some("Acme")),
            ("x-none", None),
        ] {
            assert_eq!(seen.header(field), expected, "{field}");
        }
        gate.get("/public/x");
        assert_eq!(
            (upstream.last().header("x-by"), upstream.last().header("x-id")),
            (Some("public"), None)
        );
    }
}

#[test]
fn the_credential_is_replaced_kept_or_removed() {
    let (redis, upstream) = setup();
    redis.put_user("7", &json!({}));
    redis.put_token("canary-seven", &json!({ "user": "7" }));
    let sent = |credential: &str, key: &str| {
        let gate = Gate::start(&both(&redis, &upstream).identity(&format!("credential = \"{credential}\"")));
        assert_eq!(gate.call(&get("/api/x").token(key)).status, 200);
        upstream
            .last()
            .head
            .all("authorization")
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let opaque = sent("opaque", "canary-ada");
    assert!(
        opaque.len() == 1 && opaque[0].starts_with("Authgate ") && !opaque[0].contains("canary"),
        "{opaque:?}"
    );
    assert_eq!(opaque, sent("opaque", "canary-ada"));
    assert_ne!(opaque, sent("opaque", "canary-seven"));
    assert_eq!(sent("keep", "canary-ada"), ["Token canary-ada"]);
    assert!(sent("remove", "canary-ada").is_empty());
}

#[test]
fn an_upstream_is_told_what_its_own_table_says() {
    let (redis, app) = setup();
    let other = RecordingUpstream::start();
    let gate = Gate::start(
        &both(&redis, &app)
            .identity("headers = { X-User-Id = \"id\" }\nstrip = [\"X-Common\"]")
            .upstream("other", &[other.url()])
            .with("identity = { headers = { X-Who = \"username\" }, credential = \"remove\", strip = [\"X-Other\"] }")
            .route_to("other", "/other/*", "authenticate = [\"token\"]")
            .route_to("other", "/kept/*", "authenticate = [\"token\"]\ncredential = \"keep\""),
    );
    let spoofed = |target: &str| {
        let names = ["X-User-Id", "x_who", "X-Who", "X-Common", "X-Other"];
        let call = names.iter().fold(get(target).token("canary-ada"), |call, name| {
            call.header(name, "spoofed")
        });
        assert_eq!(gate.call(&call).status, 200, "{target}");
    };
    let received = |upstream: &RecordingUpstream| {
        let seen = upstream.last();
        ["x-user-id", "x-who", "x-common", "x-other", "authorization"]
            .map(|name| seen.head.folded(name).first().map(|(_, value)| (*value).to_owned()))
    };
    spoofed("/api/x");
    let [id, who, common, others, credential] = received(&app);
    assert_eq!((id.as_deref(), who, common, others), (Some("42"), None, None, None));
    assert!(credential.is_some_and(|credential| credential.starts_with("Authgate ")));
    spoofed("/other/x");
    let [id, who, common, others, credential] = received(&other);
    assert_eq!((id, who.as_deref(), common, others), (None, Some("ada"), None, None));
    assert_eq!(credential, None);
    spoofed("/kept/x");
    assert_eq!(
        received(&other)[4].as_deref(),
        Some("Token canary-ada"),
        "a route goes before its upstream"
    );
}

#[test]
fn a_public_route_hands_authorization_on_as_it_came() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    gate.call(&get("/public/x").authorization("Basic Y2FuYXJ5"));
    assert_eq!(upstream.last().header("authorization"), Some("Basic Y2FuYXJ5"));
}

#[test]
fn request_trailers_are_dropped_and_the_body_is_framed_anew() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    let mut call: Call = post("/api/x", "3;ext=1\r\nabc\r\n0\r\nX-User-Id: 1\r\nX-Late: 1\r\n\r\n").token("canary-ada");
    call.fields.retain(|(name, _)| name != "Content-Length");
    let call = call.header("Transfer-Encoding", "chunked").header("Trailer", "X-Late");
    assert_eq!(gate.call(&call).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.text(), "abc");
    assert!(seen.body.trailers.is_empty(), "{:?}", seen.body);
    assert_eq!((seen.header("trailer"), seen.head.all("x-user-id")), (None, vec!["42"]));
}

#[test]
fn host_is_the_clients_the_servers_or_a_name() {
    let upstream = RecordingUpstream::start();
    for (line, expected) in [
        ("host = \"preserve\"", "API.example:8443".to_owned()),
        ("host = \"server\"", upstream.address.to_string()),
        ("host = \"app.internal\"", "app.internal".to_owned()),
    ] {
        let gate = Gate::start(&config().app(&upstream).with(line).public("/*"));
        gate.call(&get("/x").host("API.example:8443"));
        assert_eq!(upstream.last().head.all("host"), [expected.as_str()], "{line}");
        assert_eq!(upstream.last().header("x-forwarded-host"), Some("API.example:8443"));
    }
}

#[test]
fn strip_takes_further_names() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .identity("strip = [\"X-Internal-Role\"]")
            .app(&upstream)
            .public("/*"),
    );
    gate.call(
        &get("/x")
            .header("x-internal-role", "root")
            .header("X_Internal_Role", "root")
            .header("X-Other", "1"),
    );
    let seen = upstream.last();
    assert!(seen.head.folded("x-internal-role").is_empty());
    assert_eq!(seen.header("x-other"), Some("1"));
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_on_their_hop() {
    let upstream = RecordingUpstream::start();
    upstream.answers_raw("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nContent-Length: 2\r\n\r\nok");
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let reply = gate.get("/x");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[test]
fn identity_fields_of_anonymous_clients_are_removed() {
    let (redis, upstream) = setup();
    let optional = "authenticate = [\"token\"]\noptional = true";
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).route("/optional", optional));
    for name in [
        "X-User-Id",
        "x_user_id",
        "X.User.Id",
        "XUserId",
        "X-User-Name",
        "X~User~Name",
    ] {
        assert_eq!(gate.call(&get("/optional").header(name, "1")).status, 200, "{name}");
        let head = upstream.last().head;
        for field in ["x-user-id", "x-user-name"] {
            assert!(head.folded(field).is_empty(), "{name}: {head:?}");
        }
    }
}

#[test]
fn whole_families_of_names_are_dropped_whatever_follows() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    for target in ["/api/x", "/public/x"] {
        let mut call = get(target).token("canary-ada");
        for name in [
            "X-SSL-Client-S-DN",
            "X.Ssl.Client.Verify",
            "X-Client-Cert-Chain",
            "XClientCertDN",
            "X-Authgate-Anything",
            "X-Forwarded-Client-Cert",
            "X.Forwarded.For",
            "XForwardedHost",
            "X.Real.IP",
            "X-Original-Url",
            "RemoteUser",
        ] {
            call = call.header(name, "spoofed");
        }
        let call = call.header("X-Kept", "kept");
        assert_eq!(gate.call(&call).status, 200);
        let seen = upstream.last();
        let raw = String::from_utf8_lossy(&seen.head.raw).into_owned();
        assert!(!raw.contains("spoofed"), "{raw}");
        assert_eq!(seen.header("x-kept"), Some("kept"));
    }
}

#[test]
fn a_request_without_one_good_traceparent_gets_one() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream).server("trusted_proxies = [\"127.0.0.1\"]"));
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for call in [
        get("/public/x"),
        get("/public/x").header("Traceparent", good).header("Traceparent", good),
        get("/public/x").header("Traceparent", good.to_uppercase()),
        get("/public/x").header("Traceparent", format!("{good}-00")),
        get("/public/x")
            .header("Traceparent", good)
            .header("Connection", "Traceparent"),
    ] {
        gate.call(&call);
        let seen = upstream.last();
        let made = seen.header("traceparent").unwrap();
        let lengths: Vec<usize> = made.split('-').map(str::len).collect();
        assert!(made != good && lengths == [2, 32, 16, 2], "{call:?}: {made}");
        assert!(
            made.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')),
            "{made}"
        );
    }
}

#[test]
fn the_stand_in_for_a_credential_is_the_one_that_is_documented() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&both(&redis, &upstream));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"token\x0042");
    let expected = format!("Authgate {}", crate::harness::mint::base64(digest));
    assert_eq!(upstream.last().head.all("authorization"), [expected.as_str()]);
}
