//! `kind = "django"` of `[stores.*]`: the database of a Django application, and what its tables and columns are called.

use authgate_auth::store::django::{
    DjangoSettings, Endpoint, GroupTable, Invalidation, TokenKey, TokenTable, UserTable,
};
use authgate_auth::store::{DigestKind, Digests};

use super::common::digests;
use crate::config::defaults;
use crate::config::reader::{Item, Section, Text, Zero};

/// Each connection is a process or a thread of the database.
const MAX_CONNECTIONS: u64 = 1000;

pub(super) fn django(mut section: Section<'_>) -> Option<DjangoSettings> {
    let url = section
        .require("url", "url = \"postgres://authgate@db/app\"")
        .and_then(|item| item.text());
    let endpoint = url.as_ref().and_then(endpoint);
    let tokens = tokens(section.take("tokens"));
    let digests = key_digests(&mut section, tokens.as_ref());
    let (users, members) = users(&mut section);
    let groups = groups(&mut section, &users, members);
    let timeout = section.duration_or("timeout", Zero::Refused, defaults::DJANGO_TIMEOUT);
    let connections_item = section.take("connections");
    let connections = connections_item
        .as_ref()
        .and_then(|item| item.count(1..=MAX_CONNECTIONS))
        .map_or(defaults::DJANGO_CONNECTIONS, |count| {
            usize::try_from(count).unwrap_or(usize::MAX)
        });
    let choices = [("notify", Invalidation::Notify), ("off", Invalidation::Off)];
    let invalidation = section.choice_or("invalidation", &choices, defaults::DJANGO_INVALIDATION);
    let settings = DjangoSettings {
        endpoint: endpoint?,
        tokens: tokens?,
        users,
        groups,
        timeout,
        connections,
        invalidation,
        digests,
    };
    if let (Some(item), 1, true) = (&connections_item, connections, settings.listens()) {
        item.refuse(
            "one connection listens for changes, and none is left for look-ups",
            "write 2 or more, or `invalidation = \"off\"`",
        );
    }
    if invalidation == Invalidation::Notify && !settings.listens() {
        section.add(
            section
                .problem(
                    "only PostgreSQL reports changes: on this database a change is in force after `cache.ttl`, and a refused key after \
                     `negative_ttl`",
                    "write `invalidation = \"off\"` to confirm this, and a shorter `cache = { ttl = \"…\" }` in the authenticators if needed",
                )
                .into_warning(),
        );
    }
    Some(settings)
}

/// The URL may hold a password, so it is never quoted.
fn endpoint(url: &Text<'_>) -> Option<Endpoint> {
    match Endpoint::parse(url.as_str(), &url.resolve_path("")) {
        Ok(endpoint) => {
            if let Some(file) = endpoint.file().filter(|file| !file.exists()) {
                let message = format!(
                    "{} does not exist: until it does, routes that need it answer 503",
                    file.display()
                );
                let problem = url
                    .item()
                    .problem(message, "write the path of the application's database");
                url.item().add(problem.into_warning().into_machine());
            }
            Some(endpoint)
        }
        Err(problem) => {
            let help = "write \"postgres://USER@HOST/DATABASE\", \"mysql://USER@HOST/DATABASE\" or \"sqlite:/path/db.sqlite3\"; for a unix \
                        socket \"postgres://USER@localhost/DATABASE?host=FOLDER\" or \"mysql://USER@localhost/DATABASE?socket=PATH\"";
            url.item().refuse(format!("invalid URL: {problem}"), help);
            None
        }
    }
}

/// `Some(None)`: there are no tokens.
fn tokens(item: Option<Item<'_>>) -> Option<Option<TokenTable>> {
    let Some(item) = item else {
        return Some(Some(TokenTable::authtoken()));
    };
    if !item.is_table() {
        let help = "write \"authtoken\", \"knox\", \"none\", or `{ table = \"…\", key = \"…\", user = \"…\" }`";
        let choices = [
            ("authtoken", Some(TokenTable::authtoken())),
            ("knox", Some(TokenTable::knox())),
            ("none", None),
        ];
        return item.text_for("the name of a token model", help)?.choice(&choices, &[]);
    }
    let mut section = item.section(&[])?;
    let table = section.require("table", "table = \"authtoken_token\"");
    let table = table.and_then(|item| item.non_empty_text());
    let (key, digest, expiry) = (section.take("key"), section.take("digest"), section.take("expiry"));
    let key = match (key, digest) {
        (Some(key), None) => {
            if let Some(expiry) = expiry {
                expiry.refuse(
                    "`expiry` has no effect beside `key`: DRF's tokens do not expire",
                    "remove it, or write `digest` in place of `key` for a table like knox's",
                );
            }
            key.non_empty_text().map(TokenKey::Plain)
        }
        (None, Some(digest)) => digest.non_empty_text().map(|column| TokenKey::Digest {
            column,
            expiry: expiry.and_then(|item| item.non_empty_text()),
        }),
        (Some(_), Some(digest)) => {
            digest.refuse("a table holds keys or digests, not both", "remove `key` or `digest`");
            None
        }
        (None, None) => {
            section.report_missing(
                "the column that a key is looked up by is missing",
                "write `key = \"key\"` if the table holds keys, as DRF's does, or `digest = \"digest\"` if it holds digests, as knox's does",
            );
            None
        }
    };
    let user = section.text_or("user", "user_id");
    let created = section.take("created").and_then(|item| item.non_empty_text());
    Some(Some(TokenTable {
        table: table?,
        key: key?,
        user,
        created,
    }))
}

/// `digest`: of what kind the digests are. A table of keys has none.
fn key_digests(section: &mut Section<'_>, tokens: Option<&Option<TokenTable>>) -> Digests {
    let has_digests = |tokens: &TokenTable| matches!(tokens.key, TokenKey::Digest { .. });
    if tokens.is_none_or(|tokens| tokens.as_ref().is_some_and(has_digests)) {
        return digests(section, Digests::of_kind(DigestKind::Sha512));
    }
    if let Some(item) = section.take("digest") {
        item.refuse(
            "`digest` has no effect: the table of tokens holds the keys themselves",
            "remove it, or write `tokens = \"knox\"`",
        );
    }
    defaults::DIGEST
}

/// `users`, and its `groups`.
fn users(root: &mut Section<'_>) -> (UserTable, Option<GroupTable>) {
    let defaults = UserTable::default();
    let Some(mut section) = root.section("users", &[]) else {
        return (defaults, None);
    };
    let mut required = |name, default: String| match section.take(name) {
        Some(item) => item.non_empty_text().unwrap_or(default),
        None => default,
    };
    let table = required("table", defaults.table);
    let id = required("id", defaults.id);
    let username = required("username", defaults.username);
    // A model without the field is `false`.
    let mut optional = |name, default: Option<String>| match section.take(name) {
        Some(item) if item.is_false() => None,
        Some(item) => item.non_empty_text(),
        None => default,
    };
    let email = optional("email", defaults.email);
    let active = optional("active", defaults.active);
    let password = optional("password", defaults.password);
    let mut attributes = Vec::new();
    if let Some(mut section) = section.section("attributes", &[]) {
        for named in section.take_all() {
            let column = named.item.non_empty_text();
            attributes.extend(column.map(|column| (named.name.to_owned(), column)));
        }
    }
    let members = section.section("groups", &[]).and_then(|mut section| {
        let table = section.require("table", "table = \"auth_user_groups\"");
        let user = section.take("column").and_then(|item| item.non_empty_text());
        Some(GroupTable {
            members: table?.non_empty_text()?,
            user,
        })
    });
    let users = UserTable {
        table,
        id,
        username,
        email,
        active,
        password,
        unread_password: None,
        attributes,
    };
    (users, members)
}

fn groups(section: &mut Section<'_>, users: &UserTable, members: Option<GroupTable>) -> Option<GroupTable> {
    let item = section.take("groups");
    let read = item.as_ref().and_then(|item| {
        let choices = [("auth", true), ("none", false)];
        item.text()?.choice(&choices, &[])
    });
    if let (Some(false), Some(item), Some(_)) = (read, &item, &members) {
        item.refuse(
            "`users.groups` has no effect beside `groups = \"none\"`",
            "remove one of them",
        );
    }
    read.unwrap_or(true)
        .then(|| members.unwrap_or_else(|| GroupTable::of(users)))
}
