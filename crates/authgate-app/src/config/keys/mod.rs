//! Every key of gateway.toml: a file for each table. `reader/key.rs` says how a key is added.

pub(super) mod admin;
pub(super) mod authenticators;
pub(super) mod django;
pub(super) mod identity;
pub(super) mod introspection;
pub(super) mod issuer;
pub(super) mod jwt;
pub(super) mod log;
pub(super) mod routes;
pub(super) mod server;
pub(super) mod stores;
pub(super) mod tls;
pub(super) mod upstreams;

use super::reader::{Key, Raw, Shape, Sub, Table, nearest};

/// The version of what was added after the first release.
const NEW: &str = "0.2.0";

/// The whole file.
pub(crate) static ROOT: Table = Table::new(
    "The file is TOML. Paths of files are relative to its folder.",
    &[
        &SERVER,
        &ADMIN,
        &PROBES,
        &LOG,
        &STORES,
        &AUTHENTICATORS,
        &FORWARDED,
        &IDENTITY,
        &UPSTREAMS,
        &ROUTES,
    ],
);

pub(super) static SERVER: Key<Sub> = Key::new("server", Sub(&server::TABLE))
    .required()
    .example("[server]\nlisten = [\"127.0.0.1:8443\"]")
    .text("The listeners for clients, their TLS and their limits.");

pub(super) static ADMIN: Key<Sub> = Key::new("admin", Sub(&admin::TABLE))
    .example("[admin]\nlisten = \"127.0.0.1:9901\"")
    .absent("the listener is on, at the default of `admin.listen`")
    .text("The listener for operators and probes: metrics, status, reload, revocation.");

pub(super) static PROBES: Key<Sub> = Key::new("probes", Sub(&admin::PROBES))
    .example("[probes]\nlisten = \"0.0.0.0:9902\"")
    .absent("no such listener")
    .text("A listener that answers `/livez` and `/readyz` alone, for kubelets and balancers on other machines.");

pub(super) static LOG: Key<Sub> = Key::new("log", Sub(&log::TABLE))
    .example("[log]\nformat = \"json\"")
    .absent("the defaults of its keys")
    .text("What is logged, and how.");

pub(super) static STORES: Key<Raw> = Key::new(
    "stores",
    Raw(|| Shape::Kinds(vec![&stores::REDIS, &stores::EMBEDDED, &django::TABLE]).names("NAME")),
)
.example("[stores.redis]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:6379/0\"")
.absent("there is no store: JWTs can be accepted by their claims alone")
.text("Stores of tokens, users and revocations. The name is your own; authenticators use it.")
.errors(&["A store is named `none`: in other keys this word means no store."]);

pub(super) static AUTHENTICATORS: Key<Raw> = Key::new(
    "authenticators",
    Raw(|| {
        Shape::Kinds(vec![&authenticators::TOKEN, &jwt::TABLE, &introspection::TABLE]).names("NAME")
    }),
)
.example("[authenticators.token]\nkind = \"token\"")
.absent("there is no authenticator: every route has `public = true`")
.text(
    "How credentials are recognized and checked. The name is your own; routes list it, and the log and the field `authenticator` of \
     `identity.headers` show it.",
)
.errors(&[
    "A name has other characters than visible ASCII: it could not be sent in a header.",
    "An authenticator is named `public`, `anonymous` or `unknown`: applications would take its requests for unauthenticated ones.",
]);

pub(super) static FORWARDED: Key<Sub> = Key::new("forwarded", Sub(&server::FORWARDED))
    .example("[forwarded]\nreal_ip = true")
    .absent("the defaults of its keys")
    .text("Fields about the client that applications receive beside `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.");

pub(super) static IDENTITY: Key<Sub> = Key::new("identity", Sub(&identity::TABLE))
    .example("[identity]\nheaders = { X-User-Id = \"id\" }")
    .absent("the defaults of its keys")
    .text("What applications receive about the user.");

pub(super) static UPSTREAMS: Key<Raw> = Key::new("upstreams", Raw(|| Shape::Table(&upstreams::TABLE).names("NAME")))
    .required()
    .example("[upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]")
    .text("Application servers. The name is your own; routes use it.");

pub(super) static ROUTES: Key<Raw> = Key::new(
    "routes",
    Raw(|| Shape::Table(&routes::TABLE).non_empty_list()),
)
.required()
.example("[[routes]]\npath = \"/api/*\"\nauthenticate = [\"token\"]\nupstream = \"app\"")
.text(
    "Which requests are accepted, and where they go. The route with the most specific host wins, then the one with the longest path, \
     then one with `methods`. A request without a route gets 404 and reaches no application.",
)
.errors(&[
    "Two routes match the same requests.",
    "A route without a host, or with a wildcard, requires less than the route of a more specific host for the same path: a \
     client can send any `Host`.",
]);

/// The name that is nearest to a misspelled one.
pub(crate) fn nearest_name<'n>(written: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    nearest(written, known)
}
