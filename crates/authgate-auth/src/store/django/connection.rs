//! One connection to the database, with limits on the server's side: it only reads, and it ends statements that take too long.

use std::fmt::Write;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authgate_core::secret::Secret;
use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row as _};

use super::settings::{Database, DjangoSettings, Engine};

/// How long opening a connection may take. Requests do not wait longer than their own deadlines.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection.
pub(super) enum Connection {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    Sqlite {
        connection: SqliteConnection,
        file: PathBuf,
        /// The file that was opened. Another one may have replaced it.
        opened: FileId,
    },
}

/// The device and the number of a file.
type FileId = (u64, u64);

/// The text of a statement, which has no values in it.
pub(super) type Sql = Arc<str>;

/// A value that a statement is executed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    Text(String),
    Integer(i64),
}

/// One row: all columns as text.
pub(super) struct Row(Vec<Option<String>>);

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    /// There is no connection.
    #[error("{0}")]
    Lost(String),
    /// The database ended the statement, because it took too long or waited for a lock.
    #[error("the statement took too long")]
    Slow,
    /// The database answered with an error.
    #[error("{0}")]
    Answer(String),
    /// The same, about the values of this statement: the next one may succeed.
    #[error("{0}")]
    Data(String),
    /// A text has characters that the column cannot hold, so no row has this text.
    #[error("a text has characters that a column cannot hold")]
    NoSuchText,
}

impl Connection {
    /// Connects, without a deadline.
    pub(super) async fn open(settings: &DjangoSettings) -> Result<Self, DatabaseError> {
        let limit = settings.timeout;
        match &settings.endpoint.database {
            Database::Postgres(options) => {
                let options = postgres_options(settings, options);
                Ok(Self::Postgres(options.connect().await?))
            }
            Database::MySql(options) => {
                let mut connection = options.as_ref().clone().disable_statement_logging().connect().await?;
                limit_mysql(&mut connection, limit).await?;
                Ok(Self::MySql(connection))
            }
            Database::Sqlite(file) => {
                let opened =
                    file_id(file).map_err(|error| DatabaseError::Lost(format!("{}: {error}", file.display())))?;
                let options = SqliteConnectOptions::new()
                    .filename(file)
                    .read_only(true)
                    .create_if_missing(false)
                    .busy_timeout(limit)
                    .disable_statement_logging();
                Ok(Self::Sqlite {
                    connection: options.connect().await?,
                    file: file.clone(),
                    opened,
                })
            }
        }
    }

    pub(super) fn engine(&self) -> Engine {
        match self {
            Self::Postgres(_) => Engine::Postgres,
            Self::MySql(_) => Engine::MySql,
            Self::Sqlite { .. } => Engine::Sqlite,
        }
    }

    /// Begins a transaction that only reads, and sees the rows of one moment.
    pub(super) async fn begin_snapshot(&mut self) -> Result<(), DatabaseError> {
        match self {
            Self::Postgres(connection) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                connection.execute(sqlx::raw_sql(begin)).await?;
            }
            Self::MySql(connection) => {
                // It is for the next transaction.
                let level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
                connection.execute(sqlx::raw_sql(level)).await?;
                let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
                connection.execute(sqlx::raw_sql(begin)).await?;
            }
            Self::Sqlite { connection, .. } => {
                connection.execute(sqlx::raw_sql("BEGIN")).await?;
            }
        }
        Ok(())
    }

    /// Ends the transaction.
    pub(super) async fn end_snapshot(&mut self) -> Result<(), DatabaseError> {
        let commit = sqlx::raw_sql("COMMIT");
        match self {
            Self::Postgres(connection) => connection.execute(commit).await.map(drop)?,
            Self::MySql(connection) => connection.execute(commit).await.map(drop)?,
            Self::Sqlite { connection, .. } => connection.execute(commit).await.map(drop)?,
        }
        Ok(())
    }

    /// Executes a statement without values, and passes each row on as it arrives.
    pub(super) async fn each_row(&mut self, sql: &Sql, mut take: impl FnMut(Row)) -> Result<(), DatabaseError> {
        macro_rules! each_row {
            ($connection:expr) => {{
                let mut rows = sqlx::query(AssertSqlSafe(Arc::clone(sql))).fetch($connection);
                while let Some(row) = rows.try_next().await? {
                    let texts = (0..Row::columns(&row)).map(|at| Row::text_at(&row, at));
                    take(Row(texts.collect::<Result<_, sqlx::Error>>()?));
                }
            }};
        }
        match self {
            Self::Postgres(connection) => each_row!(&mut *connection),
            Self::MySql(connection) => each_row!(&mut *connection),
            Self::Sqlite { connection, .. } => each_row!(&mut *connection),
        }
        Ok(())
    }

    /// Executes a prepared statement.
    pub(super) async fn rows(&mut self, sql: &Sql, parameters: &[Parameter]) -> Result<Vec<Row>, DatabaseError> {
        macro_rules! rows {
            ($connection:expr) => {{
                let mut query = sqlx::query(AssertSqlSafe(Arc::clone(sql)));
                for parameter in parameters {
                    query = match parameter {
                        Parameter::Text(text) => query.bind(text.as_str()),
                        Parameter::Integer(number) => query.bind(*number),
                    };
                }
                let rows = query.fetch_all($connection).await?;
                let texts = |row: &_| (0..Row::columns(row)).map(|at| Row::text_at(row, at)).collect();
                rows.iter()
                    .map(texts)
                    .collect::<Result<Vec<Vec<Option<String>>>, sqlx::Error>>()?
            }};
        }
        let rows = match self {
            Self::Postgres(connection) => rows!(connection),
            Self::MySql(connection) => rows!(connection),
            Self::Sqlite {
                connection,
                file,
                opened,
            } => {
                if file_id(file).ok() != Some(*opened) {
                    return Err(DatabaseError::Lost(format!(
                        "{} was removed or replaced",
                        file.display()
                    )));
                }
                rows!(connection)
            }
        };
        Ok(rows.into_iter().map(Row).collect())
    }
}

/// With PostgreSQL's own limits, as parameters of the connection.
fn postgres_options(settings: &DjangoSettings, options: &PgConnectOptions) -> PgConnectOptions {
    let milliseconds = settings.timeout.as_millis().max(1).to_string();
    let limits = [
        ("statement_timeout", milliseconds.as_str()),
        ("default_transaction_read_only", "on"),
    ];
    options.clone().options(limits).disable_statement_logging()
}

/// The options of a connection that listens.
pub(super) fn listen_options(settings: &DjangoSettings, options: &PgConnectOptions) -> PgConnectOptions {
    postgres_options(settings, options).application_name("authgate-listen")
}

/// MariaDB and MySQL have different names for the longest time of a statement.
async fn limit_mysql(connection: &mut MySqlConnection, limit: Duration) -> Result<(), DatabaseError> {
    let version: String = sqlx::query("SELECT CAST(VERSION() AS CHAR)")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    let mut limits = format!(
        "SET SESSION TRANSACTION READ ONLY; SET SESSION lock_wait_timeout = {};",
        seconds.max(1)
    );
    // Writing to a string cannot fail.
    let _ = match version.contains("MariaDB") {
        true => write!(limits, "SET SESSION max_statement_time = {}", limit.as_secs_f64()),
        false => write!(limits, "SET SESSION max_execution_time = {}", limit.as_millis().max(1)),
    };
    for statement in limits.split(';') {
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned())))
            .await?;
    }
    Ok(())
}

fn file_id(file: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(file)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Row {
    fn columns(row: &impl sqlx::Row) -> usize {
        row.len()
    }

    fn text_at<R>(row: &R, at: usize) -> Result<Option<String>, sqlx::Error>
    where
        R: sqlx::Row,
        usize: sqlx::ColumnIndex<R>,
        for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    {
        row.try_get(at)
    }

    /// The text of a column; `None`: NULL.
    pub(super) fn text(&self, at: usize) -> Option<&str> {
        self.0.get(at)?.as_deref()
    }

    /// Takes the text of a column that must not be printed.
    pub(super) fn take_secret(&mut self, at: usize) -> Option<Secret<String>> {
        self.0.get_mut(at)?.take().map(Secret::new)
    }
}

/// Classes of SQLSTATE whose messages name tables, columns, roles and limits, and never a value.
const CLASSES_WITHOUT_VALUES: [&str; 10] = ["08", "0A", "25", "28", "3D", "42", "53", "55", "57", "58"];

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => of_answer(error.as_ref()),
            sqlx::Error::Io(error) => Self::Lost(error.to_string()),
            sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Self::Lost("the connection ended".to_owned()),
            sqlx::Error::Tls(error) => Self::Answer(format!("TLS: {error}")),
            sqlx::Error::Configuration(error) => Self::Answer(error.to_string()),
            sqlx::Error::ColumnDecode { index, .. } => Self::Data(format!("column {index} is not text")),
            // The message of another error may hold a value.
            _ => Self::Answer("the database library failed".to_owned()),
        }
    }
}

fn of_answer(error: &dyn sqlx::error::DatabaseError) -> DatabaseError {
    let code = error.code().unwrap_or_default().into_owned();
    if let Some(mysql) = error.try_downcast_ref::<MySqlDatabaseError>() {
        let number = mysql.number();
        return match number {
            // max_statement_time of MariaDB, max_execution_time of MySQL, lock_wait_timeout
            1969 | 3024 | 1205 => DatabaseError::Slow,
            // The server shuts down, or has ended this connection.
            1053 | 1927 | 4031 => DatabaseError::Lost(format!("error {number}")),
            1267 | 1300 | 3854 => DatabaseError::NoSuchText,
            1366 => DatabaseError::Data(format!("error {number}")),
            _ if CLASSES_WITHOUT_VALUES.contains(&code.get(..2).unwrap_or_default()) => {
                DatabaseError::Answer(format!("{} (error {number})", error.message()))
            }
            _ => DatabaseError::Answer(format!("error {number}")),
        };
    }
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // The low byte is the primary code: SQLITE_BUSY, SQLITE_LOCKED.
        let primary = code.parse::<u32>().map_or(0, |code| code & 0xff);
        return match primary {
            5 | 6 => DatabaseError::Slow,
            _ => DatabaseError::Answer(format!("{} (error {code})", error.message())),
        };
    }
    match code.as_str() {
        "57014" | "55P03" => DatabaseError::Slow,
        "57P01" | "57P02" | "57P05" => DatabaseError::Lost(error.message().to_owned()),
        _ if code.starts_with("22") => DatabaseError::Data(format!("error {code}")),
        _ if CLASSES_WITHOUT_VALUES.contains(&code.get(..2).unwrap_or_default()) => {
            DatabaseError::Answer(format!("{} (error {code})", error.message()))
        }
        _ => DatabaseError::Answer(format!("error {code}")),
    }
}
