//! `[identity]`, and `[upstreams.NAME.identity]`.

use std::time::Duration;

use authgate_auth::jwt::identity_key::IdentityKey;
use authgate_core::outbound::identity::{CredentialMode, Encoding, ValueSource};
use http::HeaderName;

use super::NEW;
use crate::config::reader::types::{File, Header, Span, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Misplaced, Raw, Shape, Table};

pub(crate) static TABLE: Table = Table::new(
    "What applications receive about the user. The gateway removes these headers from all requests of clients, in any spelling.",
    &[&HEADERS, &ENCODING, &CREDENTIAL, &STRIP, &SIGNED],
)
.misplaced(&[Misplaced {
    name: "audience",
    message: "`audience` belongs to one upstream, so that an application refuses the identities of another one",
    help: "write it in `[upstreams.NAME.identity]`; without it, the audience is the name of the upstream",
}]);

pub(crate) static OF_UPSTREAM: Table = Table::new(
    "What the applications of this upstream receive about the user. A key that is missing here has its value from `[identity]`.",
    &[&HEADERS, &ENCODING, &CREDENTIAL, &STRIP, &SIGNED, &AUDIENCE],
);

/// A fact about a user.
const FACT: Form = Form::matching(
    "`\"id\"`, `\"username\"`, `\"email\"`, `\"groups\"`, `\"scopes\"`, `\"authenticator\"`, `\"claims.NAME\"` or `\"attributes.NAME\"`",
    r"^(id|username|email|groups|scopes|authenticator|(claims|attributes)\..+)$",
);

pub(crate) static HEADERS: Key<Raw> = Key::new("headers", Raw(|| Shape::Text(FACT).names("HEADER")))
    .example(r#"headers = { X-User-Id = "id", X-Tenant = "claims.tenant" }"#)
    .absent("`{ X-User-Id = \"id\", X-User-Name = \"username\" }`; in the table of an upstream, as in `[identity]`")
    .text(
        "The headers, and the fact that each carries. `claims.a.b` reaches into the object `a` of a JWT; a name with special characters is \
         in quotes: `'claims.\"https://example.com/role\"'`. `attributes.NAME` is an attribute of the user's record.",
    )
    .errors(&[
        "A name has a meaning in HTTP or for the gateway, has `_`, or is `Authorization`.",
        "Two names differ only in case and punctuation.",
    ]);

/// The default of `headers`.
pub(crate) fn default_headers() -> Vec<(HeaderName, ValueSource)> {
    vec![
        (HeaderName::from_static("x-user-id"), ValueSource::Id),
        (HeaderName::from_static("x-user-name"), ValueSource::Username),
    ]
}

pub(crate) static ENCODING: DefaultKey<Words<Encoding>> = Key::new(
    "encoding",
    Words(&[("percent", Encoding::Percent), ("utf8", Encoding::Utf8)]),
)
.or(Encoding::Percent)
.example(r#"encoding = "utf8""#)
.text("How values are written. `percent`: all bytes but visible ASCII, and `%` itself, as `%XX`. `utf8`: bytes as they are.");

pub(crate) const CREDENTIAL_MODES: Words<CredentialMode> = Words(&[
    ("opaque", CredentialMode::Opaque),
    ("keep", CredentialMode::Keep),
    ("remove", CredentialMode::Remove),
]);

pub(crate) static CREDENTIAL: DefaultKey<Words<CredentialMode>> = Key::new("credential", CREDENTIAL_MODES)
    .or(CredentialMode::Opaque)
    .example(r#"credential = "remove""#)
    .text(
        "What the gateway does with the header that has the credential. `opaque`: it writes another value, which differs from \
         user to user and is no credential, for caches and limits of the application. `keep`: it forwards the header. `remove`: \
         it removes the header.",
    );

pub(crate) static STRIP: Key<Raw> = Key::new(
    "strip",
    Raw(|| Shape::Text(Form::matching("the name of a header", "^[^*]+$")).list()),
)
.example(r#"strip = ["X-Internal-Role"]"#)
.absent("none")
.text("Further headers that clients may not send. They are removed from requests to every upstream.")
.errors(&["The header belongs to the connection or the framing."]);

pub(crate) static SIGNED: Key<Raw> = Key::new("signed", Raw(|| Shape::Table(&signed::TABLE).or(Shape::False)))
    .since(NEW)
    .example(r#"signed = { keys = [{ algorithm = "EdDSA", file = "identity.key" }] }"#)
    .absent("identities are not signed; in the table of an upstream, as in `[identity]`")
    .text(
        "Sends the facts in a JWT too, which the application verifies with a public key. `headers = {}` sends the JWT alone. \
         `false`: this upstream receives no JWT.",
    );

pub(crate) static AUDIENCE: Key<Text> = Key::new("audience", Text("a string"))
    .since(NEW)
    .example(r#"audience = "orders""#)
    .absent("the name of the upstream")
    .text("The `aud` of signed identities. An application must refuse other ones.")
    .errors(&["`signed` is missing here and in `[identity]`."]);

pub(crate) mod signed {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "Signed identities. Applications find the public keys at `/jwks.json` of the admin listener, or on a route with `jwks = true`.",
        &[&KEYS, &HEADER, &ISSUER, &TTL, &FACTS],
    );

    pub(crate) static KEYS: Key<Raw> = Key::new("keys", Raw(|| Shape::Table(&key::TABLE).non_empty_list()))
        .required()
        .since(NEW)
        .example(r#"keys = [{ algorithm = "EdDSA", file = "identity.key" }]"#)
        .text("The private keys. The first one signs, and the public halves of all are published.")
        .errors(&[
            "A key is listed twice, or two keys have the same `kid`.",
            "The key is also one of an authenticator: an application could present its token as a credential.",
        ]);

    /// The default of `header`.
    pub(crate) const DEFAULT_HEADER: &str = "X-Authgate-Identity";

    pub(crate) static HEADER: DefaultKey<Header> = Key::new("header", Header)
        .or(DEFAULT_HEADER)
        .since(NEW)
        .text("The header with the token.")
        .errors(&["It is `Authorization`, or carries a plain value or a credential."]);

    pub(crate) static ISSUER: DefaultKey<Text> = Key::new("issuer", Text("a string"))
        .or("authgate")
        .since(NEW)
        .text("The `iss` of the tokens.");

    pub(crate) static TTL: DefaultKey<Span> = Key::new(
        "ttl",
        Span::between(
            Duration::from_secs(1),
            Duration::from_hours(1),
            "a token that leaks can be used until it expires",
        ),
    )
    .or(Duration::from_secs(60))
    .since(NEW)
    .text("The lifetime of a token.");

    pub(crate) static FACTS: Key<Raw> = Key::new("facts", Raw(|| Shape::Text(FACT).list()))
        .since(NEW)
        .example(r#"facts = ["username", "groups", "attributes.tenant"]"#)
        .absent("`username`, `email`, `groups`, `scopes`, `authenticator`, and the claims and attributes that `headers` names")
        .text("What the token has beside the id of the user, which is its `sub`.")
        .errors(&["It lists `id`, or a fact twice."]);

    /// The default of `facts`, beside the claims and attributes that `headers` names.
    pub(crate) const DEFAULT_FACTS: [ValueSource; 5] = [
        ValueSource::Username,
        ValueSource::Email,
        ValueSource::Groups,
        ValueSource::Scopes,
        ValueSource::Authenticator,
    ];

    pub(crate) mod key {
        use super::*;

        pub(crate) static TABLE: Table = Table::new("A private key.", &[&ALGORITHM, &FILE, &KID]);

        pub(crate) static ALGORITHM: Key<Raw> = Key::new(
            "algorithm",
            Raw(|| {
                Shape::Words(
                    IdentityKey::ALGORITHMS
                        .iter()
                        .map(|algorithm| algorithm.name())
                        .collect(),
                )
            }),
        )
        .required()
        .since(NEW)
        .example(r#"algorithm = "EdDSA""#)
        .text("The algorithm of the signatures.");

        pub(crate) static FILE: Key<File> = Key::new("file", File)
            .required()
            .since(NEW)
            .example(r#"file = "identity.key""#)
            .text("A PEM file (PKCS #8) with the private key, as `openssl genpkey -algorithm ED25519 -out identity.key` writes.")
            .errors(&["The file has no private key of the algorithm."]);

        pub(crate) static KID: Key<Text> = Key::new("kid", Text("the id of the key"))
            .since(NEW)
            .example(r#"kid = "2026-01""#)
            .absent("the thumbprint of the key (RFC 7638)")
            .text("The id of the key, in the header of tokens and in the key set.");
    }
}
