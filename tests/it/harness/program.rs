//! Runs the program until it exits.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The built binary, without environment variables that it reads.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_authgate"));
    command
        .env_remove("AUTHGATE_CONFIG")
        .env_remove("AUTHGATE_DATABASE_URL")
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1");
    command
}

/// The result of a run.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Its standard output; the test fails unless the exit code is 0.
    pub fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// Runs `authgate` with these arguments in a folder.
pub fn authgate(folder: &Path, words: &[&str]) -> Ended {
    authgate_with_input(folder, words, b"")
}

/// The same, with standard input.
pub fn authgate_with_input(folder: &Path, words: &[&str], input: &[u8]) -> Ended {
    let mut command = program();
    command.args(words).current_dir(folder);
    run(command, input)
}

/// Runs any command to its end.
pub fn run(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A command that does not read its input may end before it is written.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let ended = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: ended.status.code().unwrap_or(-1),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}
