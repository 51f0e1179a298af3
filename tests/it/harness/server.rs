//! [`Server`]: a `redis-server` on a TCP port of its own: a primary, a replica, a sentinel, or a server of a cluster.

use std::net::TcpListener;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{Client, Connection, IntoConnectionInfo, RedisResult, Value};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::redis::{PREFIX, redis_server};
use super::{Redis, signal, wait_until};

/// How long a change among servers may take on a busy machine.
pub const SETTLED: Duration = Duration::from_secs(30);

pub struct Server {
    child: Child,
    /// Is deleted with it.
    _folder: TempDir,
    pub port: u16,
    password: Option<String>,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

impl Server {
    /// Started with the lines of this configuration. `{port}` and `{bus}` are free ports.
    pub fn start(arguments: &[&str], lines: &str) -> Self {
        Self::with_password(arguments, lines, None)
    }

    /// The same, with a password for the default user.
    pub fn with_password(arguments: &[&str], lines: &str, password: Option<&str>) -> Self {
        for _ in 0..10 {
            let (port, bus) = (free_port(), free_port());
            let folder = TempDir::new().expect("a folder");
            let mut text = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\n");
            if let Some(password) = password {
                text += &format!("requirepass {password}\nmasterauth {password}\n");
            }
            if arguments.contains(&"--sentinel") {
                text = format!("port {port}\nbind 127.0.0.1\n");
                if let Some(password) = password {
                    text += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
                }
            }
            text += &lines.replace("{bus}", &bus.to_string());
            std::fs::write(folder.path().join("redis.conf"), text).expect("writable");
            let mut server = Self {
                child: redis_server(folder.path(), &[&["redis.conf"], arguments].concat()),
                _folder: folder,
                port,
                password: password.map(str::to_owned),
            };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server does not start on a free port");
    }

    /// Waits until it answers. `false`: it has ended, because another program has the port.
    fn answers(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < SETTLED {
            if self.try_run(&["PING"]).is_ok() {
                return true;
            }
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    fn connection(&self) -> RedisResult<Connection> {
        let info = self.url().into_connection_info()?;
        let mut login = info.redis_settings().clone();
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let connection =
            Client::open(info.set_redis_settings(login))?.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(connection)
    }

    pub fn try_run(&self, words: &[&str]) -> RedisResult<Value> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection()?)
    }

    /// One command.
    pub fn run(&self, words: &[&str]) -> Value {
        self.try_run(words)
            .unwrap_or_else(|problem| panic!("{words:?}: {problem}"))
    }

    pub fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.run(words)).expect("text")
    }

    /// The first word of ROLE: `master`, `slave` or `sentinel`. Empty: it does not answer.
    pub fn role(&self) -> String {
        match self.try_run(&["ROLE"]) {
            Ok(Value::Array(parts)) => redis::from_redis_value(parts[0].clone()).expect("text"),
            _ => String::new(),
        }
    }

    /// Whether it is a replica that has all records of its primary.
    pub fn is_replicating(&self) -> bool {
        matches!(self.try_run(&["INFO", "replication"]).map(redis::from_redis_value::<String>), Ok(Ok(info)) if info.contains("master_link_status:up"))
    }

    pub fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    pub fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes a user with the rights that the gateway needs in any case.
pub const BASE_RIGHTS: &[&str] = &[
    "ACL",
    "SETUSER",
    "gateway",
    "reset",
    "on",
    ">canary-redis",
    "%R~authgate:*",
    "+get",
    "+mget",
    "+hello",
    "+auth",
    "+ping",
    "+select",
    "+client|tracking",
    "+client|id",
    "+client|setname",
];

/// Makes the user `writer`, with the rights of the documentation for one that revokes and records proofs.
pub const WRITER: &[&str] = &[
    "ACL",
    "SETUSER",
    "writer",
    "reset",
    "on",
    ">canary-writer",
    "%R~authgate:layout",
    "%RW~authgate:token:*",
    "%RW~authgate:revoked:*",
    "%RW~authgate:dpop:*",
    "+get",
    "+set",
    "+ttl",
    "+watch",
    "+unwatch",
    "+multi",
    "+exec",
    "+role",
    "+wait",
    "+ping",
    "+hello",
    "+auth",
    "+select",
];

/// Where records can be stored.
pub trait Records {
    fn set(&self, key: &str, value: &str);

    fn put_layout(&self, epoch: &str) {
        self.set("layout", &json!({ "version": 1, "epoch": epoch }).to_string());
    }

    fn put_token(&self, key: &str, record: &Json) {
        self.set(&Redis::token_key(key), &record.to_string());
    }

    /// An active user with this name.
    fn put_user(&self, id: &str, name: &str) {
        self.set(&format!("user-by-name:{name}"), id);
        self.set(
            &format!("user:{id}"),
            &json!({ "id": id, "active": true, "username": name }).to_string(),
        );
    }

    /// A layout record, user `42`, called ada, and her tokens `canary-ada` and the revoked `canary-old`.
    fn fill(&self) {
        self.put_layout("1");
        self.put_user("42", "ada");
        self.put_token("canary-ada", &json!({ "user": "42", "created": 1_700_000_000 }));
        self.put_token("canary-old", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    }
}

impl Records for Server {
    fn set(&self, key: &str, value: &str) {
        self.run(&["SET", &format!("{PREFIX}{key}"), value]);
    }
}

/// Waits longer than [`wait_until`] usually does: servers agree slowly on a busy machine.
pub fn settles(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, SETTLED, condition);
}

/// Sets a flag when it is dropped, so that threads end also when the test fails.
pub struct Ends<'f>(pub &'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
