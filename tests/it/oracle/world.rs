//! [`World`]: one setting of SimpleJWT, the tables of gateway.toml that say the same, and the users that both know.

use authgate_auth::jwt::keys::Algorithm;
use fastrand::Rng;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::grammar::one;
use crate::harness::database::{Database, Engine};
use crate::harness::gunicorn::{self, Gunicorn};
use crate::harness::mint::{Signer, now};
use crate::harness::program::run;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config};

/// Keys of DRF tokens, one for each user of [`users`]. They may hold whatever the database takes.
pub const TOKENS: [&str; 7] = [
    "canary-root",
    "canary-ada",
    "canary-ben",
    "canary-zoë-ключ",
    "canary-comma,key",
    "canary-idle,key",
    "canary-\"quoted\"'s%41",
];

/// As Django has them: ids are numbers, and one name looks like an id.
fn users() -> Vec<Value> {
    let rows = [
        (1, "root", true),
        (42, "ada", true),
        (43, "ben", false),
        (44, "zoë", true),
        (7, "42", true),
        (8, "idle", false),
        (10, "o'hara%41", true),
    ];
    let users = rows.iter().zip(TOKENS).map(|((id, name, active), token)| {
        json!({ "id": id, "username": name, "is_active": active, "password": format!("canary-hash-{id}"), "token": token })
    });
    users.collect()
}

fn password_md5(user: &Value) -> String {
    let digest = Md5::digest(user["password"].as_str().expect("text"));
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The stores of both sides, filled with the same users.
pub struct Stores {
    folder: tempfile::TempDir,
    redis: Redis,
    /// What both sides read, where Redis has only revocations.
    database: Option<Database>,
}

impl Stores {
    /// `None` where there is no venv.
    pub fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut setup = gunicorn::command("python", folder.path())?;
        setup.arg("setup_oracle_db.py");
        let wanted = json!({ "users": users(), "blacklisted": ["canary-blacklisted"] });
        run(setup, wanted.to_string().as_bytes()).good();
        let redis = Redis::start();
        for user in users() {
            let id = user["id"].to_string();
            let more = json!({ "username": user["username"], "active": user["is_active"], "password_md5": password_md5(&user) });
            redis.put_user(&id, &more);
            redis.put_token(user["token"].as_str().expect("text"), &json!({ "user": id }));
        }
        redis.set("revoked:jti:canary-blacklisted", "1");
        Some(Self {
            folder,
            redis,
            database: None,
        })
    }

    /// Both sides read the same tables.
    pub fn shared(engine: Engine) -> Option<Self> {
        let database = Database::start(engine, "auth.User")?;
        let mut setup = database.command("python");
        setup.arg("setup_oracle_db.py").env("ORACLE_BLACKLIST", "1");
        let wanted = json!({ "users": users(), "blacklisted": ["canary-blacklisted"] });
        run(setup, wanted.to_string().as_bytes()).good();
        database.grant();
        let redis = Redis::start();
        redis.set("revoked:jti:canary-blacklisted", "1");
        Some(Self {
            folder: tempfile::tempdir().expect("a folder"),
            redis,
            database: Some(database),
        })
    }

    /// Whether the database compares texts without regard to case, which DRF trusts.
    pub fn ignores_case(&self) -> bool {
        self.database
            .as_ref()
            .is_some_and(|database| database.engine == Engine::MariaDb)
    }
}

/// A setting, on both sides.
pub struct World {
    pub name: &'static str,
    pub signer: Signer,
    /// Members of `SIMPLE_JWT`, but for the keys.
    pub simple_jwt: Value,
    /// The lines of a JWT authenticator that mean the same, but for keys and users.
    lines: Vec<String>,
    /// The blacklist is installed, and the gateway obeys revocations.
    pub blacklist: bool,
}

impl World {
    pub fn new(name: &'static str, algorithm: Algorithm) -> Self {
        Self {
            name,
            signer: Signer::new(algorithm),
            simple_jwt: json!({}),
            lines: Vec::new(),
            blacklist: false,
        }
    }

    /// A setting of SimpleJWT, and the gateway's line for it.
    pub fn with(mut self, setting: &str, value: Value, line: &str) -> Self {
        self.simple_jwt[setting] = value;
        self.lines.push(line.to_owned());
        self
    }

    pub fn with_blacklist(mut self) -> Self {
        self.blacklist = true;
        self.lines.push("revocation = \"redis\"".to_owned());
        self
    }

    /// The first scheme, which is also the challenge's.
    pub fn scheme(&self) -> &str {
        self.simple_jwt["AUTH_HEADER_TYPES"][0].as_str().unwrap_or("Bearer")
    }

    /// Names of the token classes, as refusals list them.
    pub fn classes(&self) -> Vec<&str> {
        let classes = self.simple_jwt["AUTH_TOKEN_CLASSES"].as_array();
        classes.map_or(vec!["AccessToken"], |classes| {
            let names = classes.iter().filter_map(Value::as_str);
            names.filter_map(|class| class.rsplit('.').next()).collect()
        })
    }

    /// Claims that are accepted, for user 42.
    pub fn claims(&self) -> Value {
        let user = if self.looks_up_names() { "ada" } else { "42" };
        let kind = if self.classes() == ["SlidingToken"] {
            "sliding"
        } else {
            "access"
        };
        let mut claims = json!({ "iat": now(), "exp": now() + 300 });
        for (name, value) in [("token_type", kind), ("user_id", user), ("jti", "canary-jti")] {
            claims[self.claim(name)] = json!(value);
        }
        if self.simple_jwt["AUDIENCE"].is_array() {
            claims["aud"] = json!("a");
            claims["iss"] = json!("i");
        }
        if self.simple_jwt["CHECK_REVOKE_TOKEN"] == true {
            claims["hash_password"] = json!(password_md5(&users()[1]));
        }
        claims
    }

    /// What a claim is called that SimpleJWT calls so by default.
    pub fn claim<'w>(&'w self, name: &'w str) -> &'w str {
        let setting = format!("{}_CLAIM", name.to_uppercase());
        self.simple_jwt[setting.as_str()].as_str().unwrap_or(name)
    }

    /// The user id claim holds a name.
    pub fn looks_up_names(&self) -> bool {
        self.simple_jwt["USER_ID_FIELD"] == "username"
    }

    /// A good or a bad `hash_password`.
    pub fn password_claim(&self, rng: &mut Rng) -> String {
        let users = users();
        let user = &users[rng.usize(..users.len())];
        let digest = password_md5(user);
        let lower = digest.to_lowercase();
        format!("{:?}", one(rng, &[digest.as_str(), &digest, &lower, &digest[1..], ""]))
    }

    pub fn serve(&self, stores: &Stores) -> Gunicorn {
        let mut settings = self.simple_jwt.clone();
        settings["ALGORITHM"] = json!(self.signer.algorithm.name());
        let key = String::from_utf8(self.signer.file()).expect("text");
        settings[if self.signer.algorithm.is_hmac() {
            "SIGNING_KEY"
        } else {
            "VERIFYING_KEY"
        }] = json!(key);
        let mut command = match &stores.database {
            Some(database) => database.command("gunicorn"),
            None => {
                let mut command = gunicorn::command("gunicorn", stores.folder.path()).expect("there was a venv");
                command.env("DJANGO_SETTINGS_MODULE", "mysite.oracle_settings");
                command
            }
        };
        command
            .env("ORACLE_SIMPLE_JWT", settings.to_string())
            .env("ORACLE_BLACKLIST", if self.blacklist { "1" } else { "" });
        Gunicorn::start(command)
    }

    pub fn gate(&self, stores: &Stores, upstream: &RecordingUpstream) -> Gate {
        Gate::start(&self.config(stores, upstream))
    }

    fn config(&self, stores: &Stores, upstream: &RecordingUpstream) -> Config {
        let keys = format!("keys = [{}]", self.signer.key("key"));
        let lines = self.lines.join("\n");
        let stateless: Vec<&str> = self
            .lines
            .iter()
            .map(String::as_str)
            .filter(|line| !is_about_users(line))
            .collect();
        let mut config = config()
            .tokens(&stores.redis)
            .jwt(&keys)
            .jwt("users = \"redis\"")
            .tables(&format!(
                "[authenticators.stateless]\nkind = \"jwt\"\nusers = \"none\"\n{keys}\n{}\n",
                stateless.join("\n")
            ))
            .file("key", self.signer.file())
            .app(upstream);
        for line in lines.lines() {
            config = config.jwt(line);
        }
        if let Some(database) = &stores.database {
            config = config
                .tables(&database.store("timeout = \"15s\""))
                .token("store = \"django\"")
                .jwt("users = \"django\"");
        }
        for chain in CHAINS {
            let names: Vec<&str> = chain.split('-').collect();
            config = config.route(&format!("/api/whoami/{chain}/"), &format!("authenticate = {names:?}"));
        }
        config
    }
}

/// Routes of both sides: which authenticators, in which order.
pub const CHAINS: [&str; 5] = ["token", "jwt", "stateless", "token-jwt", "jwt-token"];

fn is_about_users(line: &str) -> bool {
    ["user_id_field", "check_"].iter().any(|name| line.starts_with(name))
}
