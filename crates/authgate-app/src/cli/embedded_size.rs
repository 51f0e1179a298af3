//! The size from which an embedded store is too large: [`embedded::LARGE`].

use authgate_auth::store::embedded::{self, Records};
use authgate_auth::store::{StoreKind, StoreSettings};

use crate::config::{Config, Refusal, Severity};

/// A warning for each embedded store of a configuration that is too large. A file that cannot be read is not reported here.
pub(super) fn findings(config: &Config) -> impl Iterator<Item = (Severity, Refusal)> {
    config.stores.iter().filter_map(finding)
}

fn finding(store: &StoreSettings) -> Option<(Severity, Refusal)> {
    let StoreKind::Embedded(settings) = &store.kind else {
        return None;
    };
    let records = Records::load(&settings.file).ok().flatten()?;
    let refusal = Refusal {
        key: format!("stores.{}.file", store.name),
        message: problem(records.size())?,
        help: MOVE.to_owned(),
    };
    Some((Severity::Warning, refusal))
}

/// What an operator does about it.
pub(super) const MOVE: &str = "add a store of `kind = \"redis\"`, and move the records to it: `authgate token export --store FILE | authgate token import - --store REDIS`";

/// What is wrong with a store of this many tokens and users.
pub(super) fn problem(size: usize) -> Option<String> {
    (size > embedded::LARGE).then(|| {
        format!(
            "the embedded store has {size} tokens and users, and is meant for {} at most: each change writes and reads the whole file, \
             and takes effect later",
            embedded::LARGE
        )
    })
}
