//! Helpers, and files with several errors at once.

mod authenticators;
mod binding;
mod declarations;
mod django_store;
mod introspection;
mod issuers;
mod key_sets;
mod outage;
mod redis_servers;
mod routes;
mod schema;
mod signed;
mod values;
mod whole;

use std::path::Path;

use super::{Config, ConfigError, Loaded, Problem, parse};

/// A minimal file with authentication. Lines are counted from its first one.
const MINIMAL: &str = r#"[server]
listen = ["127.0.0.1:8443"]
[stores.redis]
kind = "redis"
url = "redis://127.0.0.1:6379/0"
[authenticators.token]
kind = "token"
[authenticators.jwt]
kind = "jwt"
users = "redis"
keys = [{ algorithm = "HS256", secret = "a secret of a good many bytes, forty" }]
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/api/*"
authenticate = ["token", "jwt"]
upstream = "app"
"#;

/// Reads a file. The JSON Schema must accept it, if it is valid, and reject it, if it has an error that a schema can find.
fn read(text: &str) -> Result<Loaded, ConfigError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../certs-example");
    let result = parse("gateway.toml", text, &folder);
    schema::compare(text, result.as_ref());
    result
}

fn valid(text: &str) -> Config {
    let loaded = read(text).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings(&loaded).is_empty(), "{:?}", loaded.warnings);
    loaded.config
}

/// The warnings, except for those about unused tables: most tests are about a part of a file.
fn warnings(loaded: &Loaded) -> Vec<&Problem> {
    let all = loaded.warnings.problems().iter();
    all.filter(|problem| !problem.message.ends_with("is not used"))
        .collect()
}

/// One error, or one for each line of `expected`; each fragment of a line is in the problem of that place.
fn check(text: &str, expected: &[&[&str]]) {
    let Err(error) = read(text) else {
        panic!("it was taken:\n{text}")
    };
    let problems = error.report().problems();
    assert_eq!(problems.len(), expected.len(), "{error}");
    let shown = error.to_string();
    for (problem, fragments) in shown.split("\n\n").zip(expected) {
        for fragment in *fragments {
            assert!(problem.contains(fragment), "{fragment}:\n{problem}");
        }
    }
}

/// [`MINIMAL`] with one text in place of another, which it must contain.
fn with(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from}");
    MINIMAL.replacen(from, to, 1)
}

fn minimal_and(more: &str) -> String {
    format!("{MINIMAL}{more}")
}

/// [`MINIMAL`] with more lines for its one route.
fn route(lines: &str) -> String {
    with("[[routes]]\n", &format!("[[routes]]\n{lines}\n"))
}

/// [`MINIMAL`] with more lines for its JWT authenticator.
fn jwt(lines: &str) -> String {
    with("kind = \"jwt\"\n", &format!("kind = \"jwt\"\n{lines}\n"))
}

#[test]
fn five_mistakes_are_five_problems_with_their_lines() {
    let text = with("127.0.0.1:8443", "0.0.0.0:80")
        .replace("kind = \"redis\"", "kind = \"reddis\"")
        .replace("kind = \"token\"", "kind = \"token\"\nscheem = \"T\"")
        .replace(":8000", ":8000/x")
        .replace("\"app\"\n", "\"ap\"\n");
    check(
        &text,
        &[
            &["gateway.toml:2:11", "error[server.listen[0]]", "allow_cleartext = true"],
            &[
                "gateway.toml:4:8",
                "error[stores.redis.kind]",
                "did you mean \"redis\"?",
            ],
            &[
                "gateway.toml:8:1",
                "error[authenticators.token.scheem]",
                "did you mean `scheme`?",
            ],
            &[
                "gateway.toml:14:12",
                "error[upstreams.app.servers[0]]",
                "the path of each request is forwarded",
            ],
            &[
                "gateway.toml:18:12",
                "error[routes[0].upstream]",
                "did you mean \"app\"?",
            ],
        ],
    );
}

#[test]
fn invalid_toml_neither_hides_nor_invents_problems() {
    // An invalid value: the rest of the tree is reliable.
    let text = minimal_and("[log]\nlevel = info\n")
        .replace("[\"127.0.0.1:8443\"]", "127.0.0.1:8443")
        .replace(":8000", "");
    check(
        &text.replace("\"token\", \"jwt\"", "\"token\", \"jwd\""),
        &[
            &[
                "gateway.toml:2:10",
                "`127.0.0.1:8443` is not a TOML value",
                "\"127.0.0.1:8443\"",
            ],
            &[
                "gateway.toml:16:26",
                "\"jwd\" is an unknown authenticator",
                "did you mean \"jwt\"?",
            ],
            &["gateway.toml:19:9", "`info` is not a TOML value", "\"info\""],
        ],
    );
    check(
        &minimal_and("[server]\nworkers = 1\n"),
        &[&["gateway.toml:18:2", "duplicate key `server`"]],
    );
    // After an invalid table header the tree is not reliable: only problems before it are reported.
    let text = with("127.0.0.1:8443", "0.0.0.0:80").replace("[upstreams.app]", "[upstreams.app");
    check(
        &text,
        &[
            &["gateway.toml:2:11", "without TLS"],
            &["gateway.toml:12:15", "invalid TOML"],
        ],
    );
    check(
        &with("[\"token\", \"jwt\"]", "[\"token\", \"jwt\""),
        &[&["gateway.toml:17:", "invalid TOML"]],
    );
}
