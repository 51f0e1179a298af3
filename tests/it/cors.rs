//! `cors`: preflights, and the refusals that applications may read.

use crate::harness::{Call, Gate, RecordingUpstream, Redis, call, config, get};

const OURS: &str = "https://app.example.com";

fn preflight(origin: &str, method: &str) -> Call {
    call("OPTIONS", "/api/x")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization")
}

#[test]
fn preflights_of_listed_origins_are_forwarded_as_anonymous_and_refusals_are_readable() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let cors = format!("cors = {{ origins = [\"{OURS}\"], credentials = true }}");
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .identity("headers = { X-User-Id = \"id\", X-Auth-Source = \"authenticator\" }")
            .app(&upstream)
            .route(
                "/api/*",
                &format!("authenticate = [\"token\"]\nmethods = [\"GET\", \"PUT\"]\n{cors}"),
            )
            .protected("/other/*"),
    );
    // A preflight is anonymous, also with a credential.
    let asked = preflight(OURS, "PUT").token("canary-ada").header("X-User-Id", "42");
    assert_eq!(gate.call(&asked).status, 200);
    let seen = upstream.last();
    assert_eq!((seen.line(), seen.header("origin")), ("OPTIONS /api/x", Some(OURS)));
    assert_eq!(
        (seen.header("x-user-id"), seen.header("x-auth-source")),
        (None, Some("anonymous"))
    );
    assert_eq!(seen.header("authorization"), None);

    let before = upstream.calls();
    for refused in [
        preflight("https://evil.example", "PUT"),
        preflight("https://app.example.com.evil.example", "PUT"),
        preflight("null", "PUT"),
        preflight(OURS, "PUT").header("Origin", "https://evil.example"),
        preflight(OURS, "DELETE"),
        call("OPTIONS", "/api/x").header("Origin", OURS),
    ] {
        assert_eq!(gate.call(&refused).status, 405);
    }
    let mut elsewhere = preflight(OURS, "PUT");
    elsewhere.target = "/other/x".to_owned();
    assert_eq!(gate.call(&elsewhere).status, 401);
    assert_eq!(upstream.calls(), before);

    let reply = gate.call(&get("/api/x").header("Origin", OURS));
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (401, Some(OURS))
    );
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert!(
        reply
            .header("access-control-expose-headers")
            .unwrap()
            .contains("WWW-Authenticate")
    );
    for other in [get("/api/x").header("Origin", "https://evil.example"), get("/api/x")] {
        let reply = gate.call(&other);
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, None));
    }
    // Responses of the upstream are not changed.
    let reply = gate.call(&get("/api/x").header("Origin", OURS).token("canary-ada"));
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
}
