//! The SQL that a database administrator runs for the gateway: rights for its role, and triggers that report changes.

use std::fmt::Write;

use super::quoted;
use super::settings::{Database, DjangoSettings, Engine, GroupTable, TokenKey};

/// The channel of notifications.
pub(super) const CHANNEL: &str = "authgate";

/// The names of the triggers, for rows, for updates, and for TRUNCATE.
const TRIGGERS: [&str; 3] = ["authgate_row", "authgate_update", "authgate_truncate"];

/// A table with the columns that the gateway reads. No columns: all of them.
struct Readable<'s> {
    table: &'s str,
    columns: Vec<&'s str>,
}

/// The rights that a role needs: to read the columns that the settings name. SQLite has no roles.
pub fn grants(settings: &DjangoSettings, role: &str) -> String {
    let engine = settings.endpoint.engine();
    let mut sql = String::new();
    // Writing to a string cannot fail.
    let _ = match engine {
        Engine::Postgres => writeln!(
            sql,
            "-- What a gateway may read. Run it as the owner of the tables. The role, if it is new:\n\
             -- CREATE ROLE {} LOGIN PASSWORD '...';",
            quoted(engine, role)
        ),
        Engine::MySql => writeln!(
            sql,
            "-- What a gateway may read. Run it as an administrator. The user, if it is new:\n\
             -- CREATE USER {} IDENTIFIED BY '...';",
            user(role)
        ),
        Engine::Sqlite => writeln!(
            sql,
            "-- SQLite has no roles: the user of the gateway must be able to read the file and its folder."
        ),
    };
    if engine == Engine::Sqlite {
        return sql;
    }
    for Readable { table, columns } in readable(settings) {
        let columns: Vec<String> = columns.iter().map(|column| quoted(engine, column)).collect();
        let columns = match columns.as_slice() {
            [] => String::new(),
            some => format!(" ({})", some.join(", ")),
        };
        let table = match &settings.endpoint.database {
            Database::MySql(options) => {
                let database = quoted(engine, options.get_database().unwrap_or_default());
                format!("{database}.{}", quoted(engine, table))
            }
            Database::Postgres(_) | Database::Sqlite(_) => quoted(engine, table),
        };
        let role = match engine {
            Engine::MySql => user(role),
            Engine::Postgres | Engine::Sqlite => quoted(engine, role),
        };
        let _ = writeln!(sql, "GRANT SELECT{columns} ON {table} TO {role};");
    }
    sql
}

/// A user of MySQL: `name`, or `name@host`.
fn user(role: &str) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    let (name, host) = role.rsplit_once('@').unwrap_or((role, "%"));
    format!("{}@{}", text(name), text(host))
}

fn readable(settings: &DjangoSettings) -> Vec<Readable<'_>> {
    let mut tables = Vec::new();
    if let Some(tokens) = &settings.tokens {
        let mut columns = vec![tokens.key.column(), tokens.user.as_str()];
        columns.extend(tokens.created.as_deref());
        if let TokenKey::Digest { expiry, .. } = &tokens.key {
            columns.extend(expiry.as_deref());
        }
        tables.push(Readable {
            table: &tokens.table,
            columns,
        });
    }
    let table = &settings.users.table;
    let columns = user_columns(settings);
    tables.push(Readable { table, columns });
    if let Some(groups) = &settings.groups {
        tables.push(Readable {
            table: &groups.members,
            // The name of the user's column is known to the database.
            columns: Vec::new(),
        });
        tables.push(Readable {
            table: GroupTable::GROUPS,
            columns: vec!["id", "name"],
        });
    }
    tables
}

fn user_columns(settings: &DjangoSettings) -> Vec<&str> {
    let users = &settings.users;
    let mut columns = vec![users.id.as_str(), users.username.as_str()];
    let optional = [&users.email, &users.active, &users.password];
    let attributes = users.attributes.iter().map(|(_, column)| column.as_str());
    for column in optional.into_iter().flatten().map(String::as_str).chain(attributes) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns
}

/// A table whose changes are reported.
struct Reported<'s> {
    table: &'s str,
    /// What the notification names, as `authgate_notify` knows it.
    kind: &'static str,
    /// The column of the value that it names.
    column: &'s str,
    /// An update is reported if one of these changes. None: every update.
    columns: Vec<&'s str>,
}

fn reported(settings: &DjangoSettings) -> Vec<Reported<'_>> {
    let mut tables = Vec::new();
    if let Some(tokens) = &settings.tokens {
        tables.push(Reported {
            table: &tokens.table,
            kind: match tokens.key {
                TokenKey::Plain(_) => "key",
                TokenKey::Digest { .. } => "digest",
            },
            column: tokens.key.column(),
            columns: Vec::new(),
        });
    }
    tables.push(Reported {
        table: &settings.users.table,
        kind: "user",
        column: &settings.users.id,
        // Not `last_login`, which each log-in changes.
        columns: user_columns(settings),
    });
    if let Some(groups) = &settings.groups {
        tables.push(Reported {
            table: &groups.members,
            kind: "member",
            column: groups.user.as_deref().unwrap_or_default(),
            columns: Vec::new(),
        });
        tables.push(Reported {
            table: GroupTable::GROUPS,
            kind: "group",
            column: "id",
            columns: vec!["id", "name"],
        });
    }
    tables
}

/// The function of all triggers. Its arguments: what to report, and the column of the value. An empty column is the one beside `id` and
/// `group_id`. A notification has at most 8000 bytes.
const FUNCTION: &str = r#"CREATE OR REPLACE FUNCTION authgate_notify() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $authgate$
DECLARE
    changed jsonb;
    value text;
    payload text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('authgate', 'all');
        RETURN NULL;
    END IF;
    FOREACH changed IN ARRAY CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[to_jsonb(NEW)]
        WHEN 'DELETE' THEN ARRAY[to_jsonb(OLD)]
        ELSE ARRAY[to_jsonb(OLD), to_jsonb(NEW)]
    END LOOP
        IF TG_ARGV[1] = '' THEN
            SELECT other.value INTO value FROM jsonb_each_text(changed) AS other
            WHERE other.key NOT IN ('id', 'group_id');
        ELSE
            value := changed ->> TG_ARGV[1];
        END IF;
        payload := CASE TG_ARGV[0]
            WHEN 'key' THEN 'token:' || encode(sha256(convert_to(value, 'UTF8')), 'hex')
            WHEN 'digest' THEN 'token:' || value
            WHEN 'group' THEN 'group:' || value
            ELSE 'user:' || value
        END;
        IF payload IS NULL OR octet_length(payload) > 7000 THEN
            payload := 'all';
        END IF;
        PERFORM pg_notify('authgate', payload);
    END LOOP;
    RETURN NULL;
END
$authgate$;
"#;

/// Triggers of PostgreSQL that report each change of a row that the gateway reads. They can be made again at any time.
pub fn triggers(settings: &DjangoSettings) -> String {
    let name = |name: &str| quoted(Engine::Postgres, name);
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let [row, update, truncate] = TRIGGERS;
    let mut sql = String::from(
        "-- Reports changes to gateways: NOTIFY authgate with token:HEX, user:ID, group:ID or all. Run it as the owner of the\n\
         -- tables, and again after a change of `tokens`, `users` or `groups` in gateway.toml.\nBEGIN;\n",
    );
    sql += FUNCTION;
    for Reported {
        table,
        kind,
        column,
        columns,
    } in reported(settings)
    {
        let table = name(table);
        let call = format!(
            "EXECUTE FUNCTION authgate_notify({}, {})",
            literal(kind),
            literal(column)
        );
        let changed: Vec<String> = columns
            .iter()
            .map(|column| format!("OLD.{0}::text IS DISTINCT FROM NEW.{0}::text", name(column)))
            .collect();
        let when = match changed.as_slice() {
            [] => String::new(),
            some => format!("\n    WHEN ({})", some.join(" OR ")),
        };
        for trigger in TRIGGERS {
            let _ = writeln!(sql, "DROP TRIGGER IF EXISTS {trigger} ON {table};");
        }
        let _ = writeln!(
            sql,
            "CREATE TRIGGER {row} AFTER INSERT OR DELETE ON {table} FOR EACH ROW {call};\n\
             CREATE TRIGGER {update} AFTER UPDATE ON {table} FOR EACH ROW{when} {call};\n\
             CREATE TRIGGER {truncate} AFTER TRUNCATE ON {table} FOR EACH STATEMENT {call};"
        );
    }
    sql + "COMMIT;\n"
}

/// A query for the tables that lack a trigger.
pub(super) fn missing_triggers(settings: &DjangoSettings) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let tables: Vec<String> = reported(settings)
        .iter()
        .map(|reported| {
            let quoted = quoted(Engine::Postgres, reported.table);
            format!(
                "({}::text, pg_catalog.to_regclass({}))",
                literal(reported.table),
                literal(&quoted)
            )
        })
        .collect();
    let names: Vec<String> = TRIGGERS.iter().map(|name| literal(name)).collect();
    format!(
        "SELECT t.name FROM (VALUES {}) AS t(name, id) WHERE {} > (SELECT count(*) FROM pg_catalog.pg_trigger g \
         WHERE g.tgrelid = t.id AND g.tgname IN ({}) AND g.tgenabled IN ('O', 'A'))",
        tables.join(", "),
        TRIGGERS.len(),
        names.join(", ")
    )
}
