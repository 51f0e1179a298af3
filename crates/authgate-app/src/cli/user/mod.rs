//! `authgate user`: manages the user records of a store.

mod put;

use std::io::{self, Write};

use authgate_auth::record::UserRecord;
use authgate_core::identity::UserId;
use clap::Subcommand;
use serde_json::{Map, json};

use super::stores::{StoreName, note_replication};
use super::values::{self, time_text};
use super::{Failure, StoreContext, output};
use crate::provisioning::{Step, WritableStore};

/// Create, show, disable and delete the users of a store
///
/// An opaque token is accepted only while its user is in the store and active. For JWTs this is checked if their authenticator has
/// `users` set to the store; with `users = "none"`, these commands do not affect JWTs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  authgate user put --id 42 --username ada --email ada@example.com --group staff --attribute tenant=acme
  echo '{\"id\":\"42\",\"username\":\"ada\",\"groups\":[\"staff\"],\"active\":true}' | authgate user put --file -
  authgate user show --username ada
  authgate user disable 42";

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or replace users
    ///
    /// The whole record is replaced: groups, email address, attributes and `--inactive` are lost unless given again, and so is the
    /// password digest from an import.
    Put(put::Args),
    /// Show the stored record of a user
    Show {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        store: StoreName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse a user's credentials until `user enable`
    ///
    /// Gateways refuse the user's opaque tokens within a second, and JWTs if their authenticator has `users` set to this store. With
    /// `invalidation = "off"`, or while a gateway has lost its invalidation connection, this takes up to `cache.ttl` (60s by default).
    /// Open WebSockets, server-sent events and gRPC calls end too, unless their route has `streams = "keep"`.
    ///
    /// Disable the user in Django too: importing a dump in which the user is active enables the user again.
    Disable {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        store: StoreName,
    },
    /// Accept a disabled user's credentials again
    Enable {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        store: StoreName,
    },
    /// Delete a user and all their tokens
    ///
    /// Gateways refuse the tokens as quickly as after `user disable`. Revoked tokens are deleted too, so an import of the user and the
    /// tokens restores both: to refuse a user permanently, use `disable`. A revocation by `authgate revoke --user` stays in effect.
    Delete {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        store: StoreName,
    },
}

/// The user of a command.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct UserArg {
    /// The user's id
    #[arg(value_parser = values::user_id)]
    id: Option<UserId>,
    /// The user's name, instead of the id
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
}

impl UserArg {
    fn id(&self, store: &mut WritableStore) -> Result<UserId, Failure> {
        match (&self.id, &self.username) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(name)) => match store.find_user_by_name(name)? {
                Some(user) => Ok(user.id),
                None => Err(Failure::Failed(format!(
                    "there is no user with the username {name} in this store"
                ))),
            },
            (None, None) => Err(Failure::Usage("ID or --username NAME is required".to_owned())),
        }
    }
}

/// Runs `authgate user`.
///
/// # Errors
/// Wrong arguments, or a failure of the store.
pub fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::Put(args) => put::run(args, context),
        Command::Show { user, store, json } => show(user, &mut store.open(context)?, *json),
        Command::Disable { user, store } => set_active(user, &mut store.open(context)?, false),
        Command::Enable { user, store } => set_active(user, &mut store.open(context)?, true),
        Command::Delete { user, store } => delete(user, &mut store.open(context)?),
    }
}

fn summary(user: &UserRecord) -> String {
    let username = user
        .username
        .as_ref()
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    format!(
        "user {}{username}, {}",
        user.id.as_str(),
        if user.active { "active" } else { "disabled" }
    )
}

fn unknown(id: &UserId) -> Failure {
    Failure::Failed(format!("there is no user {} in this store", id.as_str()))
}

fn show(user: &UserArg, store: &mut WritableStore, json: bool) -> Result<(), Failure> {
    let id = user.id(store)?;
    let user = store.find_user(&id)?.ok_or_else(|| unknown(&id))?;
    let (revoked, mut tokens) = (store.user_revoked(&id)?, 0);
    store.each_token(Some(&id), |step| {
        tokens += usize::from(matches!(step, Step::Record(_)));
        Ok::<_, Failure>(())
    })?;
    if json {
        let mut value = json!(user);
        value["user_revoked"] = json!(revoked);
        value["tokens"] = json!(tokens);
        return output::json(&value);
    }
    output::data(|out| print(out, &user, revoked, tokens))
}

fn print(out: &mut dyn Write, user: &UserRecord, revoked: Option<i64>, tokens: usize) -> io::Result<()> {
    writeln!(out, "{}", summary(user))?;
    if let Some(email) = &user.email {
        writeln!(out, "email       {email}")?;
    }
    if !user.groups.is_empty() {
        let groups: Vec<_> = user
            .groups
            .iter()
            .map(|group| format!("{:?}", group.as_str()))
            .collect();
        writeln!(out, "groups      {}", groups.join(", "))?;
    }
    if !user.attributes.is_empty() {
        let attributes: &Map<_, _> = &user.attributes;
        writeln!(out, "attributes  {}", json!(attributes))?;
    }
    if let Some(by) = revoked {
        writeln!(out, "revoked     credentials issued up to {}", time_text(by))?;
    }
    writeln!(out, "tokens      {tokens}")
}

fn set_active(user: &UserArg, store: &mut WritableStore, active: bool) -> Result<(), Failure> {
    let id = user.id(store)?;
    let before = store.set_active(&id, active)?.ok_or_else(|| unknown(&id))?;
    note_replication(store);
    let (state, id) = (if active { "enabled" } else { "disabled" }, id.as_str());
    let already = if before == active { " already" } else { "" };
    output::line(format_args!("user {id} is {state}{already}"))
}

fn delete(user: &UserArg, store: &mut WritableStore) -> Result<(), Failure> {
    let id = user.id(store)?;
    let deleted = store.delete_user(&id)?;
    if !deleted.user && deleted.tokens == 0 {
        return Err(unknown(&id));
    }
    output::line(format_args!(
        "deleted user {}; tokens deleted: {}",
        id.as_str(),
        deleted.tokens
    ))
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
