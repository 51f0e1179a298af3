//! [`Database`]: a real PostgreSQL, MariaDB or SQLite in a folder of its own, with the tables of the Django project in `tests/django`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::gunicorn::{self, Gunicorn};
use super::program::run;
use super::{signal, wait_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgres,
    MariaDb,
    Sqlite,
}

pub const ENGINES: [Engine; 3] = [Engine::Postgres, Engine::MariaDb, Engine::Sqlite];

/// The role of the gateway. It may read what [`Database::grant`] says.
pub const ROLE: &str = "authgate";

/// A role of the system that may run a database: root may not.
const USER: &str = "nobody";

pub struct Database {
    pub engine: Engine,
    folder: TempDir,
    server: Option<Child>,
    user_model: &'static str,
    is_paused: AtomicBool,
}

impl Database {
    /// Started, with the tables for that user model. `None` where there is no venv.
    pub fn start(engine: Engine, user_model: &'static str) -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        gunicorn::command("python", folder.path())?;
        let mut database = Self {
            engine,
            folder,
            server: None,
            user_model,
            is_paused: AtomicBool::new(false),
        };
        database.initialize();
        database.spawn();
        match engine {
            Engine::Postgres => {
                database.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 20"));
                database.psql("postgres", "CREATE DATABASE app");
            }
            Engine::MariaDb => {
                database.mariadb(
                    "mysql",
                    &format!("CREATE DATABASE app CHARACTER SET utf8mb4; CREATE USER {ROLE}@localhost"),
                );
            }
            Engine::Sqlite => {}
        }
        database.manage(&["migrate", "--verbosity", "0"]);
        database.grant();
        Some(database)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn initialize(&self) {
        let data = self.path("data");
        match self.engine {
            Engine::Postgres => {
                own(self.folder.path());
                let mut initdb = as_user(&postgres("initdb"));
                initdb
                    .args([
                        "--auth=trust",
                        "--username=postgres",
                        "--no-sync",
                        "--encoding=UTF8",
                        "--locale=C.UTF-8",
                        "-D",
                    ])
                    .arg(&data);
                run(initdb, b"").good();
            }
            Engine::MariaDb => {
                let mut install = Command::new("mariadb-install-db");
                install
                    .args([
                        "--no-defaults",
                        "--auth-root-authentication-method=normal",
                        "--skip-test-db",
                        "--innodb-use-native-aio=0",
                        "--user=root",
                    ])
                    .arg(format!("--datadir={}", data.display()))
                    // Names of its temporary files are by process id, which may be that of another one in a namespace.
                    .env("TMPDIR", self.folder.path());
                run(install, b"").good();
            }
            Engine::Sqlite => {}
        }
    }

    fn spawn(&mut self) {
        let (folder, data) = (self.folder.path().to_owned(), self.path("data"));
        let mut command = match self.engine {
            Engine::Postgres => {
                let mut command = as_user(&postgres("postgres"));
                command.arg("-D").arg(&data).arg("-k").arg(&folder);
                command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"]);
                command
            }
            Engine::MariaDb => {
                let mut command = Command::new("mariadbd");
                let path = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
                command.args([
                    "--no-defaults",
                    "--user=root",
                    "--skip-networking",
                    "--innodb-use-native-aio=0",
                    "--innodb-buffer-pool-size=16M",
                ]);
                command.args([
                    path("datadir", "data"),
                    path("socket", "my.sock"),
                    path("pid-file", "my.pid"),
                ]);
                command.env("TMPDIR", &folder);
                command
            }
            Engine::Sqlite => return,
        };
        let log = fs::File::create(folder.join("log")).expect("writable");
        command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
        self.server = Some(command.spawn().expect("the database is installed: see scripts/test"));
        wait_until("the database answers", Duration::from_secs(60), || match self.engine {
            Engine::Postgres => run(self.client("postgres", "SELECT 1"), b"").code == 0,
            Engine::MariaDb => run(self.client("mysql", "SELECT 1"), b"").code == 0,
            Engine::Sqlite => true,
        });
    }

    fn client(&self, database: &str, sql: &str) -> Command {
        match self.engine {
            Engine::Postgres => {
                let mut psql = Command::new(postgres("psql"));
                psql.args(["-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql, "-h"]);
                psql.arg(self.folder.path()).arg(database);
                psql
            }
            Engine::MariaDb => {
                let mut mariadb = Command::new("mariadb");
                mariadb.args([
                    "--no-defaults",
                    "--user=root",
                    "--batch",
                    "--skip-column-names",
                    "--execute",
                    sql,
                ]);
                mariadb
                    .arg(format!("--socket={}", self.path("my.sock").display()))
                    .arg(database);
                mariadb
            }
            Engine::Sqlite => {
                let script = "import sqlite3, sys\n\
                              with sqlite3.connect(sys.argv[1], timeout=10) as db:\n    \
                              for row in db.execute(sys.argv[2]): print('|'.join(str(value) for value in row))";
                let mut python = Command::new("python3");
                python.args(["-c", script]).arg(self.path("db.sqlite3")).arg(sql);
                python
            }
        }
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        run(self.client(database, sql), b"").good()
    }

    fn mariadb(&self, database: &str, sql: &str) -> String {
        run(self.client(database, sql), b"").good()
    }

    /// Runs SQL, as a role that may do everything. Returns its rows.
    pub fn sql(&self, sql: &str) -> String {
        run(self.client("app", sql), b"").good().trim_end().to_owned()
    }

    /// The same, in the background: a session that holds a lock, for example.
    pub fn sql_in_background(&self, sql: &str) -> Background {
        let mut client = self.client("app", sql);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        Background(client.spawn().expect("a client"))
    }

    /// The gateway may read all tables.
    pub fn grant(&self) {
        match self.engine {
            Engine::Postgres => self.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")),
            Engine::MariaDb => self.sql(&format!("GRANT SELECT ON app.* TO {ROLE}@localhost")),
            Engine::Sqlite => String::new(),
        };
    }

    pub fn url(&self) -> String {
        let folder = self.folder.path().display();
        match self.engine {
            Engine::Postgres => format!("postgres://{ROLE}@localhost/app?host={folder}"),
            Engine::MariaDb => format!("mysql://{ROLE}@localhost/app?socket={folder}/my.sock"),
            Engine::Sqlite => format!("sqlite:{folder}/db.sqlite3"),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of `psql`.
    pub fn programs() -> PathBuf {
        postgres("psql").parent().expect("a folder").to_owned()
    }

    pub fn file(&self) -> PathBuf {
        self.path("db.sqlite3")
    }

    /// `[stores.django]` with these further lines.
    pub fn store(&self, lines: &str) -> String {
        let mut table = format!("[stores.django]\nkind = \"django\"\nurl = \"{}\"\n", self.url());
        let _ = writeln!(table, "{lines}");
        table
    }

    fn environment(&self) -> Value {
        let folder = self.folder.path();
        match self.engine {
            Engine::Postgres => {
                json!({ "ENGINE": "django.db.backends.postgresql", "NAME": "app", "USER": "postgres", "HOST": folder })
            }
            Engine::MariaDb => json!({
                "ENGINE": "django.db.backends.mysql", "NAME": "app", "USER": "root", "HOST": folder.join("my.sock"),
                "OPTIONS": { "charset": "utf8mb4" }
            }),
            Engine::Sqlite => json!({ "ENGINE": "django.db.backends.sqlite3", "NAME": self.file() }),
        }
    }

    /// A command of the venv, in the folder of the project, on this database.
    pub fn command(&self, name: &str) -> Command {
        let mut command = gunicorn::command(name, self.folder.path()).expect("there was a venv");
        command
            .env("DJANGO_SETTINGS_MODULE", "mysite.database_settings")
            .env("DJANGO_DATABASE", self.environment().to_string())
            .env("DJANGO_USER_MODEL", self.user_model);
        command
    }

    /// `manage.py` with these arguments.
    pub fn manage(&self, words: &[&str]) -> String {
        let mut command = self.command("python");
        command.arg("manage.py").args(words);
        run(command, b"").good()
    }

    /// Runs Python in the project.
    pub fn python(&self, script: &str) -> String {
        self.manage(&["shell", "--no-imports", "-c", script])
            .trim_end()
            .to_owned()
    }

    /// The project, served.
    pub fn serve(&self) -> Gunicorn {
        Gunicorn::start(self.command("gunicorn"))
    }

    /// How many connections the gateway has.
    pub fn connections(&self) -> usize {
        let sql = match self.engine {
            Engine::Postgres => format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'"),
            Engine::MariaDb => format!("SELECT count(*) FROM information_schema.processlist WHERE user = '{ROLE}'"),
            Engine::Sqlite => return 0,
        };
        self.sql(&sql).parse().expect("a number")
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // PostgreSQL ends its own processes on SIGQUIT, and not on SIGKILL.
            signal(
                server.id(),
                if self.engine == Engine::Postgres {
                    "QUIT"
                } else {
                    "KILL"
                },
            );
            let _ = server.wait();
        }
    }

    /// Starts it again, with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Stops all its processes, with its socket still there.
    pub fn pause(&self) {
        self.signal_all("STOP");
        self.is_paused.store(true, Ordering::Relaxed);
    }

    pub fn resume(&self) {
        if self.is_paused.swap(false, Ordering::Relaxed) {
            self.signal_all("CONT");
        }
    }

    fn signal_all(&self, name: &str) {
        let Some(server) = &self.server else { return };
        signal(server.id(), name);
        for child in children(server.id()) {
            signal(child, name);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

/// A client that is ended with this value.
pub struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The newest program of that name, which Debian keeps out of PATH.
fn postgres(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: see scripts/test");
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)));
    newest
        .filter(|program| program.exists())
        .max()
        .expect("PostgreSQL is installed: see scripts/test")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", "nogroup", "--clear-groups"])
        .arg(program);
    command
}

fn own(folder: &Path) {
    if is_root() {
        let id = run(
            {
                let mut id = Command::new("id");
                id.args(["-u", USER]);
                id
            },
            b"",
        );
        chown(folder, id.good().trim().parse().ok(), None).expect("root may do this");
    }
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name is in parentheses, and may hold anything.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&parent.to_string())
    })
    .collect()
}
