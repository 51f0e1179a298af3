//! `authgate token`: manages the opaque tokens of a store.

mod create;
mod django;
mod dump_records;
mod dump_token;
mod import;
mod lines;
mod progress;
mod reseal;
mod show;
mod spool;
mod verify_import;

use std::io::{self, Write};
use std::path::Path;

use authgate_auth::record::TokenRecord;
use authgate_auth::store::TokenDigest;
use authgate_core::identity::UserId;
use clap::Subcommand;
use serde_json::{Value, json};

use self::progress::Progress;
use super::output::{JsonArray, StreamError};
use super::stores::{StoreName, note_replication};
use super::values::{self, Key, digest_text, time_text};
use super::{Failure, StoreContext, output};
use crate::provisioning::{Revoked, WritableStore};

/// Create, show, revoke, import and export the opaque tokens of a store
///
/// A store has the digests of tokens, never the keys. KEY is one of: the key itself, `-` to read the key from standard input, or
/// `sha256:` or `sha512:` followed by the digest. Prefer `-`: other users of the machine can see command lines. In a sealed store,
/// `list` shows `hmac-sha256:` followed by the sealed digest, which KEY accepts too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  authgate user put --id 42 --username ada --group staff
  authgate token create --user 42 --name laptop --expires 2030-01-01T00:00:00Z
  echo \"$KEY\" | authgate token show - --route /api/orders
  authgate token list --user 42
  manage.py dumpdata auth.user auth.group authtoken.token | authgate token import -";

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    Show(show::Args),
    /// List tokens by digest: all tokens, or those of one user
    ///
    /// Any number of tokens needs little memory, and no command keeps Redis from answering gateways. The list is not a snapshot: a token that
    /// changes meanwhile is printed as it was before or after.
    List {
        /// List only the tokens of this user
        #[arg(long, value_name = "ID", value_parser = values::user_id)]
        user: Option<UserId>,
        #[command(flatten)]
        store: StoreName,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Revoke one token permanently
    ///
    /// The record stays in the store, marked as revoked, so that an import cannot restore the token. Gateways refuse the token within a
    /// second. With `invalidation = "off"`, or while a gateway has lost its invalidation connection, this takes up to `cache.ttl`
    /// (60s by default). Open WebSockets, server-sent events and gRPC calls end too, unless their route has `streams = "keep"`.
    Revoke {
        /// The key, `-` to read the key from standard input, sha256:DIGEST or sha512:DIGEST
        key: Key,
        #[command(flatten)]
        store: StoreName,
    },
    Import(import::Args),
    VerifyImport(verify_import::Args),
    Reseal(reseal::Args),
    /// Export users, token digests and revocations as JSON lines, for `token import`
    ///
    /// The export has no keys. Protect it against changes: importing it grants the access that it lists.
    ///
    /// Any number of records needs little memory, and no command keeps Redis from answering gateways. The export is not a snapshot: a record
    /// that changes meanwhile is printed as it was before or after. Revocations are read last. If the command fails, its output is
    /// incomplete: do not import it.
    Export {
        #[command(flatten)]
        store: StoreName,
    },
}

/// Runs `authgate token`.
///
/// # Errors
/// Wrong arguments, or a failure of the store.
pub fn run(args: &Args, context: &StoreContext<'_>, file: &Path) -> Result<(), Failure> {
    match &args.command {
        Command::Create(args) => create::run(args, context),
        Command::Show(args) => show::run(args, context, file),
        Command::List { user, store, json } => list(&mut store.open(context)?, user.as_ref(), *json),
        Command::Revoke { key, store } => revoke(key, &mut store.open(context)?),
        Command::Import(args) => import::run(args, context),
        Command::VerifyImport(args) => verify_import::run(args, context, file),
        Command::Reseal(args) => reseal::run(args, context),
        Command::Export { store } => export(&mut store.open(context)?),
    }
}

/// Revokes one token; also used by `authgate revoke --token`.
pub(super) fn revoke(key: &Key, store: &mut WritableStore) -> Result<(), Failure> {
    let digests = key.digests(store.digests(), store.seal_id().as_ref())?;
    let mut known = false;
    // A key usually has a record under one of its digests; all of them are revoked.
    for digest in &digests {
        let name = digest_text(digest);
        match store.revoke_token(digest, values::now())? {
            Revoked::Unknown => continue,
            Revoked::Before(before) => {
                output::line(format_args!("{name} was already revoked at {}", time_text(before)))?;
            }
            Revoked::Now => output::line(format_args!("{name} is revoked"))?,
        }
        // Before the next command: in a cluster that may go to another server.
        note_replication(store);
        known = true;
    }
    if !known {
        return Err(unknown(&digests));
    }
    Ok(())
}

/// Finds the record of a token under any of its digests; a revoked record takes precedence.
fn find(digests: &[TokenDigest], store: &mut WritableStore) -> Result<Option<(TokenDigest, TokenRecord)>, Failure> {
    let mut found: Option<(TokenDigest, TokenRecord)> = None;
    for digest in digests {
        let Some(token) = store.find_token(digest)? else {
            continue;
        };
        if found.is_none() || token.revoked.is_some() {
            found = Some((*digest, token));
        }
    }
    Ok(found)
}

fn unknown(digests: &[TokenDigest]) -> Failure {
    let names: Vec<_> = digests.iter().map(digest_text).collect();
    Failure::Failed(format!("there is no token {} in this store", names.join(" or ")))
}

fn list(store: &mut WritableStore, user: Option<&UserId>, json: bool) -> Result<(), Failure> {
    let (now, mut array, mut progress) = (values::now(), JsonArray::default(), Progress::beside_output(json));
    output::stream(|out| {
        store.each_token(user, |step| {
            let Some((digest, token)) = progress.step("tokens", step) else {
                return Ok::<_, StreamError>(());
            };
            if json {
                array.push(out, &with_digest(&digest, &token))?;
            } else {
                print(out, &digest, &token, now)?;
            }
            Ok(())
        })?;
        progress.finish();
        if json {
            array.finish(out)?;
        }
        Ok(())
    })
}

fn print(out: &mut dyn Write, digest: &TokenDigest, token: &TokenRecord, now: i64) -> io::Result<()> {
    let created = token.created.map_or_else(|| "-".to_owned(), time_text);
    let state = match (token.revoked, token.expires) {
        (Some(at), _) => format!("revoked {}", time_text(at)),
        (None, Some(at)) if at <= now => format!("expired {}", time_text(at)),
        (None, Some(at)) => format!("expires {}", time_text(at)),
        (None, None) => "never expires".to_owned(),
    };
    let name = token
        .name
        .as_deref()
        .map(|name| format!("  {name:?}"))
        .unwrap_or_default();
    writeln!(
        out,
        "{}  user {:?}  created {created}  {state}{name}",
        digest_text(digest),
        token.user.as_str()
    )
}

/// Prints all records. Revocations are last, so that those made during the export are among them.
fn export(store: &mut WritableStore) -> Result<(), Failure> {
    let (mut progress, seal) = (Progress::beside_output(false), store.seal_id());
    output::stream(|out| {
        let mut line = |line: Option<Value>| match line {
            Some(line) => writeln!(out, "{line}").map_err(StreamError::Write),
            None => Ok(()),
        };
        store.each_user(|step| line(progress.step("users", step).map(|user| lines::user(&user))))?;
        store.each_token(None, |step| {
            let token = progress.step("tokens", step);
            line(token.map(|(digest, token)| lines::token(&digest, &token, seal.as_ref())))
        })?;
        store.each_revocation(values::now(), |step| {
            let revocation = progress.step("revocations", step);
            line(revocation.map(|revocation| lines::revocation(&revocation)))
        })?;
        progress.finish();
        Ok(())
    })
}

/// A token's record with its digest in the form that KEY accepts.
fn with_digest(digest: &TokenDigest, token: &TokenRecord) -> Value {
    let mut value = json!(token);
    if let Value::Object(members) = &mut value {
        members.insert("digest".to_owned(), digest_text(digest).into());
    }
    value
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Whole::command().debug_assert();
    }
}
