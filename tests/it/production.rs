//! docs/operations/production.md: two gateways serve its file as it is, apart from addresses. Redis has the rights of docs/redis.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::version::TLS13;
use serde_json::json;
use tempfile::TempDir;

use crate::floors::root;
use crate::harness::client::Reply;
use crate::harness::gate::exchange;
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::program::{authgate, program};
use crate::harness::{Call, Conn, Gate, RecordingUpstream, Redis, get, post, wait_until};
use crate::redis_connection::{PASSWORD, grant, rights};

const SOON: Duration = Duration::from_secs(10);
const ADMIN_TOKEN: &str = "canary-of-the-operators-of-production";

fn page() -> String {
    fs::read_to_string(root().join("docs/operations/production.md")).unwrap()
}

/// The file of the page.
fn file() -> String {
    let page = page();
    let block = page.split_once("```toml\n").unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

/// The text with each of these in place of the other; each must be there.
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (old, new) in pairs {
        assert!(text.contains(old), "{old} is not in docs/operations/production.md");
        text = text.replace(old, new);
    }
    text
}

/// Writes the file and all files that it names.
fn write(folder: &Path, pki: &Pki, (chain, key): &(String, String), signer: &Signer, text: &str) {
    let text = text.replace("/etc/authgate/", "");
    fs::write(folder.join("gateway.toml"), text).unwrap();
    for (name, content) in [
        ("tls.pem", chain.clone().into_bytes()),
        ("tls.key", key.clone().into_bytes()),
        ("admin.pem", chain.clone().into_bytes()),
        ("admin.key", key.clone().into_bytes()),
        ("internal-ca.pem", pki.root_pem().into_bytes()),
        ("tickets.keys", BASE64.encode([7; 80]).into_bytes()),
        ("admin.token", format!("{ADMIN_TOKEN}\n").into_bytes()),
        ("redis-reader", format!("{PASSWORD}\n").into_bytes()),
        ("redis-writer", format!("{PASSWORD}\n").into_bytes()),
        ("jwt.pub.pem", signer.file()),
        ("gateway.secret", b"canary-secret-of-the-gateway\n".to_vec()),
    ] {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    }
}

#[test]
fn the_production_file_is_valid_without_a_warning() {
    let (folder, pki) = (TempDir::new().unwrap(), Pki::new());
    // An ordinary user may run this test.
    let text = replaced(
        file(),
        &[
            ("443", "8443"),
            ("0.0.0.0:80\"", "0.0.0.0:8080\""),
            ("[::]:80\"", "[::]:8080\""),
        ],
    );
    let certificate = pki.leaf(&["localhost"]);
    write(folder.path(), &pki, &certificate, &Signer::new(Algorithm::RS256), &text);
    let ended = authgate(folder.path(), &["check", "--config", "gateway.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

#[test]
fn the_socket_unit_of_the_production_page_has_the_addresses_of_its_file() {
    let text = file();
    let listening = text
        .lines()
        .filter(|line| line.starts_with("listen = ") || line.starts_with("redirect_http = "));
    let addresses = listening.flat_map(|line| line.split('"').skip(1).step_by(2));
    let mut addresses: Vec<&str> = addresses.map(|address| address.trim_start_matches("unix:")).collect();
    let page = page();
    let unit = page
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ListenStream="));
    let mut unit: Vec<&str> = unit.filter(|address| !address.is_empty()).collect();
    addresses.sort_unstable();
    unit.sort_unstable();
    assert_eq!(unit, addresses);
}

struct Production {
    redis: Redis,
    servers: [RecordingUpstream; 2],
    signer: Signer,
    pki: Arc<Pki>,
    certificate: (String, String),
}

impl Production {
    fn start() -> Self {
        let redis = Redis::start().with_ada();
        for line in rights("authgate").iter().chain(&rights("authgate-writer")) {
            grant(&redis, line);
        }
        let pki = Pki::new();
        Self {
            redis,
            servers: [RecordingUpstream::start(), RecordingUpstream::start()],
            signer: Signer::new(Algorithm::RS256),
            certificate: pki.leaf(&["localhost", "api.example.com"]),
            pki,
        }
    }

    /// A further gateway, which has reached Redis and is subscribed to its changes.
    fn gateway(&self) -> Gate {
        let url = format!("url = \"{}\"\ntimeout = \"4s\"", self.redis.url());
        let [first, second] = self.servers.each_ref().map(RecordingUpstream::url);
        let text = replaced(
            file(),
            &[
                ("listen = [\"0.0.0.0:443\", \"[::]:443\"]", "listen = [\"127.0.0.1:0\"]"),
                ("[\"0.0.0.0:80\", \"[::]:80\"]", "[\"127.0.0.1:0\"]"),
                (
                    "\"0.0.0.0:9901\", \"unix:/run/authgate/admin.sock\"",
                    "\"127.0.0.1:0\", \"unix:admin.sock\"",
                ),
                ("\"0.0.0.0:9902\"", "\"127.0.0.1:0\""),
                ("url = \"rediss://redis.internal:6380/0\"", &url),
                ("tls = { ca = \"/etc/authgate/internal-ca.pem\" }\n", ""),
                ("http://10.0.0.21:8000", &first),
                ("http://10.0.0.22:8000", &second),
                ("delay = \"10s\"", "delay = \"0s\""),
            ],
        );
        let folder = TempDir::new().unwrap();
        write(folder.path(), &self.pki, &self.certificate, &self.signer, &text);
        let mut command = program();
        command
            .args(["run", "--config"])
            .arg(folder.path().join("gateway.toml"));
        let gate = Gate::of(command, folder, Some(Arc::clone(&self.pki)));
        wait_until("the gateway is ready", SOON, || {
            admin(&gate, get("/readyz")).status == 200
        });
        wait_until("the gateway measures how late revocations are", SOON, || {
            admin(&gate, get("/metrics"))
                .text()
                .contains("authgate_revocation_lag_seconds{store=\"redis\"}")
        });
        gate
    }

    /// The requests that the application has received at this target.
    fn received(&self, target: &str) -> usize {
        let all = self.servers.iter().flat_map(RecordingUpstream::all);
        all.filter(|seen| seen.line().contains(target)).count()
    }
}

/// Asks the admin listener over its socket file.
fn admin(gate: &Gate, call: Call) -> Reply {
    let mut conn = gate.connect_over("admin.sock");
    let call = call.bearer(ADMIN_TOKEN).header("Connection", "close");
    exchange(&mut conn.wire, &call).expect("a response")
}

fn status(gate: &Gate, call: Call) -> u16 {
    gate.call(&call.host("api.example.com")).status
}

#[test]
fn two_gateways_serve_the_production_file_and_a_revocation_on_one_is_in_force_on_the_other() {
    let production = Production::start();
    let gates = [production.gateway(), production.gateway()];
    let jwt = production.signer.with(&json!({ "jti": "canary-one" }));
    for gate in &gates {
        assert_eq!(status(gate, get("/api/x").token("canary-ada")), 200);
        assert_eq!(status(gate, get("/api/reports/x").token("canary-ada")), 200);
        assert_eq!(status(gate, get("/mobile/x").bearer(&jwt)), 200);
        assert_eq!(status(gate, post("/auth/login", "{}")), 200);
        assert_eq!(status(gate, get("/api/x")), 401);
        assert_eq!(status(gate, get("/auth/login")), 405);
        assert_eq!(status(gate, get("/other")), 404);
        assert_eq!(
            gate.call(&get("/api/x").token("canary-ada").host("localhost")).status,
            404
        );
    }
    assert_eq!(
        (production.received("/other"), production.received("/mobile/x")),
        (0, 2)
    );
    let seen = production.servers.iter().flat_map(RecordingUpstream::all);
    let mobile = seen.into_iter().find(|seen| seen.line().contains("/mobile/x")).unwrap();
    assert_eq!(
        (mobile.header("x-user-name"), mobile.header("x-gateway-secret")),
        (Some("ada"), Some("canary-secret-of-the-gateway"))
    );
    wait_until("both servers are checked", SOON, || {
        let is_checked = |server: &RecordingUpstream| server.all().iter().any(|seen| seen.line().contains("/healthz"));
        production.servers.iter().all(is_checked)
    });

    let form = |body: &str| post("/revoke", body).header("Content-Type", "application/x-www-form-urlencoded");
    for body in ["token=canary-ada", &format!("token={jwt}")] {
        assert_eq!(admin(&gates[0], form(body)).status, 200, "{body}");
    }
    for gate in &gates {
        for call in [get("/api/x").token("canary-ada"), get("/mobile/x").bearer(&jwt)] {
            wait_until("the credential is refused", SOON, || status(gate, call.clone()) == 401);
        }
    }
    let client = production.pki.client(&["http/1.1"], &[&TLS13]);
    let is_resumed = |gate: &Gate| {
        let mut conn = Conn::tls(gate.address, "localhost", client.clone()).unwrap();
        assert_eq!(conn.call(&get("/api/x").host("api.example.com")).status, 401);
        conn.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert_eq!((is_resumed(&gates[0]), is_resumed(&gates[1])), (false, true));
    // Over the socket file, a command needs no certificate.
    let reload = authgate(gates[0].folder.path(), &["reload", "--config", "gateway.toml"]);
    assert_eq!(reload.code, 0, "{reload:?}");
}
