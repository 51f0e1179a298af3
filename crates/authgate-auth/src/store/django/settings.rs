//! The configuration of one Django database: where it is, and what its tables and columns are called.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use authgate_core::secret::Secret;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::store::Digests;

/// The configuration of one Django database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DjangoSettings {
    /// Its address.
    pub endpoint: Endpoint,
    /// The table of opaque tokens; `None`: only users are looked up.
    pub tokens: Option<TokenTable>,
    /// The table of users.
    pub users: UserTable,
    /// The tables of groups; `None`: users have no groups.
    pub groups: Option<GroupTable>,
    /// One deadline for waiting, connecting and answering.
    pub timeout: Duration,
    /// Maximum number of connections of the whole gateway.
    pub connections: usize,
    /// How cached decisions are invalidated.
    pub invalidation: Invalidation,
    /// The kinds of digests that a table of digests holds.
    pub digests: Digests,
}

impl DjangoSettings {
    /// Whether it has the same records: how the gateway logs in and waits makes no difference.
    pub(in crate::store) fn has_records_of(&self, previous: &Self) -> bool {
        let tables = |settings: &Self| (settings.tokens.clone(), settings.users.clone(), settings.groups.clone());
        self.endpoint.is_same_database(&previous.endpoint) && tables(self) == tables(previous)
    }
}

/// How a change in the database invalidates cached decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Triggers report changes: LISTEN on PostgreSQL. Other databases cannot report changes.
    Notify,
    /// Changes are not reported: cache entries expire after their `ttl`.
    Off,
}

/// The table of opaque tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTable {
    /// Its name.
    pub table: String,
    /// The column that a key is looked up by.
    pub key: TokenKey,
    /// The column with the id of the user.
    pub user: String,
    /// The column with the creation time.
    pub created: Option<String>,
}

/// What a table of tokens holds of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKey {
    /// The key itself: DRF's authtoken.
    Plain(String),
    /// Its digest, in hexadecimal digits: knox.
    Digest {
        /// The column of the digest.
        column: String,
        /// The column with the expiry.
        expiry: Option<String>,
    },
}

impl TokenTable {
    /// The table of `rest_framework.authtoken`.
    pub fn authtoken() -> Self {
        Self {
            table: "authtoken_token".to_owned(),
            key: TokenKey::Plain("key".to_owned()),
            user: "user_id".to_owned(),
            created: Some("created".to_owned()),
        }
    }

    /// The table of django-rest-knox.
    pub fn knox() -> Self {
        Self {
            table: "knox_authtoken".to_owned(),
            key: TokenKey::Digest {
                column: "digest".to_owned(),
                expiry: Some("expiry".to_owned()),
            },
            user: "user_id".to_owned(),
            created: Some("created".to_owned()),
        }
    }
}

impl TokenKey {
    /// The column that a key is looked up by.
    pub fn column(&self) -> &str {
        match self {
            Self::Plain(column) | Self::Digest { column, .. } => column,
        }
    }
}

/// The table of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    /// Its name.
    pub table: String,
    /// The primary key.
    pub id: String,
    /// The column with the login name.
    pub username: String,
    /// The column with the mail address.
    pub email: Option<String>,
    /// The column that says whether the user may log in; `None`: all users may.
    pub active: Option<String>,
    /// The column with the password hash; `None`: no authenticator compares it.
    pub password: Option<String>,
    /// The same column where no authenticator compares it: only `authgate token verify-import` reads it then.
    pub unread_password: Option<String>,
    /// Further attributes: name and column.
    pub attributes: Vec<(String, String)>,
}

impl Default for UserTable {
    /// The table of Django's own user model.
    fn default() -> Self {
        Self {
            table: "auth_user".to_owned(),
            id: "id".to_owned(),
            username: "username".to_owned(),
            email: Some("email".to_owned()),
            active: Some("is_active".to_owned()),
            password: Some("password".to_owned()),
            unread_password: None,
            attributes: Vec::new(),
        }
    }
}

/// The tables of groups: `auth_group`, and the table that connects it with users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTable {
    /// The table that connects users and groups.
    pub members: String,
    /// Its column with the id of the user; `None`: the one beside `id` and `group_id`.
    pub user: Option<String>,
}

impl GroupTable {
    /// The table of groups.
    pub const GROUPS: &str = "auth_group";

    /// Those of a user model, as Django names them.
    pub fn of(users: &UserTable) -> Self {
        Self {
            members: format!("{}_groups", users.table),
            user: None,
        }
    }
}

/// A parsed `postgres://`, `mysql://` or `sqlite:` URL. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) database: Database,
    /// What it was parsed from, to compare two of them.
    url: Secret<String>,
}

#[derive(Clone)]
pub(super) enum Database {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
    Sqlite(PathBuf),
}

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

/// What a URL may have behind `?`.
const POSTGRES_PARAMETERS: [&str; 6] = ["host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey"];
const MYSQL_PARAMETERS: [&str; 5] = ["socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"];

impl Endpoint {
    /// Reads a URL. Relative paths of SQLite files start from `folder`.
    ///
    /// # Errors
    /// What is wrong with it. The message does not repeat the URL.
    pub fn parse(url: &str, folder: &Path) -> Result<Self, String> {
        let database = match url.split_once(':') {
            Some(("postgres" | "postgresql", rest)) => {
                check_parameters(rest, &POSTGRES_PARAMETERS)?;
                let options = PgConnectOptions::from_str(url).map_err(|_| unreadable(&POSTGRES_PARAMETERS))?;
                require_database(options.get_database())?;
                Database::Postgres(Box::new(options.application_name("authgate")))
            }
            Some(("mysql" | "mariadb", rest)) => {
                check_parameters(rest, &MYSQL_PARAMETERS)?;
                let options = MySqlConnectOptions::from_str(url).map_err(|_| unreadable(&MYSQL_PARAMETERS))?;
                require_database(options.get_database())?;
                Database::MySql(Box::new(options))
            }
            Some(("sqlite", path)) => {
                // Two slashes stand for an empty host.
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() || path == ":memory:" {
                    return Err("it has no path of a file".to_owned());
                }
                if path.contains('?') {
                    return Err("the path of a SQLite file has no parameters".to_owned());
                }
                Database::Sqlite(folder.join(path))
            }
            Some(_) | None => return Err("it must begin with postgres://, mysql:// or sqlite:".to_owned()),
        };
        Ok(Self {
            database,
            url: Secret::new(url.to_owned()),
        })
    }

    /// The kind of database.
    pub fn engine(&self) -> Engine {
        match self.database {
            Database::Postgres(_) => Engine::Postgres,
            Database::MySql(_) => Engine::MySql,
            Database::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// Whether it is the same database of the same server, or the same file.
    pub fn is_same_database(&self, other: &Self) -> bool {
        // `Debug` has the server and the name of the database.
        self.engine() == other.engine() && format!("{self:?}") == format!("{other:?}")
    }

    /// The name of the role that it logs in as; empty for SQLite.
    pub fn role(&self) -> String {
        match &self.database {
            Database::Postgres(options) => options.get_username().to_owned(),
            Database::MySql(options) => options.get_username().to_owned(),
            Database::Sqlite(_) => String::new(),
        }
    }

    /// The file of a SQLite database.
    pub fn file(&self) -> Option<&Path> {
        match &self.database {
            Database::Sqlite(file) => Some(file),
            Database::Postgres(_) | Database::MySql(_) => None,
        }
    }
}

/// sqlx ignores unknown parameters. A misspelled `sslmode` would leave the connection unprotected.
fn check_parameters(rest: &str, known: &[&str]) -> Result<(), String> {
    let Some((_, query)) = rest.split_once('?') else {
        return Ok(());
    };
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    match names.into_iter().find(|name| !known.contains(name)) {
        Some(_) => Err(format!(
            "it has an unknown parameter; known ones are {}",
            known.join(", ")
        )),
        None => Ok(()),
    }
}

fn unreadable(parameters: &[&str]) -> String {
    format!(
        "its host, port or parameters cannot be read; parameters are {}",
        parameters.join(", ")
    )
}

fn require_database(name: Option<&str>) -> Result<(), String> {
    match name {
        Some(name) if !name.is_empty() => Ok(()),
        Some(_) | None => Err("it names no database".to_owned()),
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        // The same URL may be relative to another folder.
        self.url == other.url && self.file() == other.file()
    }
}

impl Eq for Endpoint {}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.database {
            Database::Postgres(options) => {
                let name = options.get_database().unwrap_or_default();
                match options.get_socket() {
                    Some(socket) => write!(f, "{}/{name}", socket.display()),
                    None => write!(f, "{}:{}/{name}", options.get_host(), options.get_port()),
                }
            }
            Database::MySql(options) => {
                let name = options.get_database().unwrap_or_default();
                match options.get_socket() {
                    Some(socket) => write!(f, "{}/{name}", socket.display()),
                    None => write!(f, "{}:{}/{name}", options.get_host(), options.get_port()),
                }
            }
            Database::Sqlite(file) => write!(f, "{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_errors_do_not_repeat_them() {
        let folder = Path::new("/etc/authgate");
        for (url, expected) in [
            ("postgres://authgate@db/app", Ok("db:5432/app")),
            (
                "postgresql://authgate:canary@db:6432/app?sslmode=verify-full",
                Ok("db:6432/app"),
            ),
            (
                "postgres://authgate@localhost/app?host=/run/postgresql&port=5433",
                Ok("/run/postgresql/app"),
            ),
            ("mysql://authgate@db/app", Ok("db:3306/app")),
            (
                "mysql://authgate@localhost/app?socket=/run/mysqld/mysqld.sock",
                Ok("/run/mysqld/mysqld.sock/app"),
            ),
            ("sqlite:/srv/app/db.sqlite3", Ok("/srv/app/db.sqlite3")),
            ("sqlite:///srv/app/db.sqlite3", Ok("/srv/app/db.sqlite3")),
            ("sqlite:db.sqlite3", Ok("/etc/authgate/db.sqlite3")),
            ("postgres://authgate:canary@db", Err("names no database")),
            (
                "postgres://authgate:canary@db/app?sslmod=verify-full",
                Err("unknown parameter"),
            ),
            (
                "postgres://authgate:canary@db/app?sslmode=canary",
                Err("cannot be read"),
            ),
            ("mysql://authgate:canary@db:canary/app", Err("cannot be read")),
            ("mysql://authgate@db/", Err("names no database")),
            ("sqlite::memory:", Err("no path")),
            ("sqlite:db.sqlite3?mode=rwc", Err("no parameters")),
            ("redis://canary", Err("must begin with")),
        ] {
            match (Endpoint::parse(url, folder), expected) {
                (Ok(endpoint), Ok(shown)) => assert_eq!(format!("{endpoint:?}"), shown, "{url}"),
                (Err(problem), Err(part)) => {
                    assert!(
                        problem.contains(part) && !problem.contains("canary"),
                        "{url}: {problem}"
                    );
                }
                (other, expected) => panic!("{url}: {other:?}, expected {expected:?}"),
            }
        }
    }
}
