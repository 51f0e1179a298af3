//! [`Gunicorn`]: the Django project of `tests/django`, served. `AUTHGATE_VENV` names a venv that has what it needs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::signal;

/// A command of the venv, in the folder of the project, on the database of that folder. `None` where there is no venv.
pub fn command(name: &str, folder: &Path) -> Option<Command> {
    let Some(venv) = std::env::var_os("AUTHGATE_VENV").map(PathBuf::from) else {
        eprintln!("skipped: AUTHGATE_VENV names no venv with tests/django/requirements.txt");
        return None;
    };
    let mut command = Command::new(venv.join("bin").join(name));
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django"))
        .env("DJANGO_DB", folder.join("db.sqlite3"))
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// The running server; it ends with this value.
pub struct Gunicorn {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

impl Gunicorn {
    /// Started, and listening.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("gunicorn");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let at = lines.find_map(|line| {
            Some(
                line.split_once("Listening at: ")?
                    .1
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        });
        // The rest is discarded: a full pipe would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            url: at.expect("gunicorn says where it listens"),
        }
    }
}

/// A running uvicorn; it ends with this value.
pub struct Uvicorn(Child);

impl Uvicorn {
    pub fn start(mut command: Command) -> Self {
        let quiet = command.stderr(Stdio::null()).stdout(Stdio::null());
        Self(quiet.spawn().expect("uvicorn"))
    }
}

impl Drop for Uvicorn {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}
