//! Software that others have written, on both sides of the gateway. `AUTHGATE_VENV` names the venv that has it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::pki::Pki;
use crate::harness::upstream::closed_port;
use crate::harness::{Gate, Redis, config, get, signal, wait_until};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

fn venv() -> Option<PathBuf> {
    let venv = std::env::var_os("AUTHGATE_VENV").map(PathBuf::from);
    if venv.is_none() {
        eprintln!("skipped: AUTHGATE_VENV names no venv with tests/django/requirements.txt");
    }
    venv
}

/// A program of the venv that ends with this value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// A script that prints its port.
fn serve(venv: &Path, script: &str) -> (Peer, String) {
    let mut child = Command::new(venv.join("bin/python"))
        .args([script, "serve"])
        .current_dir(PEERS)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a port");
    (Peer(child), format!("127.0.0.1:{}", line.trim()))
}

/// Its other half, through the gateway; over TLS it trusts `ca.pem` beside gateway.toml.
fn call(venv: &Path, script: &str, gate: &Gate) {
    let ca = gate.has_tls().then(|| gate.folder.path().join("ca.pem"));
    let done = Command::new(venv.join("bin/python"))
        .args([script, "call", &gate.address.to_string()])
        .args(ca)
        .current_dir(PEERS)
        .output()
        .expect("python");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("all is well"), "{said}");
}

#[test]
fn grpc_calls_of_all_kinds_work() {
    let Some(venv) = venv() else { return };
    let redis = Redis::start().with_ada();
    let (_peer, address) = serve(&venv, "grpc_peer.py");
    let staff = "authenticate = [\"token\"]\nrequire = { groups = { any = [\"an-empty-group\"] } }";
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .upstream("app", &[format!("h2c://{address}")])
            .protected("/t.T/*")
            .route("/staff.T/*", staff)
            .upstream("gone", &[format!("h2c://{}", closed_port())])
            .route_to("gone", "/gone.T/*", "authenticate = [\"token\"]"),
    );
    call(&venv, "grpc_peer.py", &gate);
}

#[test]
fn websockets_of_the_websockets_library_work() {
    let Some(venv) = venv() else { return };
    let redis = Redis::start().with_ada();
    let (_peer, address) = serve(&venv, "websocket_peer.py");
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .upstream("app", &[format!("http://{address}")])
            .protected("/ws"),
    );
    call(&venv, "websocket_peer.py", &gate);
}

#[test]
fn websocket_frames_pass_unchanged() {
    let Some(venv) = venv() else { return };
    let redis = Redis::start().with_ada();
    let (_peer, address) = serve(&venv, "websocket_frames.py");
    let pki = Pki::new();
    let gate = Gate::start(
        &config()
            .tls(&pki, &[&["localhost"]])
            .file("ca.pem", pki.root_pem())
            .tokens(&redis)
            .upstream("app", &[format!("http://{address}")])
            .protected("/ws/*"),
    );
    call(&venv, "websocket_frames.py", &gate);
}

/// Starts a server, of the venv or of the machine, on a socket file, and asks it through the gateway what it received.
fn received(arguments: &[&str], check: impl Fn(&Value)) {
    let Some(venv) = venv() else { return };
    let folder = tempfile::TempDir::new().expect("a folder");
    let socket = folder.path().join("app.sock");
    let program = venv.join("bin").join(arguments[0]);
    let child = Command::new(program)
        .args(
            arguments[1..]
                .iter()
                .map(|argument| argument.replace("SOCKET", &socket.display().to_string())),
        )
        .current_dir(PEERS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: see scripts/test", arguments[0]));
    let _peer = Peer(child);
    wait_until("the server listens", Duration::from_secs(20), || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let redis = Redis::start().with_ada();
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .upstream("app", &[format!("unix:{}", socket.display())])
            .protected("/*"),
    );
    let mut request = get("/a%2Fb/x").token("canary-ada");
    for (name, value) in [
        ("X_User_Id", "1"),
        ("X-User_Id", "1"),
        ("x.user.id", "1"),
        ("SCRIPT_NAME", "/a"),
        ("Script-Name", "/a"),
        ("PATH_INFO", "/admin"),
        ("X-Forwarded-For", "198.51.100.9"),
        ("X-Forwarded-Prefix", "/a"),
        ("X-Script-Name", "/a"),
        ("Remote-User", "root"),
        ("Content_Length", "1000"),
        ("Transfer_Encoding", "chunked"),
    ] {
        request = request.header(name, value);
    }
    let reply = gate.call(&request.echoes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    check(&serde_json::from_slice(&reply.body.data).expect("JSON"));
}

fn check_wsgi(received: &Value) {
    assert_eq!(received["HTTP_X_USER_ID"], "42", "{received}");
    assert_eq!(
        (&received["SCRIPT_NAME"], &received["PATH_INFO"]),
        (&"".into(), &"/a/b/x".into()),
        "{received}"
    );
    assert_eq!(received["HTTP_X_FORWARDED_FOR"], "127.0.0.1", "{received}");
    assert_eq!(received["body"], "", "{received}");
    for name in [
        "REMOTE_USER",
        "HTTP_REMOTE_USER",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_X_FORWARDED_PREFIX",
    ] {
        assert_eq!(received[name], Value::Null, "{name}");
    }
}

#[test]
fn gunicorn_receives_no_identity_from_clients() {
    received(&["gunicorn", "--bind", "unix:SOCKET", "wsgi_app:app"], check_wsgi);
}

#[test]
fn gunicorn_that_folds_header_names_receives_no_identity_from_clients() {
    received(
        &[
            "gunicorn",
            "--bind",
            "unix:SOCKET",
            "--header-map",
            "dangerous",
            "--forwarded-allow-ips",
            "*",
            "wsgi_app:app",
        ],
        check_wsgi,
    );
}

#[test]
fn uwsgi_receives_no_identity_from_clients() {
    received(
        &[
            "/usr/bin/uwsgi-core",
            "--plugin",
            "python3",
            "--http-socket",
            "SOCKET",
            "--wsgi-file",
            "wsgi_app.py",
            "--callable",
            "app",
            "--need-app",
            "--die-on-term",
        ],
        check_wsgi,
    );
}

#[test]
fn uvicorn_receives_no_identity_from_clients() {
    received(
        &[
            "uvicorn",
            "--uds",
            "SOCKET",
            "--proxy-headers",
            "--forwarded-allow-ips",
            "*",
            "asgi_app:app",
        ],
        |received| {
            let all = |name: &str| -> Vec<&Value> {
                let headers = received["headers"].as_array().expect("headers");
                headers
                    .iter()
                    .filter(|pair| pair[0] == *name)
                    .map(|pair| &pair[1])
                    .collect()
            };
            assert_eq!(all("x-user-id"), ["42"], "{received}");
            assert_eq!(all("x-forwarded-for"), ["127.0.0.1"], "{received}");
            assert_eq!(
                (&received["path"], &received["root_path"]),
                (&"/a/b/x".into(), &"".into()),
                "{received}"
            );
            assert_eq!(received["client"][0], "127.0.0.1", "{received}");
            assert!(
                all("remote-user").is_empty() && all("script_name").is_empty(),
                "{received}"
            );
        },
    );
}

/// `GatewayAuthentication` of `python/`, on a server of this interface.
fn application_of_members(venv: &Path, interface: &str, ids: &[&str]) -> (Peer, String) {
    let mut child = Command::new(venv.join("bin/python"))
        .args(["django_ids.py", interface])
        .current_dir(PEERS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut stdin = child.stdin.take().expect("piped");
    writeln!(stdin, "{}", json!(ids)).expect("it reads");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a port");
    (Peer(child), format!("http://127.0.0.1:{}", line.trim()))
}

#[test]
fn the_shipped_class_finds_users_by_any_text_primary_key() {
    let Some(venv) = venv() else { return };
    let redis = Redis::start();
    let ids = [
        "a b",
        "100%",
        "a%20b",
        "%41",
        "%",
        "zo\u{eb}",
        "\u{65e5}\u{672c}\u{8a9e}",
        "e\u{301}",
        "\u{1f980}",
        "a/b?c#d;e",
        "a,b",
        "\"q\\\"",
        "a+b&c=d",
        "0b5b1c1e-9f3f-4a52-9d3a-2f1f3c1c8a11",
    ];
    for (at, id) in ids.iter().enumerate() {
        redis.put_user(id, &json!({}));
        redis.put_token(&format!("canary-{at}"), &json!({ "user": id }));
    }
    redis.put_user("A", &json!({}));
    redis.put_token("canary-unknown", &json!({ "user": "A" }));
    for interface in ["wsgi", "asgi"] {
        let (_peer, url) = application_of_members(&venv, interface, &ids);
        let headers = "headers = { X-User-Id = \"id\", X-Auth-Source = \"authenticator\" }";
        let gate = Gate::start(
            &config()
                .tokens(&redis)
                .identity(headers)
                .upstream("app", std::slice::from_ref(&url))
                .protected("/percent")
                .upstream("utf8", &[url])
                .with("identity = { encoding = \"utf8\" }")
                .route_to("utf8", "/utf8", "authenticate = [\"token\"]"),
        );
        for target in ["/percent", "/utf8"] {
            for (at, id) in ids.iter().enumerate() {
                let reply = gate.call(&get(target).token(&format!("canary-{at}")).echoes());
                let expected = json!({ "id": id, "auth": "token" });
                assert_eq!((reply.status, reply.json()), (200, expected), "{id:?} over {interface}");
            }
            // A user of the gateway whom the application does not have; its id is what `%41` stands for.
            let reply = gate.call(&get(target).token("canary-unknown").echoes());
            assert_eq!(
                (reply.status, reply.detail().as_str()),
                (401, "User inactive or deleted.")
            );
        }
    }
}
