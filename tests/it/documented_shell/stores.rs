//! Pages about stores: what is exported is imported again, and revocations hold.

use std::fs;

use serde_json::{Value, json};

use super::block_of;
use super::changes::{PATIENCE, REDIS, ada_and_bob, tokens};
use crate::floors::root;
use crate::harness::database::{Database, Engine};
use crate::harness::machine::{FollowedPage, Machine, statuses};
use crate::harness::{Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::revoke_endpoint::becomes;

const DUMP: &str = "python manage.py dumpdata auth.user auth.group authtoken.token";

/// A Django project in the folder of the configuration, with ada (1) and bob (42), whose tokens are of 2025. `None` where there is no venv.
pub(super) fn django(machine: &Machine) -> Option<Database> {
    let database = Database::start(Engine::Sqlite, "auth.User")?;
    database.python(
        "from datetime import datetime, timezone; \
         from django.contrib.auth import get_user_model as model; \
         from rest_framework.authtoken.models import Token; \
         [Token.objects.create(user=model().objects.create_user(name, id=id), key='canary-' + name) \
         for id, name in ((1, 'ada'), (42, 'bob'))]; \
         Token.objects.update(created=datetime(2025, 1, 1, tzinfo=timezone.utc))",
    );
    for (name, value) in database.command("python").get_envs() {
        let value = value.unwrap_or_default();
        machine.set(&name.to_string_lossy(), &value.to_string_lossy());
    }
    let project = root().join("tests/django");
    machine.set(
        "PYTHONPATH",
        &format!("{}:{}", project.display(), root().join("python").display()),
    );
    machine.write("manage.py", fs::read(project.join("manage.py")).unwrap());
    Some(database)
}

/// The statuses that ada and bob get become these.
fn both_become(gate: &Gate, (ada, bob): (u16, u16), after: &str) {
    becomes(gate, &get("/api/x").token("canary-ada"), ada, after);
    becomes(gate, &get("/api/x").token("canary-bob"), bob, after);
}

fn flush(redis: &Redis, gate: &Gate) {
    redis.run(&["FLUSHALL"]);
    both_become(gate, (503, 503), "the flush");
}

pub(super) fn a_backup_and_its_restoration(machine: &Machine, page: &mut FollowedPage<'_>) {
    let Some(_database) = django(machine) else {
        return page.take_all();
    };
    let (redis, upstream) = (machine.redis(), RecordingUpstream::start());
    let gate = machine.serve(&tokens(&upstream).protected("/api/*"));
    machine.run(&format!("{DUMP} | authgate token import -; authgate revoke --user 42"));
    both_become(&gate, (200, 401), "the import");
    page.run("authgate token export");
    assert!(machine.read("export.jsonl").contains("\"revoked_user\":\"42\""));
    flush(&redis, &gate);
    page.run("authgate token import export.jsonl");
    both_become(&gate, (200, 401), "the restoration");
}

pub(super) fn a_flush_of_redis(machine: &Machine, page: &mut FollowedPage<'_>) {
    let Some(_database) = django(machine) else {
        return page.take_all();
    };
    let (redis, upstream) = (machine.redis(), RecordingUpstream::start());
    let gate = machine.serve(&tokens(&upstream).protected("/api/*"));
    machine.run(&format!("{DUMP} | authgate token import -"));
    both_become(&gate, (200, 200), "the import");
    machine.run("authgate token export >export.jsonl");
    flush(&redis, &gate);
    page.run("authgate token import export.jsonl");
    both_become(&gate, (200, 200), "the restoration");
    flush(&redis, &gate);
    page.run("\"revoked_user\":\"42\"");
    both_become(&gate, (200, 401), "an import with a revocation");
    page.run("authgate token export");
    assert!(machine.read("export.jsonl").contains("\"revoked_user\":\"42\""));
}

pub(super) fn an_embedded_store(machine: &Machine, page: &mut FollowedPage<'_>) {
    let upstream = RecordingUpstream::start();
    let store = block_of("docs/operations/embedded-store.md", "toml", "kind = \"embedded\"");
    let gate = machine.serve(
        &config()
            .tables(&store)
            .app(&upstream)
            .protected("/api/*")
            .identity("headers = { X-User-Name = \"username\" }"),
    );
    becomes(&gate, &get("/api/x").token("canary-unknown"), 503, "the start");
    let out = page.run("authgate token create").out;
    let key = out.lines().last().unwrap();
    becomes(&gate, &get("/api/x").token(key), 200, "the creation");
    assert_eq!(upstream.last().header("x-user-name"), Some("ada"));
}

pub(super) fn a_move_to_another_redis(machine: &Machine, page: &mut FollowedPage<'_>) {
    let (old, new) = (ada_and_bob(machine), Machine::redis_at("6380"));
    let upstream = RecordingUpstream::start();
    let stores = block_of("docs/operations/move-redis.md", "toml", "[stores.new]");
    assert!(stores.starts_with(REDIS), "{stores}");
    let file = config()
        .admin("listen = \"127.0.0.1:9901\"")
        .tables(&stores)
        .token("store = \"redis\"")
        .app(&upstream)
        .protected("/api/*");
    let gate = machine.serve(&file);
    machine.run("authgate revoke --user 43 --store redis");
    both_become(&gate, (200, 401), "the start");
    page.run("authgate token export --store redis");
    machine.configure(&file.token("store = \"new\""));
    machine.run("authgate reload");
    drop(old);
    both_become(&gate, (200, 401), "the move");
    machine.configure(
        &config()
            .admin("listen = \"127.0.0.1:9901\"")
            .tables(&stores.replace(REDIS, ""))
            .token("store = \"new\"")
            .app(&upstream)
            .protected("/api/*"),
    );
    machine.run("authgate reload");
    let ended = page.run("authgate check --online");
    assert_eq!(statuses(&ended), [200]);
    let (checked, status) = ended.out.split_once("\n{").unwrap();
    assert!(checked.contains("valid"), "{checked}");
    let status: Value = serde_json::from_str(&format!("{{{status}")).unwrap();
    let store = &status["stores"][0];
    assert_eq!(
        (&store["usable"], &store["primaries"]),
        (&json!(true), &json!(["127.0.0.1:6380"])),
        "{store}"
    );
    wait_until("the new server has the user", PATIENCE, || {
        new.run(&["EXISTS", "authgate:user:42"]) == redis::Value::Int(1)
    });
}
