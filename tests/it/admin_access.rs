//! Who may ask the admin listener: its token, its TLS, its socket file, and pages of other sites.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::client::Reply;
use crate::harness::gate::exchange;
use crate::harness::pki::{Pki, show};
use crate::harness::{Call, Config, Conn, Gate, InProcess, RecordingUpstream, Redis, call, config, get};

const FILE: &str = "admin.sock";
const TOKEN: &str = "canary-of-operators";
const TOKEN_FILE: &str = "token = { file = \"admin.token\" }";

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

fn with_token(config: Config) -> Config {
    config.file("admin.token", format!("{TOKEN}\n")).admin(TOKEN_FILE)
}

fn ask(conn: &mut Conn, call: &Call) -> Reply {
    exchange(&mut conn.wire, call).expect("a response")
}

fn reload() -> Call {
    call("POST", "/reload").header("Content-Length", "0")
}

fn basic(user_and_password: &str) -> String {
    format!("Basic {}", STANDARD.encode(user_and_password))
}

/// Whether a command passed all checks; what it then did is not the matter of these tests.
fn passed(reply: &Reply) -> bool {
    !matches!(reply.status, 401 | 403 | 404 | 405 | 421)
}

#[test]
fn a_socket_file_is_for_its_owner_alone_and_is_removed_at_the_end() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]"));
    let path = gate.folder.path().join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut conn = gate.connect_over(FILE);
    for (path, status) in [("/metrics", 200), ("/readyz", 200), ("/status.json", 200), ("/x", 404)] {
        assert_eq!(ask(&mut conn, &get(path)).status, status, "{path}");
    }
    assert_eq!(ask(&mut conn, &get("/metrics").host("evil.example")).status, 403);
    assert!(passed(&ask(
        &mut conn,
        &reload().header("X-Authgate-Command", "reload")
    )));
    assert_eq!(ask(&mut conn, &reload()).status, 403);
    // A relative path is shown as it is opened.
    assert!(
        gate.logged(&["serving", "admin"])
            .contains(&format!("unix:{}", path.display()))
    );
    gate.stop();
    assert!(!path.exists());
}

#[test]
fn a_gateway_may_have_a_socket_file_as_its_only_admin_listener() {
    let upstream = RecordingUpstream::start();
    let mut gate = Gate::spawn(&public(&upstream).admin("listen = \"unix:admin.sock\""));
    assert_eq!(gate.get("/x").status, 200);
    let mut idle = gate.connect_over(FILE);
    assert_eq!(ask(&mut idle, &get("/readyz")).status, 200);
    // During a drain it still answers, so that operators see what happens.
    let mut busy = gate.connect();
    busy.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab");
    crate::harness::wait_until("the request is under way", std::time::Duration::from_secs(5), || {
        ask(&mut gate.connect_over(FILE), &get("/metrics"))
            .text()
            .contains("authgate_requests_in_flight 1")
    });
    gate.signal("TERM");
    crate::harness::wait_until("it drains", std::time::Duration::from_secs(5), || {
        ask(&mut gate.connect_over(FILE), &get("/status.json")).json()["stage"] == "draining"
    });
    assert!(!gate.has_ended());
    busy.send("cde");
    assert_eq!(busy.reply().status, 200);
}

#[test]
fn silent_connections_do_not_block_a_socket_file() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]"));
    let path = gate.folder.path().join(FILE);
    let _silent: Vec<UnixStream> = (0..200)
        .map(|at| {
            let mut stream = UnixStream::connect(&path).expect("it listens");
            if at % 2 == 0 {
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
            }
            stream
        })
        .collect();
    assert_eq!(ask(&mut gate.connect_over(FILE), &get("/livez")).status, 200);
    assert!(gate.sockets() < 200, "its connections are bounded");
}

#[test]
fn with_a_token_only_probes_are_answered_without_it() {
    let upstream = RecordingUpstream::start();
    let config = with_token(public(&upstream)).admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]");
    let gate = Gate::start(&config);
    let bearer = format!("Bearer {TOKEN}");
    let check = |ask: &dyn Fn(Call) -> Reply| {
        for path in ["/livez", "/readyz"] {
            assert_eq!(ask(get(path)).status, 200, "{path}");
        }
        for path in ["/metrics", "/status.json", "/config", "/"] {
            for refused in [
                get(path),
                get(path).bearer("canary-of-operator"),
                get(path).bearer(""),
                get(path).token(TOKEN),
                get(path).authorization(&basic(TOKEN)),
                get(path).authorization(&basic("ada:canary")),
                get(path).authorization(&bearer).authorization(&bearer),
                get(path).header("X-Authgate-Command", "reload"),
            ] {
                let reply = ask(refused);
                assert_eq!(reply.status, 401, "{path}");
                let [basic, bearer] = reply.headers("www-authenticate")[..] else {
                    panic!("{reply:?}")
                };
                assert!(basic.starts_with("Basic realm=") && bearer.starts_with("Bearer realm="));
            }
            for accepted in [
                get(path).authorization(&bearer),
                get(path).authorization(&basic(&format!(":{TOKEN}"))),
                get(path).authorization(&basic(&format!("ada:{TOKEN}"))),
            ] {
                assert!(matches!(ask(accepted).status, 200 | 404), "{path}");
            }
        }
        for refused in [
            reload(),
            reload().header("X-Authgate-Command", "reload"),
            reload().bearer("canary"),
        ] {
            let reply = ask(refused);
            assert_eq!((reply.status, reply.headers("www-authenticate").len()), (403, 0));
        }
        assert!(passed(&ask(reload().authorization(&bearer))));
        assert!(passed(&ask(reload().authorization(&basic(&format!(":{TOKEN}"))))));
    };
    check(&|call| gate.ask_admin(&call));
    check(&|call| ask(&mut gate.connect_over(FILE), &call));
    gate.logged(&["a request to the admin listener was refused", "\"reason\":\"token\""]);
    let metrics = gate.ask_admin(&get("/metrics").authorization(&bearer)).text();
    assert!(!metrics.contains("authgate_admin_requests_refused_total{reason=\"token\"} 0\n"));
}

/// What a browser sends for a page at `http://evil.example` or at another port of this machine.
fn requests_of_other_sites() -> Vec<(&'static str, Call)> {
    let navigation = |call: Call, dest: &str| {
        call.header("Sec-Fetch-Site", "cross-site")
            .header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-Dest", dest)
    };
    let form = || reload().header("Content-Type", "application/x-www-form-urlencoded");
    vec![
        ("a form", form().header("Origin", "http://evil.example")),
        ("a form of an older browser", form()),
        ("a form of a sandboxed frame", form().header("Origin", "null")),
        (
            "a form without referrer",
            navigation(form().header("Origin", "null"), "document"),
        ),
        (
            "a page at another port of this machine",
            form()
                .header("Origin", "http://localhost:3000")
                .header("Sec-Fetch-Site", "same-site"),
        ),
        (
            "a page that knows the field",
            reload()
                .header("X-Authgate-Command", "reload")
                .header("Origin", "http://evil.example"),
        ),
        (
            "a page that knows the field, by Sec-Fetch-Site alone",
            reload()
                .header("X-Authgate-Command", "reload")
                .header("Sec-Fetch-Site", "cross-site"),
        ),
        (
            "a preflight",
            call("OPTIONS", "/reload")
                .header("Origin", "http://evil.example")
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "x-authgate-command"),
        ),
        (
            "a name that resolves to this machine",
            get("/metrics").host("evil.example:9901"),
        ),
        (
            "the same name, and a page of it",
            reload()
                .host("evil.example:9901")
                .header("Origin", "http://evil.example:9901")
                .header("X-Authgate-Command", "reload")
                .header("Sec-Fetch-Site", "same-origin"),
        ),
        (
            "fetch",
            get("/status.json")
                .header("Origin", "http://evil.example")
                .header("Sec-Fetch-Site", "cross-site"),
        ),
        (
            "a script or an image",
            get("/status.json")
                .header("Sec-Fetch-Site", "cross-site")
                .header("Sec-Fetch-Mode", "no-cors")
                .header("Sec-Fetch-Dest", "script"),
        ),
        ("a frame", navigation(get("/status.json"), "iframe")),
    ]
}

#[test]
fn a_page_of_another_site_can_neither_read_nor_trigger_anything() {
    let upstream = RecordingUpstream::start();
    let open = Gate::start(&public(&upstream));
    let closed = Gate::start(&with_token(public(&upstream)));
    for (what, call) in requests_of_other_sites() {
        let (without, with) = (call.clone(), call.authorization(&basic(&format!(":{TOKEN}"))));
        let reply = open.ask_admin(&without);
        assert_eq!(reply.status, 403, "{what}");
        assert!(!reply.text().contains("authgate_"), "{what}");
        // Browsers add the password that they have remembered. Only of a form from a browser that sends neither field is nothing known.
        if what != "a form of an older browser" {
            let reply = closed.ask_admin(&with);
            assert_eq!(reply.status, 403, "{what}");
        }
        for name in ["access-control-allow-origin", "access-control-allow-headers"] {
            assert_eq!(reply.header(name), None, "{what}");
        }
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"));
    }
    let own = format!("http://{}", open.admin);
    let host = open.admin.to_string();
    let permitted = [
        reload().host(&host).header("X-Authgate-Command", "reload"),
        reload()
            .host(&host)
            .header("X-Authgate-Command", "reload")
            .header("Origin", own.clone())
            .header("Sec-Fetch-Site", "same-origin"),
    ];
    for call in permitted {
        assert!(passed(&open.ask_admin(&call)), "{call:?}");
    }
    let link = get("/metrics")
        .header("Sec-Fetch-Site", "cross-site")
        .header("Sec-Fetch-Mode", "navigate")
        .header("Sec-Fetch-Dest", "document");
    assert_eq!(
        open.ask_admin(&link).status,
        200,
        "a link of another page may be followed"
    );
    for reason in ["host", "origin", "other_site", "command"] {
        let metric = format!("authgate_admin_requests_refused_total{{reason=\"{reason}\"}}");
        open.metric_reaches(&metric, 1.0);
    }
}

fn with_tls(config: Config, pki: &Pki, more: &str) -> Config {
    let (chain, key) = pki.leaf(&["localhost"]);
    config
        .file("admin.pem", chain)
        .file("admin.key", key)
        .file("ca.pem", pki.root_pem())
        .admin(&format!("tls = {{ chain = \"admin.pem\", key = \"admin.key\"{more} }}"))
}

#[test]
fn an_admin_listener_with_tls_answers_https_and_no_cleartext() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let config = with_tls(with_token(public(&upstream)), &pki, "");
    let gate = Gate::spawn(&config.admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]"));
    let bearer = format!("Bearer {TOKEN}");
    let mut conn = Conn::tls(gate.admin, "localhost", pki.client(&["http/1.1"], rustls::ALL_VERSIONS)).unwrap();
    assert_eq!(ask(&mut conn, &get("/readyz")).status, 200);
    assert_eq!(ask(&mut conn, &get("/metrics")).status, 401);
    let metrics = ask(&mut conn, &get("/metrics").authorization(&bearer)).text();
    assert!(
        metrics.contains("authgate_certificate_expiry_seconds{certificate="),
        "{metrics}"
    );
    let own = format!("https://{}", gate.admin);
    let page = |origin: &str| {
        reload()
            .host(&gate.admin.to_string())
            .authorization(&bearer)
            .header("Origin", origin)
    };
    assert!(passed(&ask(&mut conn, &page(&own))));
    assert_eq!(ask(&mut conn, &page(&own.replace("https", "http"))).status, 403);
    // A client that offers HTTP/2 alone, and one without TLS.
    assert!(Conn::tls(gate.admin, "localhost", pki.client(&["h2"], rustls::ALL_VERSIONS)).is_err());
    let cleartext = ask(&mut Conn::plain(gate.admin), &get("/readyz").authorization(&bearer));
    assert_eq!((cleartext.status, cleartext.header("connection")), (421, Some("close")));
    assert!(cleartext.text().contains("https"), "{}", cleartext.text());
    // A socket file stays cleartext: its mode restricts it to this user.
    assert_eq!(ask(&mut gate.connect_over(FILE), &get("/readyz")).status, 200);
    let report = ask(
        &mut gate.connect_over(FILE),
        &get("/status.json").authorization(&bearer),
    )
    .json();
    let tls = |key: &str, begin: &str| {
        let listeners = report["listeners"].as_array().unwrap().iter();
        let mut of_key = listeners.filter(|listener| listener["key"] == key);
        of_key
            .find(|listener| listener["address"].as_str().unwrap().starts_with(begin))
            .unwrap()["tls"]
            .clone()
    };
    assert_eq!(
        (tls("admin.listen", "127."), tls("admin.listen", "unix:")),
        (true.into(), false.into())
    );
    assert_eq!(report["certificates"][0]["names"], serde_json::json!(["localhost"]));
}

#[test]
fn with_client_ca_a_client_needs_a_certificate_of_it() {
    let (upstream, pki, other) = (RecordingUpstream::start(), Pki::new(), Pki::new());
    let gate = Gate::spawn(&with_tls(public(&upstream), &pki, ", client_ca = \"ca.pem\""));
    let connect = |certificate: Option<&Pki>| {
        let mut client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
        if let Some(pki) = certificate {
            show(&mut client, pki.leaf(&["operator.example"]));
        }
        let mut conn = Conn::tls(gate.admin, "localhost", client).ok()?;
        exchange(&mut conn.wire, &get("/metrics"))
    };
    assert_eq!(connect(Some(&pki)).map(|reply| reply.status), Some(200));
    for refused in [None, Some(&*other)] {
        assert!(connect(refused).is_none());
    }
}

#[test]
fn a_changed_token_or_changed_tls_holds_for_open_connections() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = InProcess::start(&public(&upstream));
    let mut open = Conn::plain(gate.admin);
    assert_eq!(ask(&mut open, &get("/metrics")).status, 200);
    gate.apply(&with_token(public(&upstream)));
    assert_eq!(ask(&mut open, &get("/metrics")).status, 401);
    assert_eq!(ask(&mut open, &get("/metrics").bearer(TOKEN)).status, 200);
    gate.apply(&with_tls(with_token(public(&upstream)), &pki, ""));
    let refused = ask(&mut open, &get("/metrics").bearer(TOKEN));
    assert_eq!((refused.status, refused.header("connection")), (421, Some("close")));
    let client = || pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let mut open = Conn::tls(gate.admin, "localhost", client()).unwrap();
    assert_eq!(ask(&mut open, &get("/metrics").bearer(TOKEN)).status, 200);
    gate.apply(&with_tls(
        with_token(public(&upstream)),
        &pki,
        ", client_ca = \"ca.pem\"",
    ));
    assert_eq!(ask(&mut open, &get("/metrics").bearer(TOKEN)).status, 421);
    gate.stop();
}

#[test]
fn the_status_has_stable_members_and_no_secret() {
    let (redis, upstream, pki) = (Redis::start().with_ada(), RecordingUpstream::start(), Pki::new());
    let config = config()
        .tokens(&redis)
        .app(&upstream)
        .protected("/*")
        .jwt("users = \"none\"\nkeys = [{ algorithm = \"HS256\", secret = \"canary of forty bytes, or even some more\" }]")
        .tables("[probes]\nlisten = \"127.0.0.1:0\"")
        .tls(&pki, &[&["localhost", "api.example"]]);
    let gate = Gate::start(&with_token(config));
    let reply = gate.ask_admin(&get("/status.json").bearer(TOKEN));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(!reply.text().contains("canary"), "{}", reply.text());
    let report = reply.json();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&report["stage"], &report["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(report["workers"], 2);
    let configuration = &report["configuration"];
    let file = gate.folder.path().join("gateway.toml");
    assert_eq!(configuration["file"], file.display().to_string());
    assert!(configuration["refused"].is_null());
    assert!(configuration["applied"].as_str().unwrap() >= report["started"].as_str().unwrap());
    let store = &report["stores"][0];
    assert_eq!(
        (&store["name"], &store["mode"]),
        (&"redis".into(), &"single".into()),
        "{store}"
    );
    assert_eq!(
        (&store["reached"], &store["usable"]),
        (&true.into(), &true.into()),
        "{store}"
    );
    assert!(store["outage"].is_null(), "{store}");
    // The subscription is made beside the start.
    assert!(
        store["changes"] == "reported" || store["changes"] == "not_reported",
        "{store}"
    );
    // It is null until it is measured.
    let lag = store.get("revocation_lag_seconds").expect("a member");
    assert!(lag.is_null() || lag.is_number(), "{store}");
    let certificate = &report["certificates"][0];
    assert_eq!(certificate["names"], serde_json::json!(["localhost", "api.example"]));
    assert!(certificate["expires"].as_str().unwrap().ends_with('Z'));
    let listeners: Vec<(&str, bool)> = report["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| (listener["key"].as_str().unwrap(), listener["tls"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        listeners,
        [
            ("server.listen", true),
            ("admin.listen", false),
            ("probes.listen", false)
        ]
    );
}
