//! `authgate token import`: users and tokens from Django, or from another store.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Deserializer, Map, Value, json};

use super::django::{Dump, Names};
use super::lines;
use crate::auth::store::UserKey;
use crate::auth::store::admin::{Admin, Bundle};
use crate::cli::stores::StoreName;
use crate::cli::user::doubles;
use crate::cli::{Failure, StoreContext, output, values};
use crate::identity::UserId;

/// So many problems are printed; the others are counted.
const SHOWN: usize = 20;

/// Read users and tokens from a Django dump, or from `token export`
///
/// Of `manage.py dumpdata auth.user auth.group authtoken.token` the users, their groups and DRF's tokens are taken; keys are hashed and
/// not kept. All of it is checked before anything is written. It may be done again at any time. Gateways use an empty store once its
/// import is complete. A Redis that was flushed has lost revocations and revoked tokens, and no dump has them: import the last
/// `authgate token export` first, then the dump.
///
/// For the users in it the dump is the truth, `is_active` too: what `authgate user disable` or `user put` changed is overwritten. A
/// token that was revoked stays revoked. Users and tokens that Django has deleted stay in the store: they are not in the dump, so end
/// them with `authgate user delete` and `authgate token revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file, or `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    store: StoreName,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  manage.py dumpdata auth.user auth.group authtoken.token | authgate token import -
  manage.py dumpdata accounts.user auth.group authtoken.token >dump.json
  authgate token import dump.json --user-model accounts.user --username-field email
  authgate token export --store file | authgate token import - --store redis";

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let text = values::file(&args.file)?;
    let (mut dump, mut bundle) = (Dump::new(&args.names), Bundle::default());
    let read = each_object(&text, |at, object| {
        if object.contains_key("model") {
            dump.take(at, object);
        } else if let Err(problem) = lines::read(object, &mut bundle) {
            dump.problems.push(format!("object {at}: {problem}"));
        }
    });
    read.map_err(|problem| Failure::Failed(format!("{}: {problem}; nothing was written", args.file.display())))?;
    if text.trim().is_empty() {
        // As a pipe is whose first half has failed.
        return Err(Failure::Failed(format!("{} is empty", args.file.display())));
    }
    // What is bad by itself is told before a store is asked for.
    refuse(&args.file, &dump.problems)?;
    let (mut store, begun) = args.store.open_to_fill(context)?;
    let mut dumped = dump.finish(|key| find(&mut store, key))?;
    dumped
        .problems
        .extend(doubles(dumped.users.iter().chain(&bundle.users)));
    refuse(&args.file, &dumped.problems)?;
    bundle.users.append(&mut dumped.users);
    let without_user = dumped.without_user + leave_out_orphans(&mut bundle, &mut store)?;
    bundle.tokens.append(&mut dumped.tokens);
    let done = store.import(&bundle, values::now())?;
    store.complete(&begun)?;
    if without_user > 0 {
        output::note(format_args!(
            "{without_user} tokens were left out: their users are neither in {} nor in the store (--user-model is {})",
            args.file.display(),
            args.names.user_model
        ));
    }
    if !dumped.others.is_empty() {
        let others: Vec<_> = dumped
            .others
            .iter()
            .map(|(model, count)| format!("{count} of {model}"))
            .collect();
        output::note(format_args!("objects that are of no use here: {}", others.join(", ")));
    }
    if args.json {
        return output::json(&json!({
            "users": done.users,
            "tokens": done.tokens,
            "revocations": done.revocations,
            "skipped_revoked": done.left_revoked,
            "tokens_without_user": without_user,
        }));
    }
    output::line(format_args!(
        "users {}, tokens {}, revocations {}; skipped because revoked {}, tokens without user {without_user}",
        done.users, done.tokens, done.revocations, done.left_revoked
    ))
}

/// Reads a JSON array of objects, or objects one after the other.
fn each_object(text: &str, mut take: impl FnMut(usize, Map<String, Value>)) -> Result<(), String> {
    let mut numbered = {
        let mut at = 0;
        move |object| {
            at += 1;
            take(at, object);
        }
    };
    let read = if text.trim_start().starts_with('[') {
        let mut json = Deserializer::from_str(text);
        json.deserialize_seq(Objects(&mut numbered)).and_then(|()| json.end())
    } else {
        Deserializer::from_str(text)
            .into_iter()
            .try_for_each(|object| object.map(&mut numbered))
    };
    // The words of serde_json may repeat a value, and that may be a key.
    read.map_err(|error| {
        let what = match error.classify() {
            Category::Eof => "the file ends early",
            Category::Data => "this is no JSON object",
            Category::Syntax | Category::Io => "this is no JSON",
        };
        format!("line {}, column {}: {what}", error.line(), error.column())
    })
}

/// The elements of an array, one at a time: a dump of a large site is not held twice.
struct Objects<F>(F);

impl<'de, F: FnMut(Map<String, Value>)> Visitor<'de> for Objects<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut objects: A) -> Result<(), A::Error> {
        while let Some(object) = objects.next_element()? {
            (self.0)(object);
        }
        Ok(())
    }
}

fn refuse(file: &Path, problems: &[String]) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let mut text = format!("{}: nothing was written, since", file.display());
    for problem in problems.iter().take(SHOWN) {
        text += &format!("\n  {problem}");
    }
    if problems.len() > SHOWN {
        text += &format!("\n  and {} more", problems.len() - SHOWN);
    }
    Err(Failure::Failed(text))
}

fn find(store: &mut Admin, key: UserKey<'_>) -> Result<Option<UserId>, Failure> {
    let user = match key {
        UserKey::Id(id) => store.find_user(id)?,
        UserKey::Name(name) => store.find_user_by_name(name)?,
    };
    Ok(user.map(|user| user.id))
}

/// Takes tokens out that nobody has, and counts them. A revoked one stays: it must not come back with its user.
fn leave_out_orphans(bundle: &mut Bundle, store: &mut Admin) -> Result<usize, Failure> {
    let mut known: HashMap<UserId, bool> = bundle.users.iter().map(|user| (user.id.clone(), true)).collect();
    for (_, token) in &bundle.tokens {
        if !known.contains_key(&token.user) {
            let there = store.find_user(&token.user)?.is_some();
            known.insert(token.user.clone(), there);
        }
    }
    let before = bundle.tokens.len();
    bundle
        .tokens
        .retain(|(_, token)| token.revoked.is_some() || known.get(&token.user) == Some(&true));
    Ok(before - bundle.tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_in_a_list_or_one_after_the_other() {
        let check = |text: &str, expected: Result<&[usize], &str>| {
            let mut seen = Vec::new();
            let read = each_object(text, |at, object| seen.push(at * 10 + object.len()));
            match expected {
                Ok(expected) => assert_eq!((read, seen.as_slice()), (Ok(()), expected), "{text}"),
                Err(part) => assert!(
                    read.as_ref().is_err_and(|problem| problem.contains(part)),
                    "{read:?}, not {part}"
                ),
            }
        };
        check("", Ok(&[]));
        check("[]", Ok(&[]));
        check(" \n[{}, {\"a\": 1}]\n", Ok(&[10, 21]));
        check("{}\n{\"a\": 1}\n", Ok(&[10, 21]));
        check("[{}", Err("ends early"));
        check("[{}] x", Err("no JSON"));
        check("[\"canary\"]", Err("line 1, column 9: this is no JSON object"));
        check("{}\ncanary", Err("line 2"));
    }
}
