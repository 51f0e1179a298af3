//! Pages about certificates, keys and revocations.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use super::block_of;
use super::changes::{PATIENCE, ada_and_bob, tokens, tokens_and_jwts};
use crate::harness::machine::{FollowedPage, Machine, statuses};
use crate::harness::mint::Signer;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};
use crate::revoke_endpoint::becomes;

const BOTH: &str = "authenticate = [\"token\", \"jwt\"]";

fn with_token(gate: &Gate, key: &str, status: u16, after: &str) {
    becomes(gate, &get("/api/x").token(key), status, after);
}

fn with_jwt(gate: &Gate, jwt: &str, status: u16, after: &str) {
    becomes(gate, &get("/api/x").bearer(jwt), status, after);
}

/// Two gateways, one for each table of the page about the admin listener: for this machine, and for others with a token. Clients of the second
/// one need no certificate.
pub(super) fn admin_listeners(machine: &Machine, local: &Config, remote: &Config) -> [Gate; 2] {
    let (chain, key) = machine.pki.leaf(&["gate.internal"]);
    machine.write("tls.pem", chain);
    machine.write("tls.key", key);
    machine.write("ca.pem", machine.pki.root_pem());
    machine.run("openssl rand -hex 32 >admin.token; chgrp authgate admin.token");
    let with_table = |file: &Config, words: &str| {
        let table = block_of("docs/operations/admin.md", "toml", words);
        let lines = table.lines().skip(1);
        lines.fold(file.clone(), |file, line| file.admin(line))
    };
    let remote = with_table(remote, "client_ca")
        .text()
        .replace("0.0.0.0:9901", "127.0.0.2:9901")
        .replace(", client_ca = \"/etc/authgate/operators.pem\"", "");
    let local = machine.serve(&with_table(local, "admin.sock"));
    machine.write("remote.toml", remote);
    [local, machine.gateway("remote.toml")]
}

pub(super) fn requests_to_the_admin_listener(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    let file = tokens(&upstream).protected("/api/*");
    let [local, remote] = admin_listeners(machine, &file, &file);
    machine.run("echo canary-bob >key.txt");
    with_token(&local, "canary-bob", 200, "the start");
    with_token(&remote, "canary-bob", 200, "the start");

    let ended = page.run("/config");
    assert_eq!(statuses(&ended), [200]);
    assert!(ended.out.contains("[authenticators.token]"), "{ended:?}");
    let ended = page.run("/reload");
    assert_eq!(statuses(&ended), [200; 3], "{ended:?}");
    let answers = serde_json::Deserializer::from_str(&ended.out).into_iter::<Value>();
    let answers: Vec<Value> = answers.map(|answer| answer.unwrap()).collect();
    assert!(
        answers.len() == 3 && answers.iter().all(|answer| answer["changes"].is_array()),
        "{ended:?}"
    );
    let ended = page.run("/revoke");
    assert_eq!(statuses(&ended), [200; 2], "{ended:?}");
    for gate in [&local, &remote] {
        with_token(gate, "canary-bob", 401, "the revocation of the token");
        with_token(gate, "canary-ada", 401, "the revocation of the user");
    }
}

pub(super) fn a_renewed_certificate(machine: &Machine, page: &mut FollowedPage<'_>) {
    let upstream = RecordingUpstream::start();
    let (chain, key) = machine.pki.leaf(&["api.example.com"]);
    let file = config()
        .server("listen = [\"127.0.0.1:443\"]")
        .file("tls.pem", chain)
        .file("tls.key", key)
        .tls_line("certificates = [{ chain = \"/etc/authgate/tls.pem\", key = \"/etc/authgate/tls.key\" }]")
        .app(&upstream)
        .public("/*");
    let _gate = machine.serve(&file);
    let until = 1_893_456_000; // 2030
    let (chain, key) = machine.pki.leaf_until(&["api.example.com"], until);
    machine.write("new.pem", chain);
    machine.write("new.key", key);
    let pair = page.run("openssl x509 -in new.pem");
    assert!(
        pair.out.contains("DNS:api.example.com") && pair.out.contains("2030"),
        "{pair:?}"
    );
    page.run("install -m 640");
    let ask =
        "openssl s_client -connect localhost:443 -servername api.example.com </dev/null 2>/dev/null | openssl x509";
    wait_until("the new certificate is served", PATIENCE, || {
        let served = machine.run(ask).out;
        machine.read("new.pem").contains(&served)
    });
    let shown = page.run("openssl s_client").out;
    assert!(
        shown.starts_with("notAfter=Jan  1") && shown.contains("2030"),
        "{shown}"
    );
}

pub(super) fn revocations(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    redis.put_token("canary-lost", &json!({ "user": "43", "created": 1_700_000_000 }));
    let leaked = Signer::new(Algorithm::ES256).kid("2026-06");
    let signer = Signer::new(Algorithm::EdDSA).kid("2026-12");
    let file = tokens_and_jwts(&upstream, &leaked)
        .file("next.pub.pem", signer.file())
        .jwt(&format!(
            "keys = [{}, {}]",
            leaked.key("jwt.pub.pem"),
            signer.key("next.pub.pem")
        ))
        .route("/api/*", BOTH);
    let gate = machine.serve(&file);
    let of_ada = signer.with(&json!({ "user_id": "42" }));
    let stolen = signer.with(&json!({ "user_id": "43", "jti": "3f2a9c" }));
    let of_leaked_key = leaked.with(&json!({ "user_id": "43" }));
    let good = signer.with(&json!({ "user_id": "43", "jti": "canary-good" }));
    for jwt in [&of_ada, &stolen, &of_leaked_key, &good] {
        with_jwt(&gate, jwt, 200, "the start");
    }
    for key in ["canary-ada", "canary-lost", "canary-bob"] {
        with_token(&gate, key, 200, "the start");
    }

    machine.set("KEY", "canary-lost");
    page.run("authgate revoke --user 42");
    with_token(&gate, "canary-lost", 401, "the revocation of the token");
    with_token(&gate, "canary-ada", 401, "the revocation of the user");
    with_jwt(&gate, &of_ada, 401, "the revocation of the user");
    with_jwt(&gate, &stolen, 401, "the revocation of the JWT");
    with_jwt(&gate, &of_leaked_key, 401, "the revocation of the key");
    let user = machine.run("authgate user show 42").out;
    assert!(user.contains("inactive") || user.contains("disabled"), "{user}");
    let shown = page.run("authgate token show").out;
    assert!(shown.contains("answered 401"), "{shown}");
    assert_eq!(gate.call(&get("/api/x").bearer(&good)).status, 200, "another JWT");
    assert_eq!(
        gate.call(&get("/api/x").token("canary-bob")).status,
        200,
        "another token"
    );
}

pub(super) fn rotated_keys(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    let leaked = Signer::new(Algorithm::ES256).kid("2026-06");
    let file = tokens_and_jwts(&upstream, &leaked)
        .admin("token = { file = \"/etc/authgate/admin.token\" }")
        .file("admin.token", "canary-of-operators")
        .route("/api/*", BOTH);
    let gate = machine.serve(&file);
    let jwt = leaked.with(&json!({ "user_id": "42" }));
    with_jwt(&gate, &jwt, 200, "the start");
    page.run("authgate revoke --kid");
    with_jwt(&gate, &jwt, 401, "the revocation of the key");

    let metrics = |token: &str| gate.ask_admin(&get("/metrics").bearer(token)).status;
    assert_eq!(metrics("canary-of-operators"), 200);
    page.run("openssl rand");
    let new = machine.read("admin.token");
    wait_until("the new token is in force", PATIENCE, || metrics(new.trim()) == 200);
    assert_eq!(metrics("canary-of-operators"), 401);
}

pub(super) fn certificates_and_keys_of_your_own(machine: &Machine, page: &mut FollowedPage<'_>) {
    page.run("openssl req");
    machine.run("openssl verify -CAfile ca.pem -purpose sslserver -verify_hostname localhost localhost.pem");
    page.run("openssl genpkey");
    let file = config()
        .tls_line("certificates = [{ chain = \"localhost.pem\", key = \"localhost.key\" }]")
        .jwt("users = \"none\"")
        .jwt(
            "keys = [{ algorithm = \"RS256\", file = \"jwt-rs256.pub.pem\" }, { algorithm = \"ES256\", file = \"jwt-es256.pub.pem\" }, \
             { algorithm = \"EdDSA\", file = \"jwt-eddsa.pub.pem\" }, { algorithm = \"HS256\", secret = { file = \"jwt-hs256.secret\" } }]",
        )
        .upstream("app", &["http://127.0.0.1:8000".to_owned()])
        .route("/api/*", "authenticate = [\"jwt\"]");
    machine.configure(&file);
    let checked = machine.run("authgate check");
    assert!(
        checked.out.contains("valid") && !checked.err.contains("warning"),
        "{checked:?}"
    );
}
