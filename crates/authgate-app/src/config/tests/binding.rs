//! Errors and values of `dpop`, `dpop_window`, `dpop_replay` and `certificate_bound`.

use std::time::Duration;

use authgate_auth::{ReplayStore, Requirement};

use super::{MINIMAL, check, jwt, minimal_and, valid, with};

/// A file with an introspecting authenticator of these lines.
fn idp(lines: &str) -> String {
    minimal_and(&format!(
        "[authenticators.idp]\nkind = \"introspection\"\nurl = \"https://idp.example/introspect\"\n\
         client = {{ id = \"gateway\", secret = \"a canary secret\" }}\n{lines}\n"
    ))
}

fn schemes(lines: &str) -> Vec<String> {
    valid(&idp(lines)).authenticators["idp"].scheme.names().to_vec()
}

#[test]
fn the_keys_have_the_defaults_of_the_contract() {
    let config = valid(&idp(""));
    let kind = &config.authenticators["idp"].kind;
    let binding = kind.bindings().next().expect("rules");
    assert_eq!(
        (binding.dpop, binding.certificate_bound),
        (Requirement::Off, Requirement::Off)
    );
    assert_eq!(
        (binding.window, &binding.replay),
        (Duration::from_mins(1), &ReplayStore::Local)
    );
    assert!(!kind.has_proofs());

    let config = valid(&idp(
        "dpop = \"require\"\ndpop_window = \"5s\"\ndpop_replay = \"redis\"\n",
    ));
    let kind = &config.authenticators["idp"].kind;
    let binding = kind.bindings().next().expect("rules");
    assert_eq!(binding.dpop, Requirement::Require);
    assert_eq!(
        (binding.window, &binding.replay),
        (Duration::from_secs(5), &ReplayStore::Store("redis".into()))
    );
    assert!(kind.has_proofs() && kind.stores().iter().any(|store| &***store == "redis"));
    assert!(config.credential_headers().iter().any(|header| header == "dpop"));
}

#[test]
fn dpop_adds_its_scheme() {
    assert_eq!(schemes(""), ["Bearer"]);
    assert_eq!(schemes("dpop = \"accept\""), ["Bearer", "DPoP"]);
    assert_eq!(schemes("dpop = \"require\"\nscheme = \"OAuth\""), ["OAuth", "DPoP"]);
    assert_eq!(
        schemes("dpop = \"accept\"\nscheme = [\"dpop\", \"Bearer\"]"),
        ["dpop", "Bearer"]
    );
    check(
        &idp("scheme = \"DPoP\""),
        &[&[
            "authenticators.idp",
            "the scheme DPoP is listed, but no proof is checked",
        ]],
    );
}

#[test]
fn values_without_an_effect_or_a_meaning_are_reported() {
    for (lines, key, words) in [
        ("dpop = \"on\"", "dpop", "\"on\""),
        ("dpop = \"accept\"\ndpop_window = \"0s\"", "dpop_window", "0"),
        (
            "dpop = \"accept\"\ndpop_window = \"2h\"",
            "dpop_window",
            "a proof could be used for too long",
        ),
        (
            "dpop = \"accept\"\ndpop_replay = \"other\"",
            "dpop_replay",
            "unknown store",
        ),
        (
            "certificate_bound = \"accept\"",
            "certificate_bound",
            "the server does not ask for one",
        ),
        (
            "certificate_bound = \"require\"",
            "certificate_bound",
            "the server does not ask for one",
        ),
    ] {
        let key = format!("error[authenticators.idp.{key}]");
        check(&idp(lines), &[&[&key, words]]);
    }
    valid(&idp("certificate_bound = \"off\""));
    let file = with(
        "kind = \"redis\"\nurl = \"redis://127.0.0.1:6379/0\"",
        "kind = \"embedded\"\nfile = \"tokens.toml\"",
    );
    let file = file.replace("users = \"redis\"", "users = \"none\"");
    let idp = idp("dpop = \"accept\"\ndpop_replay = \"redis\"").replacen(MINIMAL, &file, 1);
    let key = "error[authenticators.idp.dpop_replay]";
    check(&idp, &[&[key, "cannot write to store \"redis\""]]);
}

#[test]
fn each_issuer_of_a_jwt_authenticator_has_rules_of_its_own() {
    let config = valid(&jwt("dpop = \"accept\""));
    assert_eq!(config.authenticators["jwt"].scheme.names(), ["Bearer", "DPoP"]);
    let issuer = |name: &str, lines: &str| {
        format!(
            "[[authenticators.many.issuers]]\nissuer = \"{name}\"\nnamespace = \"{name}:\"\n\
             keys = [{{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }}]\n{lines}\n"
        )
    };
    let tables = [issuer("a", ""), issuer("b", "dpop = \"require\"")].concat();
    let many = "[authenticators.many]\nkind = \"jwt\"\nprofile = \"plain\"\n";
    let config = valid(&minimal_and(&format!("{many}{tables}")));
    let many_settings = &config.authenticators["many"];
    let dpop: Vec<Requirement> = many_settings.kind.bindings().map(|binding| binding.dpop).collect();
    assert_eq!(dpop, [Requirement::Off, Requirement::Require]);
    assert_eq!(many_settings.scheme.names(), ["Bearer", "DPoP"]);
    check(
        &minimal_and(&format!("{many}dpop = \"accept\"\n{tables}")),
        &[&["error[authenticators.many.dpop]", "is a key of one issuer"]],
    );
}
