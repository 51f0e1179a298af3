//! `[authenticators.NAME]` of the kind `introspection`.

use std::time::Duration;

use authgate_auth::introspection::ClientAuthentication;

use super::authenticators::{CACHE, FORM, HEADER, KIND, ON_OUTAGE, REALM, REVOCATION, SCHEMES, STALE_FOR, TOKEN_BYTES};
use super::issuer::{CERTIFICATE_BOUND, DPOP, DPOP_REPLAY, DPOP_WINDOW, LEEWAY, USERNAME_CLAIM, provider_url};
use super::{NEW, tls};
use crate::config::reader::types::{SecretText, Span, Text, Words};
use crate::config::reader::{DefaultKey, Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "Tokens that an authorization server is asked about (RFC 7662).",
    &[
        &KIND,
        &URL,
        &DISCOVERY,
        &CLIENT,
        &TIMEOUT,
        &tls::PROVIDER_CA,
        &SCHEMES,
        &HEADER,
        &FORM,
        &REALM,
        &ISSUER,
        &AUDIENCE,
        &LEEWAY,
        &TOKEN_BYTES,
        &USER_ID_CLAIM,
        &USERNAME_CLAIM,
        &JTI_CLAIM,
        &DPOP,
        &DPOP_WINDOW,
        &DPOP_REPLAY,
        &CERTIFICATE_BOUND,
        &REVOCATION,
        &CACHE,
        &ON_OUTAGE,
        &STALE_FOR,
    ],
)
.of_kind("introspection");

pub(crate) static URL: Key<Raw> = Key::new("url", Raw(provider_url))
    .required_if("without `discovery`")
    .since(NEW)
    .example(r#"url = "https://idp.example.com/introspect""#)
    .text("The introspection endpoint. Redirects are not followed.")
    .errors(&["`discovery` is written too."]);

pub(crate) static DISCOVERY: Key<Raw> = Key::new("discovery", Raw(provider_url))
    .required_if("without `url`")
    .since(NEW)
    .example(r#"discovery = "https://idp.example.com""#)
    .text(
        "An issuer, whose metadata (OpenID Connect Discovery, or RFC 8414) names the endpoint. The `issuer` of the metadata must be this, \
         byte for byte. It is fetched with the first token, and again after 5 minutes.",
    )
    .errors(&["`url` is written too.", "It is the URL of the metadata, and not the issuer."]);

pub(crate) static CLIENT: Key<Sub> = Key::new("client", Sub(&client::TABLE))
    .required()
    .since(NEW)
    .example(r#"client = { id = "authgate", secret = { file = "idp.secret" } }"#)
    .text("The gateway's own registration as a client at the authorization server.");

pub(crate) mod client {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "How the gateway authenticates at the endpoint.",
        &[&ID, &SECRET, &METHOD],
    );

    pub(crate) static ID: Key<Text> = Key::new("id", Text("the id of the client"))
        .required()
        .since(NEW)
        .example(r#"id = "authgate""#)
        .text("The id of the client.");

    pub(crate) static SECRET: Key<SecretText> = Key::new("secret", SecretText)
        .required()
        .since(NEW)
        .example(r#"secret = { file = "idp.secret" }"#)
        .text("The secret of the client.")
        .errors(&["The secret is empty."]);

    pub(crate) static METHOD: DefaultKey<Words<ClientAuthentication>> = Key::new(
        "method",
        Words(&[
            ("basic", ClientAuthentication::Basic),
            ("post", ClientAuthentication::Post),
        ]),
    )
    .or(ClientAuthentication::Basic)
    .since(NEW)
    .example(r#"method = "post""#)
    .text("Where the secret is sent: in `Authorization` (`basic`), or in the body (`post`).");
}

pub(crate) static TIMEOUT: DefaultKey<Span> = Key::new("timeout", Span::ABOVE_ZERO)
    .or(Duration::from_secs(1))
    .since(NEW)
    .text("The deadline for one answer, including the wait for a free place.");

fn names_or_false() -> Shape {
    Shape::text("a string").one_or_more().or(Shape::False)
}

pub(crate) static ISSUER: Key<Raw> = Key::new("issuer", Raw(names_or_false))
    .since(NEW)
    .example(r#"issuer = "https://idp.example.com""#)
    .absent("`iss` is not checked")
    .text(
        "The accepted values of `iss` in the answer. An answer without it is then refused. `false`: it is not checked.",
    );

pub(crate) static AUDIENCE: Key<Raw> = Key::new("audience", Raw(names_or_false))
    .since(NEW)
    .example(r#"audience = "https://api.example.com""#)
    .absent("`aud` is not checked")
    .text(
        "The accepted values of `aud` in the answer. An answer without it is then refused. `false`: it is not checked.",
    );

pub(crate) static USER_ID_CLAIM: DefaultKey<Text> = Key::new("user_id_claim", Text("the name of a claim"))
    .or("sub")
    .since(NEW)
    .example(r#"user_id_claim = "username""#)
    .text("The member of the answer that is the id of the user.")
    .errors(&["It is `false`: it is required."]);

pub(crate) static JTI_CLAIM: Key<Raw> = Key::new(
    "jti_claim",
    Raw(|| Shape::text("the name of a claim").or(Shape::False)),
)
.since(NEW)
.example(r#"jti_claim = "jti""#)
.absent("`\"jti\"`")
.text("The member of the answer with the id of the token. `false`: ids are not read, and single tokens cannot be revoked.");

/// The default of `jti_claim`.
pub(crate) const DEFAULT_JTI_CLAIM: &str = "jti";
