//! The keys of one issuer: of a JWT authenticator with one, or of a table of `issuers`. Introspection has some of them too.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::jwt::{TokenType, UserIdField};
use authgate_auth::{BindingRules, Requirement};

use super::{NEW, tls};
use crate::config::reader::types::{File, Flag, SecretBytes, Span, SpanOrUnlimited, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "An issuer of JWTs, of an authenticator with several. The claim `iss` of a token chooses one before any key is tried.",
    &[
        &NAME,
        &NAMESPACE,
        &KEYS,
        &JWKS,
        &DISCOVERY,
        &ALGORITHMS,
        &AUDIENCE,
        &LEEWAY,
        &MAX_LIFETIME,
        &TOKEN_BYTES,
        &USER_ID_CLAIM,
        &TOKEN_TYPE_CLAIM,
        &JTI_CLAIM,
        &TOKEN_TYPES,
        &USERS,
        &USER_ID_FIELD,
        &USERNAME_CLAIM,
        &CHECK_USER_IS_ACTIVE,
        &CHECK_REVOKE_TOKEN,
        &REVOKE_TOKEN_CLAIM,
        &DPOP,
        &DPOP_WINDOW,
        &DPOP_REPLAY,
        &CERTIFICATE_BOUND,
    ],
);

pub(crate) use super::authenticators::TOKEN_BYTES;

pub(crate) static NAME: Key<Raw> = Key::new("issuer", Raw(|| Shape::text("the name of one issuer")))
    .required()
    .since(NEW)
    .example(r#"issuer = "https://login.example.com""#)
    .text("The name of the issuer, exactly as the `iss` of its tokens.")
    .errors(&["Two tables have the same name."]);

pub(crate) static NAMESPACE: Key<Raw> = Key::new("namespace", Raw(|| Shape::text("a short string")))
    .since(NEW)
    .example(r#"namespace = "partner:""#)
    .absent("ids stay as they are")
    .text(
        "A prefix for the id of each user of the issuer. Headers, records, revocations and the log have the id with it. So two \
         issuers cannot name the same user.",
    )
    .errors(&[
        "Two tables have the same namespace, or none. If that is intended, write it in both, also if it is `\"\"`.",
        "Warning: two tables have the same namespace.",
    ]);

pub(crate) static KEYS: Key<Raw> = Key::new("keys", Raw(|| Shape::Table(&key::TABLE).non_empty_list()))
    .required_if("without `jwks` and `discovery`")
    .example(r#"keys = [{ algorithm = "RS256", file = "jwt.pub.pem" }]"#)
    .text("The keys that verify the tokens. The `kid` of a token chooses among them, where keys have one.")
    .errors(&["`jwks` or `discovery` is written too."]);

/// The names of all algorithms.
fn algorithms() -> Shape {
    Shape::Words(Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect())
}

pub(crate) mod key {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "A key that verifies tokens. It is used with its algorithm alone.",
        &[&ALGORITHM, &FILE, &SECRET, &KID],
    );

    pub(crate) static ALGORITHM: Key<Raw> = Key::new("algorithm", Raw(algorithms))
        .required()
        .example(r#"algorithm = "RS256""#)
        .text("The algorithm of the tokens that the key verifies.")
        .errors(&["`algorithms` of the authenticator does not list it."]);

    pub(crate) static FILE: Key<File> = Key::new("file", File)
        .required_if("unless the algorithm is `HS256`, `HS384` or `HS512`")
        .example(r#"file = "jwt.pub.pem""#)
        .text("A PEM file with the public key.")
        .errors(&["The file has no public key of the algorithm."]);

    pub(crate) static SECRET: Key<SecretBytes> = Key::new("secret", SecretBytes)
        .required_if("if the algorithm is `HS256`, `HS384` or `HS512`")
        .example(r#"secret = { env = "JWT_SECRET" }"#)
        .text("The secret, byte for byte. A newline at the end of its file is part of it.")
        .errors(&["Warning: it has fewer than 32 bytes, or ends in a newline."]);

    pub(crate) static KID: Key<Text> = Key::new("kid", Text("the id of the key"))
        .example(r#"kid = "2026-01""#)
        .absent("the key is tried for tokens with any `kid`, and without one")
        .text("The id of the key, as in the header of tokens.");
}

pub(crate) static JWKS: Key<Sub> = Key::new("jwks", Sub(&jwks::TABLE))
    .required_if("without `keys` and `discovery`")
    .example(r#"jwks = { url = "https://idp.example.com/jwks" }"#)
    .text("A JWK Set (RFC 7517) with the keys: in a file, or at a URL of an identity provider.")
    .errors(&["`keys` is written too."]);

pub(crate) mod jwks {
    use super::*;

    /// Providers limit how often they are asked, and a key does not change within a second.
    const INTERVAL: Span = Span::between(
        Duration::from_secs(1),
        crate::config::reader::MAX_DURATION,
        "providers limit how often they are asked",
    );

    pub(crate) static TABLE: Table = Table::new(
        "A JWK Set. With `discovery`, it has neither `url` nor `file`, and says how the keys are fetched.",
        &[
            &URL,
            &FILE,
            &REFRESH,
            &COOLDOWN,
            &MAX_STALE,
            &TIMEOUT,
            &tls::PROVIDER_CA,
        ],
    );

    pub(crate) static URL: Key<Raw> = Key::new("url", Raw(provider_url))
        .required_if("without `file` and `discovery`")
        .since(NEW)
        .example(r#"url = "https://idp.example.com/jwks""#)
        .text("Where the provider publishes the keys. They are fetched at the start, at intervals, and when a token has an unknown `kid`.")
        .errors(&["`file` or `discovery` is written too.", "`issuer` or `audience` is missing beside it."]);

    pub(crate) static FILE: Key<File> = Key::new("file", File)
        .required_if("without `url` and `discovery`")
        .example(r#"file = "jwks.json""#)
        .text("A file with the set. It is read again when it changes.")
        .errors(&["No key of the set can be used.", "`url` or `discovery` is written too."]);

    pub(crate) static REFRESH: DefaultKey<Span> = Key::new("refresh", INTERVAL)
        .or(Duration::from_secs(300))
        .since(NEW)
        .text("The longest time between two fetches. `Cache-Control: max-age` of the response shortens it, down to `cooldown`.")
        .errors(&["`file` is written.", "Warning: it is shorter than `cooldown`."]);

    pub(crate) static COOLDOWN: DefaultKey<Span> = Key::new("cooldown", INTERVAL)
        .or(Duration::from_secs(30))
        .since(NEW)
        .text("The shortest time between the beginnings of two fetches. Publish a key this long before it signs.")
        .errors(&["`file` is written."]);

    pub(crate) static MAX_STALE: DefaultKey<Span> = Key::new("max_stale", Span::ABOVE_ZERO)
        .or(Duration::from_hours(24))
        .since(NEW)
        .text("How long keys are used after they were last fetched. After that, tokens get 503.")
        .errors(&["`file` is written.", "It is shorter than `refresh` or `cooldown`."]);

    pub(crate) static TIMEOUT: DefaultKey<Span> = Key::new("timeout", Span::ABOVE_ZERO)
        .or(Duration::from_secs(5))
        .since(NEW)
        .text("The deadline for one fetch, with the metadata of `discovery`.")
        .errors(&["`file` is written."]);
}

/// A URL that may be fetched.
pub(crate) fn provider_url() -> Shape {
    Shape::Text(Form::matching(
        "an https URL, or an http URL of a loopback address",
        "^https?://",
    ))
}

pub(crate) static DISCOVERY: Key<Raw> = Key::new("discovery", Raw(provider_url))
    .required_if("without `keys` and `jwks`")
    .since(NEW)
    .example(r#"discovery = "https://idp.example.com""#)
    .text(
        "An issuer, whose metadata (OpenID Connect Discovery, or RFC 8414) says where its keys are. The `issuer` of the metadata must be \
         this, byte for byte.",
    )
    .errors(&["It is the URL of the metadata, and not the issuer.", "`keys`, `jwks.url` or `jwks.file` is written too."]);

pub(crate) static ALGORITHMS: Key<Raw> = Key::new("algorithms", Raw(|| algorithms().non_empty_list()))
    .required_if("beside `jwks` and `discovery`")
    .example(r#"algorithms = ["RS256", "ES256"]"#)
    .text("The algorithms that keys of a JWK Set may be used with. With `keys`, those that their tables may name.")
    .errors(&["`HS256`, `HS384` or `HS512` beside keys of a provider: their key is a secret."]);

fn names_or_false() -> Shape {
    Shape::text("a string").one_or_more().or(Shape::False)
}

pub(crate) static ISSUER: Key<Raw> = Key::new("issuer", Raw(names_or_false))
    .required_if("beside `jwks.url` and `discovery`")
    .example(r#"issuer = "https://login.example.com""#)
    .absent("`iss` is not checked")
    .text("The accepted values of the claim `iss`. `false`: it is not checked.");

pub(crate) static AUDIENCE: Key<Raw> = Key::new("audience", Raw(names_or_false))
    .required_if("beside `jwks.url` and `discovery`")
    .example(r#"audience = "https://api.example.com""#)
    .absent("`aud` is not checked")
    .text(
        "The accepted values of the claim `aud`. A token with one of them is for this API. `false`: it is not checked.",
    )
    .errors(&["Warning: `false` beside keys of a provider, or missing with `profile = \"rfc9068\"`."]);

/// All profiles agree on it.
pub(crate) static LEEWAY: DefaultKey<Span> = Key::new("leeway", Span::ANY)
    .or(Duration::ZERO)
    .example(r#"leeway = "10s""#)
    .text("How far clocks may differ when `exp`, `nbf` and `iat` are compared.");

/// All profiles agree on it.
pub(crate) static MAX_LIFETIME: DefaultKey<SpanOrUnlimited> = Key::new("max_lifetime", SpanOrUnlimited)
    .or(None)
    .example(r#"max_lifetime = "1h""#)
    .text("The longest lifetime of a token, from `iat` to `exp`. A longer one is refused.");

const CLAIM: &str = "the name of a claim";

pub(crate) static USER_ID_CLAIM: Key<Text> = Key::new("user_id_claim", Text(CLAIM))
    .example(r#"user_id_claim = "sub""#)
    .absent("with `profile = \"simplejwt\"` `\"user_id\"`, else `\"sub\"`")
    .text("The claim that names the user.")
    .errors(&["It is `false`: the claim is required."]);

fn claim_or_false() -> Shape {
    Shape::text(CLAIM).or(Shape::False)
}

pub(crate) static TOKEN_TYPE_CLAIM: Key<Raw> = Key::new("token_type_claim", Raw(claim_or_false))
    .example(r#"token_type_claim = "token_type""#)
    .absent("with `profile = \"simplejwt\"` `\"token_type\"`, else `false`")
    .text("The claim with the type of the token. `false`: types are not checked.")
    .errors(&["Warning: `false` with `profile = \"simplejwt\"`: refresh tokens are then accepted."]);

pub(crate) static JTI_CLAIM: Key<Raw> = Key::new("jti_claim", Raw(claim_or_false))
    .example(r#"jti_claim = "jti""#)
    .absent("with `profile = \"plain\"` `false`, else `\"jti\"`")
    .text("The claim with the id of the token, which is then required. `false`: ids are not read, and single tokens cannot be revoked.");

pub(crate) const TYPES: Words<TokenType> = Words(&[("access", TokenType::Access), ("sliding", TokenType::Sliding)]);

pub(crate) static TOKEN_TYPES: Key<Raw> = Key::new(
    "token_types",
    Raw(|| Shape::Words(TYPES.0.iter().map(|(word, _)| *word).collect()).non_empty_list()),
)
.example(r#"token_types = ["access", "sliding"]"#)
.absent("`[\"access\"]`")
.text("The accepted types of tokens, as in SimpleJWT's `AUTH_TOKEN_CLASSES`.")
.errors(&["A type is listed twice."]);

pub(crate) static USERS: Key<Text> = Key::new("users", Text("the name of a store, or `\"none\"`"))
    .required_if("with `profile = \"simplejwt\"`")
    .example(r#"users = "redis""#)
    .absent("`\"none\"`")
    .text(
        "A store in which the user must exist, as in SimpleJWT's JWTAuthentication. `none`: the claims of the token are trusted, as in \
         JWTStatelessUserAuthentication.",
    );

pub(crate) static USER_ID_FIELD: DefaultKey<Words<UserIdField>> = Key::new(
    "user_id_field",
    Words(&[("id", UserIdField::Id), ("username", UserIdField::Username)]),
)
.or(UserIdField::Id)
.example(r#"user_id_field = "username""#)
.text("The field of the user's record that `user_id_claim` names, as in SimpleJWT's `USER_ID_FIELD`.")
.errors(&["`username` with `users = \"none\"`, where there is no record."]);

pub(crate) static USERNAME_CLAIM: DefaultKey<Text> = Key::new("username_claim", Text(CLAIM))
    .or("username")
    .example(r#"username_claim = "preferred_username""#)
    .text("The claim with the username. `email`, `groups`, and `scope` or `scp` are read under these names.")
    .errors(&["`users` is a store: the username is then that of the record."]);

pub(crate) static CHECK_USER_IS_ACTIVE: DefaultKey<Flag> = Key::new("check_user_is_active", Flag)
    .or(true)
    .example("check_user_is_active = false")
    .text("Refuses tokens of users whose record is not active.")
    .errors(&["Warning: `true` with `users = \"none\"`, where no user is looked up."]);

pub(crate) static CHECK_REVOKE_TOKEN: DefaultKey<Flag> = Key::new("check_revoke_token", Flag)
    .or(false)
    .example("check_revoke_token = true")
    .text(
        "Refuses tokens that were issued before the user changed the password, as SimpleJWT's `CHECK_REVOKE_TOKEN`: the claim of \
         `revoke_token_claim` must equal the digest of the password in the record.",
    )
    .errors(&["`users` is `\"none\"`, or a store without passwords."]);

pub(crate) static REVOKE_TOKEN_CLAIM: DefaultKey<Text> = Key::new("revoke_token_claim", Text(CLAIM))
    .or("hash_password")
    .text("The claim that `check_revoke_token` compares.");

const REQUIREMENTS: Words<Requirement> = Words(&[
    ("off", Requirement::Off),
    ("accept", Requirement::Accept),
    ("require", Requirement::Require),
]);

pub(crate) static DPOP: DefaultKey<Words<Requirement>> = Key::new("dpop", REQUIREMENTS)
    .or(BindingRules::OFF.dpop)
    .since(NEW)
    .example(r#"dpop = "accept""#)
    .text(
        "Tokens that are bound to a key of their client (DPoP, RFC 9449). `accept`: a token with `cnf.jkt` needs the scheme `DPoP` and a \
         proof, and other tokens pass as bearer tokens. `require`: only tokens with `cnf.jkt` pass. `off`: `cnf.jkt` is not read.",
    );

pub(crate) static DPOP_WINDOW: DefaultKey<Span> = Key::new(
    "dpop_window",
    // Each proof is remembered for twice as long.
    Span::between(
        Duration::from_millis(1),
        Duration::from_hours(1),
        "a proof could be used for too long",
    ),
)
.or(BindingRules::OFF.window)
.since(NEW)
.text("How old, or how early, `iat` of a proof may be.")
.errors(&["Warning: `dpop` is `\"off\"`."]);

pub(crate) static DPOP_REPLAY: Key<Text> = Key::new("dpop_replay", Text("the name of a store of `kind = \"redis\"`, or `\"local\"`"))
    .since(NEW)
    .example(r#"dpop_replay = "redis""#)
    .absent("`\"local\"`")
    .text("Where used proofs are recorded, so that each counts once: in this process (`local`), or in a store that several gateways share.")
    .errors(&["The store is not of `kind = \"redis\"`.", "Warning: `dpop` is `\"off\"`."]);

pub(crate) static CERTIFICATE_BOUND: DefaultKey<Words<Requirement>> = Key::new("certificate_bound", REQUIREMENTS)
    .or(BindingRules::OFF.certificate_bound)
    .since(NEW)
    .example(r#"certificate_bound = "accept""#)
    .text(
        "Tokens that are bound to a client certificate (RFC 8705). `accept`: a token with `cnf.x5t#S256` needs that certificate on its \
         connection. `require`: only such tokens pass. `off`: `cnf.x5t#S256` is not read.",
    )
    .errors(&["`client_auth` of `[server.tls]` does not ask for certificates."]);
