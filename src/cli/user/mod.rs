//! `authgate user`: the user records of a store.

mod put;

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Map, json};

use super::stores::StoreName;
use super::values::{self, time_text};
use super::{Failure, StoreContext, output};
use crate::auth::record::UserRecord;
use crate::auth::store::admin::Admin;
use crate::identity::UserId;

/// Make, look at, disable and delete the users of a store
///
/// An opaque token is good only while its user is in the store and active. Of JWTs this is asked where their authenticator has `users`
/// set to the store; with `users = "none"` nothing here concerns them.
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
    /// Store users, in place of what is stored of them
    ///
    /// The whole record is replaced: a group, a mail address or `--inactive` that is not given again is gone, and so is the password's
    /// digest that an import brings.
    Put(put::Args),
    /// Say what is stored of a user
    Show {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        store: StoreName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a user out, until `enable`
    ///
    /// Gateways refuse the user's opaque tokens within a second. JWTs obey where their authenticator has `users` set to this store. With
    /// `invalidation = "off"`, or while a gateway has lost its invalidation connection, it takes up to `cache.ttl` (60s by default).
    /// WebSockets and streams that are open go on until they end.
    ///
    /// An import of a dump in which the user is active enables the user again, so disable the user in Django too.
    Disable {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        store: StoreName,
    },
    /// Let a user in again
    Enable {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        store: StoreName,
    },
    /// Remove a user and all their tokens
    ///
    /// Gateways refuse the tokens as soon as they would after `user disable`. Revoked tokens are removed as well, so an import that has
    /// the user and the tokens brings both back: to keep a user out, use `disable`. `authgate revoke --user` stays in force.
    Delete {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        store: StoreName,
    },
}

/// Which user.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// The user's id
    #[arg(value_parser = values::user_id)]
    id: Option<UserId>,
    /// The user's name, in place of the id
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
}

impl Who {
    fn id(&self, store: &mut Admin) -> Result<UserId, Failure> {
        match (&self.id, &self.username) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(name)) => match store.find_user_by_name(name)? {
                Some(user) => Ok(user.id),
                None => Err(Failure::Failed(format!("nobody in this store is called {name}"))),
            },
            (None, None) => Err(Failure::Usage("which user? ID, or --username NAME".to_owned())),
        }
    }
}

/// Runs `authgate user`.
///
/// # Errors
/// It was called wrongly, or could not do its work.
pub fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::Put(args) => put::run(args, context),
        Command::Show { who, store, json } => show(who, &mut store.open(context)?, *json),
        Command::Disable { who, store } => set_active(who, &mut store.open(context)?, false),
        Command::Enable { who, store } => set_active(who, &mut store.open(context)?, true),
        Command::Delete { who, store } => delete(who, &mut store.open(context)?),
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
        if user.active { "active" } else { "not active" }
    )
}

fn unknown(id: &UserId) -> Failure {
    Failure::Failed(format!("there is no user {} in this store", id.as_str()))
}

fn show(who: &Who, store: &mut Admin, json: bool) -> Result<(), Failure> {
    let id = who.id(store)?;
    let user = store.find_user(&id)?.ok_or_else(|| unknown(&id))?;
    let (revoked, tokens) = (store.user_revoked(&id)?, store.list_tokens(Some(&id))?.len());
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
        writeln!(out, "revoked     what was issued by {}", time_text(by))?;
    }
    writeln!(out, "tokens      {tokens}")
}

fn set_active(who: &Who, store: &mut Admin, active: bool) -> Result<(), Failure> {
    let id = who.id(store)?;
    let before = store.set_active(&id, active)?.ok_or_else(|| unknown(&id))?;
    let (state, id) = (if active { "enabled" } else { "disabled" }, id.as_str());
    let already = if before == active { " already" } else { "" };
    output::line(format_args!("user {id} is {state}{already}"))
}

fn delete(who: &Who, store: &mut Admin) -> Result<(), Failure> {
    let id = who.id(store)?;
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
    fn the_arguments_are_in_order() {
        Whole::command().debug_assert();
    }
}
