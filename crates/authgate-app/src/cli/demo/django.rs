//! `authgate demo --django`: how to put a Django project behind the gateway. It reads the project and runs nothing of it.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use authgate_dataplane::file;

use crate::cli::{Failure, output};

/// The longest settings file that is read.
const MAX_SETTINGS: u64 = 1 << 20;
/// The most files of a package of settings that are read.
const MAX_FILES: usize = 50;

/// Prints the steps to standard error, and a gateway.toml to standard output.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let project = Project::find(dir)?;
    output::problem(format_args!("{}", project.steps(dir)));
    let text = project.gateway_toml();
    output::data(|out| write!(out, "{text}"))
}

/// What the files of a project say.
#[derive(Debug)]
struct Project {
    folder: PathBuf,
    /// The name of the settings module, and its files.
    module: String,
    files: Vec<PathBuf>,
    authtoken: bool,
    knox: bool,
    simplejwt: bool,
    /// Whether `authgate_django` is installed.
    authgate: bool,
    database: Database,
}

#[derive(Debug, PartialEq, Eq)]
enum Database {
    /// The path of the file.
    Sqlite(PathBuf),
    Postgres,
    MySql,
    Unknown,
}

impl Project {
    fn find(dir: &Path) -> Result<Self, Failure> {
        let manage = find_manage(dir).ok_or_else(|| {
            Failure::Usage(format!(
                "{} has no manage.py; name the folder of a Django project with --django DIR",
                dir.display()
            ))
        })?;
        let folder = std::path::absolute(manage.parent().unwrap_or(dir))
            .map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))?;
        let text = read(&manage)?;
        let module = settings_module(&text).ok_or_else(|| {
            Failure::Failed(format!(
                "{} does not set DJANGO_SETTINGS_MODULE, so the settings are not known; write gateway.toml as docs/django.md describes",
                manage.display()
            ))
        })?;
        let files = settings_files(&folder, &module);
        if files.is_empty() {
            return Err(Failure::Failed(format!(
                "the settings {module} are not in {}; write gateway.toml as docs/django.md describes",
                folder.display()
            )));
        }
        let texts: Vec<String> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
        let lines: Vec<&str> = texts
            .iter()
            .flat_map(|text| text.lines())
            .map(without_comment)
            .collect();
        let settings = lines.join(
            "
",
        );
        let names = |text: &str| settings.contains(text);
        let database = if names("django.db.backends.postgresql") {
            Database::Postgres
        } else if names("django.db.backends.mysql") {
            Database::MySql
        } else if names("django.db.backends.sqlite3") {
            Database::Sqlite(folder.join(sqlite_name(&settings)))
        } else {
            Database::Unknown
        };
        Ok(Self {
            authtoken: names("rest_framework.authtoken"),
            knox: names("\"knox\"") || names("'knox'"),
            simplejwt: names("rest_framework_simplejwt"),
            authgate: names("authgate_django"),
            folder,
            module,
            files,
            database,
        })
    }

    /// Whether opaque tokens are expected. If nothing says what the project has, these are.
    fn has_tokens(&self) -> bool {
        self.authtoken || self.knox || !self.simplejwt
    }

    fn steps(&self, dir: &Path) -> String {
        let files: Vec<String> = self
            .files
            .iter()
            .map(|file| file.strip_prefix(&self.folder).unwrap_or(file).display().to_string())
            .collect();
        let tokens = match (self.authtoken, self.knox, self.simplejwt) {
            (false, false, true) => "none",
            (false, false, false) => "neither authtoken, knox nor SimpleJWT; the file assumes authtoken",
            (true, ..) => "rest_framework.authtoken",
            (false, true, _) => "knox",
        };
        let jwt = if self.simplejwt { "SimpleJWT" } else { "none" };
        let database = match &self.database {
            Database::Sqlite(path) => format!("SQLite, {}", path.display()),
            Database::Postgres => "PostgreSQL".to_owned(),
            Database::MySql => "MySQL".to_owned(),
            Database::Unknown => "not found".to_owned(),
        };
        let mut text = format!(
            "Found in the files of the project. Nothing of it was run.
  settings  {} ({})
  tokens    {tokens}
  JWTs      {jwt}
  database  {database}

To try it on this machine. Django is not changed, and still authenticates by itself: the gateway refuses nothing yet.
",
            self.module,
            files.join(", "),
        );
        let mut step = 0;
        let mut add = |what: &str, command: &str| {
            step += 1;
            let _ = write!(text, "\n{step}. {what}\n     {command}\n");
        };
        add(
            "Write the file below:",
            &format!("authgate demo --django {} >gateway.toml", dir.display()),
        );
        if self.simplejwt {
            add(
                "Give the gateway the key of the JWTs: SIMPLE_JWT[\"SIGNING_KEY\"], which is SECRET_KEY unless the project sets it:",
                "export AUTHGATE_JWT_SECRET=…",
            );
        }
        if self.has_tokens() && !matches!(self.database, Database::Sqlite(_)) {
            add(
                "Name the database. A role that may read the tables is enough; `authgate django sql` prints its rights:",
                "export AUTHGATE_DATABASE_URL=postgres://authgate@127.0.0.1/app",
            );
        }
        add(
            "Start Django:",
            &format!("python {}/manage.py runserver 127.0.0.1:8000", self.folder.display()),
        );
        add(
            "Check the file, and start the gateway:",
            "authgate check --online gateway.toml && authgate run --config gateway.toml",
        );
        add(
            "Send requests. The log says how the gateway would have decided (outcome, observed):",
            "curl -i http://127.0.0.1:8080/api/",
        );
        let install = if self.authgate {
            "python manage.py authgate_config --diff gateway.toml"
        } else {
            "pip install authgate-django   # add \"authgate_django\" to INSTALLED_APPS, then: python manage.py authgate_config >gateway.toml"
        };
        add("Get a route for each view, from the URLconf:", install);
        text.push_str("\nThe way to production, step by step: docs/django.md.\n");
        text
    }

    fn gateway_toml(&self) -> String {
        let mut text = format!(
            "# For the Django project {}, as its settings look. To see what the gateway would refuse: it refuses nothing yet.

[server]
listen = [\"127.0.0.1:8080\"]          # without TLS, for this machine alone
",
            self.module
        );
        let mut names = Vec::new();
        if self.has_tokens() {
            let url = match &self.database {
                Database::Sqlite(path) => toml::Value::from(format!("sqlite:{}", path.display())).to_string(),
                Database::Postgres | Database::MySql | Database::Unknown => {
                    "{ env = \"AUTHGATE_DATABASE_URL\" }".to_owned()
                }
            };
            let tokens = if self.knox && !self.authtoken {
                "knox"
            } else {
                "authtoken"
            };
            let digest = if tokens == "knox" {
                "digest = [\"sha512\"]                  # knox 5; for knox 4.2 write \"sha512-hexkey\"\n"
            } else {
                ""
            };
            let _ = write!(
                text,
                "
[stores.django]                       # the project's own database, which is only read
kind = \"django\"
url = {url}
tokens = \"{tokens}\"
{digest}
[authenticators.token]
kind = \"token\"
store = \"django\"
"
            );
            names.push("\"token\"");
        }
        if self.simplejwt {
            text.push_str(
                "
[authenticators.jwt]                  # SimpleJWT; further settings of SIMPLE_JWT have the same names here, in lower case
kind = \"jwt\"
keys = [{ algorithm = \"HS256\", secret = { env = \"AUTHGATE_JWT_SECRET\" } }]
users = \"none\"
",
            );
            names.push("\"jwt\"");
        }
        let _ = write!(
            text,
            "
[identity]
headers = {{ X-User-Id = \"id\", X-Auth-Source = \"authenticator\" }}
credential = \"keep\"                   # Django still gets the credential, and checks it

[upstreams.app]
servers = [\"http://127.0.0.1:8000\"]

[[routes]]
path = \"/*\"
public = true
upstream = \"app\"

[[routes]]
path = \"/api/*\"                       # where the API is
authenticate = [{}]
mode = \"observe\"                      # compares its decision with Django's answer; later: \"enforce\"
upstream = \"app\"
",
            names.join(", ")
        );
        text
    }
}

/// manage.py in this folder, or in the only folder below it that has one.
fn find_manage(dir: &Path) -> Option<PathBuf> {
    let here = dir.join("manage.py");
    if here.is_file() {
        return Some(here);
    }
    let below = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = below
        .map(|folder| folder.join("manage.py"))
        .filter(|file| file.is_file());
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// The value that manage.py sets: the text in quotes after the name.
fn settings_module(manage: &str) -> Option<String> {
    let line = manage
        .lines()
        .map(without_comment)
        .find(|line| line.contains("DJANGO_SETTINGS_MODULE"))?;
    let (_, rest) = line.split_once("DJANGO_SETTINGS_MODULE")?;
    let value = rest.get(1..)?.split(['"', '\'']).nth(1)?;
    let is_module = value
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    is_module.then(|| value.to_owned())
}

/// The file of a module, or those of a package.
fn settings_files(folder: &Path, module: &str) -> Vec<PathBuf> {
    let path = folder.join(module.replace('.', "/"));
    let file = path.with_extension("py");
    // A module in a package of settings usually imports the others.
    let package = match (file.is_file(), path.is_dir()) {
        (true, _) if file.parent().is_some_and(|parent| parent.ends_with("settings")) => file.parent(),
        (true, _) => return vec![file],
        (false, true) => Some(&*path),
        (false, false) => None,
    };
    let entries = package.and_then(|package| fs::read_dir(package).ok());
    let entries = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "py") && path.is_file())
        .take(MAX_FILES)
        .collect();
    files.sort_unstable();
    files
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{} cannot be read: {error}", file.display()));
    let bytes = file::read_at_most(file, MAX_SETTINGS).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of Python without a comment at its beginning.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') { "" } else { line }
}

/// The name of the SQLite file: a text in quotes that looks like one.
fn sqlite_name(settings: &str) -> &str {
    let mut texts = settings.split(['"', '\'']);
    let is_file = |text: &&str| {
        let is_word = !text.contains(char::is_whitespace) && !text.starts_with("django.");
        is_word && [".sqlite3", ".sqlite", ".db"].iter().any(|end| text.ends_with(end))
    };
    texts.find(is_file).unwrap_or("db.sqlite3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_module_is_found() {
        for (text, expected) in [
            (
                "os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"mysite.settings\")",
                Some("mysite.settings"),
            ),
            ("os.environ['DJANGO_SETTINGS_MODULE'] = 'a.b_c'", Some("a.b_c")),
            ("# DJANGO_SETTINGS_MODULE, \"x\"", None),
            ("setdefault('DJANGO_SETTINGS_MODULE', '../x')", None),
            ("setdefault('DJANGO_SETTINGS_MODULE'", None),
            ("", None),
        ] {
            assert_eq!(settings_module(text).as_deref(), expected, "{text}");
        }
    }
}
