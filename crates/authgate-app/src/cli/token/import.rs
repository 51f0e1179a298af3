//! `authgate token import`: imports users and tokens from Django or from another store.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use authgate_auth::store::redis::SealId;
use authgate_auth::store::{DigestKind, Digests};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::{Map, Value, json};

use super::django::{self, Names, Object};
use super::dump_records::DumpRecords;
use super::lines::{self, Line};
use super::progress::Progress;
use crate::cli::stores::StoreName;
use crate::cli::{Failure, StoreContext, embedded_size, output, values};
use crate::provisioning::{Begun, Imported, Keep, ProvisioningError, Pruned, WritableStore};

/// Import users and tokens from a Django dump or from `token export`
///
/// The input is the output of `manage.py dumpdata auth.user auth.group authtoken.token`. Tokens of django-rest-knox 4.2 and later
/// (`knox.authtoken`) are imported too. Keys are hashed, not stored. The whole input is checked before anything is written. The import
/// can be repeated at any time, also after it was interrupted. Gateways use an empty store once its import is complete.
///
/// Input of any size needs little memory: checked records wait in an unlinked file in TMPDIR. A terminal shows the progress. An embedded
/// store is meant for 20,000 tokens and users at most.
///
/// The dump overwrites the users in it, including `is_active`: changes by `authgate user disable` or `user put` are lost. Attributes
/// are kept, and so are fields that the user model does not have, such as groups. Revoked tokens stay revoked. Users and tokens that
/// were deleted in Django stay in the store, unless --prune is given.
///
/// A flushed Redis has lost its revocations and revoked tokens, and a Django dump does not have them: import the last
/// `authgate token export` first, then the dump. Lines of an export, such as `{"revoked_user":"42","before":1795000000}`, may also come
/// before the dump in the same input.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file to import, or `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    names: Names,
    /// Remove users and tokens that are not in the dump, including those created by `authgate user` and `authgate token`. Revoked
    /// tokens stay revoked. Requires --user-model
    #[arg(long, requires = "user_model")]
    prune: bool,
    #[command(flatten)]
    store: StoreName,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  manage.py dumpdata auth.user auth.group authtoken.token | authgate token import -
  manage.py dumpdata accounts.user auth.group knox.authtoken >dump.json
  authgate token import dump.json --user-model accounts.user --username-field email
  authgate token import dump.json --prune --user-model auth.user
  authgate token export --store file | authgate token import - --store redis";

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let digests = args.store.digests(context)?;
    let mut records = read_dump(args, digests)?;
    let keep = check(args, digests, args.store.seal_id(context)?.as_ref(), &mut records)?;
    // Problems of the dump itself are reported before the store is opened for writing.
    if records.users() == 0 && records.tokens() > 0 && !any_owner_is_stored(args, context, &mut records)? {
        return Err(nothing_imported(args, &records));
    }
    let (mut store, begun) = args.store.open_to_fill(context)?;
    let result = write(args, &mut records, &keep, &mut store, &begun)?;
    report(args, &records, &result)?;
    if result.imported.tokens + result.imported.left_revoked == 0 && records.tokens() > 0 {
        return Err(nothing_imported(args, &records));
    }
    if let Some(problem) = store.embedded_size().and_then(embedded_size::problem) {
        output::note(format_args!("{problem}. Use Redis: {}", embedded_size::MOVE));
    }
    Ok(())
}

/// Reads the whole dump.
fn read_dump(args: &Args, digests: Digests) -> Result<DumpRecords, Failure> {
    let name = args.file.display();
    let failed = |problem: String| Failure::Failed(format!("{name}: {problem}; nothing was written"));
    let mut progress = Progress::new(args.json);
    let input: Box<dyn Read> = if args.file == Path::new("-") {
        progress.start_reading(None);
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.file).map_err(|error| failed(error.to_string()))?;
        progress.start_reading(file.metadata().ok().map(|metadata| metadata.len()));
        Box::new(file)
    };
    let input = BufReader::with_capacity(64 * 1024, progress.wrap(input));
    let (mut records, mut failure) = (DumpRecords::new(args.prune)?, None);
    let count = each_object(input, |at, object| {
        if failure.is_none() {
            failure = take(args, digests, &mut records, at, object).err();
        }
    })
    .map_err(failed)?;
    progress.finish();
    match (failure, count) {
        (Some(failure), _) => Err(failure),
        // Probably a pipe whose first command has failed.
        (None, None) => Err(Failure::Failed(format!("{name} is empty; nothing was written"))),
        (None, Some(_)) => Ok(records),
    }
}

fn take(
    args: &Args,
    digests: Digests,
    records: &mut DumpRecords,
    at: usize,
    object: Map<String, Value>,
) -> Result<(), Failure> {
    if object.contains_key("model") {
        match django::read(&args.names, digests, at, object) {
            Ok(Object::Group { key, name }) => records.group(key, name),
            Ok(Object::User { update, groups }) => records.user(at, update, groups)?,
            Ok(Object::Token { digest, token }) => records.token(&digest, &token)?,
            Ok(Object::Other { model, like_user }) => records.skipped(&model, like_user),
            Err(problem) => records.problems.add(problem),
        }
        return Ok(());
    }
    match lines::read(object) {
        Ok(Line::User(user)) => records.user(at, user.into(), Vec::new())?,
        Ok(Line::Token(digest, token, seal)) => {
            if let Some(seal) = seal {
                *records.seals.entry(seal).or_default() += 1;
            }
            records.token(&digest, &token)?;
        }
        Ok(Line::Revocation(revocation)) => records.revocation(&revocation)?,
        Err(problem) => records.problems.add(format!("object {at}: {problem}")),
    }
    Ok(())
}

/// Reports the problems of the dump. Returns what `--prune` keeps.
fn check(args: &Args, digests: Digests, seal: Option<&SealId>, records: &mut DumpRecords) -> Result<Keep, Failure> {
    let keep = records.check()?;
    for (other, count) in records.seals.iter().filter(|(other, _)| Some(*other) != seal) {
        records.problems.add(format!(
            "{count} tokens were exported from a store with the seal {other}: only a store with the same `seal` can have them. Import a \
             dump of Django, which has their keys"
        ));
    }
    let (sha256, sha512) = records.digest_counts;
    if sha256 > 0 && !digests.contains(DigestKind::Sha256) {
        records.problems.add(format!(
            "{sha256} tokens have SHA-256 digests, but `digest` of the store does not list \"sha256\""
        ));
    }
    if sha512 > 0 && !digests.contains(DigestKind::Sha512) && !digests.contains(DigestKind::Sha512HexKey) {
        records.problems.add(format!(
            "{sha512} tokens have SHA-512 digests: write digest = [\"sha256\", \"sha512\"] in the store's table for django-rest-knox 5, \
             or [\"sha256\", \"sha512-hexkey\"] for 4.2"
        ));
    }
    if args.prune && records.users() == 0 {
        records.problems.add(format!(
            "the dump has no users of the model {} (--user-model), so --prune would remove all stored users",
            args.names.user_model()
        ));
    }
    let problems = &records.problems;
    if problems.shown.is_empty() {
        return Ok(keep);
    }
    let mut text = format!(
        "{}: nothing was written, because of these problems:",
        args.file.display()
    );
    for problem in &problems.shown {
        text += &format!("\n  {problem}");
    }
    if problems.more > 0 {
        text += &format!("\n  and {} more", problems.more);
    }
    Err(Failure::Failed(text))
}

/// For a dump without users: whether any token belongs to a stored user.
fn any_owner_is_stored(args: &Args, context: &StoreContext<'_>, records: &mut DumpRecords) -> Result<bool, Failure> {
    let mut store = args.store.reach(context)?;
    match store.require_layout() {
        Ok(()) => {}
        // An empty store has no users, but an export may bring revoked tokens before their users.
        Err(ProvisioningError::Empty { .. }) => return records.any_owner_is_in(None),
        Err(error) => return Err(error.into()),
    }
    records.any_owner_is_in(Some(&mut store))
}

/// The result of an import.
struct ImportResult {
    imported: Imported,
    pruned: Option<Pruned>,
    without_user: usize,
}

fn write(
    args: &Args,
    records: &mut DumpRecords,
    keep: &Keep,
    store: &mut WritableStore,
    begun: &Begun,
) -> Result<ImportResult, Failure> {
    let mut progress = Progress::new(args.json);
    let mut import = store.import(values::now())?;
    // Revoke and remove first, so that an interrupted import never leaves more access than intended.
    progress.start_records("revocations", records.revocations());
    records.each_revocation_batch(|revocations| {
        import.revoke(revocations)?;
        progress.advance(revocations.len());
        Ok(())
    })?;
    let pruned = match args.prune {
        true => {
            progress.start_counting("finding records to remove");
            Some(import.prune(keep, |found| progress.advance(found))?)
        }
        false => None,
    };
    progress.start_records("users", records.users());
    records.each_user_batch(|users| {
        import.users(&users)?;
        progress.advance(users.len());
        Ok(())
    })?;
    progress.start_records("tokens", records.tokens());
    let without_user = records.write_tokens(&mut import, |count| progress.advance(count))?;
    progress.finish();
    let imported = import.finish()?;
    store.complete(begun)?;
    Ok(ImportResult {
        imported,
        pruned,
        without_user,
    })
}

fn report(args: &Args, records: &DumpRecords, result: &ImportResult) -> Result<(), Failure> {
    let ImportResult {
        imported,
        pruned,
        without_user,
    } = result;
    if *without_user > 0 {
        output::note(format_args!(
            "skipped {without_user} tokens: their users are neither in {} nor in the store (--user-model is {})",
            args.file.display(),
            args.names.user_model()
        ));
    }
    if !records.skipped_models.is_empty() {
        let counts: Vec<_> = records
            .skipped_models
            .iter()
            .map(|(model, skipped)| format!("{} of {model:?}", skipped.count))
            .collect();
        output::note(format_args!("ignored objects: {}", counts.join(", ")));
    }
    if args.json {
        let mut counts = json!({
            "users": imported.users,
            "tokens": imported.tokens,
            "revocations": imported.revocations,
            "skipped_revoked": imported.left_revoked,
            "tokens_without_user": without_user,
        });
        if let Some(pruned) = pruned {
            counts["removed_users"] = json!(pruned.users);
            counts["removed_tokens"] = json!(pruned.tokens);
        }
        return output::json(&counts);
    }
    let removed = pruned.map_or_else(String::new, |pruned| {
        format!("; removed users {}, removed tokens {}", pruned.users, pruned.tokens)
    });
    output::line(format_args!(
        "users {}, tokens {}, revocations {}; skipped because revoked {}, tokens without user {without_user}{removed}",
        imported.users, imported.tokens, imported.revocations, imported.left_revoked
    ))
}

/// The dump has tokens, but none of their users is known.
fn nothing_imported(args: &Args, records: &DumpRecords) -> Failure {
    let file = args.file.display();
    let mut text = format!(
        "{file} has {} tokens, but none was imported: their users are neither in it nor in the store. It has {} users of the \
         model {} (--user-model)",
        records.tokens(),
        records.users(),
        args.names.user_model()
    );
    let is_plain = |model: &str| model.bytes().all(|byte| byte.is_ascii_graphic());
    for (model, skipped) in &records.skipped_models {
        if !skipped.like_users || !is_plain(model) {
            continue;
        }
        text += &format!(
            "; {} objects of {model:?} look like users: pass --user-model {model}",
            skipped.count
        );
    }
    Failure::Failed(text)
}

/// Reads a sequence of objects and lists of objects. Returns the number of objects, or `None` if the input is blank.
fn each_object(input: impl Read, mut take: impl FnMut(usize, Map<String, Value>)) -> Result<Option<usize>, String> {
    let (mut json, mut count, mut is_blank) = (serde_json::Deserializer::from_reader(input), 0, true);
    loop {
        match json.end() {
            Ok(()) => return Ok((!is_blank).then_some(count)),
            Err(error) if error.is_io() => return Err(io::Error::from(error).to_string()),
            // More input follows.
            Err(_) => is_blank = false,
        }
        let numbered = |object| {
            count += 1;
            take(count, object);
        };
        Objects(numbered)
            .deserialize(&mut json)
            .map_err(|error| without_text(&error))?;
    }
}

/// The kind and place of a problem. serde_json's own message may contain a value, which may be a key.
fn without_text(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Eof => "unexpected end of input",
        Category::Data => "expected a JSON object",
        Category::Syntax => "invalid JSON",
        Category::Io => "read error",
    };
    format!("line {}, column {}: {what}", error.line(), error.column())
}

/// One object, or the elements of a list one at a time, so that a large dump is never held in memory.
struct Objects<F>(F);

impl<'de, F: FnMut(Map<String, Value>)> DeserializeSeed<'de> for Objects<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Map<String, Value>)> Visitor<'de> for Objects<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, object: A) -> Result<(), A::Error> {
        (self.0)(Map::deserialize(MapAccessDeserializer::new(object))?);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut objects: A) -> Result<(), A::Error> {
        while let Some(object) = objects.next_element()? {
            (self.0)(object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches};

    use super::*;

    #[test]
    fn objects_are_read_from_lists_and_sequences() {
        let check = |text: &str, expected: Result<&[usize], &str>| {
            let mut seen = Vec::new();
            let read = each_object(text.as_bytes(), |at, object| seen.push(at * 10 + object.len()));
            match expected {
                Ok(expected) => assert!(read.is_ok() && seen == expected, "{text}: {read:?}, {seen:?}"),
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
        check("{}\n[{\"a\": 1}, {}]\n{}", Ok(&[10, 21, 30, 40]));
        check("[{}", Err("unexpected end of input"));
        check("[{}] x", Err("invalid JSON"));
        check("[\"canary\"]", Err("line 1, column 9: expected a JSON object"));
        check("{}\ncanary", Err("line 2"));
        assert_eq!(each_object(&b" \n"[..], |_, _| {}), Ok(None));
        assert_eq!(each_object(&b"[]"[..], |_, _| {}), Ok(Some(0)));
    }

    #[test]
    fn prune_requires_user_model() {
        let read = |words: &[&str]| {
            let command = Args::augment_args(clap::Command::new("import").no_binary_name(true));
            command
                .try_get_matches_from(words)
                .and_then(|matches| Args::from_arg_matches(&matches))
                .is_ok()
        };
        assert!(read(&["dump.json"]) && read(&["dump.json", "--prune", "--user-model", "auth.user"]));
        assert!(!read(&["dump.json", "--prune"]));
    }
}
