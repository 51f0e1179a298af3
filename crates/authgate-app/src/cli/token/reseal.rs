//! `authgate token reseal`: seals the records of a store.

use serde_json::json;

use super::progress::Progress;
use crate::cli::stores::StoreName;
use crate::cli::{Failure, StoreContext, output, values};
use crate::provisioning::{Resealed, Resealing};

/// Seal all records of a store in Redis with the `seal` of the configuration
///
/// Write `seal = { file = "seal.key" }` into the table of the store, and run this command once. Gateways cannot use sealed and unsealed
/// records at once: they answer 503 from the beginning of this command until it is complete and they have read the configuration with
/// `seal`. An interrupted command is completed by running it again. For a change without 503, fill another `prefix` with
/// `authgate token export` and `authgate token import`: see docs/operations/sealed-store.md.
///
/// The command trusts the records that it finds: run it only while no other program can write to Redis. A store that was sealed with
/// another key is refused: the names of its tokens cannot be computed with a new key.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreName,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let mut store = args.store.reach(context)?;
    let (mut progress, mut shown) = (Progress::new(args.json), 0);
    let sealed = store.reseal(values::now(), &mut |done, total| {
        if shown == 0 {
            progress.start_records("records", total);
        }
        progress.advance(done - shown);
        shown = done;
    });
    progress.finish();
    let sealed = match sealed? {
        Resealing::Now(sealed) => Some(sealed),
        Resealing::Before => None,
    };
    let Resealed {
        users,
        names,
        tokens,
        revocations,
        lists,
    } = sealed.unwrap_or_default();
    if args.json {
        return output::json(&json!({
            "was_sealed": sealed.is_none(),
            "users": users,
            "usernames": names,
            "tokens": tokens,
            "revocations": revocations,
            "token_lists": lists,
        }));
    }
    match sealed {
        None => output::line(format_args!("the store is sealed already; nothing was changed")),
        Some(_) => output::line(format_args!(
            "sealed: users {users}, usernames {names}, tokens {tokens}, revocations {revocations}, token lists {lists}"
        )),
    }
}
