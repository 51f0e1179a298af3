//! Errors and values of `jwks.url` and `discovery`.

use std::time::Duration;

use authgate_auth::jwt::keys::remote::{KeyLocation, RemoteKeys};

use super::{check, minimal_and, read, valid};

/// A file with a JWT authenticator of these lines.
fn jwt(lines: &str) -> String {
    minimal_and(&format!(
        "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\n{lines}\n"
    ))
}

const CLAIMS: &str = "algorithms = [\"RS256\"]\nissuer = \"https://id.example\"\naudience = \"api\"\n";

fn remote(text: &str) -> RemoteKeys {
    let config = valid(text);
    let jwt = config.authenticators["idp"].kind.as_jwt().expect("a JWT authenticator");
    let keys = jwt
        .issuers
        .all()
        .next()
        .expect("an issuer")
        .keys
        .remote()
        .expect("published keys");
    let RemoteKeys {
        location,
        algorithms,
        tls,
        ..
    } = &**keys;
    RemoteKeys {
        location: location.clone(),
        algorithms: algorithms.clone(),
        tls: tls.clone(),
        ..**keys
    }
}

#[test]
fn the_least_that_works_has_the_defaults_of_the_documentation() {
    for (lines, is_url) in [
        ("jwks = { url = \"https://id.example/keys\" }", true),
        ("discovery = \"https://id.example\"", false),
        ("discovery = \"https://id.example\"\njwks = {}", false),
    ] {
        let keys = remote(&jwt(&format!("{CLAIMS}{lines}")));
        assert_eq!(matches!(keys.location, KeyLocation::Url(_)), is_url, "{lines}");
        assert_eq!(
            (keys.refresh, keys.cooldown),
            (Duration::from_secs(300), Duration::from_secs(30))
        );
        assert_eq!(
            (keys.max_stale, keys.timeout),
            (Duration::from_secs(86_400), Duration::from_secs(5))
        );
    }
    let table = "{ refresh = \"1m\", cooldown = \"1s\", max_stale = \"2h\", timeout = \"2s\" }";
    let keys = remote(&jwt(&format!(
        "{CLAIMS}discovery = \"https://id.example\"\njwks = {table}"
    )));
    assert_eq!(
        (keys.refresh, keys.cooldown),
        (Duration::from_secs(60), Duration::from_secs(1))
    );
    assert_eq!(
        (keys.max_stale, keys.timeout),
        (Duration::from_secs(7200), Duration::from_secs(2))
    );
}

#[test]
fn every_mistake_says_what_to_write() {
    let url = "jwks = { url = \"https://id.example/keys\" }";
    let issuer = "discovery = \"https://id.example\"";
    for (lines, message, help) in [
        (url.to_owned(), "`algorithms` is required", "algorithms = "),
        (
            format!("algorithms = [\"RS256\"]\naudience = \"api\"\n{url}"),
            "`issuer` is required where the keys are published",
            "issuer = \"https://ISSUER\"",
        ),
        (
            format!("algorithms = [\"RS256\"]\naudience = \"api\"\nissuer = false\n{issuer}"),
            "`issuer` is required where the keys are published",
            "issuer = \"https://id.example\"",
        ),
        (
            format!("algorithms = [\"RS256\"]\nissuer = \"i\"\n{url}"),
            "`audience` is required where the keys are published",
            "audience = ",
        ),
        (
            CLAIMS.replace("RS256", "HS256") + url,
            "HS256 has a secret",
            "under `keys` of another authenticator",
        ),
        (
            CLAIMS.replace("\"RS256\"", "\"RS256\", \"HS512\"") + issuer,
            "HS512 has a secret",
            "remove it",
        ),
        (
            format!("{CLAIMS}jwks = {{ url = \"http://id.example/keys\" }}"),
            "is http, which is accepted for loopback addresses only",
            "write https://HOST/PATH",
        ),
        (
            format!("{CLAIMS}jwks = {{ url = \"https://id.example/keys\", file = \"x\" }}"),
            "`file` and `url` cannot be combined",
            "remove one",
        ),
        (
            format!("{CLAIMS}jwks = {{ }}"),
            "`file` or `url` is required",
            "jwks = { url =",
        ),
        (
            format!("{CLAIMS}{issuer}\n{url}"),
            "`url` and `discovery` cannot be combined",
            "remove one",
        ),
        (
            format!("{CLAIMS}{issuer}\nkeys = []"),
            "`keys` and `discovery` cannot be combined",
            "remove one",
        ),
        (
            format!("{CLAIMS}{url}\nkeys = []"),
            "`keys` and `jwks` cannot be combined",
            "remove one",
        ),
        (
            format!("{CLAIMS}discovery = \"https://id.example/.well-known/openid-configuration\""),
            "the URL of the metadata, and not the issuer",
            "write \"https://id.example\"",
        ),
        (
            format!("{CLAIMS}discovery = \"https://id.example/?a=b\""),
            "an issuer has no query",
            "remove the ?",
        ),
        (
            format!("{CLAIMS}{issuer}\njwks = {{ refresh = \"500ms\" }}"),
            "providers limit how often they are asked",
            "of at least \"1s\"",
        ),
        (
            format!("{CLAIMS}{issuer}\njwks = {{ cooldown = \"1ms\" }}"),
            "providers limit how often they are asked",
            "of at least \"1s\"",
        ),
        (
            format!("{CLAIMS}{issuer}\njwks = {{ timeout = \"0s\" }}"),
            "is not above zero",
            "above zero",
        ),
        (
            format!("{CLAIMS}{issuer}\njwks = {{ max_stale = \"1m\" }}"),
            "`max_stale` is shorter than the time between two fetches",
            "write a longer one",
        ),
        (
            format!("{CLAIMS}jwks = {{ url = \"http://127.0.0.1/keys\", ca = \"ca.pem\" }}"),
            "`ca` has no effect",
            "write https://",
        ),
        (format!("{CLAIMS}{issuer}\njwks = {{ colour = \"red\" }}"), "colour", ""),
    ] {
        check(&jwt(&lines), &[&[message, help]]);
    }
    check(
        &jwt(&format!(
            "{CLAIMS}jwks = {{ file = \"missing.json\", refresh = \"1m\" }}"
        )),
        &[
            &["cannot be read"],
            &["`refresh` has no effect", "write `url` in place of `file`"],
        ],
    );
    let warned = |text: &str, words: &str| {
        let loaded = read(text).expect("valid");
        let mut warnings = loaded.warnings.problems().iter();
        assert!(warnings.any(|warning| warning.message.contains(words)), "{text}");
    };
    warned(
        &jwt(&format!("{CLAIMS}{issuer}\njwks = {{ refresh = \"5s\" }}")),
        "`refresh` is shorter than `cooldown`",
    );
    // Tokens of another issuer may be what is wanted.
    let other = CLAIMS.replace("https://id.example", "https://other.example");
    warned(&jwt(&format!("{other}{issuer}")), "does not list https://id.example");
}
