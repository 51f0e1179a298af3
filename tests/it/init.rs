//! `authgate init`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use tempfile::TempDir;

use crate::harness::pki::{Pki, client_trusting};
use crate::harness::program::{authgate, program};
use crate::harness::terminal::Terminal;
use crate::harness::{Conn, Gate, RecordingUpstream, get};

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn init(folder: &Path, words: &[&str]) -> String {
    authgate(folder, &[&["init", "--yes"], words].concat()).good()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect("a file")
}

#[test]
fn every_combination_of_answers_is_a_valid_configuration() {
    let pki = Pki::new();
    let (chain, key) = pki.leaf(&["api.example.com"]);
    let made = folder();
    init(made.path(), &["--jwt", "new"]);
    let public_key = read(made.path(), "jwt.pub.pem");
    let certificates: [&[&str]; 6] = [
        &[],
        &[
            "--certificate",
            "development",
            "--domain",
            "api.example.com",
            "--listen",
            "192.0.2.1:443",
        ],
        &[
            "--certificate",
            "acme",
            "--domain",
            "api.example.com",
            "--email",
            "ops@example.com",
        ],
        &["--certificate", "none"],
        &[
            "--certificate",
            "none",
            "--listen",
            "0.0.0.0:8080",
            "--application",
            "unix:/run/app.sock",
        ],
        &[
            "--chain",
            "tls.pem",
            "--key",
            "tls.key",
            "--listen",
            "0.0.0.0:443,[::]:443",
        ],
    ];
    let tokens: [&[&str]; 6] = [
        &[],
        &["--tokens", "users.toml"],
        &["--tokens", "redis://127.0.0.1:6379/0"],
        &["--tokens", "redis://:canary@127.0.0.1:6379/0"],
        &["--tokens", "postgres://authgate@127.0.0.1/app"],
        &["--tokens", "none"],
    ];
    let jwts: [&[&str]; 4] = [
        &[],
        &["--jwt", "new"],
        &["--jwt", "public.pem"],
        &["--jwt", "http://127.0.0.1:9/realms/x", "--audience", "orders"],
    ];
    for certificate in certificates {
        for tokens in tokens {
            for jwt in jwts {
                if tokens.contains(&"none") && jwt.is_empty() {
                    continue;
                }
                let folder = folder();
                for (name, content) in [("tls.pem", &chain), ("tls.key", &key), ("public.pem", &public_key)] {
                    fs::write(folder.path().join(name), content).expect("writable");
                }
                let words = [certificate, tokens, jwt].concat();
                let said = init(folder.path(), &words);
                assert!(
                    said.contains("\n  authgate run\n") && !said.contains("canary"),
                    "{said}"
                );
                let checked = authgate(folder.path(), &["check"]);
                assert_eq!(checked.code, 0, "{words:?}: {checked:?}");
                let text = read(folder.path(), "gateway.toml");
                assert!(!text.contains("canary"), "{text}");
                let longest = text.lines().map(str::len).max();
                assert!(longest < Some(160), "{text}");
            }
        }
    }
}

#[test]
fn what_it_writes_serves_requests() {
    let (folder, upstream) = (folder(), RecordingUpstream::start());
    let application = upstream.url();
    init(
        folder.path(),
        &["--listen", "127.0.0.1:0", "--application", &application, "--jwt", "new"],
    );
    let text = read(folder.path(), "gateway.toml").replace("127.0.0.1:9901", "127.0.0.1:0");
    fs::write(folder.path().join("gateway.toml"), text).expect("writable");
    let key = authgate(folder.path(), &["token", "create", "--user", "7", "--username", "ada"]).good();
    let jwt = authgate(folder.path(), &["jwt", "mint", "--key", "jwt.key", "--user", "8"]).good();
    let root = read(folder.path(), "dev-ca.pem");
    let mut command = program();
    command.arg("run").current_dir(folder.path());
    let gate = Gate::of(command, folder, None);
    for (credential, id) in [
        (format!("Token {}", key.trim()), "7"),
        (format!("Bearer {}", jwt.trim()), "8"),
    ] {
        let client = client_trusting(&root, &["http/1.1"]);
        let mut conn = Conn::tls(gate.address, "localhost", client).expect("a handshake");
        let reply = conn.call(&get("/x").header("Authorization", credential.as_str()));
        assert_eq!((reply.status, upstream.last().header("x-user-id")), (200, Some(id)));
    }
}

#[test]
fn secrets_are_for_their_owner_alone_and_no_file_is_replaced() {
    let folder = folder();
    let redis = ["--tokens", "redis://:canary@127.0.0.1/0"];
    init(folder.path(), &[&["--jwt", "new"][..], &redis].concat());
    let mode = |name: &str| {
        fs::metadata(folder.path().join(name))
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    };
    for secret in ["dev-tls.key", "jwt.key", "store.url"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
    let (before, file) = (names(folder.path()), read(folder.path(), "gateway.toml"));
    for (words, expected) in [
        (
            &[][..],
            "gateway.toml exists. Write another file with --output FILE, or replace it with --force",
        ),
        (&["--force"], "pass `--chain dev-tls.pem --key dev-tls.key`"),
        (&["--output", "other.toml"], "dev-tls.key exists and is not replaced"),
        (
            &["--force", "--certificate", "none", "--jwt", "new"],
            "pass `--jwt jwt.pub.pem`",
        ),
    ] {
        let ended = authgate(folder.path(), &[&["init", "--yes"], words].concat());
        assert!(ended.code == 2 && ended.err.contains(expected), "{ended:?}");
        assert_eq!(names(folder.path()), before, "{words:?}");
        assert_eq!(read(folder.path(), "gateway.toml"), file);
    }
    let own = [
        "--force",
        "--chain",
        "dev-tls.pem",
        "--key",
        "dev-tls.key",
        "--jwt",
        "jwt.pub.pem",
    ];
    // As in /etc/authgate, where the user of the gateway reads the file by its group. Only root can choose any group.
    let output = folder.path().join("gateway.toml");
    fs::set_permissions(&output, Permissions::from_mode(0o640)).expect("its owner may");
    let _ = chown(&output, None, Some(1));
    let group = fs::metadata(&output).expect("a file").gid();
    init(folder.path(), &own);
    assert_ne!(read(folder.path(), "gateway.toml"), file);
    assert_eq!(mode("gateway.toml"), 0o640);
    assert_eq!(fs::metadata(&output).expect("a file").gid(), group);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn wrong_flags_are_refused_with_what_to_write_instead() {
    let folder = folder();
    for (words, expected) in [
        (&["--listen", "8443"][..], "--listen: "),
        (&["--domain", "api.example.com:443"], "--domain: "),
        (&["--application", "127.0.0.1:8000"], "http://HOST:PORT"),
        (&["--tokens", "memcached://x"], "redis://"),
        (&["--tokens", "none"], "--jwt new"),
        (&["--jwt", "none.pem"], "none.pem cannot be read"),
        (&["--jwt", "https://idp.example.com"], "--audience NAME"),
        (&["--jwt", "http://idp.example.com", "--audience", "x"], "https"),
        (&["--audience", "x"], "--jwt https://ISSUER"),
        (&["--certificate", "acme"], "--domain NAME"),
        (&["--email", "a@example.com"], "--certificate acme"),
        (&["--chain", "a.pem", "--key", "a.key"], "a.pem"),
        (&["--chain", "a.pem"], "--key"),
        (&["--listen", "127.0.0.1:9901"], "9901"),
    ] {
        let ended = authgate(folder.path(), &[&["init", "--yes"], words].concat());
        assert!(ended.code == 2 && ended.err.contains(expected), "{words:?}: {ended:?}");
        assert_eq!(names(folder.path()), [""; 0], "{words:?}");
    }
    let ended = authgate(folder.path(), &["init", "--yes", "--output", "none/gateway.toml"]);
    assert!(ended.code == 1 && ended.err.contains("--output"), "{ended:?}");
}

#[test]
fn a_file_in_another_folder_names_its_files_and_the_next_commands() {
    let folder = folder();
    fs::create_dir(folder.path().join("etc")).expect("a folder");
    let (chain, key) = Pki::new().leaf(&["localhost"]);
    fs::write(folder.path().join("own.pem"), chain).expect("writable");
    fs::write(folder.path().join("own.key"), key).expect("writable");
    let words = [
        "--output",
        "etc/g.toml",
        "--chain",
        "own.pem",
        "--key",
        "own.key",
        "--jwt",
        "new",
    ];
    let said = init(folder.path(), &words);
    assert!(said.contains("authgate run --config etc/g.toml"), "{said}");
    assert_eq!(names(&folder.path().join("etc")), ["g.toml", "jwt.key", "jwt.pub.pem"]);
    assert_eq!(authgate(folder.path(), &["check", "etc/g.toml"]).code, 0);
    init(folder.path(), &["--config", "etc/h.toml", "--certificate", "none"]);
    assert_eq!(names(&folder.path().join("etc"))[1], "h.toml");
}

#[test]
fn the_dialogue_takes_defaults_and_asks_again_after_a_wrong_answer() {
    let (asked, flags) = (folder(), folder());
    let mut terminal = Terminal::start(asked.path(), &["init"], 30, 120);
    for question in [
        "1. Domain names",
        "Addresses to listen on",
        "2. The certificate",
        "3. Where does the application",
    ] {
        terminal.wait_for(question);
        terminal.send("\r");
    }
    terminal.wait_for("4. Where are opaque tokens");
    terminal.send("\r");
    terminal.wait_for("5. Which JWTs");
    terminal.send("\r");
    terminal.wait_for("authgate run");
    assert_eq!(terminal.end(), 0);
    init(flags.path(), &[]);
    assert_eq!(read(asked.path(), "gateway.toml"), read(flags.path(), "gateway.toml"));

    let folder = folder();
    let mut terminal = Terminal::start(folder.path(), &["init", "--domain", "api.example.com"], 30, 120);
    terminal.wait_for("Addresses to listen on");
    terminal.send("nonsense\r");
    terminal.wait_for("is not an IP address");
    terminal.send("\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}127.0.0.1:9443\r");
    terminal.wait_for("2. The certificate");
    // The last choice: none.
    terminal.send("\u{1b}[A\r");
    terminal.wait_for("3. Where does the application");
    terminal.send("unix:/run/app.sock\r");
    terminal.wait_for("4. Where are opaque tokens");
    terminal.send("\u{1b}[A\r");
    terminal.wait_for("5. Which JWTs");
    terminal.send("\r");
    terminal.wait_for("authgate run");
    assert_eq!(terminal.end(), 0);
    let text = read(folder.path(), "gateway.toml");
    for part in ["127.0.0.1:9443", "unix:/run/app.sock", "jwt.pub.pem", "trusted_proxies"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_dialogue_that_is_interrupted_leaves_nothing_behind() {
    for key in ["\u{3}", "\u{1b}"] {
        for question in ["1. Domain names", "2. The certificate"] {
            let folder = folder();
            let mut terminal = Terminal::start(folder.path(), &["init"], 30, 120);
            terminal.wait_for("1. Domain names");
            if question.starts_with('2') {
                terminal.send("\r");
                terminal.wait_for("Addresses to listen on");
                terminal.send("\r");
                terminal.wait_for(question);
            }
            terminal.send(key);
            terminal.wait_for("nothing was written");
            assert_eq!(terminal.end(), 1);
            assert_eq!(names(folder.path()), [""; 0]);
        }
    }
}
