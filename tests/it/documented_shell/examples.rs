//! The examples in the help of each command are run, as [the reference](../../../docs/reference/commands.md) has them.

use std::fs;
use std::path::Path;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use super::changes::{PATIENCE, REDIS, ada_and_bob, tokens, tokens_and_jwts};
use super::credentials::admin_listeners;
use crate::documentation::pages;
use crate::floors::root;
use crate::harness::database::{Database, Engine};
use crate::harness::machine::{FOLDER, Machine, on_a_machine};
use crate::harness::mint::Signer;
use crate::harness::program::run;
use crate::harness::{RecordingUpstream, call, get, wait_until};
use crate::parity::authenticates;
use crate::revoke_endpoint::becomes;

/// Examples that are not run here, and the test that runs the command.
const ELSEWHERE: [(&str, &str, &str); 3] = [
    (
        "authgate parity browser.har --application unix:/run/app.sock --gateway https://localhost:8443 --ca ca.pem",
        "tests/it/parity.rs",
        "fn a_har_file_and_plain_lines_from_standard_input_are_sent_too()",
    ),
    (
        "authgate token verify-import --database postgres://authgate@db/app",
        "tests/it/django_page.rs",
        "project.good(VERIFY)",
    ),
    (
        "authgate django sql --triggers --role authgate | psql --dbname app",
        "tests/it/django_page.rs",
        "by_database.good(TRIGGERS)",
    ),
];

/// The examples, in the order of the page.
fn examples() -> Vec<String> {
    let pages = pages();
    let page = pages
        .iter()
        .find(|page| page.path == Path::new("docs/reference/commands.md"))
        .unwrap();
    let mut examples = Vec::new();
    for (_, block) in page.blocks().iter().filter(|(info, _)| info == "text") {
        if let Some(block) = block.strip_prefix("Examples:\n") {
            let lines = block.lines().map_while(|line| line.strip_prefix("  "));
            examples.extend(lines.map(str::to_owned));
        }
    }
    examples
}

/// `demo` and `init`, each in a folder of its own.
fn without_a_configuration(machine: &Machine, line: &str, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    machine.enter(folder);
    match line.split_whitespace().nth(1).unwrap() {
        "demo" if !line.contains("--django") => {
            machine.start(line).writes("Ctrl-C");
        }
        "demo" => {
            if std::env::var_os("AUTHGATE_VENV").is_some() {
                let ended = machine.run(line);
                assert!(!ended.err.is_empty(), "the steps: {ended:?}");
                assert!(machine.run("authgate check").out.contains("valid"));
            }
        }
        "init" => {
            machine.run(line);
            let file = match line.split_once("--output ") {
                Some((_, file)) => file,
                None => "gateway.toml",
            };
            // The files of an application and of an issuer elsewhere are not looked at.
            assert!(
                machine.run(&format!("authgate check {file}")).out.contains("valid"),
                "{line}"
            );
        }
        other => panic!("{other}"),
    }
    machine.enter(FOLDER);
}

/// What an example needs.
fn prepare(machine: &Machine, line: &str) {
    let of_auth = fs::read_to_string(root().join("tests/django/dump-sample.json")).unwrap();
    let of_accounts = json!([
        { "model": "accounts.user", "pk": 1, "fields": { "email": "ada@example.com", "is_active": true, "groups": [] } },
        { "model": "knox.authtoken", "pk": "ab".repeat(64), "fields": {
            "token_key": "abababab", "user": 1, "created": "2026-01-01T00:00:00Z", "expiry": null } },
    ]);
    if line.contains("accounts.user") {
        machine.write("dump.json", of_accounts.to_string());
    } else if line.contains("auth.user") {
        machine.write("dump.json", of_auth);
    }
    if line.contains("revoke --token") {
        // An import with --prune has removed it.
        machine.run("authgate token create --user 42 --key - <key.txt");
    }
    machine.stub("manage.py", &format!("cat {FOLDER}/dump.json"));
}

fn run_example(machine: &Machine, line: &str) {
    prepare(machine, line);
    // Files of the system are files of this test.
    let here = line
        .replace("/usr/local/share/", "/run/home/share/")
        .replace("/usr/share/", "/run/home/share/");
    if let Some((_, file)) = here.split_once(" >/run/") {
        fs::create_dir_all(Path::new("/run").join(file).parent().unwrap()).unwrap();
    }
    let ended = run(machine.shell(&here), b"");
    // A database that differs from the store is reported by the exit code.
    let expected = i32::from(line.contains("verify-import"));
    assert_eq!(ended.code, expected, "{line}\n{ended:#?}");
    if line.contains("--json") {
        let _: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{line}: {error}\n{ended:#?}"));
    }
}

#[test]
fn every_example_in_the_help_of_a_command_works() {
    let test = "documented_shell::examples::every_example_in_the_help_of_a_command_works";
    on_a_machine(test, |machine| {
        let (mut examples, mut at) = (examples(), 0);
        assert!(examples.len() > 50, "{} examples", examples.len());
        for (line, file, text) in ELSEWHERE {
            let known = examples.len();
            examples.retain(|example| example != line);
            assert_eq!(examples.len(), known - 1, "{line}");
            assert!(
                fs::read_to_string(root().join(file)).unwrap().contains(text),
                "{file}: {text}"
            );
        }
        machine.run(&format!("cp -r {} ~/mysite", root().join("tests/django").display()));
        let is_first = |line: &String| {
            ["authgate demo", "authgate init"]
                .iter()
                .any(|words| line.starts_with(words))
        };
        let (first, later): (Vec<_>, Vec<_>) = examples.into_iter().partition(is_first);
        for line in first {
            at += 1;
            without_a_configuration(machine, &line, &Path::new("/run/home").join(at.to_string()));
        }

        let (_redis, upstream) = (ada_and_bob(machine), RecordingUpstream::at("127.0.0.1:8000"));
        upstream.answers(authenticates);
        let signer = Signer::new(Algorithm::ES256);
        machine.write("record.key", [7; 32]);
        let file = tokens_and_jwts(&upstream, &signer)
            // For tokens of knox.
            .replacing(REDIS, &format!("{REDIS}digest = [\"sha256\", \"sha512\"]\n"))
            .tables("[probes]\nlisten = \"127.0.0.1:9902\"")
            .server("listen = [\"127.0.0.1:8080\"]")
            .log("record = { file = \"/var/lib/authgate/requests.jsonl\", seal = { file = \"record.key\" } }")
            .route("/api/*", "authenticate = [\"token\", \"jwt\"]")
            .route("/orders", "host = \"api.example.com\"\nauthenticate = [\"jwt\"]");
        let elsewhere = tokens(&upstream).protected("/api/*");
        let [local, _remote] = admin_listeners(machine, &file, &elsewhere);
        becomes(&local, &get("/api/x").token("canary-ada"), 200, "the start");
        assert_eq!(local.call(&call("HEAD", "/api/x").token("canary-ada")).status, 200);
        let recording = Path::new("/var/lib/authgate/requests.jsonl");
        wait_until("requests are recorded", PATIENCE, || {
            fs::read_to_string(recording).is_ok_and(|text| text.lines().count() >= 2)
        });
        fs::copy(recording, Path::new(FOLDER).join("requests.jsonl")).unwrap();

        // Tests need no reader of manual pages.
        machine.stub("man", "[ \"$(grep --count '^.TH AUTHGATE')\" = 1 ]");
        machine.set("KEY", "canary-ada");
        machine.set("JWT", &signer.access());
        machine.write("key.txt", format!("canary{}\n", "0".repeat(34)));
        let database = Database::start(Engine::Sqlite, "auth.User");
        if let Some(database) = &database {
            fs::create_dir_all("/srv/app").unwrap();
            fs::copy(database.file(), "/srv/app/db.sqlite3").unwrap();
        }
        let one_store = machine.read("gateway.toml");
        let with_file =
            format!("{one_store}\n[stores.file]\nkind = \"embedded\"\nfile = \"/var/lib/authgate/tokens.toml\"\n");
        let with_django =
            format!("{one_store}\n[stores.django]\nkind = \"django\"\nurl = \"postgres://authgate@db/app\"\n");
        for line in &later {
            if line.contains("/srv/app/") && database.is_none() {
                continue;
            }
            if line.contains("--store") {
                machine.write("gateway.toml", &with_file);
                machine.run("authgate user put --id 7 --username eve --store file");
            } else if line.contains("django sql") {
                machine.write("gateway.toml", &with_django);
            } else {
                machine.write("gateway.toml", &one_store);
            }
            run_example(machine, line);
        }
    });
}
