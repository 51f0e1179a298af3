//! Reads all users, members of groups and tokens, as they were at one moment.

use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::Text;
use tokio::time::timeout;

use super::INSPECT_TIMEOUT;
use super::connection::{Connection, DatabaseError, Row, Sql};
use super::schema::{Schema, SchemaProblem};
use super::settings::{DjangoSettings, Endpoint, GroupTable, Invalidation, TokenKey, TokenTable, UserTable};
use super::statements::{Statements, TOKEN_KEY, Writer};
use crate::record::{BadRecord, TokenRecord, UserRecord};
use crate::store::{Digests, TokenDigest};

/// The longest time of reading one table.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// The tables that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// The tables of tokens.
    pub tokens: Vec<TokenTable>,
    /// The table of users.
    pub users: UserTable,
    /// The tables of groups; `None`: users have no groups.
    pub groups: Option<GroupTable>,
}

/// What one row holds. All users come first, then the members of groups, then the tokens.
#[derive(Debug)]
pub enum Content {
    /// A user, without groups and attributes.
    User(UserRecord),
    /// A user whose values cannot be a record.
    BadUser {
        /// The id.
        id: String,
        /// Why.
        problem: BadRecord,
    },
    /// A user is in a group.
    Member {
        /// The id of the user.
        user: String,
        /// The name of the group; `Err`: it cannot be in a record.
        group: Result<Text, BadRecord>,
    },
    /// A token.
    Token {
        /// The digest that an import stores it under.
        digest: TokenDigest,
        /// Its record.
        token: TokenRecord,
        /// Whether its table has expiries.
        has_expiry: bool,
    },
    /// A token whose values cannot be a record.
    BadToken {
        /// The digest, if it has one that a store can look up.
        digest: Option<TokenDigest>,
        /// Why.
        problem: String,
    },
}

/// An open transaction, with the statements that read the tables.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Contents {
    connection: Connection,
    tables: Tables,
    without_passwords: Option<SchemaProblem>,
    users: Sql,
    members: Option<Sql>,
    /// For each table of tokens.
    tokens: Vec<(Statements, Sql)>,
    statements: Statements,
}

impl Contents {
    /// Connects, checks the tables, and begins a transaction that only reads. The password hash is left out if it cannot be read.
    ///
    /// # Errors
    /// The database cannot be reached, refuses the connection, or lacks a table or a right; holds the reason.
    pub async fn open(endpoint: &Endpoint, mut tables: Tables) -> Result<Self, String> {
        // No record of an import has attributes.
        tables.users.attributes.clear();
        let password = tables.users.unread_password.take();
        tables.users.password = tables.users.password.take().or(password);
        timeout(INSPECT_TIMEOUT, Self::begin(endpoint, tables))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|problem| problem.to_string())
    }

    async fn begin(endpoint: &Endpoint, mut tables: Tables) -> Result<Self, DatabaseError> {
        let mut settings = DjangoSettings {
            endpoint: endpoint.clone(),
            tokens: None,
            users: tables.users.clone(),
            groups: tables.groups.clone(),
            timeout: READ_TIMEOUT,
            connections: 1,
            invalidation: Invalidation::Off,
            digests: Digests::SHA256,
        };
        let mut connection = Connection::open(&settings).await?;
        connection.begin_snapshot().await?;
        let engine = connection.engine();
        let (mut schema, mut problems) = Schema::read(&mut connection, &settings).await?;
        let mut without_passwords = None;
        if let Some(at) = problems.iter().position(|problem| problem.key == "users.password") {
            without_passwords = Some(problems.remove(at));
            settings.users.password = None;
            tables.users.password = None;
        }
        require(problems)?;
        let writer = Writer { engine };
        let statements = Statements::new(engine, &settings, &schema);
        let mut tokens = Vec::with_capacity(tables.tokens.len());
        for table in &tables.tokens {
            settings.tokens = Some(table.clone());
            let problems;
            (schema, problems) = Schema::read(&mut connection, &settings).await?;
            require(problems)?;
            let statements = Statements::new(engine, &settings, &schema);
            tokens.push((statements, Arc::from(writer.all_tokens(table))));
        }
        let members = tables.groups.as_ref().zip(schema.member.as_ref());
        Ok(Self {
            users: Arc::from(writer.all_users(&tables.users)),
            members: members.map(|(groups, member)| Arc::from(writer.all_members(groups, member))),
            connection,
            tables,
            without_passwords,
            tokens,
            statements,
        })
    }

    /// The tables that are read.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Why the password hash is left out, if it should be read.
    pub fn without_passwords(&self) -> Option<&SchemaProblem> {
        self.without_passwords.as_ref()
    }

    /// Reads all rows. `digests` are those of the store that they are compared with.
    ///
    /// # Errors
    /// The connection was lost, or the database answered with an error; holds the reason.
    pub async fn read(mut self, digests: Digests, mut take: impl FnMut(Content)) -> Result<(), String> {
        let Self {
            connection,
            tables,
            users,
            members,
            tokens,
            statements,
            ..
        } = &mut self;
        each(connection, users, |row| {
            let id = statements.user_id(row.text(0));
            match (statements.user(vec![row], 0), id) {
                (Ok(Some(user)), _) => take(Content::User(user)),
                (Err(problem), Some(id)) => take(Content::BadUser { id, problem }),
                // A row without an id is no user.
                (Ok(None), _) | (Err(_), None) => {}
            }
        })
        .await?;
        if let Some(members) = members {
            each(connection, members, |row| {
                let (Some(user), Some(name)) = (statements.user_id(row.text(0)), row.text(1)) else {
                    return;
                };
                let group = Text::new(name).map_err(|_| BadRecord::Column {
                    what: format!("user {user:?}"),
                    column: "groups",
                });
                take(Content::Member { user, group });
            })
            .await?;
        }
        for (table, (statements, sql)) in tables.tokens.iter().zip(tokens) {
            each(connection, sql, |row| {
                take(token(table, statements, digests, &row));
            })
            .await?;
        }
        // Everything was read, and the server ends the transaction with the connection.
        let _ = timeout(INSPECT_TIMEOUT, connection.end_snapshot()).await;
        Ok(())
    }
}

fn require(problems: Vec<SchemaProblem>) -> Result<(), DatabaseError> {
    match problems.into_iter().next() {
        Some(SchemaProblem { message, help, .. }) => Err(DatabaseError::Answer(format!("{message}; {help}"))),
        None => Ok(()),
    }
}

async fn each(connection: &mut Connection, sql: &Sql, take: impl FnMut(Row)) -> Result<(), String> {
    timeout(READ_TIMEOUT, connection.each_row(sql, take))
        .await
        .map_err(|_| "reading a table took too long".to_owned())?
        .map_err(|problem| problem.to_string())
}

fn token(table: &TokenTable, statements: &Statements, digests: Digests, row: &Row) -> Content {
    let stored = row.text(TOKEN_KEY).filter(|stored| !stored.is_empty());
    let (digest, has_expiry, no_digest) = match &table.key {
        TokenKey::Plain(_) => (
            stored.and_then(|key| digests.of(key.as_bytes()).into_iter().flatten().next()),
            false,
            "the store's `digest` setting accepts no such key",
        ),
        TokenKey::Digest { expiry, .. } => (
            stored.and_then(TokenDigest::from_hex),
            expiry.is_some(),
            "its digest is not 64 or 128 lower-case hexadecimal digits",
        ),
    };
    match (digest, statements.token(row)) {
        (Some(digest), Ok(token)) => Content::Token {
            digest,
            token,
            has_expiry,
        },
        (digest, Err(problem)) => Content::BadToken {
            digest,
            problem: problem.to_string(),
        },
        (None, Ok(_)) => Content::BadToken {
            digest: None,
            problem: no_digest.to_owned(),
        },
    }
}

impl Writer {
    fn all_users(self, users: &UserTable) -> String {
        let columns = self.user_columns(users, true, false);
        format!("SELECT {columns} FROM {} u", self.name(&users.table))
    }

    fn all_members(self, groups: &GroupTable, member: &str) -> String {
        format!(
            "SELECT {}, {} FROM {} m JOIN {} g ON g.{} = m.{}",
            self.text("m", member),
            self.text("g", "name"),
            self.name(&groups.members),
            self.name(GroupTable::GROUPS),
            self.name("id"),
            self.name("group_id"),
        )
    }

    fn all_tokens(self, tokens: &TokenTable) -> String {
        let expiry = match &tokens.key {
            TokenKey::Digest { expiry, .. } => expiry.as_deref(),
            TokenKey::Plain(_) => None,
        };
        format!(
            "SELECT {}, {}, {}, {} FROM {} t",
            self.text("t", tokens.key.column()),
            self.text("t", &tokens.user),
            self.seconds("t", tokens.created.as_deref()),
            self.seconds("t", expiry),
            self.name(&tokens.table)
        )
    }
}
