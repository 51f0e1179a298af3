//! Pages about the file: a first one, a check, a new route, and what the gateway then does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use super::block_of;
use crate::floors::root;
use crate::harness::machine::{FOLDER, FollowedPage, Machine, statuses};
use crate::harness::mint::{Signer, now};
use crate::harness::program::run;
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::terminal::Terminal;
use crate::harness::{Config, RecordingUpstream, Redis, call, config, get, post, wait_until};
use crate::parity::authenticates;
use crate::revoke_endpoint::becomes;

/// `[stores.redis]`, as pages have it.
pub(super) const REDIS: &str = "[stores.redis]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:6379/0\"\n";

/// How long something may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway with tokens in the Redis of the machine, and its admin listener at the usual address.
pub(super) fn tokens(upstream: &RecordingUpstream) -> Config {
    config()
        .admin("listen = \"127.0.0.1:9901\"")
        .tables(REDIS)
        .token("store = \"redis\"")
        .app(upstream)
}

/// The same with JWTs of this key.
pub(super) fn tokens_and_jwts(upstream: &RecordingUpstream, signer: &Signer) -> Config {
    tokens(upstream)
        .file("jwt.pub.pem", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.pub.pem")))
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
}

/// A Redis with ada of the group `staff`, and bob.
pub(super) fn ada_and_bob(machine: &Machine) -> Redis {
    let redis = machine.redis();
    redis.put_layout("1");
    let redis = redis.with_ada();
    redis.put_user("43", &json!({ "username": "bob" }));
    redis.put_token("canary-bob", &json!({ "user": "43", "created": 1_700_000_000 }));
    redis
}

pub(super) fn a_new_route(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let before = tokens_and_jwts(&upstream, &signer).protected("/api/other/*");
    let gate = machine.serve(&before);
    let report = get("/api/reports/2026").token("canary-ada");
    becomes(&gate, &report, 404, "the start");

    machine.configure(&before.tables(&block_of("docs/operations/add-a-route.md", "toml", "/api/reports/*")));
    machine.set("KEY", "canary-ada");
    assert!(page.run("authgate check").out.contains("valid"));
    let shown = page.run("authgate token show").out;
    assert!(shown.contains("accepted") && shown.contains("forwarded"), "{shown}");
    assert_eq!(gate.call(&report).status, 404, "the file is not in force yet");
    let reloaded = page.run("authgate reload").out;
    assert!(reloaded.contains("routes[0]: added"), "{reloaded}");
    becomes(&gate, &report, 200, "the reload");
    becomes(&gate, &get("/api/reports/2026").token("canary-bob"), 403, "the reload");
    becomes(&gate, &get("/api/catalogue/x"), 200, "the reload");
    becomes(&gate, &get("/api/login/"), 200, "the reload");
}

pub(super) fn a_check(machine: &Machine, page: &mut FollowedPage<'_>) {
    machine.configure(&tokens(&RecordingUpstream::start()).protected("/api/*"));
    let ended = page.run("authgate check");
    assert!(
        ended.out.contains("valid") && !ended.err.contains("warning"),
        "{ended:?}"
    );
}

pub(super) fn a_first_file(machine: &Machine, page: &mut FollowedPage<'_>) {
    let ended = page.run("authgate init");
    for file in ["dev-ca.pem", "jwt.key", "jwt.pub.pem"] {
        assert!(Path::new(FOLDER).join(file).exists(), "{file}");
    }
    let said = ended.out + &ended.err;
    let last: Vec<_> = said.lines().rev().take(2).collect();
    assert!(last.iter().all(|line| line.contains("authgate ")), "{said}");
    assert!(machine.run("authgate check").out.contains("valid"));
}

pub(super) fn the_status_in_a_terminal(machine: &Machine, page: &mut FollowedPage<'_>) {
    let upstream = RecordingUpstream::start();
    let file = config()
        .admin("listen = \"127.0.0.1:9901\"")
        .app(&upstream)
        .public("/shown-here/*");
    let gate = machine.serve(&file);
    becomes(&gate, &get("/shown-here/x"), 200, "the start");
    let mut terminal = Terminal::run(&page.command("authgate top"), 24, 80);
    terminal.wait_for("All is well.");
    terminal.wait_for("/shown-here/*");
    terminal.send("q");
    assert_eq!(terminal.end(), 0);
}

/// Makes the keys and files of SSH. `gate.example.com` is a machine with a network of its own, and ssh starts the server there: neither uses
/// a port of this machine.
const SSH: &str = r#"
mkdir -p /run/ssh /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/client
sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
cat >/run/ssh/sshd_config <<END
HostKey /run/ssh/host
AuthorizedKeysFile /run/ssh/client.pub
StrictModes no
UsePAM no
END
cat >/etc/ssh/ssh_config <<END
Host gate.example.com
    ProxyCommand nsenter --net=/proc/$THERE/ns/net /usr/sbin/sshd -i -f /run/ssh/sshd_config
    User root
    IdentityFile /run/ssh/client
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
END
"#;

pub(super) fn the_status_page_over_ssh(machine: &Machine, page: &mut FollowedPage<'_>) {
    if !machine.has_users() {
        eprintln!("skipped: a server for SSH needs root");
        return page.take_all();
    }
    let there = "ip link set lo up; echo up; exec sleep infinity";
    let mut there = machine.start(&format!("exec unshare --net sh -ec '{there}'"));
    there.writes("up");
    machine.set("THERE", &there.pid().to_string());
    machine.run(SSH);
    let upstream = RecordingUpstream::start();
    machine.configure(
        &config()
            .admin("listen = [\"127.0.0.1:9901\", \"unix:/run/authgate/admin.sock\"]")
            .app(&upstream)
            .public("/x"),
    );
    let network = format!("--net=/proc/{}/ns/net", there.pid());
    let _gate = machine.gateway_in(&["nsenter", &network], "gateway.toml");

    let inline = "ssh -L 9901:/run/authgate/admin.sock gate.example.com";
    let text = fs::read_to_string(root().join("docs/operations/status-page.md")).unwrap();
    assert!(text.contains(&format!("`{inline}`")));
    for command in [page.command("ssh -L"), machine.shell(inline)] {
        let mut terminal = Terminal::run(&command, 24, 80);
        wait_until("the page is there", PATIENCE, || {
            let ended = run(machine.shell("curl http://127.0.0.1:9901/status"), b"");
            statuses(&ended) == [200] && ended.out.contains("Everything is well")
        });
        terminal.send("exit\r");
        assert_eq!(terminal.end(), 0);
    }
}

pub(super) fn an_upgrade(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    let gate = machine.serve(&tokens(&upstream).protected("/api/*"));
    symlink("/run/bin/authgate", Path::new(FOLDER).join("authgate")).unwrap();
    assert!(page.run("./authgate check").out.contains("valid"));
    becomes(&gate, &get("/api/x").token("canary-ada"), 200, "the start");
    let out = page.run("authgate --version").out;
    let (version, status) = out.split_once('\n').unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    let running = status["version"].as_str().unwrap();
    assert!(version.contains(running), "{version}: {running}");
    assert!(status["started"].is_string(), "{status}");
}

pub(super) fn a_recording_and_its_parity(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::at("127.0.0.1:8000"));
    upstream.answers(authenticates);
    page.run("record.key");
    let block = block_of("docs/operations/recording.md", "toml", "record = ");
    let record = block.lines().find(|line| line.starts_with("record = ")).unwrap();
    let file = tokens(&upstream)
        .server("listen = [\"127.0.0.1:8080\"]")
        .log(record)
        .protected("/api/*");
    let gate = machine.serve(&file);
    let ada = get("/api/x").token("canary-ada");
    becomes(&gate, &ada, 200, "the start");
    assert_eq!(gate.call(&get("/api/x").token("canary-unknown")).status, 401);
    assert_eq!(gate.call(&call("HEAD", "/api/x").token("canary-ada")).status, 200);
    assert_eq!(gate.call(&post("/api/x", "hello").token("canary-ada")).status, 200);
    wait_until("the lines are written", PATIENCE, || {
        let recording = fs::read_to_string("/var/lib/authgate/requests.jsonl").unwrap_or_default();
        recording.lines().count() >= 4
    });
    let ended = page.run("authgate parity");
    assert!(ended.out.contains("responses are the same"), "{ended:?}");
    assert!(
        ended.err.contains("1 requests with other methods were not sent"),
        "{ended:?}"
    );
}

pub(super) fn the_reason_of_a_refusal(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let file = tokens_and_jwts(&upstream, &signer).route(
        "/api/reports/*",
        "authenticate = [\"token\", \"jwt\"]\nrequire = { groups = { any = [\"staff\"] } }",
    );
    let gate = machine.serve(&file);
    becomes(&gate, &get("/api/reports/2026").token("canary-bob"), 403, "the start");
    machine.set("JWT", &signer.with(&json!({ "user_id": "43" })));
    machine.set("KEY", "canary-bob");
    let out = page.run("authgate jwt inspect").out;
    let (of_jwt, of_token) = out.split_once("\ntoken ").unwrap();
    assert!(of_jwt.contains("answered 403 Forbidden"), "{of_jwt}");
    // The page shows another user and other times.
    for line in block_of("docs/operations/refusals.md", "text", "answered 403").lines() {
        let varies = ["token ", "user ", "created "]
            .iter()
            .any(|word| line.starts_with(word));
        assert!(
            varies || of_token.contains(line),
            "not in the output: {line}\n{of_token}"
        );
    }
    gate.metric_reaches(
        "authgate_requests_total{route=\"/api/reports/*\",outcome=\"not_allowed\",status=\"4xx\"}",
        1.0,
    );
    let counted = page.run("/metrics").out;
    assert!(counted.contains("authenticator=\"token\""), "{counted}");
}

pub(super) fn a_token_of_an_identity_provider(machine: &Machine, page: &mut FollowedPage<'_>) {
    let upstream = RecordingUpstream::start();
    let (provider, signer) = (ScriptedProvider::start(), Signer::new(Algorithm::RS256).kid("1"));
    let issuer = provider.url("");
    let metadata = json!({ "issuer": issuer, "jwks_uri": provider.url("/keys") });
    provider.serves("/.well-known/openid-configuration", Script::json(&metadata));
    provider.serves("/keys", Script::json(&json!({ "keys": [signer.jwk] })));
    let (chain, key) = machine.pki.leaf(&["api.example.com"]);
    let file = config()
        .server("listen = [\"127.0.0.1:443\"]")
        .file("tls.pem", chain)
        .file("tls.key", key)
        .tls_line("certificates = [{ chain = \"tls.pem\", key = \"tls.key\" }]")
        .tables(&format!(
            "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\ndiscovery = \"{issuer}\"\nissuer = \"{issuer}\"\n\
             audience = \"orders-api\"\nalgorithms = [\"RS256\"]\n"
        ))
        .app(&upstream)
        .route("/api/*", "authenticate = [\"idp\"]");
    let _gate = machine.serve(&file);
    wait_until("the gateway has fetched the keys", PATIENCE, || {
        provider.count("/keys") > 0
    });
    let claims = json!({ "iss": issuer, "aud": "orders-api", "sub": "42", "exp": now() + 600, "iat": now() });
    machine.set("JWT", &signer.sign(&claims));
    let ended = page.run("authgate jwt inspect");
    assert!(
        ended.out.contains("valid") && ended.out.contains("forwarded"),
        "{ended:?}"
    );
    assert_eq!(statuses(&ended), [200], "{ended:?}");
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
}
