//! `authgate token create`: the one moment at which a key is seen.

use serde_json::Value;

use super::{find, with_digest};
use crate::auth::record::{TokenRecord, UserRecord};
use crate::auth::store::TokenDigest;
use crate::auth::store::admin::{Admin, NameClash, random_hex};
use crate::cli::stores::StoreName;
use crate::cli::values::{self, Key, digest_text, time_text};
use crate::cli::{Failure, StoreContext, output};
use crate::identity::{Text, UserId};
use crate::secret::Secret;

/// Make a token for a user and print its key, this once
///
/// The key is 40 hexadecimal digits, as Django REST Framework makes them. Standard output is the key and nothing else. With --key, a token
/// that is there already as it is asked for is no error, so the command may be repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose token it is; the user must be in the store, unless --username is given
    #[arg(long, value_name = "ID", value_parser = values::user_id)]
    user: UserId,
    /// Make the user record as well if there is none, active and with this username
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    username: Option<Text>,
    /// Use this key and make none up: the key, `-` for standard input, or sha256:DIGEST
    #[arg(long)]
    key: Option<Key>,
    /// A scope that the token has; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", value_parser = values::text)]
    scopes: Vec<Text>,
    /// When it ends: Unix seconds, or a time like 2026-11-23T10:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    expires: Option<i64>,
    /// What to call it in lists
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    store: StoreName,
    /// Print JSON: key, digest, and what is stored
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  KEY=$(authgate token create --user 42)
  authgate token create --user ci --username ci --scope orders:read --name 'nightly build'
  authgate token create --user 42 --key - <key.txt";

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let now = values::now();
    if let Some(expires) = args.expires.filter(|expires| *expires <= now) {
        return Err(Failure::Usage(format!(
            "--expires {} is over already",
            time_text(expires)
        )));
    }
    let key = match &args.key {
        Some(key) => key.read()?,
        None => Key::Plain(Secret::new(random_hex::<20>()?)),
    };
    check(&key)?;
    let digests = key.digests(args.store.digests(context)?)?;
    let digest = digests[0];
    // A user who must be there already is not in an empty store, and a command that fails should not begin one.
    let mut store = match args.username {
        Some(_) => args.store.open_to_write(context)?,
        None => args.store.open(context)?,
    };
    if let Some((digest, token)) = find(&digests, &mut store)? {
        return there_already(args, &key, &digest, &token);
    }
    see_to_user(args, &mut store)?;
    let token = TokenRecord {
        user: args.user.clone(),
        created: Some(created(store.user_revoked(&args.user)?, now)),
        expires: args.expires,
        scopes: args.scopes.clone(),
        name: args.name.clone(),
        revoked: None,
    };
    if !store.put_token(&digest, &token)? {
        // Somebody else was faster.
        let stored = store.find_token(&digest)?.unwrap_or(token);
        return there_already(args, &key, &digest, &stored);
    }
    print(&key, &digest, &token, args.json)
}

/// A token that is there as it was asked for is as good as made; one that differs stays as it is.
fn there_already(args: &Args, key: &Key, digest: &TokenDigest, token: &TokenRecord) -> Result<(), Failure> {
    let differs = difference(args, token);
    let name = digest_text(digest);
    if differs.is_empty() {
        output::note(format_args!("there is a token {name} already, as it was asked for"));
        return print(key, digest, token, args.json);
    }
    Err(Failure::Failed(format!(
        "there is a token {name} already, and it {}; nothing was changed. `authgate token show` says what it is",
        differs.join(", ")
    )))
}

/// What is otherwise than it was asked for.
fn difference(args: &Args, token: &TokenRecord) -> Vec<&'static str> {
    let checks = [
        (token.revoked.is_some(), "is revoked"),
        (token.user != args.user, "is another user's"),
        (token.scopes != args.scopes, "has other scopes"),
        (token.expires != args.expires, "has another end"),
        (token.name != args.name, "has another name"),
    ];
    checks
        .into_iter()
        .filter_map(|(differs, what)| differs.then_some(what))
        .collect()
}

/// A key that no header could carry is refused here and not found out about later.
fn check(key: &Key) -> Result<(), Failure> {
    match key {
        Key::Plain(key)
            if key
                .expose()
                .chars()
                .any(|at| at.is_ascii_whitespace() || at.is_control()) =>
        {
            Err(Failure::Usage(
                "a key has no blanks and no control characters: a header could not carry it".to_owned(),
            ))
        }
        Key::Plain(_) | Key::Digest(_) | Key::Input => Ok(()),
    }
}

/// What was issued up to a user's revocation is refused; a token that is made in that same second is not meant.
fn created(user_revoked: Option<i64>, now: i64) -> i64 {
    user_revoked.map_or(now, |by| now.max(by.saturating_add(1)))
}

fn see_to_user(args: &Args, store: &mut Admin) -> Result<(), Failure> {
    let id = args.user.as_str();
    match (store.find_user(&args.user)?, &args.username) {
        (None, None) => Err(Failure::Failed(format!(
            "there is no user {id} in this store; make one with `authgate user put --id {id} --username NAME`, or give --username here"
        ))),
        (None, Some(username)) => {
            let user = UserRecord {
                id: args.user.clone(),
                username: Some(username.clone()),
                email: None,
                groups: Vec::new(),
                active: true,
                password_md5: None,
                attributes: serde_json::Map::new(),
            };
            store.put_user(&user, NameClash::Refuse)?;
            output::note(format_args!("made user {id} ({username})"));
            Ok(())
        }
        (Some(user), Some(username)) if user.username.as_ref() != Some(username) => {
            let known = user.username.as_ref().map_or("nothing", Text::as_str);
            Err(Failure::Failed(format!(
                "user {id} is called {known}, not {username}; nothing was changed"
            )))
        }
        (Some(user), _) => {
            if !user.active {
                output::note(format_args!(
                    "user {id} is not active: the token is refused until `authgate user enable {id}`"
                ));
            }
            Ok(())
        }
    }
}

fn print(key: &Key, digest: &TokenDigest, token: &TokenRecord, json: bool) -> Result<(), Failure> {
    let plain = match key {
        Key::Plain(key) => Some(key.expose().as_str()),
        Key::Digest(_) | Key::Input => None,
    };
    if !json {
        return output::line(format_args!("{}", plain.unwrap_or(&digest_text(digest))));
    }
    let mut value = with_digest(digest, token);
    if let (Value::Object(members), Some(key)) = (&mut value, plain) {
        members.insert("key".to_owned(), key.into());
    }
    output::json(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_header_carries_is_refused() {
        for (key, good) in [
            ("canary", true),
            ("canary,=\u{eb}", true),
            ("a b", false),
            ("a\tb", false),
            ("a\nb", false),
        ] {
            assert_eq!(check(&key.parse().expect("a key")).is_ok(), good, "{key:?}");
        }
    }

    #[test]
    fn a_token_is_newer_than_what_was_revoked_before_it() {
        assert_eq!(
            [
                created(None, 10),
                created(Some(9), 10),
                created(Some(10), 10),
                created(Some(12), 10)
            ],
            [10, 10, 11, 13]
        );
    }
}
