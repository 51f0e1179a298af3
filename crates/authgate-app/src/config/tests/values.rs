//! Errors of values, keys and names; strings from the environment and other files, and secrets.

use tracing::Level;

use super::{check, jwt, minimal_and, read, route, valid, warnings, with};

#[test]
fn invalid_values_are_errors() {
    for (text, words) in [
        (
            minimal_and("[[routes]]\npath = \"/s\"\npublic = true\nupstream = \"app\"\nstreams = \"close\"\n"),
            "\"end\"",
        ),
        (
            minimal_and("[server.limits]\nidle_timeout = 75\n"),
            "expected a duration, found a number",
        ),
        (
            minimal_and("[server.limits]\nidle_timeout = \"75\"\n"),
            "\"75\" is not a duration",
        ),
        (
            minimal_and("[server.limits]\nidle_timeout = \"1.5s\"\n"),
            "is not a duration",
        ),
        (
            minimal_and("[server.limits]\nidle_timeout = \"99999999999d\"\n"),
            "is longer than ten years",
        ),
        (
            minimal_and("[server.limits]\nheader_timeout = \"0s\"\n"),
            "is not above zero",
        ),
        (
            minimal_and("[server.limits]\nbody_bytes = \"64k\"\n"),
            "\"64k\" is not a size",
        ),
        (minimal_and("[server.limits]\nbody_bytes = 64\n"), "or \"unlimited\""),
        (
            minimal_and("[server.limits]\nheader_bytes = \"1KiB\"\n"),
            "from \"8KiB\" to \"16MiB\"",
        ),
        (
            minimal_and("[server.limits]\nconnections = 0\n"),
            "write a whole number from 1",
        ),
        (minimal_and("[server.limits]\nheaders = -1\n"), "out of range"),
        (
            with("kind = \"redis\"", "kind = \"redis\"\nwriter = { username = \"w\" }"),
            "write `password = { file",
        ),
        (
            with(
                "kind = \"redis\"",
                "kind = \"redis\"\nwriter = { password = \"canary\" }",
            ),
            "write `username = ",
        ),
        (with("kind = \"redis\"", "kind = \"redis\"\nwriter = \"w\""), "a table"),
        (
            minimal_and("[log]\naccess = \"yes\"\n"),
            "expected true or false, found a string",
        ),
        (minimal_and("[log]\nlevel = \"warning\"\n"), "did you mean \"warn\"?"),
        (
            with("[\"127.0.0.1:8443\"]", "\"127.0.0.1:8443\""),
            "expected a list, found a string",
        ),
        (
            with("127.0.0.1:8443", "localhost:8443"),
            "is not an IP address with a port",
        ),
        (
            with("[\"127.0.0.1:8443\"]", "[\"127.0.0.1:1\", \"127.0.0.1:1\"]"),
            "is listed twice",
        ),
        (with("127.0.0.1:8443", "unix:"), "does not name a file"),
        (with("127.0.0.1:8443", "unix:@gate"), "has no permissions"),
        (
            with("127.0.0.1:8443", &format!("unix:/{}", "x".repeat(107))),
            "is 108 bytes long with its folder",
        ),
        (
            with("127.0.0.1:8443", "unix:/run/gate.sock\", \"unix:///run/gate.sock"),
            "unix:/run/gate.sock is listed twice",
        ),
        (
            minimal_and("[probes]\nlisten = \"unix:/run/probes.sock\"\n"),
            "only `server.listen` and `admin.listen` accept",
        ),
        (
            minimal_and("[admin]\nlisten = [\"127.0.0.1:1\", \"unix:/x\", \"127.0.0.1:1\"]\n"),
            "127.0.0.1:1 is listed twice",
        ),
        (minimal_and("[admin]\nlisten = []\n"), "the list is empty"),
        (
            minimal_and("[probes]\nlisten = \"127.0.0.1:8443\"\n"),
            "is also in `server.listen`",
        ),
        (
            minimal_and("[probes]\nlisten = \"127.0.0.1:9901\"\n"),
            "is also in `admin.listen`",
        ),
        (minimal_and("[admin]\ntoken = \"\"\n"), "the token is empty"),
        (
            minimal_and("[admin]\ntoken = \"two canary words\"\n"),
            "the token has a character that is not visible ASCII",
        ),
        (
            minimal_and("[admin]\ntls = { chain = \"localhost.pem\" }\n"),
            "`key` is missing",
        ),
        (
            minimal_and("[admin]\ntls = { chain = \"localhost.pem\", key = \"localhost.key\", ca = \"ca.pem\" }\n"),
            "known keys: chain, key, client_ca",
        ),
        (with("[\"127.0.0.1:8443\"]", "[]"), "the list is empty"),
        (with("listen = [\"127.0.0.1:8443\"]\n", ""), "`listen` is missing"),
        (
            minimal_and("[admin]\nhosts = [\"a.example:9901\"]\n"),
            "write the name alone",
        ),
        (
            minimal_and("[admin]\nhosts = [\"*.example\"]\n"),
            "write the name alone",
        ),
        (minimal_and("[admin]\nhosts = [\"A.example\"]\n"), "in lower case"),
        (
            minimal_and("[admin]\nlisten = \"127.0.0.1:8443\"\n"),
            "is also in `server.listen`",
        ),
        (
            minimal_and("[server.tls]\ncertificates = [{ chain = \"ca.pem\", key = \"localhost.key\" }]\n"),
            "this key belongs to no certificate in",
        ),
        (
            minimal_and("[server.tls]\nmin_version = \"1.1\"\n").replace(
                "1.1\"",
                "1.1\"\ncertificates = [{ chain = \"localhost.pem\", key = \"localhost.key\" }]",
            ),
            "Valid values: \"1.2\", \"1.3\"",
        ),
    ] {
        check(&text, &[&[words]]);
    }
}

#[test]
fn an_admin_listener_beyond_loopback_needs_a_token_and_tls() {
    const TOKEN: &str = "token = \"a-canary-of-many-letters\"\n";
    const TLS: &str = "tls = { chain = \"localhost.pem\", key = \"localhost.key\" }\n";
    for (more, what, remedy) in [
        (
            "",
            "`token` and `tls` are missing",
            "add `token = { file = \"admin.token\" }` and `tls = { chain",
        ),
        (
            TLS,
            "and `token` is missing",
            "add `token = { file = \"admin.token\" }` to [admin]",
        ),
        (TOKEN, "and `tls` is missing", "add `tls = { chain = \"admin.pem\""),
    ] {
        for address in ["0.0.0.0:9901", "192.0.2.1:9901", "[::]:9901"] {
            let text = minimal_and(&format!(
                "[admin]\nlisten = [\"127.0.0.1:9902\", \"{address}\"]\n{more}"
            ));
            let line = format!("{address} can be reached from other machines");
            check(&text, &[&["admin.listen[1]", &line, what, remedy]]);
        }
    }
    for listen in [
        "\"127.0.0.1:9902\"",
        "\"[::1]:9902\"",
        "\"[::ffff:127.0.0.1]:9902\"",
        "\"unix:admin.sock\"",
        "[\"unix:/run/admin.sock\", \"127.0.0.1:9902\"]",
    ] {
        valid(&minimal_and(&format!("[admin]\nlisten = {listen}\n")));
    }
    let config = valid(&minimal_and(&format!(
        "[admin]\nlisten = \"0.0.0.0:9901\"\n{TOKEN}{TLS}"
    )));
    assert!(!format!("{config:?}").contains("canary"));
    let loaded = read(&minimal_and("[admin]\ntoken = \"canary\"\n")).expect("a warning");
    let [short] = warnings(&loaded)[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(short.message, "the token has 6 characters, so it may be guessed");
}

#[test]
fn unknown_and_missing_keys_and_names_are_errors() {
    for (text, words) in [
        (minimal_and("[servr]\n"), "did you mean `server`?"),
        (minimal_and("[probes]\n"), "`listen` is missing"),
        (
            with("listen = [", "redirect_http = [\"127.0.0.1:80\"]\nlisten = ["),
            "there is no TLS listener to redirect to",
        ),
        (jwt("on_outage = \"serve\""), "\"deny\", \"serve-cached\""),
        (
            with("url =", "tls = { ca = \"ca.pem\" }\nurl ="),
            "the URL does not begin with rediss://",
        ),
        (
            with("redis://127.0.0.1:6379/0", "rediss://127.0.0.1:6379/0#insecure"),
            "certificates are always checked",
        ),
        (
            with(
                "url = \"redis://127.0.0.1:6379/0\"",
                "url = \"rediss://127.0.0.1\"\ntls = { cert = \"localhost.pem\" }",
            ),
            "`cert` and `key` must be set together",
        ),
        (jwt("profile = \"oidc\""), "\"rfc9068\""),
        (route("cors = {}"), "`origins` is missing"),
        (
            route("cors = { origins = [\"https://a.example/\"] }"),
            "is not an origin as browsers send it",
        ),
        (
            route("cors = { origins = [\"*\"], credentials = true }"),
            "would let every website read responses with the cookies of its visitors",
        ),
        (route("errors = \"problems\""), "did you mean \"problem\"?"),
        (
            with("[\"http://127.0.0.1:8000\"]", "[{ url = \"http://a\", wait = 2 }]"),
            "unknown key `wait`",
        ),
        (
            with("[\"http://127.0.0.1:8000\"]", "[\"unix:run/app.sock\"]"),
            "is not an absolute socket path",
        ),
        (
            with(
                "servers = [\"http://127.0.0.1:8000\"]",
                "servers = [\"http://127.0.0.1:8000\"]\ntls = { ca = \"ca.pem\" }",
            ),
            "no server is https://",
        ),
        (
            with(
                "servers = [\"http://127.0.0.1:8000\"]",
                "servers = [\"http://127.0.0.1:8000\"]\nsecret_header = { name = \"X_user.id\", value = \"v\" }",
            ),
            "write \"X-user.id\"",
        ),
        (
            with(
                "servers = [\"http://127.0.0.1:8000\"]",
                "servers = [\"http://127.0.0.1:8000\"]\nsecret_header = { name = \"x-userid\", value = \"v\" }",
            ),
            "already carries an identity or a credential",
        ),
        (
            with(
                "servers = [\"http://127.0.0.1:8000\"]",
                "servers = [\"http://127.0.0.1:8000\"]\nidentity = { headers = { X-Who = \"id\" } }\n\
                 secret_header = { name = \"x-who\", value = \"v\" }",
            ),
            "already carries an identity or a credential",
        ),
        (
            with(
                "servers = [\"http://127.0.0.1:8000\"]",
                "servers = [\"http://127.0.0.1:8000\"]\nidentity = { headers = { X-Who = \"id\", x-who = \"email\" } }",
            ),
            "is the same header as another one",
        ),
        (
            with("listen = [", "trusted_proxies = [\"10.0.0.1/8\"]\nlisten = ["),
            "write \"10.0.0.0/8\"",
        ),
        (
            with("listen = [", "trusted_proxies = [\"0.0.0.0/0\"]\nlisten = ["),
            "trusts every client",
        ),
        (
            with("listen = [", "proxy_protocol = true\nlisten = ["),
            "no proxy is trusted to send",
        ),
        (with("[\"token\", \"jwt\"]", "[\"tokn\"]"), "did you mean \"token\"?"),
        (
            with("[\"token\", \"jwt\"]", "[\"token\", \"token\"]"),
            "is listed twice",
        ),
        (with("[\"token\", \"jwt\"]", "[]"), "the list is empty"),
        (jwt("revocation = \"rdis\""), "did you mean \"redis\"?"),
        (
            with("kind = \"token\"", "kind = \"token\"\nstore = \"none\""),
            "is not a store",
        ),
        (
            with("/0\"", "/0\"\ndigest = [\"sha256\", \"sha256\"]"),
            "a digest is listed twice",
        ),
        (with("/0\"", "/0\"\ndigest = [\"sha-512\"]"), "sha512"),
        (with("/0\"", "/0\"\ndigest = []"), "the list is empty"),
        (
            minimal_and("[stores.b]\nkind = \"redis\"\nurl = \"redis://b\"\n"),
            "\"redis\" or \"b\"",
        ),
        (
            minimal_and("[stores.none]\nkind = \"redis\"\nurl = \"redis://b\"\n")
                .replace("kind = \"token\"", "kind = \"token\"\nstore = \"redis\""),
            "a store cannot be named `none`",
        ),
    ] {
        check(&text, &[&[words]]);
    }
    // A table with an error can still be named.
    check(
        &with("redis://127.0.0.1:6379/0", "http://x"),
        &[&["stores.redis.url", "invalid URL"]],
    );
    check(
        "",
        &[
            &["`server` is missing"],
            &["`upstreams` is missing"],
            &["`routes` is missing"],
        ],
    );
}

#[test]
fn strings_from_the_environment_and_files_are_not_shown() {
    let level = |value: &str| minimal_and(&format!("[log]\nlevel = {value}\n"));
    assert_eq!(
        valid(&level("{ env = \"AUTHGATE_NOT_SET\", default = \"trace\" }"))
            .log
            .level,
        Level::TRACE
    );
    check(
        &level("{ env = \"AUTHGATE_NOT_SET\" }"),
        &[&["AUTHGATE_NOT_SET is not set"]],
    );
    check(
        &level("{ file = \"nowhere\" }"),
        &[&["certs-example/nowhere cannot be read"]],
    );
    check(
        &level("{ env = \"A\", file = \"b\" }"),
        &[&["`env` and `file` cannot be combined"]],
    );
    check(
        &level("{ default = \"info\" }"),
        &[&["without `env` and `file`"], &["`default` needs `env`"]],
    );
    check(
        &level("{ fil = \"x\" }"),
        &[&["without `env` and `file`"], &["did you mean `file`?"]],
    );
    // Cargo sets this one for its tests: `authgate`.
    check(
        &level("{ env = \"CARGO_PKG_NAME\" }"),
        &[&["the value of $CARGO_PKG_NAME is not a valid value"]],
    );
    let Err(error) = read(&level("{ file = \"jwt-hs256.secret\" }")) else {
        panic!("it was taken")
    };
    let secret = include_str!("../../../../../certs-example/jwt-hs256.secret");
    assert!(
        error.to_string().contains("the content of ") && !error.to_string().contains(secret),
        "{error}"
    );

    // Secrets of the file are not shown, whatever errors are beside them.
    for text in [
        with("redis://127.0.0.1:6379/0\"", "http://ada:canary@127.0.0.1/0\""),
        with(
            "url = \"redis://127.0.0.1:6379/0\"",
            "url = \"redis://:canary@[\"\npassword = \"canary\"",
        ),
        with(
            "url = \"redis://127.0.0.1:6379/0\"",
            "url = \"redis://:other@a\"\npassword = \"canary\"",
        ),
        with(
            "algorithm = \"HS256\", secret = \"a secret",
            "algorithm = \"RS256\", secret = \"canary",
        ),
        with(
            "algorithm = \"HS256\", secret = \"a secret",
            "algorithm = \"HS255\", secret = \"canary",
        ),
        with("http://127.0.0.1:8000", "http://ada:canary@127.0.0.1"),
        // The login of a URL without quotes, or with a misspelled `://`.
        with("\"redis://127.0.0.1:6379/0\"", "redis://ada:canary@127.0.0.1:6379/0"),
        with(
            "\"redis://127.0.0.1:6379/0\"",
            "redis://ada:canary canary@127.0.0.1:6379/0",
        ),
        with("redis://127.0.0.1:6379/0", "redis:/ada:canary@127.0.0.1:6379/0"),
        with("redis://127.0.0.1:6379/0", "redis//ada:canary@127.0.0.1:6379/0"),
        with("kind = \"redis\"", "kind = \"redis://:canary@x\""),
        minimal_and("[stores]\nb = { kind = \"reddis\", url = \"redis://:canary@x\", password = \"canary\" }\n")
            .replace("kind = \"token\"", "kind = \"token\"\nstore = \"b\""),
        jwt("keys = [{ algorithm = HS256, secret = { env = \"AUTHGATE_NOT_SET\", default = \"canary\" } }]"),
    ] {
        let Err(error) = read(&text) else {
            panic!("it was taken:\n{text}")
        };
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn excerpts_show_only_values_of_known_keys_without_secrets() {
    let store = |lines: &str| with("kind = \"redis\"\n", &format!("kind = \"redis\"\n{lines}\n"));
    for text in [
        // Without quotes, misspelled, both; in a comment; under another table; of another type.
        store("password = canary"),
        store("password = canary hunter"),
        store("pasword = \"canary\""),
        store("pasword = canary"),
        store("pasword = \"x\" # it was canary"),
        store("pasword = { env = \"X\", default = \"canary\" }"),
        store("password = [\"canary\"]"),
        store("password = { enw = \"canary\" }"),
        store("password = { env = \"canary-of-mine\" }"),
        store("password = \"canary"),
        store("password = \"\"\"\ncanary\nkind = 5"),
        store("password = 'canary\ncanary'"),
        store("password \"canary\""),
        store("password: canary"),
        store("canary"),
        store("canary = = 5"),
        store("kind = \"\"\"redis\npassword = \"canary\""),
        store("timeout = { canary = \"canary\", \"canary"),
        jwt("secret = \"canary\""),
        jwt("secret = 0xcanary"),
        jwt("keys = \"canary\""),
        jwt("keys = [\"canary\"]"),
        jwt("keys = [{ algorithm = \"HS256\", secrett = \"canary\" }]"),
        jwt("keys = [{ algorithm = \"HS256\", secret = canary }]"),
        jwt("keys = [{ algorithm = \"HS256\", secret = \"canary\" "),
        with(":8000\"]\n", ":8000\"]\nsecret_header = \"canary\"\n"),
        with(
            ":8000\"]\n",
            ":8000\"]\nsecret_header = { name = \"X-A\", value = canary }\n",
        ),
        with(
            ":8000\"]\n",
            ":8000\"]\nsecret_header = { name = \"X-A\", vale = \"canary\" }\n",
        ),
        with(
            ":8000\"]\n",
            ":8000\"]\nsecret_header = { name = \"X-A\", value = \"canary\\u0001\" }\n",
        ),
        minimal_and("[log]\nlevel = \"info\"\npassword = \"canary\"\n"),
        minimal_and("[log]\nlevel = \"info\" password = \"canary\"\n"),
        minimal_and("[stoers.redis]\npassword = \"canary\"\n"),
    ] {
        let Err(error) = read(&text) else {
            panic!("it was taken:\n{text}")
        };
        let shown = error
            .to_string()
            .replace("`canary`", "")
            .replace("canary:", "")
            .replace("[canary", "");
        let key_is_canary = text.contains("canary = = 5") || text.contains("{ canary = ");
        assert!(key_is_canary || !shown.contains("canary"), "{text}\n{error}");
    }
    // The rest is still shown.
    for (text, words) in [
        (store("timeout = 250ms"), "timeout = 250ms"),
        (store("timeout = \"250\""), "timeout = \"250\""),
        (store("username = 5"), "username = 5"),
        (store("pasword = \"canary\""), "pasword = \"******\""),
        (store("password = canary"), "password = ******"),
        (with("[upstreams.app]", "[upstreams.app"), "[upstreams.***"),
        (
            with("\"redis://127.0.0.1:6379/0\"", "\"redis://a:b@[\""),
            "\"redis://a:*@[\"",
        ),
        (store("timeout = \"\u{9b}2J\u{202e}\""), "timeout = \"??2J???\""),
    ] {
        let Err(error) = read(&text) else {
            panic!("it was taken:\n{text}")
        };
        assert!(error.to_string().contains(words), "{words}\n{error}");
        assert!(!error.to_string().contains(['\u{9b}', '\u{202e}']), "{error}");
    }
}

#[test]
fn spool_and_unsized_are_checked_together() {
    let upstream = |lines: &str| {
        with(
            "servers = [\"http://127.0.0.1:8000\"]",
            &format!("servers = [\"http://127.0.0.1:8000\"]\n{lines}"),
        )
    };
    for (lines, words) in [
        ("unsized = \"spol\"", "did you mean \"spool\"?"),
        ("spool = { dir = \"/nowhere/at/all\" }", "create it, or name a folder"),
        ("spool = { dir = \"localhost.pem\" }", "the folder does not exist"),
        ("spool = { body = \"2MiB\", total = \"1MiB\" }", "at least `body`"),
        ("spool = { total = \"1MiB\" }", "at least `body`"),
        ("spool = { body = \"0B\" }", "write a size from"),
        ("spool = { size = \"1MiB\" }", "known keys: dir, body, total"),
        (
            "unsized = \"stream\"\nspool = { body = \"1MiB\" }",
            "write `unsized = \"spool\"`",
        ),
        (
            "health = { path = \"/x\", host = \"https://a\" }",
            "that the application answers to",
        ),
    ] {
        check(&upstream(lines), &[&[words]]);
    }
    let h2c = upstream("unsized = \"refuse\"").replace("http://127.0.0.1:8000", "h2c://127.0.0.1:8000");
    check(&h2c, &[&["a body needs no length"]]);
    valid(&upstream("unsized = \"refuse\"\nidle_timeout = \"0s\""));
}

#[test]
fn json_problems_have_line_and_column() {
    let text = minimal_and("[log]\n\"\u{e9}\" = 1\nlevel = \"\u{e9}\"\nquery = { a = 1, b = 2 }\n");
    let Err(error) = read(&text) else {
        panic!("it was taken")
    };
    let report = error.report().to_json();
    let positions: Vec<(u64, u64)> = report["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|problem| {
            let number = |name: &str| problem[name].as_u64().expect("a number");
            (number("line"), number("column"))
        })
        .collect();
    assert_eq!(positions, [(19, 1), (20, 9), (21, 9)]);
}

#[test]
fn a_seal_is_a_file_of_32_bytes() {
    for (seal, length) in [("", 0), ("short", 5), (&"x".repeat(33), 33)] {
        let problem = format!("a seal has 32 bytes, and this has {length}");
        check(
            &with("url =", &format!("seal = \"{seal}\"\nurl =")),
            &[&[
                "error[stores.redis.seal]",
                &problem,
                "head -c 32 /dev/urandom > seal.key",
            ]],
        );
    }
    let config = valid(&with("url =", &format!("seal = \"{}\"\nurl =", "x".repeat(32))));
    assert!(config.stores[0].seal_id().is_some());
}
