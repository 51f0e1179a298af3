//! Django's own database: the tables of DRF's authtoken or of knox, of users and of groups. It is only ever read.
//!
//! Workers never talk to the database. They put look-ups into one queue, and the connections of the whole gateway take them from there, on
//! the control runtime. A look-up is one prepared statement, which finds the token, its user and the groups of the user together.

mod connection;
mod contents;
mod notify;
mod schema;
mod session;
mod settings;
mod shared;
mod sql;
mod statements;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub use self::contents::{Content, Contents, Tables};
pub use self::schema::SchemaProblem;
pub use self::settings::{DjangoSettings, Endpoint, Engine, GroupTable, Invalidation, TokenKey, TokenTable, UserTable};
pub use self::shared::SharedDjango;
pub use self::sql::{grants, triggers};
use self::statements::{Facts, Query};
use super::{JwtFacts, JwtQuery, Lookup, StoreError, TokenDigest, TokenFacts, UserKey};
use crate::dependencies::StoreItem;

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A worker's handle.
#[derive(Debug)]
pub struct DjangoStore(Arc<SharedDjango>);

impl DjangoStore {
    pub(super) fn new(shared: Arc<SharedDjango>) -> Self {
        Self(shared)
    }

    pub(super) fn time_limit(&self) -> Duration {
        self.0.settings.timeout
    }

    pub(super) fn is_down(&self) -> bool {
        self.0.is_in_outage()
    }

    pub(super) async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        let shared = &self.0;
        self.mark(lookup, StoreItem::Store);
        let keys = match shared.settings.tokens.as_ref().map(|tokens| &tokens.key) {
            None => Vec::new(),
            Some(TokenKey::Plain(_)) => {
                self.mark(lookup, StoreItem::Token(&TokenDigest::of(key).to_hex()));
                std::str::from_utf8(key).map(str::to_owned).into_iter().collect()
            }
            Some(TokenKey::Digest { .. }) => {
                let digests = shared.settings.digests.of(key).into_iter().flatten();
                let digests: Vec<String> = digests.map(TokenDigest::to_hex).collect();
                for digest in &digests {
                    self.mark(lookup, StoreItem::Token(digest));
                }
                // A statement has one place for each kind of digest, and a key may lack one of them.
                let repeated = digests.first().cloned();
                let missing = shared.settings.keys_of_a_token() - digests.len();
                digests
                    .into_iter()
                    .chain(repeated.into_iter().cycle().take(missing))
                    .collect()
            }
        };
        if keys.is_empty() {
            return Ok(None);
        }
        let facts = self.ask(&Query::Token(keys), lookup).await?;
        let is_plain = shared
            .settings
            .tokens
            .as_ref()
            .is_some_and(|tokens| matches!(tokens.key, TokenKey::Plain(_)));
        Ok(facts.token.map(|token| TokenFacts {
            token,
            user: facts.user,
            digest: facts.digest.or_else(|| is_plain.then(|| TokenDigest::of(key))),
            // The tables have no revocations.
            user_revoked: None,
        }))
    }

    pub(super) async fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        self.mark(lookup, StoreItem::Store);
        let facts = match query.user {
            None => Facts::default(),
            Some(UserKey::Id(id)) => {
                self.mark(lookup, StoreItem::User(id.as_str()));
                let id = id.as_str().to_owned();
                let query = Query::UserById(id);
                self.0.ask(query, lookup.deadline).await?
            }
            Some(UserKey::Name(name)) => {
                let name = name.to_owned();
                self.ask(&Query::UserByName(name), lookup).await?
            }
        };
        Ok(JwtFacts {
            user: facts.user,
            ..JwtFacts::default()
        })
    }

    /// Asks for a user who is not known before the answer, and marks this user.
    ///
    /// The user has to be marked before the rows are read. So if any user has changed meanwhile, they are read again.
    async fn ask(&self, query: &Query, lookup: &mut Lookup) -> Result<Facts, StoreError> {
        let shared = &self.0;
        let mut marked: Option<String> = None;
        loop {
            let mut with_any_user = lookup.dependencies;
            shared.changes.mark(&mut with_any_user, StoreItem::AnyUser);
            let facts = shared.ask(query.clone(), lookup.deadline).await?;
            let id = match (&facts.token, &facts.user) {
                (Some(token), _) => token.user.as_str(),
                (None, Some(user)) => user.id.as_str(),
                (None, None) => {
                    // Changes are reported by id. A user who gets this name may be any user.
                    if matches!(query, Query::UserByName(_)) {
                        lookup.dependencies = with_any_user;
                    }
                    return Ok(facts);
                }
            };
            if marked.as_deref() == Some(id) {
                return Ok(facts);
            }
            self.mark(lookup, StoreItem::User(id));
            if shared.changes.are_unchanged(&with_any_user) {
                return Ok(facts);
            }
            marked = Some(id.to_owned());
        }
    }

    fn mark(&self, lookup: &mut Lookup, item: StoreItem<'_>) {
        self.0.changes.mark(&mut lookup.dependencies, item);
    }
}

impl DjangoSettings {
    /// Whether the gateway listens for changes, on one of its connections.
    pub fn listens(&self) -> bool {
        self.endpoint.engine() == Engine::Postgres && self.invalidation == Invalidation::Notify
    }

    /// How many texts a token is looked up by.
    fn keys_of_a_token(&self) -> usize {
        match self.tokens.as_ref().map(|tokens| &tokens.key) {
            Some(TokenKey::Digest { .. }) => self.digests.count(),
            Some(TokenKey::Plain(_)) | None => 1,
        }
    }
}

/// Connects, and reports what the settings name and the database does not have, or does not let this role read.
///
/// # Errors
/// The database cannot be reached, or refuses the connection; holds the reason.
pub async fn inspect(settings: &DjangoSettings) -> Result<Vec<SchemaProblem>, String> {
    let inspected = async {
        let mut connection = connection::Connection::open(settings).await?;
        let mut problems = schema::Schema::read(&mut connection, settings).await?.1;
        if settings.listens() && problems.is_empty() {
            let tables = SharedDjango::tables_without_triggers(&mut connection, settings).await?;
            if !tables.is_empty() {
                problems.push(SchemaProblem {
                    key: "invalidation".to_owned(),
                    message: format!(
                        "changes are not reported: there are no triggers on {}; a change is in force after `cache.ttl`",
                        tables.join(", ")
                    ),
                    help: "run the output of `authgate django sql --triggers` in the database, or write `invalidation = \"off\"`".to_owned(),
                    is_warning: true,
                });
            }
        }
        Ok(problems)
    };
    timeout(INSPECT_TIMEOUT, inspected)
        .await
        .unwrap_or_else(|_| Err(connection::DatabaseError::Lost("no answer in time".to_owned())))
        .map_err(|problem| problem.to_string())
}

/// How long connecting and reading the schema may take.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A name of a table or column, as an identifier of SQL.
pub(super) fn quoted(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Postgres | Engine::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        Engine::MySql => format!("`{}`", name.replace('`', "``")),
    }
}
