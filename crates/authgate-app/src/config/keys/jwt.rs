//! `[authenticators.NAME]` of the kind `jwt`.

use authgate_auth::jwt::Profile;

use super::NEW;
use super::authenticators::{CACHE, FORM, HEADER, KIND, ON_OUTAGE, REALM, REVOCATION, SCHEMES, STALE_FOR};
use super::issuer::{
    self, ALGORITHMS, AUDIENCE, CERTIFICATE_BOUND, CHECK_REVOKE_TOKEN, CHECK_USER_IS_ACTIVE, DISCOVERY, DPOP,
    DPOP_REPLAY, DPOP_WINDOW, ISSUER, JTI_CLAIM, JWKS, KEYS, LEEWAY, MAX_LIFETIME, REVOKE_TOKEN_CLAIM, TOKEN_BYTES,
    TOKEN_TYPE_CLAIM, TOKEN_TYPES, USER_ID_CLAIM, USER_ID_FIELD, USERNAME_CLAIM, USERS,
};
use crate::config::reader::types::Words;
use crate::config::reader::{DefaultKey, Key, Misplaced, Raw, Shape, Table};

pub(crate) static TABLE: Table = Table::new(
    "JSON Web Tokens (RFC 7519). The keys have the names of SimpleJWT's settings. An authenticator has one issuer, whose keys are written \
     here, or several in `issuers`.",
    &[
        &KIND,
        &PROFILE,
        &SCHEMES,
        &HEADER,
        &FORM,
        &REALM,
        &KEYS,
        &JWKS,
        &DISCOVERY,
        &ALGORITHMS,
        &ISSUER,
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
        &ISSUERS,
        &REVOCATION,
        &CACHE,
        &ON_OUTAGE,
        &STALE_FOR,
    ],
)
.of_kind("jwt")
.misplaced(&[Misplaced {
    name: "namespace",
    message: "`namespace` has no effect: it keeps the users of several issuers apart",
    help: "remove it, or write the issuers as `[[{table}.issuers]]`",
}]);

pub(crate) static PROFILE: DefaultKey<Words<Profile>> = Key::new(
    "profile",
    Words(&[
        ("simplejwt", Profile::SimpleJwt),
        ("plain", Profile::Plain),
        ("rfc9068", Profile::Rfc9068),
    ]),
)
.or(Profile::SimpleJwt)
.example(r#"profile = "plain""#)
.text(
    "The rules for claims. `simplejwt`: as djangorestframework-simplejwt. `plain`: as RFC 7519 says. `rfc9068`: access tokens of OAuth 2.0. \
     It decides the defaults of `user_id_claim`, `token_type_claim` and `jti_claim`.",
)
.errors(&["Warning: `rfc9068` without `audience`."]);

pub(crate) static ISSUERS: Key<Raw> = Key::new("issuers", Raw(|| Shape::Table(&issuer::TABLE).non_empty_list()))
    .since(NEW)
    .example("[[authenticators.jwt.issuers]]\nissuer = \"https://login.example.com\"\naudience = \"https://api.example.com\"\nkeys = [{ algorithm = \"RS256\", file = \"jwt.pub.pem\" }]")
    .absent("the authenticator has one issuer, whose keys are written in its own table")
    .text("Several issuers, each with a table. The keys from `keys` to `certificate_bound` are then errors in the table of the authenticator.")
    .errors(&[
        "A key of one issuer is written in the table of the authenticator too.",
        "Two tables have the same `issuer`, or could name the same user.",
    ]);
