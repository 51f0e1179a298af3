//! A connection with the statements for its schema.

use std::time::Instant;

use super::connection::{Connection, DatabaseError};
use super::schema::{Schema, SchemaProblem};
use super::settings::DjangoSettings;
use super::statements::{Facts, Query, Statements};
use crate::record::BadRecord;

/// A connection that look-ups can use: its schema was read, and the role may read the tables.
pub(super) struct Session {
    connection: Connection,
    statements: Statements,
    opened: Instant,
    /// A look-up that finds nothing, but needs all rights.
    check: Query,
}

/// Why a look-up has no result.
#[derive(Debug)]
pub(super) enum QueryError {
    Database(DatabaseError),
    Record(BadRecord),
}

impl Session {
    /// Connects, without a deadline.
    pub(super) async fn open(settings: &DjangoSettings) -> Result<Self, DatabaseError> {
        let mut connection = Connection::open(settings).await?;
        let (schema, problems) = Schema::read(&mut connection, settings).await?;
        if let Some(SchemaProblem { message, help, .. }) = problems.into_iter().next() {
            return Err(DatabaseError::Answer(format!("{message}; {help}")));
        }
        let mut session = Self {
            statements: Statements::new(connection.engine(), settings, &schema),
            connection,
            opened: Instant::now(),
            check: match settings.tokens {
                Some(_) => Query::Token(vec![String::new(); settings.keys_of_a_token()]),
                None => Query::UserByName(String::new()),
            },
        };
        session.check().await?;
        Ok(session)
    }

    /// Whether its schema was read just now.
    pub(super) fn is_new(&self) -> bool {
        self.opened.elapsed() < super::LONGEST_PAUSE
    }

    /// Looks something up.
    pub(super) async fn answer(&mut self, query: &Query) -> Result<Facts, QueryError> {
        let Some((sql, parameters)) = self.statements.of(query) else {
            return Ok(Facts::default());
        };
        let rows = match self.connection.rows(sql, &parameters).await {
            Err(DatabaseError::NoSuchText) => return Ok(Facts::default()),
            rows => rows.map_err(QueryError::Database)?,
        };
        self.statements.facts(query, rows).map_err(QueryError::Record)
    }

    /// Checks that look-ups work.
    pub(super) async fn check(&mut self) -> Result<(), DatabaseError> {
        if let Some((sql, parameters)) = self.statements.of(&self.check) {
            self.connection.rows(sql, &parameters).await?;
        }
        Ok(())
    }
}
