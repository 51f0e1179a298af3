//! `authgate token verify-import`: compares Django's own tables with the records of a store.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;

use authgate_auth::store::django::{Content, Contents, Endpoint, GroupTable, Tables, TokenTable, UserTable};
use authgate_auth::store::{Digests, StoreKind, StoreSettings};
use authgate_core::secret::Secret;
use serde_json::{Value, json};

use super::progress::Progress;
use crate::cli::stores::StoreName;
use crate::cli::values::digest_text;
use crate::cli::{Failure, StoreContext, output};
use crate::provisioning::{Compared, Difference, Drift, Expected, Kind, Kinds, WritableStore};

/// Compare the tables of Django with the records of a store
///
/// This command reads all users, groups and tokens from the database of a Django application, and compares them with what
/// `authgate token import` would have written into the store. It writes nothing. Tokens that are revoked in the store are no difference.
/// Attributes of users, and scopes and names of tokens, are not compared, because an import keeps them.
///
/// The database is read in one transaction, and then the store. A change in Django during the run may show as a difference, and so does a
/// change since the last import. With `USE_TZ = False`, a dump has times without a time zone, so all its tokens differ in `created`.
///
/// The tables are those of the stores of `kind = "django"` with the same database in the configuration. Without such a store they are
/// auth_user, auth_user_groups, auth_group and authtoken_token. For a custom user model, write such a store.
///
/// Exit codes: 0 the same, 1 differences or a failure (standard error says which), 2 wrong use or configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The database, as `url` of a store of `kind = "django"`: postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or
    /// sqlite:PATH. Relative paths start from the folder of the configuration. Other users of the machine can see a password on the
    /// command line, but not in the environment variable
    #[arg(
        long,
        value_name = "URL",
        env = "AUTHGATE_DATABASE_URL",
        hide_env_values = true,
        value_parser = |url: &str| Ok::<_, Infallible>(Secret::new(url.to_owned()))
    )]
    database: Secret<String>,
    /// The tokens to compare, in place of those of the configuration; may be repeated
    #[arg(long, value_name = "MODEL")]
    tokens: Vec<TokenModel>,
    #[command(flatten)]
    store: StoreName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A model of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TokenModel {
    /// rest_framework.authtoken
    Authtoken,
    /// django-rest-knox
    Knox,
}

const EXAMPLES: &str = "\
Examples:
  authgate token verify-import --database postgres://authgate@db/app
  authgate token verify-import --database sqlite:/srv/app/db.sqlite3 --tokens knox --store redis --json";

pub(super) fn run(args: &Args, context: &StoreContext<'_>, file: &Path) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let endpoint = Endpoint::parse(args.database.expose(), folder).map_err(|problem| {
        Failure::Usage(format!(
            "--database: invalid URL: {problem}; write postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:PATH"
        ))
    })?;
    let tables = tables(args, &endpoint, context.stores);
    let digests = args.store.digests(context)?;
    let mut store = args.store.open(context)?;
    let (mut expected, not_compared) = read(&endpoint, tables, digests, &store)?;
    let is_filling = store.is_filling()?;
    let mut progress = Progress::new(args.json);
    store.each_user::<Failure>(|step| {
        if let Some(user) = progress.step("users", step) {
            expected.compare_user(&user);
        }
        Ok(())
    })?;
    store.each_token::<Failure>(None, |step| {
        if let Some((digest, token)) = progress.step("tokens", step) {
            expected.compare_token(digest, &token);
        }
        Ok(())
    })?;
    progress.finish();
    let drift = expected.finish();
    report(args, &drift, is_filling, &not_compared)?;
    if is_filling {
        return Err(Failure::Failed(
            "the store is not complete, so gateways answer 503: run `authgate token import` to its end".to_owned(),
        ));
    }
    match drift.count() {
        0 => Ok(()),
        1 => Err(differ("1 difference")),
        count => Err(differ(&format!("{count} differences"))),
    }
}

fn differ(count: &str) -> Failure {
    Failure::Failed(format!(
        "{count} between Django and the store: `authgate token import --prune` with a new dump removes them"
    ))
}

/// The tables of the stores with this database. Of several, the users are those of the first.
fn tables(args: &Args, endpoint: &Endpoint, stores: &[StoreSettings]) -> Tables {
    let mut found: Option<Tables> = None;
    for store in stores {
        let StoreKind::Django(django) = &store.kind else {
            continue;
        };
        if !django.endpoint.is_same_database(endpoint) {
            continue;
        }
        let tables = found.get_or_insert_with(|| Tables {
            tokens: Vec::new(),
            users: django.users.clone(),
            groups: django.groups.clone(),
        });
        if let Some(tokens) = &django.tokens
            && !tables.tokens.contains(tokens)
        {
            tables.tokens.push(tokens.clone());
        }
    }
    let mut tables = found.unwrap_or_else(|| {
        let users = UserTable::default();
        Tables {
            tokens: vec![TokenTable::authtoken()],
            groups: Some(GroupTable::of(&users)),
            users,
        }
    });
    if !args.tokens.is_empty() {
        let mut models = args.tokens.clone();
        models.dedup();
        let named = models.into_iter().map(|model| match model {
            TokenModel::Authtoken => TokenTable::authtoken(),
            TokenModel::Knox => TokenTable::knox(),
        });
        tables.tokens = named.collect();
    }
    tables
}

/// Reads all rows of Django, with the digests that name tokens in the store. Also returns the members of users that cannot be compared.
fn read(
    endpoint: &Endpoint,
    tables: Tables,
    digests: Digests,
    store: &WritableStore,
) -> Result<(Expected, Vec<&'static str>), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let failed = |reason: String| {
        Failure::Failed(format!(
            "nothing was compared: the database {endpoint:?} cannot be read: {reason}"
        ))
    };
    runtime.block_on(async {
        let contents = Contents::open(endpoint, tables).await.map_err(failed)?;
        if let Some(problem) = contents.without_passwords() {
            output::note(format_args!(
                "`password_md5` is not compared: {}; {}",
                problem.message, problem.help
            ));
        }
        let users = &contents.tables().users;
        let compared = Compared {
            email: users.email.is_some(),
            groups: contents.tables().groups.is_some(),
            active: users.active.is_some(),
            password_md5: users.password.is_some(),
        };
        let mut expected = Expected::new(compared);
        let take = |content: Content| match content {
            Content::User(user) => expected.user(&user),
            Content::BadUser { id, problem } => expected.unstorable_user(&id, &problem.to_string()),
            Content::Member { user, group: Ok(group) } => expected.member(&user, Ok(group.as_str())),
            Content::Member {
                user,
                group: Err(problem),
            } => expected.member(&user, Err(&problem.to_string())),
            Content::Token {
                digest,
                token,
                has_expiry,
            } => expected.token(store.digest(&digest), &token, has_expiry),
            Content::BadToken { digest, problem } => {
                expected.unstorable_token(digest.map(|digest| store.digest(&digest)), &problem);
            }
        };
        contents.read(digests, take).await.map_err(failed)?;
        let not_compared = [
            ("email", compared.email),
            ("groups", compared.groups),
            ("active", compared.active),
            ("password_md5", compared.password_md5),
        ];
        let not_compared = not_compared.iter().filter(|(_, is_compared)| !is_compared);
        Ok((expected, not_compared.map(|(name, _)| *name).collect()))
    })
}

fn report(args: &Args, drift: &Drift, is_filling: bool, not_compared: &[&str]) -> Result<(), Failure> {
    if args.json {
        return output::json(&json!({
            "same": drift.count() == 0 && !is_filling,
            "differences": drift.count(),
            "complete": !is_filling,
            "users": kinds_json(&drift.users),
            "tokens": kinds_json(&drift.tokens),
            "revoked_tokens": drift.revoked,
            "not_compared": not_compared,
        }));
    }
    output::data(|out| {
        print(out, "users", "user", &drift.users)?;
        print(out, "tokens", "token", &drift.tokens)?;
        writeln!(out, "tokens that are revoked in the store: {}", drift.revoked)?;
        if !not_compared.is_empty() {
            writeln!(out, "not compared: {}", not_compared.join(", "))?;
        }
        let (users, tokens) = (drift.users.rows, drift.tokens.rows);
        match drift.count() {
            0 => writeln!(
                out,
                "the same in Django and in the store: users {users}, tokens {tokens}"
            ),
            count => writeln!(out, "in Django: users {users}, tokens {tokens}; differences {count}"),
        }
    })
}

fn print(out: &mut dyn Write, plural: &str, what: &str, kinds: &Kinds) -> io::Result<()> {
    let Kinds {
        unstorable,
        missing,
        different,
        unknown,
        ..
    } = kinds;
    for (label, kind) in [
        ("that cannot be stored", unstorable),
        ("that are not in the store", missing),
        ("with other values", different),
        ("in the store, and not in Django", unknown),
    ] {
        writeln!(out, "{plural} {label}: {}", kind.count)?;
        for difference in &kind.shown {
            writeln!(out, "  {what}{}", line(difference))?;
        }
        if kind.count > kind.shown.len() {
            writeln!(out, "  and {} more", kind.count - kind.shown.len())?;
        }
    }
    Ok(())
}

fn line(difference: &Difference) -> String {
    let Difference {
        token,
        user,
        members,
        problem,
    } = difference;
    let mut text = match (token, user) {
        (Some(digest), Some(user)) => format!(" {} of user {user:?}", digest_text(digest)),
        (Some(digest), None) => format!(" {}", digest_text(digest)),
        (None, Some(user)) => format!(" {user:?}"),
        (None, None) => String::new(),
    };
    if !members.is_empty() {
        text += &format!(" has another {}", members.join(", "));
    }
    if let Some(problem) = problem {
        text += &format!(": {problem}");
    }
    text
}

fn kinds_json(kinds: &Kinds) -> Value {
    let kind =
        |kind: &Kind| json!({ "count": kind.count, "examples": kind.shown.iter().map(example).collect::<Vec<_>>() });
    json!({
        "rows": kinds.rows,
        "unstorable": kind(&kinds.unstorable),
        "missing": kind(&kinds.missing),
        "different": kind(&kinds.different),
        "unknown": kind(&kinds.unknown),
    })
}

fn example(difference: &Difference) -> Value {
    let mut value = json!({});
    if let Some(digest) = &difference.token {
        value["digest"] = digest_text(digest).into();
    }
    if let Some(user) = &difference.user {
        value["user"] = json!(user);
    }
    if !difference.members.is_empty() {
        value["members"] = json!(difference.members);
    }
    if let Some(problem) = &difference.problem {
        value["problem"] = json!(problem);
    }
    value
}
