//! `docs/compared`: the gateway, nginx and Envoy do the job of these pages, with the configurations that the pages have, as they are written.

use std::fs;
use std::path::Path;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::documented_shell::block_of;
use crate::harness::machine::{Machine, on_a_machine, statuses};
use crate::harness::mint::{Signer, now};
use crate::harness::program::run;
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::upstream::Exchange;
use crate::harness::{Next, RecordingUpstream, wait_until};

const ISSUER: &str = "https://login.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// The application, the issuer, and its tokens.
struct Job<'m> {
    machine: &'m Machine,
    upstream: RecordingUpstream,
    provider: ScriptedProvider,
    signer: Signer,
    /// Tokens are issued at this time.
    started: i64,
}

impl<'m> Job<'m> {
    fn new(machine: &'m Machine) -> Self {
        let signer = Signer::new(Algorithm::RS256).kid("1");
        let provider = ScriptedProvider::at("[::1]:443", &machine.pki, &["login.example.com"]);
        let metadata = json!({ "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/jwks.json") });
        provider.serves("/.well-known/openid-configuration", Script::json(&metadata));
        provider.serves("/jwks.json", Script::json(&json!({ "keys": [signer.jwk] })));
        Self {
            machine,
            upstream: RecordingUpstream::at("127.0.0.1:8000"),
            provider,
            signer,
            started: now(),
        }
    }

    /// The certificate for `api.example.com` and its key, in this folder.
    fn certificate(&self, folder: &str) {
        let (chain, key) = self.machine.pki.leaf(&["api.example.com"]);
        fs::create_dir_all(folder).unwrap();
        fs::write(Path::new(folder).join("tls.pem"), chain).unwrap();
        fs::write(Path::new(folder).join("tls.key"), key).unwrap();
    }

    /// A JWT of user 42, with other claims.
    fn jwt(&self, more: &Value) -> String {
        self.signed_by(&self.signer, more)
    }

    fn signed_by(&self, signer: &Signer, more: &Value) -> String {
        let (iat, exp) = (self.started, self.started + 600);
        let mut claims = json!({ "iss": ISSUER, "aud": "https://api.example.com", "sub": "42", "jti": "canary-1", "iat": iat, "exp": exp });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        format!("Bearer {}", signer.sign(&claims))
    }

    /// Sends a request that also has an identity of its own. Returns the status and the body.
    fn get(&self, path: &str, authorization: &str) -> (u16, String) {
        self.machine.set("CREDENTIAL", authorization);
        let curl = format!("curl -H \"Authorization: $CREDENTIAL\" -H 'X-User-Id: 1' https://api.example.com{path}");
        let ended = run(self.machine.shell(&curl), b"");
        (statuses(&ended).first().copied().unwrap_or_default(), ended.out)
    }

    /// The requests for this path that have reached the application.
    fn seen(&self, path: &str) -> Vec<Option<String>> {
        let seen = self.upstream.all().into_iter();
        let seen = seen.filter(|seen| seen.line() == format!("GET {path}"));
        seen.map(|seen| seen.header("x-user-id").filter(|id| !id.is_empty()).map(str::to_owned))
            .collect()
    }

    /// The request reaches the application, with this user.
    fn passes(&self, path: &str, authorization: &str, user: Option<&str>) {
        let (status, body) = self.get(path, authorization);
        assert_eq!(status, 200, "{path} {authorization}: {body}");
        assert_eq!(
            self.seen(path).last().unwrap().as_deref(),
            user,
            "{path} {authorization}"
        );
    }

    /// The request is refused with one of these statuses, and does not reach the application. Returns the body.
    fn refused(&self, path: &str, authorization: &str, expected: &[u16]) -> String {
        let before = self.seen(path).len();
        let (status, body) = self.get(path, authorization);
        assert!(expected.contains(&status), "{path} {authorization}: {status}, {body}");
        assert_eq!(self.seen(path).len(), before, "{path} {authorization}");
        body
    }

    fn becomes(&self, path: &str, authorization: &str, status: u16) {
        wait_until(&format!("{path} is {status}"), PATIENCE, || {
            self.get(path, authorization).0 == status
        });
    }

    /// What the page says about the job.
    fn is_done(&self) {
        self.becomes("/public/start", "", 200);
        let (ada, bob) = (
            self.jwt(&json!({ "groups": ["staff"] })),
            self.jwt(&json!({ "sub": "43" })),
        );
        self.becomes("/api/start", &ada, 200); // the keys are there
        self.passes("/api/orders", &ada, Some("42"));
        self.passes("/api/orders", &bob, Some("43"));
        self.passes("/api/reports/2026", &ada, Some("42"));
        self.refused("/api/reports/2026", &bob, &[403]);
        self.passes("/public/x", "", None);
        self.refused("/api/orders", "", &[401]);
        let other = Signer::new(Algorithm::RS256).kid("1");
        let forged = self.signed_by(&other, &json!({}));
        for jwt in [
            forged,
            self.jwt(&json!({ "aud": "https://other.example.com" })),
            self.jwt(&json!({ "iss": "https://other.example.com" })),
            self.jwt(&json!({ "exp": self.started - 3600 })),
        ] {
            // Envoy answers 403 for another audience.
            self.refused("/api/orders", &jwt, &[401, 403]);
        }
        self.refused("/elsewhere", &ada, &[404]);
    }
}

#[test]
fn the_gateway_does_the_job_that_is_compared() {
    on_a_machine("compared::the_gateway_does_the_job_that_is_compared", |machine| {
        let (job, redis) = (Job::new(machine), machine.redis());
        redis.put_layout("1");
        let _redis = redis.with_ada();
        job.certificate("/run/home");
        for file in ["tls.pem", "tls.key"] {
            machine.write(file, fs::read(Path::new("/run/home").join(file)).unwrap());
        }
        machine.write(
            "gateway.toml",
            block_of("docs/compared/README.md", "toml", "[server.tls]"),
        );
        let checked = machine.run("authgate check");
        assert!(!checked.err.contains("warning"), "{checked:?}");
        let _gate = machine.gateway("gateway.toml");
        job.is_done();
        job.passes("/api/reports/2026", "Token canary-ada", Some("42"));
        let (stolen, other) = (job.jwt(&json!({ "jti": "canary-2" })), job.jwt(&json!({})));
        job.passes("/api/orders", &stolen, Some("42"));
        machine.run("authgate revoke --jti canary-2; echo canary-ada | authgate token revoke -");
        job.becomes("/api/orders", &stolen, 401);
        job.becomes("/api/orders", "Token canary-ada", 401);
        job.passes("/api/orders", &other, Some("42"));
    });
}

/// The view of the page: it knows who may do what, and answers with the user.
fn authenticates(tokens: &[(String, &'static str, bool)], exchange: Exchange<'_>) -> Next {
    if !exchange.head.first.starts_with("GET /authenticate ") {
        return exchange.ok();
    }
    let field = |name| exchange.head.header(name).unwrap_or_default();
    let is_report = field("x-original-uri").starts_with("/api/reports/");
    let sent = field("authorization").to_owned();
    match tokens.iter().find(|(token, _, _)| *token == sent) {
        Some((_, _, false)) if is_report => exchange.answer("403 Forbidden", "", b""),
        Some((_, user, _)) => exchange.answer("204 No Content", &format!("X-User-Id: {user}\r\n"), b""),
        None => exchange.answer("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", b""),
    }
}

#[test]
fn nginx_does_the_job_that_is_compared() {
    on_a_machine("compared::nginx_does_the_job_that_is_compared", |machine| {
        let job = Job::new(machine);
        job.certificate("/etc/nginx");
        fs::write(
            "/etc/nginx/nginx.conf",
            block_of("docs/compared/nginx.md", "nginx", "auth_request"),
        )
        .unwrap();
        machine.run("mkdir -p /var/log/nginx /var/lib/nginx");
        machine.run("nginx -t");
        if !machine.has_users() {
            eprintln!("skipped: workers of nginx need a user of their own");
            return;
        }
        let known = [
            ("42", json!({ "groups": ["staff"] }), true),
            ("43", json!({ "sub": "43" }), false),
        ];
        // Signatures with RSA are the same for the same claims, so the view knows them.
        let tokens = known.map(|(user, more, is_staff)| (job.jwt(&more), user, is_staff));
        job.upstream.answers(move |exchange| authenticates(&tokens, exchange));
        let _nginx = machine.start("exec nginx -g 'daemon off;'");
        job.is_done();
        let before = job.upstream.calls();
        job.passes("/api/orders", &job.jwt(&json!({ "sub": "43" })), Some("43"));
        assert_eq!(job.upstream.calls(), before + 2, "each request costs two");
        assert!(job.refused("/api/orders", "", &[401]).contains("<html>"));
        job.upstream
            .answers(|exchange| exchange.answer("503 Service Unavailable", "", b""));
        job.refused("/api/orders", "", &[500]);
    });
}

#[test]
fn envoy_does_the_job_that_is_compared() {
    if std::env::var_os("AUTHGATE_VENV").is_none() {
        eprintln!("skipped: AUTHGATE_VENV names no venv with tests/django/requirements.txt");
        return;
    }
    on_a_machine("compared::envoy_does_the_job_that_is_compared", |machine| {
        let job = Job::new(machine);
        job.certificate("/etc/envoy");
        fs::write(
            "/etc/envoy/envoy.yaml",
            block_of("docs/compared/envoy.md", "yaml", "jwt_authn"),
        )
        .unwrap();
        machine.run("envoy --mode validate -c /etc/envoy/envoy.yaml");
        let _envoy = machine.start("exec envoy -c /etc/envoy/envoy.yaml --concurrency 1 --disable-hot-restart");
        job.is_done();
        assert!(job.refused("/api/orders", "", &[401]).starts_with("Jwt is missing"));
        assert!(job.provider.count("/jwks.json") > 0);
    });
}
