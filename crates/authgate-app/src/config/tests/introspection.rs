//! Errors and values of `kind = "introspection"`.

use std::time::Duration;

use authgate_auth::introspection::{ClientAuthentication, Location};
use authgate_auth::{AuthScheme, CredentialForm, KindSettings};

use super::{check, minimal_and, read, valid};

/// A file with an introspecting authenticator of these lines.
fn idp(lines: &str) -> String {
    minimal_and(&format!("[authenticators.idp]\nkind = \"introspection\"\n{lines}\n"))
}

const ENDPOINT: &str = "url = \"https://idp.example/introspect\"\n\
                        client = { id = \"gateway\", secret = \"a canary secret\" }\n";

#[test]
fn the_least_that_works_has_the_defaults_of_the_contract() {
    let config = valid(&idp(ENDPOINT));
    let settings = &config.authenticators["idp"];
    assert_eq!(settings.scheme, AuthScheme::OneOf(vec!["Bearer".to_owned()]));
    assert_eq!(
        (settings.header.as_str(), settings.realm.as_deref()),
        ("authorization", Some("api"))
    );
    let KindSettings::Introspection(introspection) = &settings.kind else {
        panic!("{settings:?}")
    };
    let (endpoint, rules) = (&introspection.endpoint, &introspection.rules);
    assert!(matches!(&endpoint.location, Location::Url(url) if url.as_str() == "https://idp.example/introspect"));
    assert_eq!(endpoint.client.method, ClientAuthentication::Basic);
    assert_eq!(endpoint.timeout, Duration::from_secs(1));
    assert_eq!(
        (introspection.form, introspection.token_bytes),
        (CredentialForm::Any, 16 * 1024)
    );
    assert_eq!((&*rules.user_id_claim, &*rules.username_claim), ("sub", "username"));
    assert_eq!(rules.jti_claim.as_deref(), Some("jti"));
    assert!(rules.issuer.is_empty() && rules.audience.is_empty() && introspection.revocation.is_none());
    assert!(!format!("{config:?}").contains("canary"), "the secret is printed");
}

#[test]
fn every_key_has_an_effect() {
    let config = valid(&idp(
        "url = \"http://127.0.0.1:9000/introspect\"\nscheme = [\"OAuth\", \"Bearer\"]\nheader = \"X-Token\"\nrealm = \"shop\"\n\
         form = \"opaque\"\ntoken_bytes = \"1KiB\"\nissuer = \"https://idp.example\"\naudience = [\"a\", \"b\"]\nleeway = \"5s\"\n\
         user_id_claim = \"username\"\nusername_claim = \"name\"\njti_claim = \"id\"\nrevocation = \"redis\"\ntimeout = \"3s\"\n\
         cache = { ttl = \"10s\" }\nclient = { id = \"gateway\", secret = \"x\", method = \"post\" }",
    ));
    let settings = &config.authenticators["idp"];
    assert_eq!(settings.scheme.names(), ["OAuth", "Bearer"]);
    assert_eq!(
        (settings.header.as_str(), settings.realm.as_deref()),
        ("x-token", Some("shop"))
    );
    assert_eq!(settings.cache.ttl, Duration::from_secs(10));
    let KindSettings::Introspection(introspection) = &settings.kind else {
        panic!("{settings:?}")
    };
    let (endpoint, rules) = (&introspection.endpoint, &introspection.rules);
    assert_eq!(endpoint.client.method, ClientAuthentication::Post);
    assert_eq!(endpoint.timeout, Duration::from_secs(3));
    assert_eq!(
        (introspection.form, introspection.token_bytes),
        (CredentialForm::Opaque, 1024)
    );
    assert_eq!(
        (&rules.issuer[..], &rules.audience[..]),
        (
            &["https://idp.example".to_owned()][..],
            &["a".to_owned(), "b".to_owned()][..]
        )
    );
    assert_eq!(
        (rules.leeway, rules.jti_claim.as_deref()),
        (Duration::from_secs(5), Some("id"))
    );
    assert_eq!((&*rules.user_id_claim, &*rules.username_claim), ("username", "name"));
    assert_eq!(introspection.revocation.as_deref(), Some("redis"));
    assert_eq!(config.largest_leeway(), Duration::from_secs(5));
}

#[test]
fn the_endpoint_may_be_named_by_the_metadata_of_an_issuer() {
    let config = valid(&idp(
        "discovery = \"https://idp.example/realms/shop\"\nclient = { id = \"gateway\", secret = \"x\" }",
    ));
    let KindSettings::Introspection(introspection) = &config.authenticators["idp"].kind else {
        panic!("{config:?}")
    };
    let location = &introspection.endpoint.location;
    assert!(matches!(location, Location::Issuer(url) if url.as_str() == "https://idp.example/realms/shop"));
}

#[test]
fn each_mistake_is_an_error_that_says_what_to_write() {
    let client = "client = { id = \"gateway\", secret = \"x\" }\n";
    let url = "url = \"https://idp.example/introspect\"\n";
    for (lines, words) in [
        (
            client.to_owned(),
            &["`url` or `discovery` is required", "url = \"https://HOST/introspect\""][..],
        ),
        (url.to_owned(), &["`client` is missing", "client = { id = "]),
        (
            format!("{url}client = {{ id = \"gateway\" }}"),
            &["`secret` is missing"],
        ),
        (format!("{url}client = {{ secret = \"x\" }}"), &["`id` is missing"]),
        (
            format!("{url}client = {{ id = \"gateway\", secret = \"\" }}"),
            &["the secret is empty"],
        ),
        (
            format!("{url}client = {{ id = \"gateway\", secret = \"x\", method = \"jwt\" }}"),
            &["\"basic\", \"post\""],
        ),
        (
            format!("{client}url = \"http://idp.example/introspect\""),
            &["accepted for loopback addresses only"],
        ),
        (format!("{client}url = \"/introspect\""), &["is not an absolute URL"]),
        (
            format!("{client}url = \"http://127.0.0.1/x\"\nca = \"ca.pem\""),
            &["`ca` has no effect"],
        ),
        (format!("{ENDPOINT}ca = \"nowhere.pem\""), &["nowhere.pem"]),
        (
            format!("{ENDPOINT}discovery = \"https://idp.example\""),
            &["cannot be combined"],
        ),
        (
            format!("{client}discovery = \"http://idp.example\""),
            &["accepted for loopback addresses only"],
        ),
        (
            format!("{client}discovery = \"https://idp.example?a=b\""),
            &["an issuer has no query"],
        ),
        (format!("{ENDPOINT}timeout = \"0s\""), &["timeout"]),
        (format!("{ENDPOINT}user_id_claim = false"), &["it names the user"]),
        (format!("{ENDPOINT}audience = []"), &["the list is empty"]),
        (format!("{ENDPOINT}revocation = \"nowhere\""), &["is an unknown store"]),
        (format!("{ENDPOINT}users = \"redis\""), &["`users`"]),
        (format!("{ENDPOINT}keys = []"), &["`keys`"]),
        (
            format!("{ENDPOINT}stale_for = \"5m\""),
            &["has no effect without", "serve-cached"],
        ),
    ] {
        let Err(error) = read(&idp(&lines)) else {
            panic!("it was taken:\n{lines}")
        };
        let shown = error.to_string();
        for word in words {
            assert!(shown.contains(word), "{word}:\n{shown}");
        }
        assert!(shown.contains("authenticators.idp"), "{shown}");
    }
    check(
        &idp(&format!("{ENDPOINT}clinet = 1")),
        &[&["error[authenticators.idp.clinet]", "did you mean `client`?"]],
    );
}
