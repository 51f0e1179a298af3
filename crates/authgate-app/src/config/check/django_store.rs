//! `kind = "django"` of `[stores.*]`: the database of a Django application, and what its tables and columns are called.

use authgate_auth::store::django::{
    DjangoSettings, Endpoint, GroupTable, Invalidation, TokenKey, TokenTable, UserTable,
};
use authgate_auth::store::{DigestKind, Digests};

use super::common::digests;
use crate::config::keys::django::users::{self as user_keys, groups as group_keys};
use crate::config::keys::django::{self as keys, MODELS, Model, tokens as token_keys};
use crate::config::keys::stores::DEFAULT_DIGEST;
use crate::config::reader::{Item, Key, Raw, Section, Text};

pub(super) fn django(mut section: Section<'_>) -> Option<DjangoSettings> {
    let url = section.require(&keys::URL).and_then(|item| item.text());
    let endpoint = url.as_ref().and_then(endpoint);
    let tokens = tokens(section.take(&keys::TOKENS));
    let digests = key_digests(&mut section, tokens.as_ref());
    let (users, members) = users(&mut section);
    let groups = groups(&mut section, &users, members);
    let timeout = section.read(&keys::TIMEOUT);
    let connections_item = section.take(&keys::CONNECTIONS);
    let connections = keys::CONNECTIONS.read_or_default(connections_item.as_ref());
    let invalidation = section.read(&keys::INVALIDATION);
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
        let model = item.text_for("the name of a token model", help)?.choice(MODELS.0)?;
        return Some(match model {
            Model::Authtoken => Some(TokenTable::authtoken()),
            Model::Knox => Some(TokenTable::knox()),
            Model::None => None,
        });
    }
    let mut section = item.section(&token_keys::TABLE)?;
    let table = section.required(&token_keys::TABLE_NAME);
    let (key, digest, expiry) = (
        section.take(&token_keys::KEY),
        section.take(&token_keys::DIGEST),
        section.take(&token_keys::EXPIRY),
    );
    let key = match (key, digest) {
        (Some(key), None) => {
            if let Some(expiry) = expiry {
                expiry.refuse(
                    "`expiry` has no effect beside `key`: DRF's tokens do not expire",
                    "remove it, or write `digest` in place of `key` for a table like knox's",
                );
            }
            token_keys::KEY.read(&key).map(TokenKey::Plain)
        }
        (None, Some(digest)) => token_keys::DIGEST.read(&digest).map(|column| TokenKey::Digest {
            column,
            expiry: expiry.and_then(|item| token_keys::EXPIRY.read(&item)),
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
    let user = section.read(&token_keys::USER);
    let created = section.optional(&token_keys::CREATED);
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
        return digests(section, &keys::DIGEST, Digests::of_kind(DigestKind::Sha512));
    }
    if let Some(item) = section.take(&keys::DIGEST) {
        item.refuse(
            "`digest` has no effect: the table of tokens holds the keys themselves",
            "remove it, or write `tokens = \"knox\"`",
        );
    }
    DEFAULT_DIGEST
}

/// `users`, and its `groups`.
fn users(root: &mut Section<'_>) -> (UserTable, Option<GroupTable>) {
    let defaults = UserTable::default();
    let Some(mut section) = root.section(&keys::USERS) else {
        return (defaults, None);
    };
    let table = section.read(&user_keys::TABLE_NAME);
    let id = section.read(&user_keys::ID);
    let username = section.read(&user_keys::USERNAME);
    // A model without the field is `false`.
    let mut optional = |key: &'static Key<Raw>, default: Option<String>| match section.take(key) {
        Some(item) if item.is_false() => None,
        Some(item) => item.non_empty_text(),
        None => default,
    };
    let email = optional(&user_keys::EMAIL, defaults.email);
    let active = optional(&user_keys::ACTIVE, defaults.active);
    let password = optional(&user_keys::PASSWORD, defaults.password);
    let mut attributes = Vec::new();
    if let Some(mut section) = section.take(&user_keys::ATTRIBUTES).and_then(Item::names) {
        for named in section.take_all() {
            let column = named.item.non_empty_text();
            attributes.extend(column.map(|column| (named.name.to_owned(), column)));
        }
    }
    let members = section.section(&user_keys::GROUPS).and_then(|mut section| {
        let table = section.required(&group_keys::TABLE_NAME);
        let user = section.optional(&group_keys::COLUMN);
        Some(GroupTable { members: table?, user })
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
    let item = section.take(&keys::GROUPS);
    let read = keys::GROUPS.read_or_default(item.as_ref());
    if let (false, Some(item), Some(_)) = (read, &item, &members) {
        item.refuse(
            "`users.groups` has no effect beside `groups = \"none\"`",
            "remove one of them",
        );
    }
    read.then(|| members.unwrap_or_else(|| GroupTable::of(users)))
}
