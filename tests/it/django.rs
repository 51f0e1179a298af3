//! A real Django, DRF and SimpleJWT project behind the gateway, served by gunicorn. `AUTHGATE_VENV` names a venv that has them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::gunicorn::{self, Gunicorn};
use crate::harness::program::{authgate_with_input, run};
use crate::harness::{Config, Gate, Redis, config, get, post};

pub const PASSWORD: &str = "canary-correct-horse";

/// The application, with a database of its own.
pub struct Django {
    gunicorn: Option<Gunicorn>,
    folder: tempfile::TempDir,
    users: Value,
    variables: Vec<(&'static str, &'static str)>,
}

impl Django {
    /// `None` where there is no venv.
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with these variables set.
    pub fn start_with(variables: &[(&'static str, &'static str)]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        gunicorn::command("python", folder.path())?;
        fs::write(
            folder.path().join("jwt.secret"),
            "canary-0123456789-0123456789-0123456789",
        )
        .unwrap();
        let mut django = Self {
            folder,
            gunicorn: None,
            users: Value::Null,
            variables: variables.to_vec(),
        };
        django.users = serde_json::from_str(&run(django.python(&["setup_test_db.py"]), b"").good()).unwrap();
        django.gunicorn = Some(Gunicorn::start(django.command("gunicorn")));
        Some(django)
    }

    /// Served anew, with these variables in place of those before.
    pub fn restart_with(&mut self, variables: &[(&'static str, &'static str)]) {
        self.gunicorn = None;
        self.variables = variables.to_vec();
        run(self.python(&["manage.py", "migrate", "--verbosity", "0"]), b"").good();
        self.gunicorn = Some(Gunicorn::start(self.command("gunicorn")));
    }

    /// What `setup_test_db.py` has made, by username.
    pub fn users(&self) -> &Value {
        &self.users["users"]
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        self.gunicorn.as_ref().expect("started").url.clone()
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = gunicorn::command(name, self.folder.path()).expect("a venv");
        command
            .env("DJANGO_TEST_PASSWORD", PASSWORD)
            .env("DJANGO_JWT_SECRET_FILE", self.folder.path().join("jwt.secret"))
            .envs(self.variables.iter().copied());
        command
    }

    fn python(&self, words: &[&str]) -> Command {
        let mut command = self.command("python");
        command.args(words);
        command
    }

    pub fn dump(&self, flags: &[&str]) -> String {
        let mut words = vec!["manage.py", "dumpdata", "auth.user", "auth.group", "authtoken.token"];
        words.extend(flags);
        run(self.python(&words), b"").good()
    }

    /// The configuration of a gateway before it, without routes.
    pub fn before(&self, redis: &Redis) -> Config {
        let secret = self.folder.path().join("jwt.secret");
        let keys = format!("keys = [{{ algorithm = \"HS256\", secret = {{ file = {secret:?} }} }}]");
        config()
            .redis_with_long_timeout(redis)
            .token("cache = { entries = 0, negative_entries = 0 }")
            .jwt(&keys)
            .jwt("users = \"none\"")
            .identity("headers = { X-User-Id = \"id\", X-Auth-Source = \"authenticator\" }")
            .upstream("app", &[self.url()])
    }

    /// A gateway before it, with an empty Redis.
    fn gate(&self, redis: &Redis) -> Gate {
        Gate::start(
            &self
                .before(redis)
                .route("/api/*", "authenticate = [\"token\", \"jwt\"]")
                .public("/api/token/*")
                .public("/api/token-auth/")
                .public("/healthz"),
        )
    }
}

/// How many requests Django has seen.
pub fn calls(gate: &Gate) -> u64 {
    let reply = gate.call(&get("/healthz").echoes());
    serde_json::from_str::<Value>(&reply.text()).unwrap()["calls"]
        .as_u64()
        .unwrap()
}

/// Logs in through the gateway, as a browser application would.
pub fn log_in(gate: &Gate, target: &str, member: &str) -> String {
    let body = json!({ "username": "ada", "password": PASSWORD }).to_string();
    let reply = gate.call(&post(target, body).header("Content-Type", "application/json").echoes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body: Value = serde_json::from_str(&reply.text()).unwrap();
    body[member].as_str().unwrap().to_owned()
}

pub fn import(gate: &Gate, dump: &str) {
    let ended = authgate_with_input(gate.folder.path(), &["token", "import", "-"], dump.as_bytes());
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_django_project_accepts_logins_and_calls_through_the_gateway() {
    let Some(django) = Django::start() else { return };
    let redis = Redis::start();
    let gate = django.gate(&redis);
    import(&gate, &django.dump(&[]));

    let jwt = log_in(&gate, "/api/token/", "access");
    let token = log_in(&gate, "/api/token-auth/", "token");
    for (value, word) in [(format!("Token {token}"), "Token"), (format!("Bearer {jwt}"), "JWT")] {
        for call in [
            get("/api/hello/"),
            post("/api/hello/", "{\"a\":1}").header("Content-Type", "application/json"),
        ] {
            let reply = gate.call(&call.authorization(&value).echoes());
            assert_eq!(reply.status, 200, "{}", reply.text());
            let body: Value = serde_json::from_str(&reply.text()).unwrap();
            assert_eq!(
                body["message"],
                format!("Hello, ada! You are authenticated with {word}.")
            );
        }
    }

    // User 1 is a superuser of that database: a forged header that gets through would greet another user.
    for (name, value) in [
        ("X-User-Id", "1"),
        ("x_user_id", "1"),
        ("X.User.Id", "1"),
        ("Connection", "X-User-Id"),
        ("X_USER_ID", "1"),
    ] {
        let call = get("/api/hello/").header(name, value).token(&token).echoes();
        let reply = gate.call(&call);
        let body: Value = serde_json::from_str(&reply.text()).unwrap();
        assert_eq!(
            body["message"], "Hello, ada! You are authenticated with Token.",
            "{name}"
        );
    }

    let before = calls(&gate);
    for bad in [
        "Token canary-unknown",
        "Bearer canary.canary.canary",
        "Token",
        "Basic Y2FuYXJ5",
    ] {
        assert_eq!(gate.call(&get("/api/hello/").authorization(bad)).status, 401, "{bad}");
    }
    assert_eq!(gate.call(&get("/api/hello/").header("X-User-Id", "1")).status, 401);
    assert_eq!(calls(&gate), before, "a refused request reached Django");
}

#[test]
fn imported_tokens_are_authenticated_without_django() {
    let Some(django) = Django::start() else { return };
    for flags in [&[][..], &["--natural-foreign"]] {
        let redis = Redis::start();
        let gate = django.gate(&redis);
        import(&gate, &django.dump(flags));
        let id = django.users["users"]["ada"]["id"].to_string();
        let shown = authgate_with_input(gate.folder.path(), &["user", "show", &id, "--json"], b"").good();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let groups = shown
            .pointer("/groups")
            .or_else(|| shown.pointer("/user/groups"))
            .unwrap();
        assert!(
            groups.as_array().unwrap().contains(&json!("staff")),
            "names, not numbers: {shown}"
        );
        let before = calls(&gate);
        let ben = django.users["users"]["ben"]["token"]
            .as_str()
            .unwrap_or("canary-none")
            .to_owned();
        let reply = gate.call(&get("/api/hello/").token(&ben));
        assert_eq!(reply.status, 401);
        assert_eq!(calls(&gate), before, "Django was asked about an inactive user");
    }
}
