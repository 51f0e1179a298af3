//! [`Redis`]: a real `redis-server` on a unix socket in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use authgate_auth::store::TokenDigest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{signal, wait_until};

/// The prefix of every key.
pub const PREFIX: &str = "authgate:";
/// The name of the socket in the folder.
const SOCKET: &str = "redis.sock";

pub struct Redis {
    child: Child,
    folder: TempDir,
}

impl Redis {
    /// Started, with the layout record of a store of ours.
    pub fn start() -> Self {
        let redis = Self::start_empty();
        redis.put_layout("1");
        redis
    }

    /// Started, without any record.
    pub fn start_empty() -> Self {
        Self::start_with(&[])
    }

    /// Started with these further arguments, without any record.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let redis = Self {
            child: spawn(&folder, arguments),
            folder,
        };
        redis.wait();
        redis
    }

    fn wait(&self) {
        wait_until("redis-server answers", Duration::from_secs(10), || {
            self.connection().is_ok()
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// One command.
    pub fn run(&self, words: &[&str]) -> redis::Value {
        self.try_run(words).expect("redis takes the command")
    }

    /// One command that Redis may refuse.
    pub fn try_run(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = self.connection().expect("redis-server is there");
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    pub fn set(&self, key: &str, value: impl AsRef<str>) {
        self.run(&["SET", &format!("{PREFIX}{key}"), value.as_ref()]);
    }

    pub fn del(&self, key: &str) {
        self.run(&["DEL", &format!("{PREFIX}{key}")]);
    }

    pub fn put_layout(&self, epoch: &str) {
        self.set("layout", json!({ "version": 1, "epoch": epoch }).to_string());
    }

    /// The name of a token's record.
    pub fn token_key(key: &str) -> String {
        format!("token:{}", TokenDigest::of(key.as_bytes()).to_hex())
    }

    pub fn put_token(&self, key: &str, record: &Value) {
        self.set(&Self::token_key(key), record.to_string());
    }

    /// An active user; `more` is added to the record.
    pub fn put_user(&self, id: &str, more: &Value) {
        let mut record = json!({ "id": id, "active": true });
        for (name, value) in more.as_object().expect("an object") {
            record[name] = value.clone();
        }
        if let Some(name) = record["username"].as_str() {
            self.set(&format!("user-by-name:{name}"), id);
        }
        self.set(&format!("user:{id}"), record.to_string());
    }

    /// User `42`, called ada, of group staff, with the token `canary-ada`.
    pub fn with_ada(self) -> Self {
        self.put_user(
            "42",
            &json!({ "username": "ada", "email": "ada@example.com", "groups": ["staff"] }),
        );
        self.put_token("canary-ada", &json!({ "user": "42", "created": 1_700_000_000 }));
        self
    }

    /// Stops answering, with its socket still there.
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
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it again at the same place, empty unless its records were saved.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with these further arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.kill();
        self.child = spawn(&self.folder, arguments);
        self.wait();
    }
}

/// Starts `redis-server` with a socket in this folder.
fn spawn(folder: &TempDir, arguments: &[&str]) -> Child {
    let fixed = [
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--unixsocket",
        SOCKET,
    ];
    redis_server(folder.path(), &[&fixed, arguments].concat())
}

/// Starts `redis-server` in this folder.
pub fn redis_server(folder: &Path, arguments: &[&str]) -> Child {
    Command::new("redis-server")
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed: see scripts/test")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
