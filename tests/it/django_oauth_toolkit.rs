//! A real authorization server: django-oauth-toolkit issues opaque tokens, and the gateway introspects them there, configured as
//! docs/identity-providers.md says.

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::django::{Django, PASSWORD};
use crate::floors::root;
use crate::harness::client::Reply;
use crate::harness::program::run;
use crate::harness::{Conn, Gate, RecordingUpstream, config, get, post, wait_until};

const TIMEOUT: Duration = Duration::from_secs(20);
const SETTINGS: (&str, &str) = ("DJANGO_SETTINGS_MODULE", "mysite.oauth_settings");

/// The block of the page for django-oauth-toolkit.
fn documented() -> String {
    let page = fs::read_to_string(root().join("docs/identity-providers.md")).unwrap();
    let section = page.split_once("## django-oauth-toolkit").expect("a section").1;
    let block = section.split_once("```toml\n").expect("a block").1;
    block.split_once("```").expect("its end").0.to_owned()
}

struct Server {
    django: Django,
    upstream: RecordingUpstream,
}

impl Server {
    /// `None` where there is no venv.
    fn start() -> Option<Self> {
        let django = Django::start_with(&[SETTINGS])?;
        let mut setup = django.command("python");
        setup.arg("setup_oauth_db.py");
        run(setup, b"").good();
        let upstream = RecordingUpstream::start();
        Some(Self { django, upstream })
    }

    /// A gateway with the documented block. `secret` is that of the client.
    fn gate(&self, secret: &str, lines: &str) -> Gate {
        self.gate_with(secret, lines, |block| block)
    }

    fn gate_with(&self, secret: &str, lines: &str, change: impl FnOnce(String) -> String) -> Gate {
        let url = self.django.url();
        let block = documented()
            .replace("https://django.example.com", &url)
            .replace("/etc/authgate/", "")
            .replace("\"authgate\"", "\"gateway\"")
            .replace(
                "kind = \"introspection\"\n",
                &format!("kind = \"introspection\"\ntimeout = \"20s\"\n{lines}\n"),
            );
        let identity = "headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Scopes = \"scopes\" }";
        let config = config()
            .app(&self.upstream)
            .file("idp.secret", secret)
            .identity(identity);
        Gate::start(&config.tables(&change(block)))
    }

    /// Posts a form as one of its clients.
    fn post(&self, path: &str, client: &str, form: &str) -> Reply {
        let address = self.django.url();
        let address = address.strip_prefix("http://").unwrap().parse().unwrap();
        let login = STANDARD.encode(format!("{client}:canary-{client}-secret"));
        let call = post(path, form)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .authorization(&format!("Basic {login}"))
            .echoes();
        Conn::plain(address).call(&call)
    }

    fn token(&self, client: &str, form: &str) -> String {
        let reply = self.post("/o/token/", client, form);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let issued: Value = serde_json::from_str(&reply.text()).unwrap();
        issued["access_token"].as_str().unwrap().to_owned()
    }

    fn token_of_ada(&self, scope: &str) -> String {
        self.token(
            "shop",
            &format!("grant_type=password&username=ada&password={PASSWORD}&scope={scope}"),
        )
    }
}

#[test]
fn tokens_of_django_oauth_toolkit_are_introspected_there() {
    let Some(server) = Server::start() else { return };
    let gate = server.gate(
        "canary-gateway-secret",
        "cache = { ttl = \"1s\", negative_ttl = \"0s\" }",
    );
    let ask = |token: &str| gate.call(&get("/api/x").bearer(token));
    let (good, other) = (server.token_of_ada("read+write"), server.token_of_ada("write"));
    assert_eq!(ask(&good).status, 200);
    let sent = server.upstream.last();
    for (name, value) in [("x-user-id", "ada"), ("x-user-name", "ada"), ("x-scopes", "read,write")] {
        assert_eq!(sent.header(name), Some(value), "{name}");
    }
    assert_eq!(ask(&other).status, 403, "it has not the scope");
    let unknown = ask("canary-unknown");
    assert_eq!(
        (unknown.status, unknown.text().as_str()),
        (401, "{\"detail\":\"Invalid token.\"}")
    );
    // Without a user.
    let robot = server.token("robot", "grant_type=client_credentials&scope=read");
    assert_eq!(ask(&robot).status, 401);
    gate.logged(&["introspected_user_unnamed", "username is absent"]);
    // Its metadata (RFC 8414) name the same endpoint.
    let endpoint = format!("url = \"{}/o/introspect/\"", server.django.url());
    let discovery = format!("discovery = \"{}\"", server.django.url());
    let by_issuer = server.gate_with("canary-gateway-secret", "", |block| {
        block.replace(&endpoint, &discovery)
    });
    assert_eq!(by_issuer.call(&get("/api/x").bearer(&good)).status, 200);
    // Revoked there.
    let revoked = server.post("/o/revoke_token/", "shop", &format!("token={good}"));
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    wait_until("the revocation is in force", TIMEOUT, || ask(&good).status == 401);
}

#[test]
fn tokens_of_inactive_users_stay_active_and_a_wrong_secret_is_503() {
    let Some(server) = Server::start() else { return };
    let token = server.token_of_ada("read");
    let mut python = server.django.command("python");
    let ends =
        "from django.contrib.auth.models import User; User.objects.filter(username='ada').update(is_active=False)";
    python.args(["manage.py", "shell", "--command", ends]);
    run(python, b"").good();
    let gate = server.gate("canary-gateway-secret", "");
    assert_eq!(
        gate.call(&get("/api/x").bearer(&token)).status,
        200,
        "as the page warns"
    );
    let gate = server.gate("canary-wrong-secret", "");
    assert_eq!(gate.call(&get("/api/x").bearer(&token)).status, 503);
    gate.logged(&["introspection_client", "it does not accept the gateway as a client"]);
}
