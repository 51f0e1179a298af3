//! Reads which columns the tables have, of which types, and whether they may be read.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::{Connection, DatabaseError, Parameter};
use super::quoted;
use super::settings::{DjangoSettings, Engine, GroupTable, TokenKey};

/// How a column is compared and converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Integer,
    Float,
    Boolean,
    /// A native UUID.
    Uuid,
    /// A UUID as 32 hexadecimal digits: what Django's `UUIDField` is where the database has no type for it.
    UuidDigits,
    Text,
    Json,
    /// Dates, times and all others, as the database writes them.
    Other,
}

/// The columns that the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    /// By table and column.
    kinds: HashMap<(String, String), ColumnKind>,
    /// The column of the table of members with the id of the user.
    pub(super) member: Option<String>,
}

/// Something that the settings name and the database does not have, or does not let this role read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaProblem {
    /// The key in the store's table of the configuration.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write or to run.
    pub help: String,
    /// The store can be used as it is.
    pub is_warning: bool,
}

/// A column that the settings name.
struct Wanted<'s> {
    key: String,
    table: &'s str,
    column: &'s str,
    use_: ColumnUse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ColumnUse {
    /// Rows are looked up by it.
    Key,
    Value,
    /// A value that the configuration may do without, by `false`.
    Optional,
}

/// The columns of one table: name, kind, and whether it may be read. Empty if there is no such table.
type Columns = Vec<(String, ColumnKind, String, bool)>;

impl Schema {
    /// Reads the schema, and reports what is missing.
    pub(super) async fn read(
        connection: &mut Connection,
        settings: &DjangoSettings,
    ) -> Result<(Self, Vec<SchemaProblem>), DatabaseError> {
        let wanted = wanted(settings);
        let mut tables: HashMap<&str, Columns> = HashMap::new();
        let members = settings.groups.as_ref().map(|groups| groups.members.as_str());
        for table in wanted.iter().map(|wanted| wanted.table).chain(members) {
            if !tables.contains_key(table) {
                tables.insert(table, columns(connection, table).await?);
            }
        }
        let engine = connection.engine();
        let role = role(connection).await?;
        let (mut kinds, mut problems) = (HashMap::new(), Vec::new());
        for wanted in &wanted {
            match check(engine, &role, wanted, &tables[wanted.table]) {
                Ok(kind) => {
                    kinds.insert((wanted.table.to_owned(), wanted.column.to_owned()), kind);
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems.dedup();
        let mut schema = Self { kinds, member: None };
        if let Some(groups) = &settings.groups {
            match member(groups, &tables[groups.members.as_str()]) {
                Ok(column) => schema.member = Some(column),
                Err(Some(problem)) => problems.push(problem),
                // The table is missing, which was reported.
                Err(None) => {}
            }
        }
        Ok((schema, problems))
    }

    pub(super) fn kind(&self, table: &str, column: &str) -> ColumnKind {
        let found = self.kinds.get(&(table.to_owned(), column.to_owned()));
        found.copied().unwrap_or(ColumnKind::Other)
    }
}

/// Every column that the settings name.
fn wanted(settings: &DjangoSettings) -> Vec<Wanted<'_>> {
    let mut all = Vec::new();
    let mut want = |key: &str, table, column, use_| {
        all.push(Wanted {
            key: key.to_owned(),
            table,
            column,
            use_,
        });
    };
    if let Some(tokens) = &settings.tokens {
        let table = tokens.table.as_str();
        want("tokens", table, tokens.key.column(), ColumnUse::Key);
        want("tokens", table, &tokens.user, ColumnUse::Key);
        if let Some(created) = &tokens.created {
            want("tokens", table, created, ColumnUse::Value);
        }
        if let TokenKey::Digest {
            expiry: Some(expiry), ..
        } = &tokens.key
        {
            want("tokens", table, expiry, ColumnUse::Value);
        }
    }
    let users = &settings.users;
    let table = users.table.as_str();
    want("users.id", table, &users.id, ColumnUse::Key);
    want("users.username", table, &users.username, ColumnUse::Key);
    if let Some(email) = &users.email {
        want("users.email", table, email, ColumnUse::Optional);
    }
    if let Some(active) = &users.active {
        want("users.active", table, active, ColumnUse::Optional);
    }
    if let Some(password) = &users.password {
        want("users.password", table, password, ColumnUse::Optional);
    }
    for (name, column) in &users.attributes {
        want(&format!("users.attributes.{name}"), table, column, ColumnUse::Value);
    }
    if let Some(groups) = &settings.groups {
        want("groups", GroupTable::GROUPS, "id", ColumnUse::Value);
        want("groups", GroupTable::GROUPS, "name", ColumnUse::Value);
        want("users.groups", &groups.members, "group_id", ColumnUse::Value);
    }
    all
}

fn check(engine: Engine, role: &str, wanted: &Wanted<'_>, columns: &Columns) -> Result<ColumnKind, SchemaProblem> {
    let (table, column) = (wanted.table, wanted.column);
    let problem = |message: String, help: String| SchemaProblem {
        key: wanted.key.clone(),
        message,
        help,
        is_warning: false,
    };
    let grant = || {
        format!(
            "GRANT SELECT ({}) ON {} TO {role};",
            quoted(engine, column),
            quoted(engine, table)
        )
    };
    if columns.is_empty() {
        return Err(missing_table(engine, role, wanted));
    }
    let Some((_, kind, declared, readable)) = columns.iter().find(|(name, ..)| name == column) else {
        let known: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        let last = wanted.key.rsplit('.').next().unwrap_or_default();
        let or_false = match wanted.use_ {
            ColumnUse::Optional => format!(", or write `{last} = false`"),
            ColumnUse::Key | ColumnUse::Value => String::new(),
        };
        let or_grant = match engine {
            // information_schema lists only what the role may see.
            Engine::MySql => format!(", or run: {}", grant()),
            Engine::Postgres | Engine::Sqlite => String::new(),
        };
        return Err(problem(
            format!("table {table:?} has no column {column:?}"),
            format!("write one of its columns: {}{or_false}{or_grant}", known.join(", ")),
        ));
    };
    if !readable {
        return Err(problem(
            format!("{role} may not read column {column:?} of table {table:?}"),
            format!("run: {}", grant()),
        ));
    }
    let is_key = matches!(
        kind,
        ColumnKind::Integer | ColumnKind::Uuid | ColumnKind::UuidDigits | ColumnKind::Text
    );
    if wanted.use_ == ColumnUse::Key && !is_key {
        return Err(problem(
            format!("column {column:?} of table {table:?} has the type {declared}, which no row is looked up by"),
            "name a column of integers, UUIDs or text".to_owned(),
        ));
    }
    Ok(*kind)
}

/// One problem for a table, whatever columns of it are wanted.
fn missing_table(engine: Engine, role: &str, wanted: &Wanted<'_>) -> SchemaProblem {
    let name = match wanted.key.as_str() {
        "tokens" => "name the table in `tokens`, or write `tokens = \"none\"`",
        "groups" => "write `groups = \"none\"`",
        "users.groups" => "name the table with `users.groups = { table = \"…\" }`, or write `groups = \"none\"`",
        _ => "name the table in `users.table`",
    };
    let key = match wanted.key.as_str() {
        key @ ("tokens" | "groups" | "users.groups") => key,
        _ => "users.table",
    };
    let table = quoted(engine, wanted.table);
    let grant = match engine {
        // information_schema lists only what the role may see.
        Engine::MySql => format!(", or run: GRANT SELECT ON {table} TO {role};"),
        Engine::Postgres => format!(
            "; if it is in another schema, run: GRANT USAGE ON SCHEMA … TO {role}; ALTER ROLE {role} SET search_path = …;"
        ),
        Engine::Sqlite => String::new(),
    };
    SchemaProblem {
        key: key.to_owned(),
        message: format!("the database has no table {:?}", wanted.table),
        help: format!("run `manage.py migrate`, {name}{grant}"),
        is_warning: false,
    }
}

/// The column of the table of members with the id of the user.
fn member(groups: &GroupTable, columns: &Columns) -> Result<String, Option<SchemaProblem>> {
    if columns.is_empty() {
        return Err(None);
    }
    let problem = |message: String| {
        Some(SchemaProblem {
            key: "users.groups".to_owned(),
            message,
            help: "write `groups = { table = \"…\", column = \"…\" }` in `users`, with the column of the user"
                .to_owned(),
            is_warning: false,
        })
    };
    let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
    match &groups.user {
        Some(column) if names.contains(&column.as_str()) => Ok(column.clone()),
        Some(column) => Err(problem(format!(
            "table {:?} has no column {column:?}, but {}",
            groups.members,
            names.join(", ")
        ))),
        None => {
            let mut others = names.iter().filter(|name| !["id", "group_id"].contains(*name));
            match (others.next(), others.next()) {
                (Some(only), None) => Ok((*only).to_owned()),
                (_, _) => Err(problem(format!(
                    "which column of table {:?} is the user's cannot be seen: it has {}",
                    groups.members,
                    names.join(", ")
                ))),
            }
        }
    }
}

/// The columns of a table that this role can see.
async fn columns(connection: &mut Connection, table: &str) -> Result<Columns, DatabaseError> {
    let engine = connection.engine();
    let (sql, name) = match engine {
        Engine::Postgres => (
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
             pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')::text FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            quoted(engine, table),
        ),
        Engine::MySql => (
            "SELECT CAST(column_name AS CHAR), CAST(column_type AS CHAR), \
             CASE WHEN FIND_IN_SET('select', privileges) > 0 THEN 'true' ELSE 'false' END \
             FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
            table.to_owned(),
        ),
        Engine::Sqlite => (
            "SELECT name, lower(type), 'true' FROM pragma_table_info(?) ORDER BY cid",
            table.to_owned(),
        ),
    };
    let rows = connection.rows(&Arc::from(sql), &[Parameter::Text(name)]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let (name, declared, readable) = (row.text(0)?, row.text(1)?, row.text(2)?);
            Some((
                name.to_owned(),
                kind(engine, declared),
                declared.to_owned(),
                readable == "true",
            ))
        })
        .collect())
}

/// The quoted name of the role that the connection has logged in as.
async fn role(connection: &mut Connection) -> Result<String, DatabaseError> {
    let sql = match connection.engine() {
        Engine::Postgres => "SELECT pg_catalog.quote_ident(current_user)",
        // 'name'@'host'
        Engine::MySql => {
            "SELECT CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@', QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))"
        }
        Engine::Sqlite => return Ok("this process".to_owned()),
    };
    let rows = connection.rows(&Arc::from(sql), &[]).await?;
    Ok(rows
        .first()
        .and_then(|row| row.text(0))
        .unwrap_or("the role")
        .to_owned())
}

/// By the name of the type, as the database writes it.
fn kind(engine: Engine, declared: &str) -> ColumnKind {
    let declared = declared.to_ascii_lowercase();
    let begins = |names: &[&str]| names.iter().any(|name| declared.starts_with(name));
    match engine {
        Engine::Postgres => match declared.as_str() {
            "smallint" | "integer" | "bigint" => ColumnKind::Integer,
            "real" | "double precision" => ColumnKind::Float,
            "boolean" => ColumnKind::Boolean,
            "uuid" => ColumnKind::Uuid,
            "json" | "jsonb" => ColumnKind::Json,
            _ if begins(&["character", "text", "citext"]) => ColumnKind::Text,
            _ => ColumnKind::Other,
        },
        Engine::MySql => match declared.as_str() {
            "tinyint(1)" => ColumnKind::Boolean,
            "uuid" => ColumnKind::Uuid,
            "char(32)" => ColumnKind::UuidDigits,
            "json" => ColumnKind::Json,
            _ if begins(&["tinyint", "smallint", "mediumint", "int", "bigint"]) => ColumnKind::Integer,
            _ if begins(&["float", "double"]) => ColumnKind::Float,
            _ if begins(&["char", "varchar", "text", "tinytext", "mediumtext", "longtext"]) => ColumnKind::Text,
            _ => ColumnKind::Other,
        },
        Engine::Sqlite => match declared.as_str() {
            "bool" | "boolean" => ColumnKind::Boolean,
            "char(32)" => ColumnKind::UuidDigits,
            "real" | "double precision" => ColumnKind::Float,
            _ if declared.contains("int") => ColumnKind::Integer,
            _ if declared.contains("char") || declared.contains("text") => ColumnKind::Text,
            _ => ColumnKind::Other,
        },
    }
}
