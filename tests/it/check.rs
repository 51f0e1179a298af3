//! `authgate check`: every problem at once; and which keys `run` accepts.

use std::path::Path;

use crate::harness::program::{Ended, authgate};
use crate::harness::{Gate, RecordingUpstream, config};
use crate::schema;

fn check(text: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let ended = authgate(folder.path(), &["check"]);
    schema::compare(text, &ended);
    ended
}

/// A file without problems.
pub const GOOD: &str = r#"[server]
listen = ["127.0.0.1:0"]
[stores.redis]
kind = "redis"
url = "redis://127.0.0.1:6379/0"
[authenticators.token]
kind = "token"
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/api/*"
authenticate = ["token"]
upstream = "app"
"#;

#[test]
fn a_valid_file_passes() {
    let ended = check(GOOD);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    assert!(ended.out.contains("valid"));
}

#[test]
fn every_problem_is_reported_with_its_line_and_the_fix() {
    let text = GOOD
        .replace("127.0.0.1:0", "0.0.0.0:80")
        .replace("kind = \"redis\"", "kind = \"reddis\"")
        .replace("kind = \"token\"", "kind = \"token\"\nscheem = \"Token\"")
        .replace("http://127.0.0.1:8000", "http://127.0.0.1:8000/path")
        .replace("[\"token\"]", "[\"tokn\"]");
    let ended = check(&text);
    assert_eq!(ended.code, 2);
    for (place, words) in [
        ("gateway.toml:2:", "allow_cleartext = true"),
        ("gateway.toml:4:", "did you mean \"redis\""),
        ("gateway.toml:8:", "did you mean `scheme`"),
        ("gateway.toml:10:", "upstreams.app.servers[0]"),
        ("gateway.toml:13:", "did you mean \"token\""),
    ] {
        assert!(
            ended.err.contains(place) && ended.err.contains(words),
            "{place} {words}:\n{}",
            ended.err
        );
    }
    assert!(ended.err.contains("5 errors"), "{}", ended.err);
}

#[test]
fn a_route_that_bypasses_a_stricter_route_by_another_host_is_refused() {
    let guard = "host = \"a.example\"\nrequire = { groups = { any = [\"staff\"] } }\npath";
    let guarded = GOOD.replace("path", guard);
    let with = |lines: &str| {
        check(&format!(
            "{guarded}[[routes]]\npath = \"/*\"\nupstream = \"app\"\n{lines}\n"
        ))
    };
    let staff = "require = { groups = { any = [\"staff\"] } }";
    for lines in [
        "public = true",
        "authenticate = [\"token\"]",
        "authenticate = [\"token\"]\noptional = true",
        "authenticate = [\"token\"]\nrequire = { scopes = { any = [\"staff\"] } }",
        "host = \"*.example\"\npublic = true",
    ] {
        let ended = with(lines);
        assert_eq!(ended.code, 2, "{lines}");
        assert!(
            ended.err.contains("routes[1] is weaker than routes[0]")
                && ended.err.contains("clients choose the Host header"),
            "{}",
            ended.err
        );
    }
    for lines in [
        format!("authenticate = [\"token\"]\n{staff}"),
        "host = \"b.example\"\npublic = true".to_owned(),
    ] {
        let ended = with(&lines);
        assert_eq!(ended.code, 0, "{lines}\n{}", ended.err);
    }
}

#[test]
fn one_problem_is_one_error() {
    let with = |more: &str| format!("{GOOD}{more}");
    let jwt = |lines: &str| with(&format!("[authenticators.jwt]\nkind = \"jwt\"\n{lines}\n"));
    let secret = "keys = [{ algorithm = \"HS256\", secret = \"0123456789012345678901234567890123456789\" }]";
    for (text, words) in [
        (
            with("[probes]\nlisten = \"0.0.0.0\"\n"),
            "is not an IP address with a port",
        ),
        (with("[servre]\n"), "unknown key `servre`"),
        (GOOD.replace("upstream = \"app\"", ""), "`upstream` is missing"),
        (
            GOOD.replace("authenticate = [\"token\"]", ""),
            "the route has neither `authenticate` nor `public = true`",
        ),
        (
            GOOD.replace("authenticate", "public = true\nauthenticate"),
            "`authenticate` and `public` cannot be combined",
        ),
        (
            with("[[routes]]\npath = \"/api/*\"\npublic = true\nupstream = \"app\"\n"),
            "matches the same requests as",
        ),
        (
            with(
                "[[routes]]\npath = \"/x\"\npublic = true\nrequire = { groups = { any = [\"a\"] } }\nupstream = \"app\"\n",
            ),
            "no effect on a public route",
        ),
        (
            with(
                "[[routes]]\npath = \"/a/*\"\nhost = \"h\"\nauthenticate = [\"token\"]\nupstream = \"app\"\n[[routes]]\npath = \"/a/b\"\npublic = true\nupstream = \"app\"\n",
            ),
            "is weaker than",
        ),
        (
            with("[server.limits]\nidle_timeout = 75\n"),
            "expected a duration, found a number",
        ),
        (with("[server.limits]\nheader_bytes = \"1KiB\"\n"), "out of range"),
        (
            with("[server.tls]\ncertificates = [{ chain = \"none.pem\", key = \"none.key\" }]\n"),
            "none.pem",
        ),
        (
            with("[identity]\nheaders = { Host = \"id\" }\n"),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            with("[identity]\nheaders = { X-User-Id = \"id\", x_user_id = \"username\" }\n"),
            "contains `_`",
        ),
        (
            with("[identity]\nheaders = { X-Id = \"identity\" }\n"),
            "is not a field of an identity",
        ),
        (jwt(secret), "`users` is required"),
        (jwt("users = \"none\""), "`keys`, `jwks` or `discovery` is required"),
        (
            jwt("users = \"none\"\nkeys = [{ algorithm = \"none\", file = \"x\" }]"),
            "\"none\" is not a valid value",
        ),
        (
            jwt("users = \"none\"\nkeys = [{ algorithm = \"RS256\", file = \"missing.pem\" }]"),
            "missing.pem",
        ),
        (
            jwt(&format!("users = \"none\"\n{secret}\nprofile = \"rfc9086\"")),
            "did you mean \"rfc9068\"?",
        ),
        (jwt(&format!("users = \"nowhere\"\n{secret}")), "is an unknown store"),
        (
            jwt(&format!("users = {{ env = \"AUTHGATE_NOT_SET\" }}\n{secret}")),
            "AUTHGATE_NOT_SET is not set",
        ),
        (GOOD.replace("redis://127.0.0.1:6379/0", "http://x"), "stores.redis.url"),
        (GOOD.replace("\"/api/*\"", "\"api\""), "does not begin with `/`"),
        (GOOD.replace("[server]", "[server"), "invalid TOML"),
    ] {
        let ended = check(&text);
        assert!(ended.code == 2 && ended.err.contains(words), "{words}:\n{}", ended.err);
        assert!(
            ended.err.contains("1 error") || words == "invalid TOML" || words.contains("`_`"),
            "{words}:\n{}",
            ended.err
        );
    }
}

#[test]
fn excerpts_do_not_show_secrets() {
    let text = GOOD.replace("redis://127.0.0.1:6379/0", "redis://:canary-password@127.0.0.1:x/0")
        + "[authenticators.jwt]\nkind = \"jwt\"\nusers = \"none\"\nkeys = [{ algorithm = \"HS256\", secret = \"canary\" }]\n";
    let ended = check(&text);
    assert!(ended.code == 2 && !ended.err.contains("canary"), "{}", ended.err);
    for header in [
        "secret_header = { name = \"X_Bad\", value = \"canary\" }",
        "secret_header = { name = \"X-Good\", value = \"canary\\u0001\" }",
        "secret_header = \"canary\"",
    ] {
        let text = GOOD.replace("servers =", &format!("{header}\nservers ="));
        let ended = check(&text);
        assert!(ended.code == 2 && !ended.err.contains("canary"), "{}", ended.err);
    }
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), "redis://127.0.0.1:6379/0\n").unwrap();
    let text = GOOD
        .replace("\"redis://127.0.0.1:6379/0\"", "{ file = \"url\" }")
        .replace(
            "\"http://127.0.0.1:8000\"",
            "{ env = \"AUTHGATE_NOT_SET\", default = \"http://127.0.0.1:8000\" }",
        );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let ended = authgate(folder.path(), &["check"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn example_keys_run_only_with_the_flag_and_on_loopback() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ended = authgate(project, &["run"]);
    assert_eq!(ended.code, 2);
    for words in [
        "server.tls.certificates[0]",
        "authenticators.jwt.keys[3]",
        "stores.file.file",
        "openssl genpkey",
        "--example-keys",
    ] {
        assert!(ended.err.contains(words), "{words}:\n{}", ended.err);
    }
    let upstream = RecordingUpstream::start();
    let tables = format!(
        "[server.tls]\ncertificates = [{{ chain = {:?}, key = {:?} }}]\n",
        project.join("certs-example/localhost.pem"),
        project.join("certs-example/localhost.key")
    );
    let config = config()
        .app(&upstream)
        .public("/*")
        .tables(&tables)
        .argument("--example-keys");
    let gate = Gate::start(&config);
    assert_eq!(gate.probe("/livez").status, 200);
    drop(gate);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("gateway.toml"),
        config.text().replace("127.0.0.1:0\"]", "0.0.0.0:0\"]"),
    )
    .unwrap();
    let ended = authgate(folder.path(), &["run", "--example-keys"]);
    assert!(ended.code == 2 && ended.err.contains("loopback"), "{ended:?}");
}

#[test]
fn each_problem_has_its_key_and_line() {
    let text = GOOD
        .replace("127.0.0.1:0", "0.0.0.0:80")
        .replace("kind = \"redis\"", "kind = \"reddis\"")
        .replace("kind = \"token\"", "kind = \"token\"\nscheem = \"Token\"")
        .replace("http://127.0.0.1:8000", "http://127.0.0.1:8000/path")
        .replace("[\"token\"]", "[\"tokn\"]");
    let err = check(&text).err;
    for (key, line) in [
        ("server.listen[0]", 2),
        ("stores.redis.kind", 4),
        ("authenticators.token.scheem", 8),
        ("upstreams.app.servers[0]", 10),
        ("routes[0].authenticate[0]", 13),
    ] {
        let (_, problem) = err
            .split_once(&format!("error[{key}]"))
            .unwrap_or_else(|| panic!("{key}:\n{err}"));
        let place = problem.lines().nth(1).unwrap_or_default();
        assert!(place.contains(&format!("gateway.toml:{line}:")), "{key}:\n{err}");
    }
}

#[test]
fn a_missing_file_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["check"][..],
        &["check", "--config", "none.toml"],
        &["run", "--config", "none.toml"],
    ] {
        let ended = authgate(folder.path(), words);
        assert!(
            ended.code == 2 && ended.err.contains("--config"),
            "{words:?}: {ended:?}"
        );
        assert_eq!(ended.out, "", "{words:?}");
    }
}

#[test]
fn problems_can_be_printed_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.toml");
    std::fs::write(&file, GOOD.replace("\"token\"\n", "\"token\"\nscheem = \"x\"\n")).unwrap();
    // The file is an argument too, as people try first.
    let ended = authgate(folder.path(), &["check", "other.toml", "--json"]);
    assert_eq!((ended.code, ended.err.as_str()), (2, ""), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let expected = serde_json::json!({ "problems": [{
        "severity": "error", "key": "authenticators.token.scheem", "file": "other.toml", "line": 8, "column": 1,
        "message": "unknown key `scheem`", "help": "did you mean `scheme`?",
    }] });
    assert_eq!(report, expected);

    std::fs::write(
        &file,
        GOOD.to_owned() + "[upstreams.unused]\nservers = [\"http://127.0.0.1:8001\"]\n",
    )
    .unwrap();
    let ended = authgate(folder.path(), &["--config", "other.toml", "check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ended.good()).unwrap();
    assert_eq!(report["problems"][0]["severity"], "warning");
    assert_eq!(report["problems"][0]["line"], 14, "{report}");

    std::fs::write(&file, GOOD).unwrap();
    let ended = authgate(folder.path(), &["check", "other.toml", "--json"]);
    assert_eq!(ended.good(), "{\"problems\":[]}\n");
    let ended = authgate(folder.path(), &["check", "missing.toml", "--json"]);
    assert_eq!(ended.code, 2);
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["problems"][0]["line"], serde_json::Value::Null);
    assert!(
        authgate(folder.path(), &["check", "other.toml"])
            .good()
            .contains("other.toml: valid")
    );
}

#[test]
fn settings_copied_from_other_programs_get_a_specific_fix() {
    let route = |path: &str| GOOD.replace("/api/*", path);
    let host = |host: &str| GOOD.replace("authenticate =", &format!("host = {host:?}\nauthenticate ="));
    let url = |url: &str| GOOD.replace("redis://127.0.0.1:6379/0", url);
    for (text, words) in [
        (route("/api/<int:id>/"), "\"/api/*\""),
        (route("/api/{id}"), "placeholder \"{id}\""),
        (route("/users/:id/orders"), "\"/users/*\""),
        (route("/a/{x}/*"), "\"/a/*\""),
        (
            host("https://api.example.com"),
            "write the host alone: \"api.example.com\"",
        ),
        (
            host("https://api.example.com:8443/x"),
            "write the host alone: \"api.example.com\"",
        ),
        (host("api.example.com/"), "write the host alone: \"api.example.com\""),
        (host("API.example.com:8443"), "write \"api.example.com\""),
        (url("${REDIS_URL}"), "write `{ env = \"REDIS_URL\" }`"),
        (
            url("redis://${REDIS_HOST}:6379"),
            "a variable that holds the whole text",
        ),
        (
            GOOD.replace("kind = \"redis\"", "kind = \"redis\"\npassword = \"${PASSWORD}\""),
            "`${PASSWORD}` is not replaced",
        ),
        (url("redis://127.0.0.1:port/0"), "its port is not a number"),
        (url("http://127.0.0.1"), "it must begin with redis://"),
        (url("redis://"), "it has no host"),
        (url("redis://:a/b@127.0.0.1"), "write that character as %XX"),
        (url("redis://["), "cannot be read"),
        (url("unix://"), "it has no path of a socket"),
    ] {
        let ended = check(&text);
        assert!(ended.code == 2 && ended.err.contains(words), "{words}:\n{}", ended.err);
        assert!(ended.err.contains("1 error"), "{}", ended.err);
        assert!(!ended.err.contains("InvalidClientConfig"), "{}", ended.err);
    }
}

#[test]
fn unused_tables_and_a_short_admin_token_are_warnings() {
    for (text, words) in [
        (
            "[stores.other]\nkind = \"redis\"\nurl = \"redis://127.0.0.1\"\n",
            "store \"other\" is not used",
        ),
        (
            "[authenticators.other]\nkind = \"token\"\nstore = \"redis\"\n",
            "authenticator \"other\" is not used",
        ),
        (
            "[upstreams.other]\nservers = [\"http://127.0.0.1:8001\"]\n",
            "upstream \"other\" is not used",
        ),
        (
            "[admin]\ntoken = \"short\"\n",
            "the token has 5 characters, so it may be guessed",
        ),
    ] {
        let good = GOOD.replace("kind = \"token\"", "kind = \"token\"\nstore = \"redis\"");
        let ended = check(&format!("{good}{text}"));
        assert!(ended.code == 0 && ended.err.contains(words), "{words}:\n{}", ended.err);
        assert_eq!(ended.err.matches("warning[").count(), 1, "{}", ended.err);
    }
    assert_eq!(check(&format!("{GOOD}[admin]\nlisten = \"[::1]:9901\"\n")).err, "");
}

#[test]
fn a_privileged_port_names_the_missing_capability() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replace("127.0.0.1:0", "127.0.0.1:443") + "[admin]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let has_setpriv = std::process::Command::new("setpriv").arg("--version").output().is_ok();
    if !has_setpriv || first_free.trim().parse::<u16>().is_ok_and(|first| first <= 443) {
        eprintln!("skipped: no setpriv, or every port is free here");
        return;
    }
    for command in ["check", "run"] {
        let mut program = std::process::Command::new("setpriv");
        program
            .args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"])
            .arg(env!("CARGO_BIN_EXE_authgate"))
            .arg(command)
            .current_dir(folder.path())
            .env("NO_COLOR", "1");
        let ended = crate::harness::program::run(program, b"");
        assert_eq!(ended.code, i32::from(command == "run"), "{ended:?}");
        assert!(ended.err.contains("CAP_NET_BIND_SERVICE"), "{command}: {ended:?}");
    }
}
