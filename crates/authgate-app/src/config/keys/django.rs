//! `[stores.NAME]` of the kind `django`.

use std::time::Duration;

use authgate_auth::store::django::Invalidation;

use super::NEW;
use super::stores::{self, KIND};
use crate::config::reader::types::{Count, Span, Text, Words};
use crate::config::reader::{DefaultKey, Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "The database of a Django application: PostgreSQL, MySQL, MariaDB or SQLite. The gateway only reads it.",
    &[
        &KIND,
        &URL,
        &TOKENS,
        &DIGEST,
        &USERS,
        &GROUPS,
        &TIMEOUT,
        &CONNECTIONS,
        &INVALIDATION,
    ],
)
.of_kind("django");

pub(crate) static URL: Key<Raw> = Key::new(
    "url",
    Raw(|| Shape::text("a URL: `postgres://USER@HOST/DATABASE`, `mysql://USER@HOST/DATABASE` or `sqlite:/path/db.sqlite3`")),
)
.required()
.since(NEW)
.example(r#"url = "postgres://authgate@db/app""#)
.text(
    "The database. TLS and unix sockets are written as parameters of the URL: `?sslmode=verify-full&sslrootcert=FILE` and `?host=FOLDER` \
     for PostgreSQL, `?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE` and `?socket=PATH` for MySQL.",
)
.errors(&["Warning: the file of a SQLite database does not exist."]);

pub(crate) static DIGEST: Key<Raw> = Key::new("digest", Raw(stores::digest_kinds))
    .since(NEW)
    .example(r#"digest = "sha512-hexkey""#)
    .absent("`[\"sha512\"]`")
    .text(
        "The kind of the digests in the table of tokens. `sha512` and `sha512-hexkey`: tokens of django-rest-knox, from version 5 and \
         of version 4.2.",
    )
    .errors(&["The table of tokens holds the tokens themselves.", "A digest is listed twice."]);

/// Models of tokens that need no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    Authtoken,
    Knox,
    None,
}

pub(crate) const MODELS: Words<Model> = Words(&[
    ("authtoken", Model::Authtoken),
    ("knox", Model::Knox),
    ("none", Model::None),
]);

pub(crate) static TOKENS: Key<Raw> = Key::new(
    "tokens",
    Raw(|| Shape::Words(MODELS.0.iter().map(|(word, _)| *word).collect()).or(Shape::Table(&tokens::TABLE))),
)
.since(NEW)
.example(r#"tokens = "knox""#)
.absent("`\"authtoken\"`")
.text(
    "The table of tokens. `authtoken`: that of DRF. `knox`: that of django-rest-knox. `none`: there are no tokens, and JWTs use the users \
     alone. A table of your own is written with its columns.",
);

pub(crate) mod tokens {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "A table of tokens with names of its own.",
        &[&TABLE_NAME, &KEY, &DIGEST, &EXPIRY, &USER, &CREATED],
    );

    pub(crate) static TABLE_NAME: Key<Text> = Key::new("table", Text("the name of a table"))
        .required()
        .since(NEW)
        .example(r#"table = "authtoken_token""#)
        .text("The table.");

    pub(crate) static KEY: Key<Text> = Key::new("key", Text("the name of a column"))
        .required_if("without `digest`")
        .since(NEW)
        .example(r#"key = "key""#)
        .text("The column with the tokens themselves, as in DRF's table.")
        .errors(&["`digest` is written too."]);

    pub(crate) static DIGEST: Key<Text> = Key::new("digest", Text("the name of a column"))
        .required_if("without `key`")
        .since(NEW)
        .example(r#"digest = "digest""#)
        .text("The column with the digests of the tokens, as in knox's table.")
        .errors(&["`key` is written too."]);

    pub(crate) static EXPIRY: Key<Text> = Key::new("expiry", Text("the name of a column"))
        .since(NEW)
        .example(r#"expiry = "expiry""#)
        .absent("tokens do not expire")
        .text("The column with the time at which a token expires.")
        .errors(&["`key` is written: DRF's tokens do not expire."]);

    pub(crate) static USER: DefaultKey<Text> = Key::new("user", Text("the name of a column"))
        .or("user_id")
        .since(NEW)
        .text("The column with the primary key of the user.");

    pub(crate) static CREATED: Key<Text> = Key::new("created", Text("the name of a column"))
        .since(NEW)
        .example(r#"created = "created""#)
        .absent("each revocation of a user ends these tokens, whenever they were made")
        .text("The column with the time at which a token was made.");
}

pub(crate) static USERS: Key<Sub> = Key::new("users", Sub(&users::TABLE))
    .since(NEW)
    .example(r#"users = { table = "accounts_user", attributes = { tenant = "tenant_id" } }"#)
    .absent("the table and columns of Django's own user model")
    .text("The table of users. Write what differs from Django's own user model.");

pub(crate) mod users {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "The table of users, and its columns. If a custom user model lacks a column, write `false` for it.",
        &[
            &TABLE_NAME,
            &ID,
            &USERNAME,
            &EMAIL,
            &ACTIVE,
            &PASSWORD,
            &ATTRIBUTES,
            &GROUPS,
        ],
    );

    pub(crate) static TABLE_NAME: DefaultKey<Text> = Key::new("table", Text("the name of a table"))
        .or("auth_user")
        .since(NEW)
        .text("The table.");

    pub(crate) static ID: DefaultKey<Text> = Key::new("id", Text("the name of a column"))
        .or("id")
        .since(NEW)
        .text("The column with the primary key: the id of the user.");

    pub(crate) static USERNAME: DefaultKey<Text> = Key::new("username", Text("the name of a column"))
        .or("username")
        .since(NEW)
        .example(r#"username = "email""#)
        .text("The column of `USERNAME_FIELD`.");

    fn column_or_false() -> Shape {
        Shape::text("the name of a column").or(Shape::False)
    }

    pub(crate) static EMAIL: Key<Raw> = Key::new("email", Raw(column_or_false))
        .since(NEW)
        .example(r#"email = "email""#)
        .absent("`\"email\"`")
        .text("The column with the e-mail address. `false`: there is none.");

    pub(crate) static ACTIVE: Key<Raw> = Key::new("active", Raw(column_or_false))
        .since(NEW)
        .example(r#"active = "is_active""#)
        .absent("`\"is_active\"`")
        .text("The column that says whether the user is active. `false`: every user is.");

    pub(crate) static PASSWORD: Key<Raw> = Key::new("password", Raw(column_or_false))
        .since(NEW)
        .example(r#"password = "password""#)
        .absent("`\"password\"`")
        .text("The column with the password hash. It is read only for an authenticator with `check_revoke_token`. `false`: there is none.");

    pub(crate) static ATTRIBUTES: Key<Raw> = Key::new(
        "attributes",
        Raw(|| Shape::text("the name of a column").names("ATTRIBUTE")),
    )
    .since(NEW)
    .example(r#"attributes = { tenant = "tenant_id" }"#)
    .absent("no attributes")
    .text("Further columns: the name of an attribute, and its column. `identity.headers` sends it as `attributes.ATTRIBUTE`.");

    pub(crate) static GROUPS: Key<Sub> = Key::new("groups", Sub(&groups::TABLE))
        .since(NEW)
        .example(r#"groups = { table = "accounts_user_groups", column = "user_id" }"#)
        .absent("the name of the table of users with `_groups`")
        .text("The table that says which users are in which groups.")
        .errors(&["`groups` of the store is `\"none\"`."]);

    pub(crate) mod groups {
        use super::*;

        pub(crate) static TABLE: Table = Table::new("The table between users and groups.", &[&TABLE_NAME, &COLUMN]);

        pub(crate) static TABLE_NAME: Key<Text> = Key::new("table", Text("the name of a table"))
            .required()
            .since(NEW)
            .example(r#"table = "auth_user_groups""#)
            .text("The table.");

        pub(crate) static COLUMN: Key<Text> = Key::new("column", Text("the name of a column"))
            .since(NEW)
            .example(r#"column = "user_id""#)
            .absent("the column beside `id` and `group_id`")
            .text("The column with the primary key of the user.");
    }
}

pub(crate) static GROUPS: DefaultKey<Words<bool>> = Key::new("groups", Words(&[("auth", true), ("none", false)]))
    .or(true)
    .since(NEW)
    .example(r#"groups = "none""#)
    .text("`auth`: the groups of Django's `auth_group`. `none`: no groups are read.");

pub(crate) static TIMEOUT: DefaultKey<Span> = Key::new("timeout", Span::ABOVE_ZERO)
    .or(Duration::from_secs(1))
    .since(NEW)
    .text("The deadline for one look-up: waiting, connecting and answering together. After it, the request gets 503, unless `on_outage` allows a cached decision.");

pub(crate) static CONNECTIONS: DefaultKey<Count> = Key::new(
    "connections",
    // Each connection is a process or a thread of the database.
    Count { min: 1, max: 1000 },
)
.or(4)
.since(NEW)
.unit("connections")
.text("How many connections the whole gateway has to the database. With `invalidation = \"notify\"`, one of them listens for changes.")
.errors(&["It is 1, and that one listens for changes."]);

pub(crate) static INVALIDATION: DefaultKey<Words<Invalidation>> = Key::new(
    "invalidation",
    Words(&[("notify", Invalidation::Notify), ("off", Invalidation::Off)]),
)
.or(Invalidation::Notify)
.since(NEW)
.example(r#"invalidation = "off""#)
.text(
    "How changes are noticed. `notify`: PostgreSQL reports them, by the triggers that `authgate django sql --triggers` prints. `off`, and \
     on other databases: they are in force after `cache.ttl` of the authenticator, and a new token after `negative_ttl`.",
)
.errors(&["Warning: `notify` on a database that is not PostgreSQL."]);
