//! `[[routes]]`.

use super::NEW;
use super::authenticators::{DEFAULT_SCHEME, SCHEME_PATTERN};
use super::identity::CREDENTIAL_MODES;
use crate::config::modes::ErrorFormat;
use crate::config::reader::types::{Flag, SizeOrUnlimited, Span, Special, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};
use authgate_core::outbound::identity::CredentialMode;
use authgate_dataplane::proxy::stream_end::StreamRule;

pub(crate) static TABLE: Table = Table::new(
    "Which requests are accepted, and where they go. A route has `authenticate`, or `public = true`, and an `upstream`, or `jwks = true`.",
    &[
        &PATH,
        &HOST,
        &METHODS,
        &AUTHENTICATE,
        &PUBLIC,
        &OPTIONAL,
        &REQUIRE,
        &MODE,
        &ERRORS,
        &CHALLENGE,
        &CORS,
        &UPSTREAM,
        &CREDENTIAL,
        &BODY_BYTES,
        &RESPONSE_TIMEOUT,
        &STREAMS,
        &JWKS,
        &WEBSOCKET,
    ],
);

pub(crate) static PATH: Key<Raw> = Key::new(
    "path",
    Raw(|| Shape::Text(Form::matching("a path, or a path that ends in `/*`", "^/"))),
)
.required()
.example(r#"path = "/api/*""#)
.text(
    "The path. `/api/hello` is this path alone; `/api/*` is `/api`, `/api/` and everything below. The longest path that matches wins. The \
     path is forwarded unchanged.",
)
.errors(&[
    "A placeholder such as `<int:pk>`, a `*` within the path, a query, an escape, an empty segment or a dot segment.",
    "Another route matches the same requests, or differs only in case.",
]);

pub(crate) static HOST: Key<Raw> = Key::new(
    "host",
    Raw(|| Shape::text("a host name in lower case, or `\"*.\"` and a domain")),
)
.example(r#"host = "api.example.com""#)
.absent("every host")
.text("The host. `*.example.com` is every subdomain. Hosts are compared without port, trailing dot and case.");

pub(crate) static METHODS: Key<Raw> = Key::new(
    "methods",
    Raw(|| Shape::Text(Form::matching("a method in capitals", "^[^a-z]+$")).non_empty_list()),
)
.example(r#"methods = ["GET", "POST"]"#)
.absent("every method")
.text("The methods. `GET` includes `HEAD`. Another method on this path gets 405, unless a further route has it.")
.errors(&[
    "`CONNECT` or `TRACE`, which get 501 on every route.",
    "A method is listed twice.",
]);

pub(crate) static AUTHENTICATE: Key<Raw> = Key::new(
    "authenticate",
    Raw(|| Shape::text("the name of an authenticator").non_empty_list()),
)
.required_if("without `public = true`")
.example(r#"authenticate = ["token", "jwt"]"#)
.text(
    "The authenticators, in the order in which they look at a request. The first one that finds a credential of its scheme decides. The \
     first in the list gives the challenge of a 401, as in DRF.",
)
.errors(&[
    "`public` is `true` too.",
    "An authenticator is listed twice, or is never asked because one before it accepts every value of the same header.",
    "Warning: an earlier authenticator reads the same scheme.",
]);

pub(crate) static PUBLIC: Key<Flag> = Key::new("public", Flag)
    .required_if("without `authenticate`")
    .example("public = true")
    .absent("`false`")
    .text("Every request is accepted, with or without a credential, and has no identity.")
    .errors(&["Keys that concern credentials are written too."]);

pub(crate) static OPTIONAL: Key<Flag> = Key::new("optional", Flag)
    .example("optional = true")
    .absent("`false`")
    .text("A request without a credential is accepted as anonymous. A bad credential is still refused.")
    .errors(&["The route is public."]);

pub(crate) static REQUIRE: Key<Sub> = Key::new("require", Sub(&require::TABLE))
    .example(r#"require = { groups = { any = ["staff"] }, claims = { tenant = "acme" } }"#)
    .absent("every authenticated user is accepted")
    .text("What the user must have, all of it. Otherwise the answer is 403; without a user it is 401.")
    .errors(&["The route is public."]);

pub(crate) mod require {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "What the user must have. At least one key.",
        &[&GROUPS, &SCOPES, &CLAIMS],
    );

    pub(crate) static GROUPS: Key<Sub> = Key::new("groups", Sub(&membership::TABLE))
        .example(r#"groups = { any = ["staff"] }"#)
        .absent("no group is required")
        .text("Groups of the user.");

    pub(crate) static SCOPES: Key<Sub> = Key::new("scopes", Sub(&membership::TABLE))
        .example(r#"scopes = { all = ["orders:read"] }"#)
        .absent("no scope is required")
        .text("Scopes of the token.");

    pub(crate) static CLAIMS: Key<Raw> = Key::new("claims", Raw(|| Shape::Claim.names("CLAIM")))
        .example(r#"claims = { tenant = "acme", realm_access.roles = "staff" }"#)
        .absent("no claim is required")
        .text("Claims of the token, and the value that each must have. A list in the token must contain the value. `a.b` reaches into the object `a`.");

    pub(crate) mod membership {
        use super::*;

        pub(crate) static TABLE: Table = Table::new(
            "Names, of which one or all are needed. At least one key.",
            &[&ANY, &ALL],
        );

        pub(crate) static ANY: Key<Raw> = Key::new("any", Raw(|| Shape::text("a name").non_empty_list()))
            .example(r#"any = ["staff", "support"]"#)
            .text("One of these is enough.");

        pub(crate) static ALL: Key<Raw> = Key::new("all", Raw(|| Shape::text("a name").non_empty_list()))
            .example(r#"all = ["orders:read", "orders:write"]"#)
            .text("All of these are needed.");
    }
}

pub(crate) static MODE: Key<Raw> = Key::new(
    "mode",
    Raw(|| Shape::Words(vec!["enforce", "observe"]).or(Shape::Table(&mode::TABLE))),
)
.since(NEW)
.example(r#"mode = "observe""#)
.absent("`\"enforce\"`")
.text(
    "How far the route is enforced. `observe`: every request reaches the application as it came, and the gateway compares its own decision \
     with the response. `{ enforce = 10 }`: enforced for 10 percent of users.",
)
.errors(&[
    "The route is public.",
    "Warning: the application must authenticate observed requests by itself.",
]);

pub(crate) mod mode {
    use super::*;
    use crate::config::reader::types::Count32;

    pub(crate) static TABLE: Table = Table::new("A route that is enforced for a share of users.", &[&ENFORCE]);

    pub(crate) static ENFORCE: Key<Count32> = Key::new("enforce", Count32 { min: 0, max: 100 })
        .required()
        .since(NEW)
        .unit("percent of users")
        .example("mode = { enforce = 10 }")
        .text("The share. The id of the user decides, so a user is always on the same side. A request without a credential is observed, unless the share is 100.");
}

pub(crate) static ERRORS: DefaultKey<Words<ErrorFormat>> = Key::new(
    "errors",
    Words(&[("drf", ErrorFormat::Drf), ("problem", ErrorFormat::Problem)]),
)
.or(ErrorFormat::Drf)
.example(r#"errors = "problem""#)
.text("The form of error responses. `drf`: as Django REST Framework and SimpleJWT. `problem`: problem details (RFC 9457).");

pub(crate) static CHALLENGE: DefaultKey<Words<bool>> = Key::new("challenge", Words(&[("first", true), ("none", false)]))
    .or(true)
    .example(r#"challenge = "none""#)
    .text(
        "`first`: a request without a valid credential gets 401, with the challenge of the first authenticator. `none`: it gets 403 without \
         a challenge, as where DRF lists SessionAuthentication first.",
    )
    .errors(&["The route is public."]);

/// An origin, as browsers send it.
const ORIGIN: Form = Form::new("an origin: scheme, host and port, without a path");

pub(crate) static CORS: Key<Sub> = Key::new("cors", Sub(&cors::TABLE))
    .example(r#"cors = { origins = ["https://app.example.com"] }"#)
    .absent("preflights need a credential, and pages cannot read error responses of the gateway")
    .text("Pages of other origins: preflights pass without a credential, and error responses of the gateway have the headers that let pages read them.");

pub(crate) mod cors {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "Pages of other origins. The application answers preflights and sets the headers of its own responses.",
        &[&ORIGINS, &CREDENTIALS, &PREFLIGHT],
    );

    pub(crate) static ORIGINS: Key<Raw> = Key::new("origins", Raw(|| Shape::Text(ORIGIN).non_empty_list()))
        .required()
        .example(r#"origins = ["https://app.example.com"]"#)
        .text("The origins. `\"*\"` is every origin.")
        .errors(&["`\"*\"` with `credentials = true`."]);

    pub(crate) static CREDENTIALS: DefaultKey<Flag> = Key::new("credentials", Flag)
        .or(false)
        .example("credentials = true")
        .text("Pages may send cookies, and read responses to such requests.");

    pub(crate) static PREFLIGHT: DefaultKey<Words<()>> = Key::new("preflight", Words(&[("forward", ())]))
        .or(())
        .text("Which side answers preflights. `forward`: the application.");
}

pub(crate) static UPSTREAM: Key<Text> = Key::new("upstream", Text("the name of an upstream"))
    .required_if("without `jwks = true`")
    .example(r#"upstream = "app""#)
    .text("Where requests are forwarded.");

pub(crate) static CREDENTIAL: Key<Words<CredentialMode>> = Key::new("credential", CREDENTIAL_MODES)
    .example(r#"credential = "keep""#)
    .absent("`credential` of `[identity]`, or of the upstream's own table")
    .text("What the gateway does with the header that has the credential: see `identity.credential`.")
    .errors(&["The route is public."]);

pub(crate) static BODY_BYTES: Key<SizeOrUnlimited> = Key::new("body_bytes", SizeOrUnlimited)
    .example(r#"body_bytes = "100MiB""#)
    .absent("`server.limits.body_bytes`")
    .text("The largest body of a request on this route. A larger one gets 413.");

pub(crate) static RESPONSE_TIMEOUT: Key<Span> = Key::new("response_timeout", Span::ABOVE_ZERO)
    .example(r#"response_timeout = "5m""#)
    .absent("`response_timeout` of the upstream")
    .text("The time from the last byte of a request to the head of its response.");

pub(crate) static STREAMS: DefaultKey<Words<StreamRule>> = Key::new(
    "streams",
    Words(&[("end", StreamRule::End), ("keep", StreamRule::Keep)]),
)
.or(StreamRule::End)
.since(NEW)
.example(r#"streams = "keep""#)
.text(
    "What happens to an open stream (a WebSocket, an event stream, a gRPC call) whose credential expires or is revoked. `end`: it ends \
     within a second. `keep`: it goes on.",
);

pub(crate) static JWKS: Key<Flag> = Key::new("jwks", Flag)
    .since(NEW)
    .example("jwks = true")
    .absent("`false`")
    .text("The gateway answers this route itself, with the public keys of signed identities. The route is public, has an exact path and no upstream.")
    .errors(&[
        "`identity.signed` is missing: there is no key to publish.",
        "The path ends in `/*`, `methods` has others than GET and HEAD, or `authenticate` or a key about upstreams is written.",
    ]);

pub(crate) static WEBSOCKET: Key<Sub> = Key::new("websocket", Sub(&websocket::TABLE))
    .example(r#"websocket = { origins = ["https://app.example.com"], subprotocol = true }"#)
    .absent("the credential of a WebSocket is read from its header, which pages cannot set")
    .text("Where pages put the credential of a WebSocket.")
    .errors(&["The route is public."]);

pub(crate) mod websocket {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "The credential of a WebSocket that a page opens. At least one of `subprotocol` and `cookie` must be set.",
        &[&ORIGINS, &SUBPROTOCOL, &COOKIE, &SCHEME],
    );

    pub(crate) static ORIGINS: Key<Raw> = Key::new("origins", Raw(|| Shape::Text(ORIGIN).non_empty_list()))
        .required()
        .example(r#"origins = ["https://app.example.com"]"#)
        .text("The origins of pages that may open a WebSocket with a credential. A page of another origin gets 403.")
        .errors(&["`\"*\"`: every website could open a WebSocket as its visitor."]);

    pub(crate) static SUBPROTOCOL: DefaultKey<Flag> = Key::new("subprotocol", Flag)
        .or(false)
        .example("subprotocol = true")
        .text("The credential may be a subprotocol: `authgate.bearer.TOKEN`, beside another one that the application selects.");

    pub(crate) static COOKIE: Key<Special> =
        Key::new("cookie", Special(Form::matching("the name of a cookie", "^[!-~]+$")))
            .example(r#"cookie = "__Host-access_token""#)
            .absent("cookies are no credentials")
            .text("The credential may be in the cookie of this name.");

    pub(crate) static SCHEME: DefaultKey<Special> = Key::new(
        "scheme",
        Special(Form::matching("an authentication scheme, or `\"\"`", SCHEME_PATTERN)),
    )
    .or(DEFAULT_SCHEME)
    .example(r#"scheme = "Token""#)
    .text("The scheme of the credential: authenticators read it like `Authorization: SCHEME TOKEN`.")
    .errors(&["No authenticator of the route reads this scheme."]);
}
