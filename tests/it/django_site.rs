//! The same project as a whole site: admin and browsable API with sessions, static files, Channels; and how a live site is moved.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::django::{Django, PASSWORD, calls, import, log_in};
use crate::harness::client::Reply;
use crate::harness::gunicorn::Uvicorn;
use crate::harness::pki::Pki;
use crate::harness::program::{program, run};
use crate::harness::{Call, Config, Conn, Gate, Redis, get, post, wait_until};

const SECRET: &str = "canary-gateway-secret";
const SITE: (&str, &str) = ("DJANGO_SETTINGS_MODULE", "mysite.site_settings");

/// The routes of docs/django.md for a site with a browsable API.
fn site_routes(config: Config) -> Config {
    let api = "authenticate = [\"token\", \"jwt\"]\noptional = true";
    config
        .route("/api/*", api)
        .public("/api/token/*")
        .public("/api/token-auth/")
        .public("/api-auth/*")
        .public("/admin/*")
        .public("/static/*")
        .public("/healthz")
}

/// What a browser keeps.
struct Browser<'g> {
    gate: &'g Gate,
    cookies: Vec<(String, String)>,
}

impl Browser<'_> {
    fn cookie(&self, name: &str) -> String {
        let found = self.cookies.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no cookie {name}")).1.clone()
    }

    fn call(&mut self, call: Call) -> Reply {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let call = if cookies.is_empty() {
            call
        } else {
            call.header("Cookie", cookies.join("; "))
        };
        let reply = self.gate.call(
            &call
                .header("Origin", "https://localhost")
                .header("Accept", "text/html")
                .echoes(),
        );
        for set in reply.headers("set-cookie") {
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        reply
    }

    /// Logs in by a form of Django, as root.
    fn log_in(&mut self, page: &str) {
        assert_eq!(self.call(get(page)).status, 200, "{page}");
        let form = format!(
            "username=root&password={PASSWORD}&csrfmiddlewaretoken={}",
            self.cookie("csrftoken")
        );
        let sent = post(page, form).header("Content-Type", "application/x-www-form-urlencoded");
        let reply = self.call(sent);
        assert_eq!(reply.status, 302, "{page}: {}", reply.text());
        self.cookie("sessionid");
    }
}

#[test]
fn sessions_work_beside_tokens_for_the_browsable_api_and_the_admin() {
    let Some(django) = Django::start_with(&[SITE]) else {
        return;
    };
    let redis = Redis::start();
    // Over TLS, where Django's CSRF checks also want the right scheme and host of Origin.
    let gate = Gate::start(&site_routes(django.before(&redis)).tls(&Pki::new(), &[&["localhost"]]));
    import(&gate, &django.dump(&[]));
    let token = log_in(&gate, "/api/token-auth/", "token");

    // Anonymous: Django's permissions refuse with the challenge that the gateway would have sent.
    let anonymous = gate.call(&get("/api/hello/").header("X-User-Id", "1"));
    assert_eq!(
        (anonymous.status, anonymous.header("www-authenticate")),
        (401, Some("Token"))
    );
    assert!(anonymous.is_from_upstream());
    // A refused credential never becomes an anonymous request.
    let before = calls(&gate);
    assert_eq!(gate.call(&get("/api/hello/").token("canary-unknown")).status, 401);
    assert_eq!(gate.call(&get("/api/open/").token("canary-unknown")).status, 401);
    assert_eq!(calls(&gate), before, "a refused request reached Django");
    // A view with AllowAny has its users as before, and strangers too.
    for (call, user) in [(get("/api/open/"), ""), (get("/api/open/").token(&token), "ada")] {
        assert_eq!(gate.call(&call).json(), json!({ "user": user }));
    }

    for page in ["/admin/login/", "/api-auth/login/"] {
        let mut browser = Browser {
            gate: &gate,
            cookies: Vec::new(),
        };
        browser.log_in(page);
        let greeted = browser.call(get("/api/hello/"));
        assert_eq!(greeted.status, 200, "{page}");
        assert!(
            greeted.text().contains("Hello, root!") && greeted.text().contains("<html"),
            "{}",
            greeted.text()
        );
        // A session needs the CSRF token, a key does not.
        let body = || post("/api/hello/", "{}").header("Content-Type", "application/json");
        assert_eq!(browser.call(body()).status, 403, "{page}");
        let csrf = browser.cookie("csrftoken");
        assert_eq!(browser.call(body().header("X-CSRFToken", csrf)).status, 200, "{page}");
        // A key comes before the session, as GatewayAuthentication stands first.
        let both = browser.call(body().token(&token));
        assert!(
            both.status == 200 && both.text().contains("Hello, ada!"),
            "{}",
            both.text()
        );
        // A bad one is refused with a session too.
        assert_eq!(
            browser.call(get("/api/hello/").token("canary-unknown")).status,
            401,
            "{page}"
        );
        assert_eq!(browser.call(get("/admin/")).status, 200, "{page}");
    }
    assert_eq!(
        gate.call(&get("/admin/").header("X-User-Id", "1")).status,
        302,
        "to the login page"
    );
    assert_eq!(
        gate.call(&get("/static/rest_framework/css/bootstrap.min.css").echoes())
            .status,
        200
    );
}

#[test]
fn with_a_secret_django_trusts_the_identity_header_only_from_the_gateway() {
    let Some(django) = Django::start_with(&[SITE, ("GATEWAY_SECRET", SECRET)]) else {
        return;
    };
    let redis = Redis::start();
    let secret = "secret_header = { name = \"X-Gateway-Secret\", value = { file = \"gateway.secret\" } }";
    let gate = Gate::start(&site_routes(django.before(&redis).with(secret)).file("gateway.secret", SECRET));
    import(&gate, &django.dump(&[]));
    let token = log_in(&gate, "/api/token-auth/", "token");
    let hello = get("/api/hello/").token(&token).echoes();
    assert_eq!(gate.call(&hello).status, 200);
    // Past the gateway.
    let address: SocketAddr = django.url().trim_start_matches("http://").parse().unwrap();
    for (secret, status) in [(None, 401), (Some("canary-guessed"), 401), (Some(SECRET), 200)] {
        let call = get("/api/hello/")
            .header("X-User-Id", "1")
            .header("X-Auth-Source", "token")
            .echoes();
        let call = match secret {
            Some(secret) => call.header("X-Gateway-Secret", secret),
            None => call,
        };
        assert_eq!(Conn::plain(address).call(&call).status, status, "{secret:?}");
    }
}

/// The order of docs/django.md: at each step the same clients are served, and no others.
#[test]
fn a_live_site_can_be_migrated_without_unauthenticated_access() {
    let Some(mut django) = Django::start_with(&[("DJANGO_SETTINGS_MODULE", "mysite.before_settings")]) else {
        return;
    };
    let redis = Redis::start();
    let check = |gate: &Gate, django: &Django, credentials: &[String; 2], step: &str| {
        for value in credentials {
            let reply = gate.call(&get("/api/hello/").authorization(value).echoes());
            assert_eq!(reply.status, 200, "{step}: {}", reply.text());
            assert_eq!(reply.json()["user"]["id"], 42, "{step}");
        }
        for call in [
            get("/api/hello/"),
            get("/api/hello/").header("X-User-Id", "1"),
            get("/api/hello/").token("canary-no"),
        ] {
            assert_eq!(gate.call(&call).status, 401, "{step}");
        }
        let address: SocketAddr = django.url().trim_start_matches("http://").parse().unwrap();
        let past = Conn::plain(address).call(&get("/api/hello/").header("X-User-Id", "1").echoes());
        assert_eq!(past.status, 401, "{step}: past the gateway");
    };
    let mut credentials = None;
    // Each step is one setting more: the gateway beside the old classes, then the new class, then its own credential.
    for (step, settings, credential) in [
        ("the gateway beside the old classes", "mysite.before_settings", "keep"),
        ("the new class", "mysite.site_settings", "keep"),
        ("the credential ends at the gateway", "mysite.site_settings", "opaque"),
    ] {
        django.restart_with(&[("DJANGO_SETTINGS_MODULE", settings), ("GATEWAY_SECRET", SECRET)]);
        let secret = "secret_header = { name = \"X-Gateway-Secret\", value = { file = \"gateway.secret\" } }";
        let gateway = django.before(&redis).with(secret).file("gateway.secret", SECRET);
        let gate = Gate::start(&site_routes(
            gateway.identity(&format!("credential = \"{credential}\"")),
        ));
        let credentials = credentials.get_or_insert_with(|| {
            import(&gate, &django.dump(&[]));
            [
                format!("Token {}", log_in(&gate, "/api/token-auth/", "token")),
                format!("Bearer {}", log_in(&gate, "/api/token/", "access")),
            ]
        });
        check(&gate, &django, credentials, step);
    }
}

#[test]
fn channels_receives_the_user_of_a_websocket() {
    let Some(django) = Django::start_with(&[SITE, ("GATEWAY_SECRET", SECRET)]) else {
        return;
    };
    let redis = Redis::start();
    let socket = django.folder().join("app.sock");
    let mut uvicorn = django.command("uvicorn");
    uvicorn.args(["--uds", socket.to_str().unwrap(), "mysite.asgi:application"]);
    let _uvicorn = Uvicorn::start(uvicorn);
    wait_until("uvicorn listens", Duration::from_secs(30), || {
        UnixStream::connect(&socket).is_ok()
    });
    let secret = "secret_header = { name = \"X-Gateway-Secret\", value = { file = \"gateway.secret\" } }";
    let websocket =
        "authenticate = [\"jwt\"]\nwebsocket = { origins = [\"https://app.example.com\"], subprotocol = true }";
    let gateway = site_routes(django.before(&redis).with(secret))
        .file("gateway.secret", SECRET)
        .upstream("channels", &[format!("unix:{}", socket.display())])
        .with(secret)
        .route_to("channels", "/ws/*", websocket);
    let gate = Gate::start(&gateway);
    let jwt = log_in(&gate, "/api/token/", "access");
    let script = "import sys, json; from websockets.sync.client import connect, unix_connect\n\
                  url, word, path = sys.argv[1:]\n\
                  words = ['chat', word] if word else ['chat']\n\
                  fields = {'X-User-Id': '1'}\n\
                  try:\n    \
                  open = unix_connect(path, url, subprotocols=words, additional_headers=fields) if path else connect(url, origin='https://app.example.com', subprotocols=words, additional_headers=fields)\n    \
                  with open as ws: print(ws.recv())\n\
                  except Exception as refused: print(json.dumps({'refused': refused.response.status_code}))";
    let call = |word: &str, past: &str| -> Value {
        let mut python = django.command("python");
        python.args(["-c", script, &format!("ws://{}/ws/hello/", gate.address), word, past]);
        serde_json::from_str(&run(python, b"").good()).unwrap()
    };
    let greeted = call(&format!("authgate.bearer.{jwt}"), "");
    assert_eq!(greeted, json!({ "user": "ada", "subprotocols": ["chat"] }));
    assert_eq!(call("", ""), json!({ "refused": 401 }));
    // Past the gateway, X-User-Id without the secret.
    assert_eq!(call("", socket.to_str().unwrap()), json!({ "refused": 403 }));
}

/// The first step of docs/django.md, with the file as the command writes it.
#[test]
fn the_file_that_authgate_config_writes_serves_the_project_that_it_was_made_from() {
    let before = ("DJANGO_SETTINGS_MODULE", "mysite.before_settings");
    let Some(django) = Django::start_with(&[before]) else {
        return;
    };
    let redis = Redis::start();
    let mut config = django.command("python");
    config.args(["manage.py", "authgate_config", "--server", &django.url()]);
    let mut written = run(config, b"").good();
    let folder = tempfile::tempdir().unwrap();
    // What an operator fills in.
    for (name, value) in [
        ("127.0.0.1:8443", "127.0.0.1:0"),
        ("redis://127.0.0.1:6379/0", redis.url().as_str()),
        ("{ env = \"AUTHGATE_JWT_SECRET\" }", "{ file = \"jwt.secret\" }"),
        ("{ env = \"GATEWAY_SECRET\" }", "{ file = \"gateway.secret\" }"),
    ] {
        assert!(written.contains(name), "{name}: {written}");
        written = written.replace(name, value);
    }
    written += "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
    std::fs::write(folder.path().join("gateway.toml"), &written).unwrap();
    std::fs::write(folder.path().join("gateway.secret"), SECRET).unwrap();
    std::fs::copy(django.folder().join("jwt.secret"), folder.path().join("jwt.secret")).unwrap();
    let mut gateway = program();
    gateway
        .args(["run", "--config"])
        .arg(folder.path().join("gateway.toml"));
    let gate = Gate::of(gateway, folder, None);
    wait_until("the gateway is ready", Duration::from_secs(10), || {
        gate.probe("/readyz").status == 200
    });
    import(&gate, &django.dump(&[]));

    let token = log_in(&gate, "/api/token-auth/", "token");
    let jwt = log_in(&gate, "/api/token/", "access");
    let address: SocketAddr = django.url().trim_start_matches("http://").parse().unwrap();
    let credentials = [
        String::new(),
        format!("Token {token}"),
        format!("Bearer {jwt}"),
        "Token canary-unknown".to_owned(),
        "Bearer canary".to_owned(),
    ];
    for credential in &credentials {
        for target in ["/api/hello/", "/api/hello", "/healthz", "/api/unknown/"] {
            let call = || match credential.as_str() {
                "" => get(target).echoes(),
                value => get(target).authorization(value).echoes(),
            };
            let (through, direct) = (gate.call(&call()), Conn::plain(address).call(&call()));
            // The gateway asks for the credential before Django redirects.
            let redirects = direct.status == 301 && through.status == 401;
            assert!(
                through.status == direct.status || redirects,
                "{credential} {target}: {} and {}",
                through.status,
                direct.status
            );
            if direct.status == 401 {
                assert_eq!(through.json(), direct.json(), "{credential} {target}");
                assert_eq!(through.header("www-authenticate"), direct.header("www-authenticate"));
            }
        }
    }
}
