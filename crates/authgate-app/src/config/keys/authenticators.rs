//! `[authenticators.NAME]`: what all kinds have, and the kind `token`.

use std::time::Duration;

use authgate_auth::CredentialForm;
use authgate_auth::token::OnUnknown;

use super::NEW;
use crate::config::reader::types::{Count, Header, Span, Special, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

/// The value of `kind` in the table of an authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Token,
    Jwt,
    Introspection,
}

pub(crate) static KIND: Key<Words<Kind>> = Key::new(
    "kind",
    Words(&[
        ("token", Kind::Token),
        ("jwt", Kind::Jwt),
        ("introspection", Kind::Introspection),
    ]),
)
.required()
.text(
    "The kind of the credentials, which decides what other keys there are. `token`: opaque tokens that a store knows, as DRF's \
     TokenAuthentication. `jwt`: signed tokens, as SimpleJWT's. `introspection`: tokens that an authorization server is asked about \
     (RFC 7662).",
);

/// A table without a valid kind.
pub(crate) static UNKNOWN: Table = Table::new("", &[&KIND]);

pub(crate) static TOKEN: Table = Table::new(
    "Opaque tokens, which a store knows by their digest.",
    &[
        &KIND,
        &TOKEN_SCHEME,
        &HEADER,
        &STORE,
        &SOURCE,
        &SOURCE_TTL,
        &ON_UNKNOWN,
        &CACHE,
        &ON_OUTAGE,
        &STALE_FOR,
    ],
)
.of_kind("token");

const SCHEME: Form = Form::matching("an authentication scheme: one word", SCHEME_PATTERN);

/// A token (RFC 9110, section 5.6.2), or the empty string.
pub(crate) const SCHEME_PATTERN: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]*$";

pub(crate) static TOKEN_SCHEME: Key<Raw> = Key::new("scheme", Raw(|| Shape::Text(SCHEME).one_or_more()))
    .example(r#"scheme = ["Token", "Bearer"]"#)
    .absent("`\"Token\"`")
    .text(
        "The word before the token, without regard to case. Of several, the first one is in the challenge. With `\"\"`, the whole value of \
         the header is the token, as in `X-API-Key`.",
    )
    .errors(&[
        "It is `\"\"`, and `header` is `Authorization`, which always has a scheme.",
        "A scheme is listed twice, or is the one that the gateway sends in place of a credential.",
    ]);

/// The default of `scheme`.
pub(crate) const DEFAULT_TOKEN_SCHEME: &str = "Token";

pub(crate) static SCHEMES: Key<Raw> = Key::new("scheme", Raw(|| Shape::Text(SCHEME).one_or_more()))
    .example(r#"scheme = "JWT""#)
    .absent("`\"Bearer\"`")
    .text(
        "The word before the token. Of several, the first one is in the challenge. With `profile = \"simplejwt\"` it is compared exactly, as \
         SimpleJWT does, else without regard to case.",
    )
    .errors(&[
        "A scheme is listed twice, or is the one that the gateway sends in place of a credential.",
        "It is `DPoP`, and `dpop` is `\"off\"`.",
    ]);

/// The default of `scheme`, and of `scheme` in `websocket` of a route.
pub(crate) const DEFAULT_SCHEME: &str = "Bearer";

pub(crate) static HEADER: DefaultKey<Header> = Key::new("header", Header)
    .or("Authorization")
    .example(r#"header = "X-API-Key""#)
    .text("The header with the credential.")
    .errors(&[
        "The name has a meaning in HTTP or for the gateway.",
        "The gateway sends an identity in the same header.",
    ]);

pub(crate) static STORE: Key<Text> = Key::new("store", Text("the name of a store"))
    .required_if("if there are several stores, or beside `source`")
    .example(r#"store = "redis""#)
    .absent("the only store of the file")
    .text("The store that knows the tokens.")
    .errors(&["There is no such store, or it has no tokens."]);

pub(crate) static SOURCE: Key<Text> = Key::new("source", Text("the name of a store of `kind = \"django\"`"))
    .since(NEW)
    .example(r#"source = "django""#)
    .absent("tokens that `store` does not know are refused")
    .text(
        "A store that is asked about tokens which `store` does not know. Its answer is written to `store`, which must be of `kind = \
         \"redis\"`, for `source_ttl`.",
    )
    .errors(&[
        "It is not of `kind = \"django\"`, or has no tokens.",
        "`store` does not look tokens up by the digests that the source has.",
    ]);

pub(crate) static SOURCE_TTL: DefaultKey<Span> = Key::new("source_ttl", Span::ABOVE_ZERO)
    .or(Duration::from_secs(300))
    .since(NEW)
    .text("How long an answer of `source` is kept in `store`.")
    .errors(&["`source` is missing."]);

pub(crate) static ON_UNKNOWN: DefaultKey<Words<OnUnknown>> = Key::new(
    "on_unknown",
    Words(&[("refuse", OnUnknown::Refuse), ("forward", OnUnknown::Forward)]),
)
.or(OnUnknown::Refuse)
.since(NEW)
.example(r#"on_unknown = "forward""#)
.text(
    "What happens to a token that no record knows. `forward`: the request goes on without identity, and the application must authenticate \
     it. It is for the time in which not all tokens are in the store yet. A revoked, expired or disabled token is refused in any case.",
)
.errors(&[
    "`forward`, and an enforced route of the authenticator has `require`, or lacks `credential = \"keep\"`.",
]);

pub(crate) static FORM: DefaultKey<Words<CredentialForm>> = Key::new(
    "form",
    Words(&[
        ("any", CredentialForm::Any),
        ("jwt", CredentialForm::Jwt),
        ("opaque", CredentialForm::Opaque),
    ]),
)
.or(CredentialForm::Any)
.since(NEW)
.example(r#"form = "jwt""#)
.text(
    "Which credentials of its scheme the authenticator reads: all, those with three segments separated by dots (`jwt`), or the others \
     (`opaque`). A credential of the other form goes to the next authenticator of the route.",
);

pub(crate) static REALM: DefaultKey<Special> = Key::new(
    "realm",
    Special(Form::new("a string of visible ASCII without `\"` and `\\`")),
)
.or("api")
.text("The realm in the challenge of a 401.");

pub(crate) static TOKEN_BYTES: DefaultKey<crate::config::reader::types::Size> = Key::new(
    "token_bytes",
    crate::config::reader::types::Size {
        min: bytesize::ByteSize::b(64),
        max: bytesize::ByteSize::mib(1),
    },
)
.or(16 * 1024)
.text("The longest token that is read. A longer one is refused.");

pub(crate) static CACHE: Key<Sub> = Key::new("cache", Sub(&cache::TABLE))
    .example(r#"cache = { entries = 100000, ttl = "60s" }"#)
    .absent("the defaults of its keys")
    .text("The cache of decisions, in memory. All workers share it.");

pub(crate) mod cache {
    use authgate_auth::cache::CacheSettings;

    use super::*;

    /// A cache allocates room for all its entries at once, so their number is limited.
    const MAX_ENTRIES: u64 = 50_000_000;

    pub(crate) static TABLE: Table = Table::new(
        "Decisions about credentials, by the digest of the credential. `entries = 0` and `negative_entries = 0` switch the cache off.",
        &[&ENTRIES, &TTL, &NEGATIVE_ENTRIES, &NEGATIVE_TTL],
    );

    pub(crate) static ENTRIES: DefaultKey<Count> = Key::new(
        "entries",
        Count {
            min: 0,
            max: MAX_ENTRIES,
        },
    )
    .or(100_000)
    .unit("credentials")
    .text("How many accepted credentials are kept. Each needs about 1 KiB.");

    pub(crate) static TTL: DefaultKey<Span> = Key::new("ttl", Span::ANY)
        .or(Duration::from_secs(60))
        .text(
            "How long an accepted credential is kept, and never past its expiry. A store that reports changes ends an entry at once; \
             otherwise a change is in force after this time.",
        );

    pub(crate) static NEGATIVE_ENTRIES: DefaultKey<Count> = Key::new(
        "negative_entries",
        Count {
            min: 0,
            max: MAX_ENTRIES,
        },
    )
    .or(20_000)
    .unit("credentials")
    .text("How many refused credentials are kept. They never displace accepted ones.");

    pub(crate) static NEGATIVE_TTL: DefaultKey<Span> = Key::new("negative_ttl", Span::ANY)
        .or(Duration::from_secs(5))
        .text("How long a refused credential is kept.");

    /// The settings without the table.
    pub(crate) fn defaults() -> CacheSettings {
        CacheSettings {
            entries: ENTRIES.default(),
            ttl: TTL.default(),
            negative_entries: NEGATIVE_ENTRIES.default(),
            negative_ttl: NEGATIVE_TTL.default(),
        }
    }
}

/// What happens while a store or an endpoint cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    Deny,
    ServeCached,
}

pub(crate) static ON_OUTAGE: DefaultKey<Words<Outage>> = Key::new(
    "on_outage",
    Words(&[("deny", Outage::Deny), ("serve-cached", Outage::ServeCached)]),
)
.or(Outage::Deny)
.since(NEW)
.example(r#"on_outage = "serve-cached""#)
.text(
    "What happens while a store or an introspection endpoint cannot answer. `deny`: requests that need it get 503. `serve-cached`: \
     decisions that were confirmed at most `stale_for` ago are used; other requests get 503.",
)
.errors(&[
    "`serve-cached`, and the cache is off.",
    "Warning: the authenticator asks nothing that could be unable to answer.",
]);

pub(crate) static STALE_FOR: DefaultKey<Span> = Key::new("stale_for", Span::ABOVE_ZERO)
    .or(Duration::from_secs(300))
    .since(NEW)
    .text("How old a confirmed decision may be in an outage. What is revoked during the outage is accepted for this long.")
    .errors(&["`on_outage` is not `\"serve-cached\"`."]);

pub(crate) static REVOCATION: Key<Text> = Key::new("revocation", Text("the name of a store, or `\"none\"`"))
    .example(r#"revocation = "redis""#)
    .absent("`\"none\"`")
    .text(
        "The store whose revocations are obeyed: of a token by its `jti`, of all tokens of a user until a time, and of all JWTs that the key of \
         a `kid` verifies.",
    )
    .errors(&[
        "The store is of `kind = \"django\"`, which has no revocations.",
        "Warning: `jti_claim` is `false`, so single tokens cannot be revoked.",
    ]);
