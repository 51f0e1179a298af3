//! `kind = "django"` while the database of the application is down, slow, locked, full, or changed.

use std::time::{Duration, Instant};

use crate::django_database::{PEOPLE, SLOW_MACHINE, USER, status, with_tokens};
use crate::harness::database::{Database, Engine};
use crate::harness::{Gate, RecordingUpstream, get, wait_until};

const SHORT: &str = "timeout = \"1s\"";
/// A timeout of one second on a machine that is busy.
const SOON: Duration = Duration::from_secs(8);

fn unavailable(gate: &Gate, key: &str) {
    let asked = Instant::now();
    let reply = gate.call(&get("/api/x").token(key));
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (503, "Service temporarily unavailable, try again later."),
        "{key}: {}",
        gate.log()
    );
    assert!(reply.header("retry-after").is_some() && reply.header("www-authenticate").is_none());
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

fn comes_back(gate: &Gate) {
    wait_until("the store answers again", Duration::from_secs(30), || {
        status(gate, "canary-unknown") == 401
    });
}

/// `canary-ada` is cached, all other tokens are not.
fn with_cache(database: &Database, lines: &str, upstream: &RecordingUpstream) -> Gate {
    database.python(PEOPLE);
    let gate = Gate::start(
        &with_tokens(&database.store(lines), upstream).token("cache = { ttl = \"10m\", negative_entries = 0 }"),
    );
    if database.engine == Engine::Postgres && !lines.contains("invalidation") {
        // The first connection invalidates all cached decisions.
        gate.logged(&["these tables have no triggers"]);
    }
    wait_until("ada is cached", SOON, || status(&gate, "canary-ada") == 200);
    gate
}

#[test]
fn a_database_that_is_down_is_503_and_is_found_again() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(mut database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        database.kill();
        for _ in 0..3 {
            unavailable(&gate, "canary-root");
            unavailable(&gate, "canary-unknown");
            assert_eq!(status(&gate, "canary-ada"), 200, "a cached token is accepted");
        }
        wait_until("the metric changes", SOON, || {
            gate.metric("authgate_store_usable{store=\"django\"}") == 0.0
        });
        assert_eq!(gate.probe("/readyz").status, 200, "it was reached once");
        gate.logged(&["cannot be reached"]);
        database.restart();
        comes_back(&gate);
        wait_until("the metric changes", SOON, || {
            gate.metric("authgate_store_usable{store=\"django\"}") == 1.0
        });
    }
}

#[test]
fn a_database_that_is_restarted_between_two_requests_is_no_outage() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(mut database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SLOW_MACHINE, &upstream);
        // The database ends all connections; the next look-up opens another one.
        match engine {
            Engine::Postgres => {
                database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'authgate'")
            }
            _ => database.sql("KILL USER authgate@localhost"),
        };
        assert_eq!(status(&gate, "canary-root"), 200, "{}", gate.log());
        assert_eq!(status(&gate, "canary-zoë"), 200, "{}", gate.log());
        database.restart();
        comes_back(&gate);
    }
}

#[test]
fn a_locked_table_is_503_in_time_and_opens_no_further_connections() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        let lock = database.sql_in_background(match engine {
            Engine::Postgres => "BEGIN; LOCK TABLE authtoken_token IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)",
            _ => "LOCK TABLES authtoken_token WRITE; SELECT SLEEP(60)",
        });
        wait_until("the table is locked", Duration::from_secs(20), || {
            status(&gate, "canary-unknown") == 503
        });
        let most = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..24)
                .map(|at| {
                    let gate = &gate;
                    scope.spawn(move || unavailable(gate, &format!("canary-unknown-{at}")))
                })
                .collect();
            let most = (0..10).map(|_| database.connections()).max().unwrap();
            clients.into_iter().for_each(|client| client.join().unwrap());
            most
        });
        assert!(most.max(database.connections()) <= 4, "{engine:?}: {most} connections");
        assert_eq!(status(&gate, "canary-ada"), 200, "a cached token is accepted");
        drop(lock);
        if engine == Engine::Postgres {
            database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()");
        }
        comes_back(&gate);
        assert!(database.connections() <= 4);
    }
}

#[test]
fn a_database_that_hangs_is_503_in_time() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        database.pause();
        for key in ["canary-root", "canary-unknown"] {
            unavailable(&gate, key);
        }
        assert_eq!(status(&gate, "canary-ada"), 200, "a cached token is accepted");
        database.resume();
        comes_back(&gate);
    }
}

#[test]
fn a_database_that_has_no_connections_left_is_used_with_those_that_are_open() {
    let Some(database) = Database::start(Engine::Postgres, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 1");
    let gate = with_cache(&database, "timeout = \"15s\"\ninvalidation = \"off\"", &upstream);
    assert_eq!(status(&gate, "canary-root"), 200);
    assert_eq!(status(&gate, "canary-unknown"), 401);
    gate.logged(&["a further connection to the store failed", "too many connections"]);
    assert_eq!(database.connections(), 1);
    // None at all.
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 0");
    database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'authgate'");
    unavailable(&gate, "canary-unknown");
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 20");
    comes_back(&gate);
}

#[test]
fn a_missing_right_or_column_is_503_and_the_log_has_the_remedy() {
    let Some(database) = Database::start(Engine::Postgres, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let gate = with_cache(&database, SHORT, &upstream);
    database.sql("REVOKE SELECT ON authtoken_token FROM authgate");
    wait_until("the right is missed", SOON, || status(&gate, "canary-unknown") == 503);
    gate.logged(&["may not read column", "GRANT SELECT"]);
    database.grant();
    comes_back(&gate);
    // A migration while the gateway runs: the id becomes text.
    database.sql(
        "ALTER TABLE authtoken_token DROP CONSTRAINT IF EXISTS authtoken_token_user_id_35299eff_fk_auth_user_id; \
         ALTER TABLE auth_user ADD COLUMN nick text; ALTER TABLE auth_user RENAME COLUMN email TO mail",
    );
    wait_until("the column is missed", SOON, || status(&gate, "canary-unknown") == 503);
    gate.logged(&["has no column", "email = false"]);
    database.sql("ALTER TABLE auth_user RENAME COLUMN mail TO email");
    comes_back(&gate);
}

#[test]
fn a_missing_sqlite_file_is_never_created_and_a_replaced_one_is_opened() {
    let Some(database) = Database::start(Engine::Sqlite, USER) else {
        return;
    };
    database.python(PEOPLE);
    let (file, aside) = (database.file(), database.file().with_extension("aside"));
    std::fs::rename(&file, &aside).unwrap();
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&with_tokens(&database.store(SHORT), &upstream));
    unavailable(&gate, "canary-ada");
    assert_eq!(gate.probe("/readyz").status, 503);
    assert!(!file.exists(), "the gateway has created it");
    std::fs::copy(&aside, &file).unwrap();
    comes_back(&gate);
    assert_eq!(gate.probe("/readyz").status, 200);
    // Another file in its place, where ada's key is gone.
    database.sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    let changed = database.file().with_extension("changed");
    std::fs::copy(&file, &changed).unwrap();
    std::fs::copy(&aside, file.with_extension("again")).unwrap();
    std::fs::rename(file.with_extension("again"), &file).unwrap();
    wait_until("the file is opened again", SOON, || status(&gate, "canary-ada") == 200);
    std::fs::rename(&changed, &file).unwrap();
    wait_until("the file is opened again", SOON, || status(&gate, "canary-ada") == 401);
    std::fs::remove_file(&file).unwrap();
    unavailable(&gate, "canary-zoë");
    assert!(!file.exists(), "the gateway has created it");
}

#[test]
fn a_sqlite_file_that_is_locked_is_503_in_time() {
    let Some(database) = Database::start(Engine::Sqlite, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let gate = with_cache(&database, SHORT, &upstream);
    let mut python = std::process::Command::new("python3");
    let script = "import sqlite3, sys, time\n\
                  db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  db.execute('BEGIN EXCLUSIVE')\n\
                  time.sleep(60)";
    let mut lock = python.args(["-c", script]).arg(database.file()).spawn().unwrap();
    wait_until("the file is locked", SOON, || status(&gate, "canary-unknown") == 503);
    unavailable(&gate, "canary-unknown");
    assert_eq!(status(&gate, "canary-ada"), 200, "a cached token is accepted");
    lock.kill().unwrap();
    lock.wait().unwrap();
    comes_back(&gate);
}
