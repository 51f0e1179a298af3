//! `authgate demo`: what it prints can be pasted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::program::{program, run};
use crate::harness::{RecordingUpstream, config, signal};

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// Runs it on free ports. `tmp`: the folder for temporary files.
fn demo(folder: &Path, tmp: &Path) -> (Demo, Vec<String>) {
    let mut command = program();
    command
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(folder)
        .env("TMPDIR", tmp);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (lines, said) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| lines.send(line))
    });
    let mut printed = Vec::new();
    while !printed.last().is_some_and(|line: &String| line.contains("Ctrl-C")) {
        printed.push(
            said.recv_timeout(Duration::from_secs(20))
                .expect("the demo says what to paste"),
        );
    }
    (Demo(child), printed)
}

/// Runs the printed commands. Returns their statuses.
fn run_all(printed: &[String]) -> Vec<String> {
    let mut statuses = Vec::new();
    for pair in printed
        .windows(2)
        .filter(|pair| pair[1].trim_start().starts_with("curl "))
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{} -s", pair[1])]);
        let reply = run(shell, b"").good();
        let said: String = pair[0].chars().filter(char::is_ascii_digit).take(3).collect();
        if said.is_empty() {
            assert!(reply.contains("authgate_requests_total"), "{reply}");
            continue;
        }
        let status = reply.split_whitespace().nth(1).unwrap_or_default().to_owned();
        assert_eq!(status, said, "{}\n{reply}", pair[1]);
        if pair[0].contains("a token;") || pair[0].contains("a JWT") {
            assert!(reply.contains("x-user-id") && reply.contains("Authgate "), "{reply}");
        }
        if pair[0].contains("public") {
            assert!(!reply.contains("x-user-id"), "{reply}");
        }
        statuses.push(status);
    }
    statuses
}

const STATED: [&str; 5] = ["200", "200", "401", "403", "200"];

#[test]
fn every_printed_command_has_the_stated_result() {
    let tmp = TempDir::new().expect("a folder");
    let (_demo, printed) = demo(Path::new(env!("CARGO_MANIFEST_DIR")), tmp.path());
    assert_eq!(run_all(&printed), STATED);
    assert_eq!(files(tmp.path()), 0, "the files of the clone are used");
}

#[test]
fn without_a_gateway_toml_the_demo_has_its_own_files_and_leaves_none_behind() {
    let (folder, tmp) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (demo, printed) = demo(folder.path(), tmp.path());
    assert!(
        printed.iter().any(|line| line.contains("built-in example")),
        "{printed:?}"
    );
    assert_eq!(run_all(&printed), STATED);
    assert_eq!(files(tmp.path()), 1);
    drop(demo);
    assert_eq!((files(tmp.path()), files(folder.path())), (0, 0));
}

#[test]
fn the_demo_of_another_configuration_says_that_it_refuses_the_example_tokens() {
    let (folder, upstream) = (TempDir::new().expect("a folder"), RecordingUpstream::start());
    config().app(&upstream).public("/x").write(folder.path());
    let (_demo, printed) = demo(folder.path(), folder.path());
    assert!(
        printed.iter().any(|line| line.contains("it refuses the tokens")),
        "{printed:?}"
    );
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn a_port_in_use_is_reported_with_the_flag_to_pass() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flags, expected) in [
        (["--listen", &address, "--admin", "127.0.0.1:0"], "--listen 127.0.0.1:"),
        (["--listen", "127.0.0.1:0", "--admin", &address], "--admin 127.0.0.1:"),
    ] {
        let mut command = program();
        command
            .arg("demo")
            .args(flags)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        let ended = run(command, b"");
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.err.contains(&address) && ended.err.contains(expected),
            "{}",
            ended.err
        );
    }
}

#[test]
fn the_demo_listens_on_loopback_only() {
    let mut command = program();
    command
        .args(["demo", "--listen", "0.0.0.0:0"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let ended = run(command, b"");
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("loopback"), "{}", ended.err);
}

/// Prints what `demo --django` finds in a project, and checks its gateway.toml.
fn django(project: &Path) -> (String, String) {
    let mut command = program();
    let ended = run(
        {
            command.arg("demo").arg("--django").arg(project);
            command
        },
        b"",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("gateway.toml"), &ended.out).expect("writable");
    let mut check = program();
    check
        .arg("check")
        .current_dir(folder.path())
        .env("AUTHGATE_JWT_SECRET", "canary-0123456789-0123456789-01234567")
        .env("AUTHGATE_DATABASE_URL", "postgres://authgate@127.0.0.1/app");
    let checked = run(check, b"");
    assert_eq!(checked.code, 0, "{checked:?}\n{}", ended.out);
    (ended.out, ended.err)
}

#[test]
fn the_steps_for_a_django_project_are_made_from_its_files() {
    let (file, steps) = django(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django"));
    for part in [
        "mysite.settings (mysite/settings.py)",
        "Nothing of it was run",
        "runserver",
        "docs/django.md",
    ] {
        assert!(steps.contains(part), "{part} is not in\n{steps}");
    }
    for part in ["mode = \"observe\"", "credential = \"keep\"", "kind = \"django\""] {
        assert!(file.contains(part), "{part} is not in\n{file}");
    }
    for (settings, expected, steps_have) in [
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'data.sqlite3'}}",
            "data.sqlite3\"",
            "SQLite",
        ),
        (
            "INSTALLED_APPS = ['knox']\nENGINE = 'django.db.backends.postgresql'",
            "tokens = \"knox\"",
            "export AUTHGATE_DATABASE_URL",
        ),
        (
            "INSTALLED_APPS = ['rest_framework_simplejwt', 'authgate_django']",
            "env = \"AUTHGATE_JWT_SECRET\"",
            "authgate_config --diff",
        ),
        (
            "# INSTALLED_APPS = ['knox']",
            "tokens = \"authtoken\"",
            "neither authtoken",
        ),
    ] {
        let folder = TempDir::new().expect("a folder");
        let project = folder.path().join("src");
        std::fs::create_dir_all(project.join("site1/settings")).expect("a folder");
        let manage = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings.dev')\n";
        std::fs::write(project.join("manage.py"), manage).expect("writable");
        std::fs::write(project.join("site1/settings/base.py"), settings).expect("writable");
        std::fs::write(project.join("site1/settings/dev.py"), "from .base import *\n").expect("writable");
        let (file, steps) = django(folder.path());
        assert!(file.contains(expected), "{expected} is not in\n{file}");
        assert!(steps.contains(steps_have), "{steps_have} is not in\n{steps}");
    }
    let mut command = program();
    command.args(["demo", "--django", "/nonexistent"]);
    let ended = run(command, b"");
    assert!(ended.code == 2 && ended.err.contains("manage.py"), "{ended:?}");
}
