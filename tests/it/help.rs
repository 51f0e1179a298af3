//! What `--help` promises, and what is made from it for packages: completions and manual pages.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::program::{authgate, run};

#[test]
fn help_of_store_commands_states_when_gateways_apply_changes() {
    for words in [
        &["user", "disable"][..],
        &["token", "revoke"],
        &["token", "show"],
        &["revoke"],
    ] {
        let help = authgate(Path::new("."), &[words, &["--help"]].concat()).good();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in ["within a second", "`invalidation = \"off\"`", "`cache.ttl`"] {
            assert!(help.contains(text), "{words:?} does not say {text}:\n{help}");
        }
    }
}

#[test]
fn the_version_names_the_compiler_and_the_target() {
    let line = authgate(Path::new("."), &["--version"]).good();
    let expected = concat!("authgate ", env!("CARGO_PKG_VERSION"), " (");
    assert!(
        line.starts_with(expected) && line.contains("rustc 1.") && line.contains("linux"),
        "{line}"
    );
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = authgate(Path::new("."), &["completions", "bash"]).good();
    for (words, expected) in [
        (&["authgate", "rel"][..], "reload"),
        (&["authgate", "token", "verify"], "verify-import"),
        (&["authgate", "probe", "--u"], "--url"),
    ] {
        let (last, count) = (words.last().expect("a word"), words.len() - 1);
        let ask = format!(
            "COMP_WORDS=({}); COMP_CWORD={count}; _authgate authgate {last} {}; echo \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words[count - 1]
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &format!("{script}\n{ask}")]);
        assert_eq!(run(bash, b"").good().trim(), expected);
    }
    for shell in ["zsh", "fish"] {
        let script = authgate(Path::new("."), &["completions", shell]).good();
        assert!(
            script.contains("verify-import") && script.contains("gateway.toml"),
            "{script}"
        );
    }
    let ended = authgate(Path::new("."), &["completions", "tcsh"]);
    assert!(ended.code == 2 && ended.err.contains("bash"), "{ended:?}");
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = TempDir::new().expect("a folder");
    authgate(folder.path(), &["man", "--dir", "new/man1"]).good();
    let dir = folder.path().join("new/man1");
    let main = authgate(folder.path(), &["man"]).good();
    assert_eq!(main, std::fs::read_to_string(dir.join("authgate.1")).expect("a page"));
    let mut named = vec!["authgate.1".to_owned()];
    for entry in std::fs::read_dir(&dir).expect("a folder") {
        let page = std::fs::read_to_string(entry.expect("a file").path()).expect("a page");
        let title = page.lines().find(|line| line.starts_with(".TH ")).expect("a title");
        let expected = concat!(
            " 1 \" \" \"authgate ",
            env!("CARGO_PKG_VERSION"),
            "\" \"authgate manual\""
        );
        assert!(title.ends_with(expected), "{title}");
        // `authgate\-token\-create(1)` in the lists of commands
        let listed = page.lines().filter(|line| line.starts_with("authgate\\-"));
        let listed = listed.filter_map(|line| line.strip_suffix("(1)"));
        named.extend(listed.map(|name| format!("{}.1", name.replace('\\', ""))));
    }
    named.sort_unstable();
    named.dedup();
    let mut written: Vec<String> = std::fs::read_dir(&dir)
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    written.sort_unstable();
    assert_eq!(named, written);
    let page = std::fs::read_to_string(dir.join("authgate-token-create.1")).expect("a page");
    for part in [".SH EXAMPLES", "\\-\\-scope", "authgate\\-token(1)"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let ended = authgate(folder.path(), &["man", "--dir", "/dev/null/x"]);
    assert!(ended.code == 1 && ended.err.contains("--dir"), "{ended:?}");
}
