//! `form`: authenticators of one route share a scheme, and each reads the credentials of its form.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::{Signer, claims_with};
use crate::harness::{Call, Gate, RecordingUpstream, Redis, config, get};

struct World {
    signer: Signer,
    _redis: Redis,
    upstream: RecordingUpstream,
    gate: Gate,
}

/// `jwt` reads the JWTs of `Bearer`; `token` reads all that is left to it.
fn world() -> World {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &config()
            .redis(&redis)
            .token("scheme = \"Bearer\"")
            .jwt("users = \"none\"")
            .jwt("form = \"jwt\"")
            .jwt("token_bytes = \"512B\"")
            .jwt(&format!("keys = [{}]", signer.key("jwt.pem")))
            .file("jwt.pem", signer.file())
            .identity("headers = { X-User-Id = \"id\", X-Authenticator = \"authenticator\" }")
            .app(&upstream)
            .route("/both/*", "authenticate = [\"jwt\", \"token\"]")
            .route("/maybe/*", "authenticate = [\"jwt\", \"token\"]\noptional = true")
            .route("/jwt/*", "authenticate = [\"jwt\"]")
            .route("/jwt/maybe/*", "authenticate = [\"jwt\"]\noptional = true")
            .route(
                "/jwt/problem/*",
                "authenticate = [\"jwt\"]\noptional = true\nerrors = \"problem\"",
            ),
    );
    World {
        signer,
        _redis: redis,
        upstream,
        gate,
    }
}

impl World {
    fn is_accepted(&self, call: &Call, authenticator: &str) {
        assert_eq!(self.gate.call(call).status, 200, "{authenticator}");
        let request = self.upstream.last();
        assert_eq!(request.header("x-authenticator"), Some(authenticator));
    }

    /// Wants 401 with a body that contains `text`, and an upstream that receives nothing.
    fn is_refused(&self, call: &Call, text: &str) {
        let before = self.upstream.calls();
        let reply = self.gate.call(call);
        assert_eq!(reply.status, 401, "{text}");
        assert!(reply.text().contains(text), "{text}: {}", reply.text());
        assert_eq!(self.upstream.calls(), before, "{text}");
    }
}

const INVALID_JWT: &str = "\"message\":\"Token is invalid\"";
const INVALID_TOKEN: &str = "{\"detail\":\"Invalid token.\"}";

#[test]
fn one_scheme_is_shared_by_an_authenticator_for_jwts_and_one_for_other_tokens() {
    let world = world();
    let good = world.signer.access();
    let expired = world.signer.sign(&claims_with(&json!({ "exp": 1 })));
    for path in ["/both/x", "/maybe/x"] {
        world.is_accepted(&get(path).bearer(&good), "jwt");
        world.is_accepted(&get(path).bearer("canary-ada"), "token");
        world.is_refused(&get(path).bearer(&expired), "\"message\":\"Token is expired\"");
        world.is_refused(&get(path).bearer("canary.x.x"), INVALID_JWT);
        for opaque in ["canary-unknown", "canary.x", "canary.x.x.x.x", &format!("{good}.x")] {
            world.is_refused(&get(path).bearer(opaque), INVALID_TOKEN);
        }
        // The limits of one authenticator do not apply to the other one.
        world.is_refused(&get(path).bearer(&"canary".repeat(200)), INVALID_TOKEN);
        world.is_refused(&get(path).bearer(&format!("canary.x.{}", "x".repeat(600))), INVALID_JWT);
    }
}

#[test]
fn a_credential_that_no_authenticator_reads_is_refused_and_never_anonymous() {
    let world = world();
    let optional = ["/jwt/maybe/x", "/jwt/problem/x"];
    for path in optional {
        for anonymous in [get(path), get(path).authorization("Basic Y2FuYXJ5OmNhbmFyeQ==")] {
            world.is_accepted(&anonymous, "anonymous");
        }
        world.is_accepted(&get(path).bearer(&world.signer.access()), "jwt");
    }
    for path in ["/jwt/x", "/jwt/maybe/x"] {
        world.is_refused(&get(path).bearer("canary-ada"), INVALID_JWT);
    }
    world.is_refused(&get("/jwt/problem/x").bearer("canary-ada"), "\"code\":\"jwt_invalid\"");
    let line = world.gate.logged(&["jwt_invalid", "/jwt/problem/x"]);
    assert!(line.contains("\"reason\":\"form\""), "{line}");
}

#[test]
fn a_malformed_header_is_refused_by_the_first_authenticator_of_the_scheme() {
    let world = world();
    let two_words = "\"code\":\"bad_authorization_header\"";
    for path in ["/both/x", "/maybe/x"] {
        for value in ["Bearer", "Bearer canary-ada canary-ada"] {
            world.is_refused(&get(path).authorization(value), two_words);
        }
        let lines = |first: &str, second: &str| get(path).authorization(first).authorization(second);
        let good = format!("Bearer {}", world.signer.access());
        world.is_refused(&lines(&good, &good), two_words);
        world.is_refused(&lines("Bearer canary-ada", "Bearer canary-ada"), two_words);
        // Joined by a comma, they are one word.
        world.is_refused(&lines(&good, "canary"), INVALID_JWT);
        world.is_refused(&lines("Bearer canary-ada", "canary"), INVALID_TOKEN);
    }
}
