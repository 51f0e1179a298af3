//! Every command of docs/django.md, run as it is written there, on the project of `tests/django`.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::database::{Database, Engine};
use crate::harness::namespace::in_namespaces;
use crate::harness::program::{Ended, program, run};
use crate::harness::{Redis, wait_until};

const CONFIG: &str = "python manage.py authgate_config --server http://127.0.0.1:8000 > gateway.toml";
const DIFF: &str = "python manage.py authgate_config --diff gateway.toml";
const IMPORT: &str =
    "python manage.py dumpdata auth.user auth.group authtoken.token | authgate token import --store redis -";
const CUSTOM_IMPORT: &str = "python manage.py dumpdata accounts.user auth.group authtoken.token | \
                             authgate token import --user-model accounts.user --username-field email -";
const PRUNE: &str = "python manage.py dumpdata auth.user auth.group authtoken.token | \
                     authgate token import --prune --user-model auth.user -";
const VERIFY: &str = "authgate token verify-import --store redis";
/// Not run: the package index does not have this version yet. The package's own tests use it.
const INSTALL: [&str; 2] = [
    "pip install \"authgate-django[redis]\"",
    "pip install \"authgate-django[drf,signed]\"",
];
const MAKE_KEY: &str = "openssl genpkey -algorithm ED25519 -out /etc/authgate/identity.key";
const SYNC: &str = "python manage.py authgate_sync";
const DRIFT: &str = "python manage.py authgate_check";
const TRIGGERS: &str = "authgate django sql --triggers --role authgate | psql --dbname app";
const SERVE: &str = "gunicorn --bind 127.0.0.1:8000 --worker-class gthread --threads 4 --keep-alive 75 mysite.wsgi";
const FROM_OUTSIDE: &str = "curl http://app.internal:8000/api/hello/ -H 'X-User-Id: 1'";

/// In the text of the page.
const CHECK_FILE: &str = "authgate check --config gateway.toml";
const CHECK_DATABASE: &str = "authgate check --online";
const CHECK_DJANGO: &str = "python manage.py check --fail-level WARNING";
const MAKE_SECRET: &str = "openssl rand -hex 32";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/django.md")).unwrap()
}

/// The commands in the shell blocks of the page: lines that end with `|` go on, comments are left out.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut command = String::new();
        for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
            command += line.split(" #").next().unwrap().trim_end();
            if command.ends_with('|') {
                command.push(' ');
            } else {
                commands.push(std::mem::take(&mut command));
            }
        }
    }
    commands
}

/// A folder with `manage.py`, in which commands run.
pub struct Project<'d> {
    folder: TempDir,
    database: &'d Database,
}

impl<'d> Project<'d> {
    /// Before the move, with `AUTHGATE` as in the page.
    pub fn new(database: &'d Database) -> Self {
        let folder = TempDir::new().unwrap();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django");
        symlink(tests.join("manage.py"), folder.path().join("manage.py")).unwrap();
        let settings = "import os\n\
                        from mysite.database_settings import *\n\
                        from mysite.database_settings import REST_FRAMEWORK\n\
                        REST_FRAMEWORK = {**REST_FRAMEWORK, 'DEFAULT_AUTHENTICATION_CLASSES': [\n    \
                            'rest_framework.authentication.TokenAuthentication',\n    \
                            'rest_framework_simplejwt.authentication.JWTAuthentication']}\n\
                        AUTHGATE = {'SECRET_HEADER': 'X-Gateway-Secret', 'SECRET': os.environ['GATEWAY_SECRET'],\n    \
                            'HEADERS': {'X-Auth-Source': 'authenticator'}, 'REDIS_URL': os.environ['AUTHGATE_REDIS_URL']}\n";
        fs::write(folder.path().join("page_settings.py"), settings).unwrap();
        let commands = folder.path().join("bin");
        fs::create_dir(&commands).unwrap();
        symlink(program().get_program(), commands.join("authgate")).unwrap();
        Self { folder, database }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = self.database.command("python");
        let known: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()))
            .collect();
        let venv = PathBuf::from(std::env::var_os("AUTHGATE_VENV").unwrap()).join("bin");
        let own = self.folder.path().join("bin");
        let path = std::env::var("PATH").unwrap();
        let path = format!(
            "{}:{}:{}:{path}",
            own.display(),
            venv.display(),
            Database::programs().display()
        );
        command = Command::new("bash");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django");
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        command
            .args(["-o", "pipefail", "-c", line])
            .current_dir(self.folder.path())
            .envs(known)
            .env("PATH", path)
            .env(
                "PYTHONPATH",
                format!(
                    "{}:{}:{}",
                    self.folder.path().display(),
                    tests.display(),
                    python.display()
                ),
            )
            .env("DJANGO_SETTINGS_MODULE", "page_settings")
            .env("GATEWAY_SECRET", "canary-secret-of-the-gateway-0123456789")
            .env("AUTHGATE_JWT_SECRET", "canary-0123456789-0123456789-0123456789")
            .env("AUTHGATE_REDIS_URL", "redis://127.0.0.1:6379/0")
            .env("AUTHGATE_DATABASE_URL", self.database.url())
            .env("PGHOST", self.database.folder())
            .env("PGUSER", "postgres")
            .env("NO_COLOR", "1");
        command
    }

    fn run(&self, line: &str) -> Ended {
        run(self.command(line), b"")
    }

    /// The command succeeds.
    fn good(&self, line: &str) -> Ended {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}: {ended:?}");
        ended
    }
}

#[test]
fn every_command_of_the_django_page_works_as_it_is_written() {
    let text = page();
    let written = commands(&text);
    let run_below = [
        CONFIG,
        DIFF,
        IMPORT,
        CUSTOM_IMPORT,
        PRUNE,
        VERIFY,
        INSTALL[0],
        SYNC,
        DRIFT,
        TRIGGERS,
        SERVE,
        FROM_OUTSIDE,
        MAKE_KEY,
        INSTALL[1],
    ];
    assert_eq!(
        written, run_below,
        "each command of the page is run below, in this order"
    );
    for inline in [CHECK_FILE, CHECK_DATABASE, CHECK_DJANGO, MAKE_SECRET] {
        assert!(text.contains(&format!("`{inline}`")), "{inline}");
    }
    let test = "django_page::every_command_of_the_django_page_works_as_it_is_written";
    // Another address of the machine that Django runs on.
    in_namespaces(test, &[("app.internal", "127.0.0.2")], || {
        let Some(database) = Database::start(Engine::Postgres, "auth.User") else {
            return;
        };
        let redis = ["--port", "6379", "--bind", "127.0.0.1"];
        let first = Redis::start_with(&redis);
        database.python(
            "from django.contrib.auth import get_user_model as model; \
             from rest_framework.authtoken.models import Token; \
             Token.objects.create(user=model().objects.create_user('ada', 'ada@example.com', 'canary'))",
        );
        let project = Project::new(&database);

        project.good(CONFIG);
        let checked = project.good(CHECK_FILE);
        assert!(checked.out.contains("valid"), "{checked:?}");
        project.good(DIFF);
        assert_eq!(project.good(MAKE_SECRET).out.trim().len(), 64);
        project.good(&MAKE_KEY.replace("/etc/authgate", "."));
        let imported = project.good(IMPORT);
        assert!(imported.out.contains("users 1, tokens 1"), "{imported:?}");
        project.good(PRUNE);
        let verified = project.good(VERIFY);
        assert!(
            verified
                .out
                .contains("the same in Django and in the store: users 1, tokens 1"),
            "{verified:?}"
        );
        assert!(project.good(SYNC).out.contains('1'));
        project.good(DRIFT);
        database.python("from rest_framework.authtoken.models import Token; Token.objects.all().delete()");
        assert_eq!(project.run(DRIFT).code, 1, "the store has a token that Django has not");
        project.good(CHECK_DJANGO);

        // The gateway reads the database: the file of the page.
        let block = text
            .split("```toml\n")
            .filter_map(|rest| rest.split("```").next())
            .skip(1)
            .find(|block| block.contains("AUTHGATE_DATABASE_URL"))
            .unwrap();
        let file = format!(
            "{block}\n[server]\nlisten = [\"127.0.0.1:8443\"]\n[upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]\n\
             [[routes]]\npath = \"/*\"\nauthenticate = [\"token\"]\nupstream = \"app\"\n"
        );
        let by_database = Project::new(&database);
        fs::write(by_database.folder.path().join("gateway.toml"), file).unwrap();
        let triggers = by_database.good(TRIGGERS);
        assert!(!triggers.err.contains("ERROR"), "{triggers:?}");
        let online = by_database.good(CHECK_DATABASE);
        assert!(!online.err.contains("warning"), "{online:?}");

        // Django is reached at its own address, and at no other.
        let serving = project.command(&format!("exec {SERVE}")).stderr(Stdio::null()).spawn();
        let mut serving = serving.unwrap();
        wait_until("Django listens", Duration::from_secs(60), || {
            TcpStream::connect("127.0.0.1:8000").is_ok()
        });
        assert_eq!(project.run(FROM_OUTSIDE).code, 7, "curl could not connect");
        serving.kill().unwrap();
        serving.wait().unwrap();

        // A user model of the project, with an e-mail address as its name.
        drop(first);
        let _second = Redis::start_with(&redis);
        let members = Database::start(Engine::Sqlite, "members.Member").unwrap();
        members.python(
            "from django.contrib.auth import get_user_model as model; \
             from rest_framework.authtoken.models import Token; \
             Token.objects.create(user=model().objects.create(email='ada@example.com'))",
        );
        let custom = Project::new(&members);
        custom.good(CONFIG);
        let imported = custom.good(&CUSTOM_IMPORT.replace("accounts.user", "members.member"));
        assert!(imported.out.contains("users 1, tokens 1"), "{imported:?}");
    });
}
