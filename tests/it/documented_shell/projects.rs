//! Pages that put the gateway in front of a project: from nothing, from a clone, and with Django.

use std::fs;
use std::path::Path;
use std::process::Command;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::Value;

use super::block_of;
use super::changes::PATIENCE;
use super::stores::django;
use crate::django_page::Project;
use crate::floors::root;
use crate::harness::database::{Database, Engine};
use crate::harness::machine::{FollowedPage, Machine, statuses};
use crate::harness::mint::Signer;
use crate::harness::program::run;
use crate::harness::{RecordingUpstream, Redis, wait_until};
use crate::redis_connection::{PASSWORD, grant, rights};

/// docs/start.md, with the texts that it says the output has. The package is installed by `scripts/test-packages start`, in a fresh Debian.
pub(super) fn ten_minutes(machine: &Machine, page: &mut FollowedPage<'_>) {
    page.take_all();
    if std::env::var_os("AUTHGATE_VENV").is_none() {
        return;
    }
    machine.stub("apt-get", "exit 0");
    let shipped = fs::read(root().join("deploy/debian/gateway.toml")).unwrap();
    machine.write("gateway.toml", shipped);
    let mut script = Command::new(root().join("scripts/page-script"));
    script.arg(root().join("docs/start.md"));
    let script = run(script, b"").good();
    let mut followed = machine.start(&script);
    followed.writes("blocks of the page were followed");
}

pub(super) fn the_readme(machine: &Machine, page: &mut FollowedPage<'_>) {
    // `cargo run` would build the program, which is there.
    machine.stub(
        "cargo",
        "[ \"$1\" = run ]; while [ \"$1\" != -- ]; do shift; done; shift; exec authgate \"$@\"",
    );
    let mut demo = page.start("cargo run");
    demo.writes("Ctrl-C");
    let commands = demo.output();
    let mut statuses_of_demo = Vec::new();
    for line in commands.lines().filter(|line| line.trim_start().starts_with("curl ")) {
        statuses_of_demo.extend(statuses(&machine.run(line)));
    }
    assert!(
        statuses_of_demo.starts_with(&[200, 200, 401, 403, 200]),
        "{statuses_of_demo:?}\n{commands}"
    );
    drop(demo);

    let (redis, upstream) = (machine.redis(), RecordingUpstream::at("127.0.0.1:8000"));
    let (chain, key) = machine.pki.leaf(&["api.example.com"]);
    machine.write("tls.pem", chain);
    machine.write("tls.key", key);
    machine.write("jwt.pub.pem", Signer::new(Algorithm::RS256).file());
    machine.write("gateway.toml", block_of("README.md", "toml", "[server.tls]"));
    let dump = fs::read_to_string(root().join("tests/django/dump-sample.json")).unwrap();
    machine.write("dump.json", &dump);
    let mut serving = page.start("authgate run");
    serving.writes("serving");
    assert!(serving.output().contains("valid"), "{}", serving.output());
    let dump: Value = serde_json::from_str(&dump).unwrap();
    let of_ada = |row: &&Value| row["model"] == "authtoken.token" && row["fields"]["user"] == 42;
    let key = dump.as_array().unwrap().iter().find(of_ada).unwrap()["pk"]
        .as_str()
        .unwrap();
    machine.set("KEY", key);
    let ask = "curl -H \"Authorization: Token $KEY\" https://api.example.com/api/x";
    wait_until("the gateway has read the store", PATIENCE, || {
        statuses(&machine.run(ask)) == [200]
    });
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    drop(redis);
}

pub(super) fn a_production_gateway(machine: &Machine, page: &mut FollowedPage<'_>) {
    let Some(_database) = django(machine) else {
        return page.take_all();
    };
    machine.run("for address in 10.0.0.21 10.0.0.22; do ip address add $address/32 dev lo; done");
    let servers = ["10.0.0.21:8000", "10.0.0.22:8000"].map(RecordingUpstream::at);
    let text = block_of("docs/operations/production.md", "toml", "[stores.redis]");
    for (name, (chain, key)) in [
        ("tls", machine.pki.leaf(&["api.example.com"])),
        ("admin", machine.pki.leaf(&["gate-1.internal", "gate-2.internal"])),
        ("redis", machine.pki.leaf(&["redis.internal"])),
    ] {
        machine.write(&format!("{name}.pem"), chain);
        machine.write(&format!("{name}.key"), key);
    }
    machine.write("internal-ca.pem", machine.pki.root_pem());
    machine.write("jwt.pub.pem", Signer::new(Algorithm::RS256).file());
    // The test does not wait for a balancer at the end.
    machine.write("gateway.toml", text.replace("delay = \"10s\"", "delay = \"0s\""));
    page.run("openssl rand");

    // The steps in between are no blocks: the users of Redis, and a file for the import.
    let redis = Redis::start_with(&[
        "--tls-port",
        "6380",
        "--tls-cert-file",
        "/etc/authgate/redis.pem",
        "--tls-key-file",
        "/etc/authgate/redis.key",
        "--tls-ca-cert-file",
        "/etc/authgate/internal-ca.pem",
        "--tls-auth-clients",
        "no",
    ]);
    machine.run("openssl rand -hex 32 >redis-admin");
    for (user, file) in [
        ("authgate", "redis-reader"),
        ("authgate-writer", "redis-writer"),
        ("authgate-admin", "redis-admin"),
    ] {
        let password = machine.read(file);
        for line in rights(user) {
            let words: Vec<_> = line
                .iter()
                .map(|word| word.replace(PASSWORD, password.trim()))
                .collect();
            grant(&redis, &words);
        }
    }
    let lines = text.lines().filter(|line| !line.starts_with("writer = "));
    let admin: String = lines.map(|line| format!("{line}\n")).collect();
    let admin = admin.replace("\"authgate\"", "\"authgate-admin\"");
    machine.write("admin.toml", admin.replace("redis-reader", "redis-admin"));
    page.run("authgate token import");
    // The sandbox of a test has no systemd: tests/it/systemd.rs and scripts/test-packages start the units.
    machine.stub("systemctl", "echo \"$1\" >>/run/home/systemctl");
    let ended = page.run("authgate check --online");
    assert!(
        ended.out.contains("valid") && !ended.err.contains("warning"),
        "{ended:?}"
    );
    assert_eq!(
        fs::read_to_string("/run/home/systemctl").unwrap(),
        "stop\nenable\nenable\n"
    );
    let _gate = machine.gateway("gateway.toml");
    let ask = "curl -H 'Authorization: Token canary-ada' https://api.example.com/api/x";
    wait_until("the gateway serves", PATIENCE, || {
        statuses(&run(machine.shell(ask), b"")) == [200]
    });
    for (arguments, status) in [
        ("http://127.0.0.1:9902/readyz", 200),
        ("http://api.example.com/api/x", 308),
        ("https://api.example.com/api/x", 401),
        ("https://api.example.com/auth/login -d user=ada", 200),
        ("https://gate-1.internal:9901/metrics", 401),
        (
            "https://gate-2.internal:9901/metrics -H \"Authorization: Bearer $(cat admin.token)\"",
            200,
        ),
    ] {
        let ended = machine.run(&format!("curl --output /dev/null {arguments}"));
        assert_eq!(statuses(&ended), [status], "{arguments}");
    }
    assert!(machine.run("authgate reload").out.contains("in force"));
    let seen = servers.iter().flat_map(RecordingUpstream::all);
    let served: Vec<_> = seen.filter(|seen| seen.line() == "GET /api/x").collect();
    assert_eq!(served[0].header("x-user-name"), Some("ada"));
}

pub(super) fn the_package_for_django(machine: &Machine, page: &mut FollowedPage<'_>) {
    let Some(database) = Database::start(Engine::Sqlite, "auth.User") else {
        return page.take_all();
    };
    database.python(
        "from django.contrib.auth import get_user_model as model; \
         from rest_framework.authtoken.models import Token; \
         Token.objects.create(user=model().objects.create_user('ada'), key='canary-ada')",
    );
    let _redis = machine.redis();
    let project = Project::new(&database);
    machine.enter(project.folder());
    for (name, value) in project.command("").get_envs() {
        if name != "PATH" {
            machine.set(&name.to_string_lossy(), &value.unwrap_or_default().to_string_lossy());
        }
    }
    let ended = page.run("authgate_sync");
    assert!(ended.out.contains('1'), "{ended:?}");
    page.run("authgate_config");
    let file = fs::read_to_string(project.folder().join("gateway.toml")).unwrap();
    assert!(file.contains("[[routes]]"), "{file}");
}

pub(super) fn the_django_project(machine: &Machine, page: &mut FollowedPage<'_>) {
    let Some(venv) = std::env::var_os("AUTHGATE_VENV") else {
        return page.take_all();
    };
    let clone = Path::new("/run/home/clone");
    let copy = "mkdir -p \"$1/tests\" \"$1/target\"; cp -r \"$2/tests/django\" \"$1/tests\"; cp -r \"$2/python\" \"$1\"; ln -s \"$3\" \"$1/tests/django/venv\"";
    let mut copied = Command::new("sh");
    copied.args(["-ec", copy, "sh"]).arg(clone).arg(root()).arg(venv);
    run(copied, b"").good();
    machine.enter(clone.join("tests/django"));
    machine.set("PYTHONPATH", "/run/home/clone/python");
    let made = page.run("setup_test_db.py").out;
    let made: Value = serde_json::from_str(&made).unwrap();
    let dump = fs::read_to_string(clone.join("tests/django/dump.json")).unwrap();
    assert!(dump.contains(made["users"]["ada"]["token"].as_str().unwrap()));
    machine.set("DJANGO_DB", "/run/home/clone/target/mysite.sqlite3");
    let mut serving = page.start("venv/bin/gunicorn");
    let line = serving.writes("Listening at: ");
    let url = line.split("Listening at: ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(statuses(&machine.run(&format!("curl {url}/healthz"))), [200]);
}

#[test]
fn extras_that_pages_install_are_those_of_the_package() {
    let text = fs::read_to_string(root().join("python/pyproject.toml")).unwrap();
    let project: toml::Table = text.parse().unwrap();
    let project = &project["project"];
    let extras = project["optional-dependencies"].as_table().unwrap();
    let mut found = 0;
    for (_, block) in super::shell_blocks() {
        for line in block.lines().filter_map(|line| line.strip_prefix("pip install \"")) {
            let (name, rest) = line.split_once('[').unwrap();
            assert_eq!(Some(name), project["name"].as_str());
            for extra in rest.trim_end_matches("]\"").split(',') {
                assert!(extras.contains_key(extra), "{line}");
                found += 1;
            }
        }
    }
    assert!(found > 4, "{found} extras");
}
