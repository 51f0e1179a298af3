//! `kind = "django"` against the tables of a real Django project, in PostgreSQL, MariaDB and SQLite.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::database::{Database, ENGINES, Engine};
use crate::harness::mint::Signer;
use crate::harness::{Config, Gate, RecordingUpstream, config, get};

pub const USER: &str = "auth.User";

/// Ada, who is in two groups; ben, who is inactive; and a token without a user.
pub const PEOPLE: &str = "
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
staff, night = Group.objects.create(name='staff'), Group.objects.create(name='équipe, nuit')
for id, name, active in [(1, 'root', True), (42, 'ada', True), (43, 'ben', False), (44, 'zoë', True)]:
    user = User.objects.create(id=id, username=name, is_active=active, password=f'canary-hash-{id}')
    Token.objects.create(user=user, key=f'canary-{name}')
    if id == 42:
        user.email = 'ada@example.com'
        user.save()
        user.groups.set([staff, night])
";

const NO_CACHE: &str = "cache = { entries = 0, negative_entries = 0 }";
pub const SLOW_MACHINE: &str = "timeout = \"15s\"";
const FIELDS: &str =
    "headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Email = \"email\", X-Groups = \"groups\" }";

pub fn with_tokens(store: &str, upstream: &RecordingUpstream) -> Config {
    config()
        .tables(store)
        .token(NO_CACHE)
        .identity(FIELDS)
        .app(upstream)
        .protected("/api/*")
}

pub fn status(gate: &Gate, key: &str) -> u16 {
    gate.call(&get("/api/x").token(key)).status
}

fn header(upstream: &RecordingUpstream, name: &str) -> String {
    upstream.last().header(name).unwrap_or_default().to_owned()
}

fn tokens_are_accepted(engine: Engine) {
    let Some(database) = Database::start(engine, USER) else {
        return;
    };
    database.python(PEOPLE);
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&with_tokens(&database.store(SLOW_MACHINE), &upstream));
    assert_eq!(status(&gate, "canary-ada"), 200, "{}", gate.log());
    let seen = ["x-user-id", "x-user-name", "x-email", "x-groups"].map(|name| header(&upstream, name));
    assert_eq!(seen, ["42", "ada", "ada@example.com", "staff,%C3%A9quipe%2C%20nuit"]);
    assert_eq!(status(&gate, "canary-zoë"), 200);
    assert_eq!(header(&upstream, "x-user-name"), "zo%C3%AB");
    let calls = upstream.calls();
    for (key, detail) in [
        ("canary-ben", "User inactive or deleted."),
        ("canary-nobody", "Invalid token."),
        ("canary-ADA", "Invalid token."),
        ("CANARY-ADA", "Invalid token."),
        ("canary-zoe", "Invalid token."),
        ("canary-ad", "Invalid token."),
        ("canary-🗝", "Invalid token."),
        ("canary-%", "Invalid token."),
        ("canary-'ada", "Invalid token."),
    ] {
        let reply = gate.call(&get("/api/x").token(key));
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (401, detail),
            "{key}: {}",
            gate.log()
        );
    }
    assert_eq!(upstream.calls(), calls, "a refused request reached the upstream");
    if engine == Engine::MariaDb {
        // A key that the column cannot hold is in no row.
        database.sql("ALTER TABLE authtoken_token CONVERT TO CHARACTER SET latin1");
        assert_eq!(
            (status(&gate, "canary-🗝"), status(&gate, "canary-zoë")),
            (401, 200),
            "{}",
            gate.log()
        );
    }
    // What Django changes is in force at once where nothing is cached.
    database.python("from rest_framework.authtoken.models import Token; Token.objects.filter(user_id=44).delete()");
    assert_eq!(status(&gate, "canary-zoë"), 401);
    database
        .python("from django.contrib.auth.models import Group; Group.objects.filter(name='staff').update(name='team')");
    assert_eq!(status(&gate, "canary-ada"), 200);
    assert_eq!(header(&upstream, "x-groups"), "team,%C3%A9quipe%2C%20nuit");
    assert!(database.connections() <= 4, "{}", database.connections());
    gate.metric_reaches("authgate_store_lookup_duration_seconds_count{store=\"django\"}", 10.0);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_postgresql() {
    tokens_are_accepted(Engine::Postgres);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_mariadb() {
    tokens_are_accepted(Engine::MariaDb);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_sqlite() {
    tokens_are_accepted(Engine::Sqlite);
}

/// A user model with UUIDs, an e-mail address as login name, and attributes of its own; JWTs by id and by name.
#[test]
fn uuids_and_mail_addresses_are_the_ids_and_names_of_users() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, "members.Member") else {
            return;
        };
        let id = "0b5e7f60-2c1d-4a6f-9a51-1d2f3a4b5c6d";
        database.python(&format!(
            "
from django.contrib.auth.models import Group
from members.models import Member
from rest_framework.authtoken.models import Token
ada = Member.objects.create(id='{id}', email='ada@example.com', password='canary-hash', beta=True, parent='{id}')
Token.objects.create(user=ada, key='canary-ada')
ada.groups.set([Group.objects.create(name='staff')])
"
        ));
        let upstream = RecordingUpstream::start();
        let signer = Signer::new(Algorithm::ES256);
        let users = "[stores.django.users]\ntable = \"members_member\"\nusername = \"email\"\n\
                     attributes = { tenant = \"tenant_code\", seats = \"seats\", beta = \"beta\", parent = \"parent\" }";
        let jwt = |name: &str, field: &str| {
            let keys = signer.key("jwt.key");
            format!(
                "[authenticators.{name}]\nkind = \"jwt\"\nkeys = [{keys}]\nusers = \"django\"\nuser_id_field = \"{field}\"\n\
                 check_revoke_token = true\n{NO_CACHE}\n"
            )
        };
        let fields = "headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Groups = \"groups\", X-Tenant = \"attributes.tenant\", \
                      X-Seats = \"attributes.seats\", X-Beta = \"attributes.beta\", X-Parent = \"attributes.parent\" }";
        let gateway = config()
            .tables(&database.store(&format!("{SLOW_MACHINE}\n{users}")))
            .token(NO_CACHE)
            .tables(&jwt("by-id", "id"))
            .tables(&jwt("by-name", "username"))
            .file("jwt.key", signer.file())
            .identity(fields)
            .app(&upstream)
            .protected("/api/*")
            .route("/by-id", "authenticate = [\"by-id\"]")
            .route("/by-name", "authenticate = [\"by-name\"]");
        let gate = Gate::start(&gateway);
        let password = database.python("import hashlib; print(hashlib.md5(b'canary-hash').hexdigest().upper())");
        assert_eq!(password.lines().last(), Some(password_md5("canary-hash").as_str()));
        let claims = |user: &str, hash: &str| signer.with(&json!({ "user_id": user, "hash_password": hash }));
        let good = password_md5("canary-hash");
        for call in [
            get("/api/x").token("canary-ada"),
            get("/by-id").bearer(&claims(id, &good)),
            get("/by-name").bearer(&claims("ada@example.com", &good)),
        ] {
            assert_eq!(gate.call(&call).status, 200, "{engine:?}: {}", gate.log());
            let names = [
                "x-user-id",
                "x-user-name",
                "x-groups",
                "x-tenant",
                "x-seats",
                "x-beta",
                "x-parent",
            ];
            let seen = names.map(|name| header(&upstream, name));
            assert_eq!(
                seen,
                [id, "ada@example.com", "staff", "acme", "3", "true", id],
                "{engine:?}"
            );
        }
        for (path, user, hash, code) in [
            ("/by-id", id, "", "password_changed"),
            ("/by-id", &id.to_uppercase(), good.as_str(), "user_not_found"),
            ("/by-id", &id.replace('-', ""), &good, "user_not_found"),
            ("/by-id", "42", &good, "user_not_found"),
            ("/by-id", "x' OR '1'='1", &good, "user_not_found"),
            ("/by-name", "ADA@example.com", &good, "user_not_found"),
            ("/by-name", "ben@example.com", &good, "user_not_found"),
        ] {
            let reply = gate.call(&get(path).bearer(&claims(user, hash)));
            assert_eq!(
                (reply.status, &reply.json()["code"]),
                (401, &json!(code)),
                "{engine:?} {path} {user}"
            );
        }
        assert!(!gate.log().contains("canary-hash"));
    }
}

fn password_md5(password: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(password).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Text as primary key, no e-mail column, no column that says whether a user is active, no groups; names that have to be quoted.
#[test]
fn text_keys_and_names_that_have_to_be_quoted_are_read() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, "customers.Customer") else {
            return;
        };
        database.python(
            "
from customers.models import Customer
from rest_framework.authtoken.models import Token
for code in ['042', 'Ü 7']:
    Token.objects.create(user=Customer.objects.create(code=code, username=f'name of {code}'), key=f'canary-{code[-1]}')
",
        );
        let upstream = RecordingUpstream::start();
        let users = "groups = \"none\"\n[stores.django.users]\ntable = \"Sales Customers\"\nid = \"Customer Code\"\n\
                     username = \"Login Name\"\nemail = false\nactive = false";
        let gate = Gate::start(&with_tokens(
            &database.store(&format!("{SLOW_MACHINE}\n{users}")),
            &upstream,
        ));
        for (key, id, name) in [
            ("canary-2", "042", "name%20of%20042"),
            ("canary-7", "%C3%9C%207", "name%20of%20%C3%9C%207"),
        ] {
            assert_eq!(status(&gate, key), 200, "{engine:?}: {}", gate.log());
            assert_eq!(
                (header(&upstream, "x-user-id"), header(&upstream, "x-user-name")),
                (id.to_owned(), name.to_owned())
            );
        }
    }
}

#[test]
fn knox_tokens_are_found_by_their_digest_and_expire() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let made = database.python(
            "
import json
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from knox.models import AuthToken
ada, ben = User.objects.create(id=42, username='ada'), User.objects.create(id=43, username='ben', is_active=False)
now, made = timezone.now(), {}
for name, user, expiry in [('later', ada, timedelta(hours=1)), ('never', ada, None), ('over', ada, timedelta(hours=-1)), ('ben', ben, None)]:
    instance, key = AuthToken.objects.create(user=user, expiry=expiry, prefix='canary-')
    made[name] = key
print(json.dumps(made))
",
        );
        let keys: Value = serde_json::from_str(made.lines().last().unwrap()).unwrap();
        let upstream = RecordingUpstream::start();
        let gate = Gate::start(&with_tokens(
            &database.store(&format!(
                "{SLOW_MACHINE}\ntokens = \"knox\"\ndigest = [\"sha512-hexkey\", \"sha512\"]"
            )),
            &upstream,
        ));
        let django = database.serve();
        let direct = django.url.trim_start_matches("http://").parse().unwrap();
        for (name, expected) in [("later", 200), ("never", 200), ("over", 401), ("ben", 401)] {
            let key = keys[name].as_str().unwrap();
            assert_eq!(status(&gate, key), expected, "{engine:?} {name}: {}", gate.log());
            let call = get("/api/whoami/knox/").token(key).echoes();
            let theirs = crate::harness::Conn::plain(direct).call(&call);
            assert_eq!(theirs.status, expected, "{engine:?} {name}: {}", theirs.text());
        }
        assert_eq!(status(&gate, "canary-00"), 401);
    }
}
