//! `authgate check --online`: connects to each store of a valid configuration, and reports what is wrong there.

use std::sync::Arc;

use authgate_auth::store::django::{DjangoSettings, SchemaProblem, inspect};
use authgate_auth::store::redis::RedisSettings;
use authgate_auth::store::{StoreKind, StoreSettings};

use super::Failure;
use crate::config::{Config, Refusal, Severity};
use crate::provisioning::WritableStore;

const NO_ROUTE: &str = "until this is mended, routes that need the store answer 503";
const NO_WRITE: &str =
    "until this is mended, nothing is revoked in the store or recorded there, and commands cannot use it";

/// What is wrong in the stores of a configuration.
pub(super) fn findings(config: &Config) -> Result<Vec<(Severity, Refusal)>, Failure> {
    let mut findings = Vec::new();
    for store in &config.stores {
        match &store.kind {
            StoreKind::Django(settings) => findings.extend(of_django(store, settings)?),
            StoreKind::Redis(settings) => findings.extend(of_redis(store, settings)),
            StoreKind::Embedded(_) => findings.extend(of_own_store(store, "file", NO_ROUTE)),
        }
    }
    Ok(findings)
}

/// Tries the login of look-ups, and then the one of `writer`.
fn of_redis(store: &StoreSettings, settings: &RedisSettings) -> Option<(Severity, Refusal)> {
    let reader = StoreSettings {
        name: Arc::clone(&store.name),
        kind: StoreKind::Redis(RedisSettings {
            writer: None,
            ..settings.clone()
        }),
    };
    let found = of_own_store(&reader, "url", NO_ROUTE);
    match settings.writer {
        Some(_) => found.or_else(|| of_own_store(store, "writer", NO_WRITE)),
        None => found,
    }
}

/// A store that this program fills.
fn of_own_store(store: &StoreSettings, key: &str, help: &str) -> Option<(Severity, Refusal)> {
    let checked = WritableStore::open(store).and_then(|mut store| store.require_layout());
    let message = checked.err()?.to_string();
    let refusal = Refusal {
        key: format!("stores.{}.{key}", store.name),
        message,
        help: help.to_owned(),
    };
    Some((Severity::Error, refusal))
}

fn of_django(store: &StoreSettings, settings: &DjangoSettings) -> Result<Vec<(Severity, Refusal)>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let key = |key: &str| format!("stores.{}.{key}", store.name);
    Ok(match runtime.block_on(inspect(settings)) {
        Ok(problems) => problems
            .into_iter()
            .map(|problem| {
                let SchemaProblem {
                    key: of_store,
                    message,
                    help,
                    is_warning,
                } = problem;
                let severity = if is_warning { Severity::Warning } else { Severity::Error };
                let refusal = Refusal {
                    key: key(&of_store),
                    message,
                    help,
                };
                (severity, refusal)
            })
            .collect(),
        Err(reason) => vec![(
            Severity::Error,
            Refusal {
                key: key("url"),
                message: format!("the database {:?} cannot be used: {reason}", settings.endpoint),
                help: "start it, or correct `url`; until then, routes that need the store answer 503".to_owned(),
            },
        )],
    })
}
