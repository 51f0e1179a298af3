//! `authgate django sql`: the SQL that a database administrator runs for a store of `kind = "django"`.

use authgate_auth::store::django::{DjangoSettings, Engine, grants, triggers};
use authgate_auth::store::{StoreKind, StoreSettings};

use super::{Failure, StoreContext, output};

/// SQL for the database of a Django application
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Sql(SqlArgs),
}

/// Print SQL: the rights that the gateway's role needs, or with --triggers the triggers that report changes
///
/// It connects to nothing. Read the output, then run it as the owner of the tables.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct SqlArgs {
    /// Print triggers that report each change to the gateways (PostgreSQL)
    #[arg(long)]
    triggers: bool,
    /// Print the rights of this role, or of this user of MySQL as NAME@HOST. Without --triggers, the default is the role in the
    /// store's URL
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// The store; required if the configuration has several of `kind = "django"`
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  authgate django sql --role authgate
  authgate django sql --triggers --role authgate | psql --dbname app";

/// # Errors
/// There is no such store, or its database has no triggers that report changes.
pub fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let Command::Sql(args) = &args.command;
    let settings = choose(args.store.as_deref(), context.stores)?;
    let engine = settings.endpoint.engine();
    if args.triggers && engine != Engine::Postgres {
        return Err(Failure::Usage(
            "only PostgreSQL reports changes. On this database a change is in force after `cache.ttl` of the authenticator".to_owned(),
        ));
    }
    let role = match (&args.role, args.triggers) {
        (Some(role), _) => Some(role.clone()),
        (None, true) => None,
        (None, false) => Some(settings.endpoint.role()),
    };
    let mut sql = role.map(|role| grants(settings, &role)).unwrap_or_default();
    if args.triggers {
        sql += &triggers(settings);
    }
    output::line(format_args!("{}", sql.trim_end()))
}

fn choose<'c>(name: Option<&str>, stores: &'c [StoreSettings]) -> Result<&'c DjangoSettings, Failure> {
    let django: Vec<(&str, &DjangoSettings)> = stores
        .iter()
        .filter_map(|store| match &store.kind {
            StoreKind::Django(settings) => Some((&*store.name, settings)),
            StoreKind::Redis(_) | StoreKind::Embedded(_) => None,
        })
        .collect();
    let names: Vec<&str> = django.iter().map(|(name, _)| *name).collect();
    match (name, django.as_slice()) {
        (_, []) => Err(Failure::Usage(
            "the configuration has no store of `kind = \"django\"`".to_owned(),
        )),
        (None, [(_, only)]) => Ok(only),
        (None, _) => Err(Failure::Usage(format!(
            "pass --store with one of: {}",
            names.join(", ")
        ))),
        (Some(name), _) => {
            let found = django.iter().find(|(own, _)| *own == name);
            found.map(|(_, settings)| *settings).ok_or_else(|| {
                Failure::Usage(format!(
                    "there is no store {name} of `kind = \"django\"`; pass --store with one of: {}",
                    names.join(", ")
                ))
            })
        }
    }
}
