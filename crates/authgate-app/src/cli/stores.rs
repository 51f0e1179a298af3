//! Selects the store of a command and opens it.

use authgate_auth::RevocationKind;
use authgate_auth::store::redis::SealId;
use authgate_auth::store::{Digests, StoreKind, StoreSettings, TokenDigest};

use super::values::Key;
use crate::cli::{Failure, StoreContext, output};
use crate::provisioning::{Begin, Begun, ProvisioningError, Replication, StoreState, WritableStore};

/// `--store`, for every command that uses a store.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StoreName {
    /// The store to use; required if the configuration has several.
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

impl StoreName {
    /// Opens an initialized store.
    ///
    /// # Errors
    /// There is no such store, it is empty, or it cannot be reached.
    pub(super) fn open(&self, context: &StoreContext<'_>) -> Result<WritableStore, Failure> {
        let mut store = WritableStore::open(self.choose(context)?)?;
        store.require_layout()?;
        Ok(store)
    }

    /// The digest algorithms of the store.
    ///
    /// # Errors
    /// There is no such store.
    pub(super) fn digests(&self, context: &StoreContext<'_>) -> Result<Digests, Failure> {
        Ok(self.choose(context)?.digests())
    }

    /// The digests that the store may have of a key. The first is the one for a new token.
    ///
    /// # Errors
    /// There is no such store, or it has no digest of this key.
    pub(super) fn key_digests(&self, key: &Key, context: &StoreContext<'_>) -> Result<Vec<TokenDigest>, Failure> {
        let settings = self.choose(context)?;
        key.digests(settings.digests(), settings.seal_id().as_ref())
    }

    /// Names the seal of the store, if it has one.
    ///
    /// # Errors
    /// There is no such store.
    pub(super) fn seal_id(&self, context: &StoreContext<'_>) -> Result<Option<SealId>, Failure> {
        Ok(self.choose(context)?.seal_id())
    }

    /// Notes that no authenticator of the configuration looks into the store for revocations of this kind. Gateways with another
    /// configuration may.
    ///
    /// # Errors
    /// There is no such store.
    pub(super) fn note_unchecked(&self, kind: RevocationKind, context: &StoreContext<'_>) -> Result<(), Failure> {
        let name = &self.choose(context)?.name;
        let mut stores = context.authenticators.iter().filter_map(|one| one.checks(kind));
        if !stores.any(|store| store == name) {
            output::note(format_args!(
                "no authenticator of this configuration looks into store {name} for revocations of a {}. Set `revocation` of \
                 [authenticators.NAME] (for a jti also `jti_claim`)",
                kind.label()
            ));
        }
        Ok(())
    }

    /// Opens a store without checking its layout record.
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn reach(&self, context: &StoreContext<'_>) -> Result<WritableStore, Failure> {
        Ok(WritableStore::open(self.choose(context)?)?)
    }

    /// Opens a store for writing. An empty store is initialized, and gateways may use it at once.
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn open_to_write(&self, context: &StoreContext<'_>) -> Result<WritableStore, Failure> {
        let settings = self.choose(context)?;
        let mut store = WritableStore::open(settings)?;
        match store.begin(Begin::ToUse)?.state {
            StoreState::Complete => {}
            StoreState::WasEmpty => note_empty(settings),
            StoreState::Filling => output::note(format_args!(
                "an import into store {} is incomplete; gateways answer 503 until `authgate token import` completes",
                settings.name
            )),
        }
        Ok(store)
    }

    /// Opens a store for an import. Gateways use an empty store only after [`WritableStore::complete`].
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn open_to_fill(&self, context: &StoreContext<'_>) -> Result<(WritableStore, Begun), Failure> {
        let settings = self.choose(context)?;
        let mut store = WritableStore::open(settings)?;
        let begun = store.begin(Begin::ToFill)?;
        match begun.state {
            StoreState::Complete => {}
            StoreState::WasEmpty => note_empty(settings),
            StoreState::Filling => output::note(format_args!(
                "an earlier import into store {} is incomplete or still running; this import completes it",
                settings.name
            )),
        }
        Ok((store, begun))
    }

    fn choose<'c>(&self, context: &StoreContext<'c>) -> Result<&'c StoreSettings, Failure> {
        let is_writable = |store: &&StoreSettings| !matches!(store.kind, StoreKind::Django(_));
        let writable: Vec<&StoreSettings> = context.stores.iter().filter(is_writable).collect();
        let names = || {
            let names: Vec<&str> = writable.iter().map(|store| &*store.name).collect();
            names.join(", ")
        };
        match (&self.store, writable.as_slice()) {
            (None, []) if !context.stores.is_empty() => Err(Failure::Usage(
                "the configuration has only stores of Django applications, which are only read; use Django itself"
                    .to_owned(),
            )),
            (_, []) if context.stores.is_empty() => Err(Failure::Usage(
                "the configuration has no store; add a [stores.NAME] table".to_owned(),
            )),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::Usage(format!(
                "the configuration has several stores; pass --store with one of: {}",
                names()
            ))),
            (Some(name), _) => context
                .stores
                .iter()
                .find(|store| *store.name == **name)
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "there is no store {name}; pass --store with one of: {}",
                        names()
                    ))
                }),
        }
    }
}

/// Waits until a replica of the store has the last change. Says so if none has confirmed it: a failover may lose the change.
pub(super) fn note_replication(store: &mut WritableStore) {
    match store.wait_for_replica() {
        Replication::NoReplica | Replication::Confirmed => {}
        Replication::NotConfirmed => output::note(format_args!(
            "the store has replicas, and none has confirmed the change within a second: if the primary is lost now, the change may be \
             lost too. Run the command again after a failover"
        )),
        Replication::Unknown => output::note(format_args!(
            "it is not known whether a replica has the change: give the role `+role +wait` to find out"
        )),
    }
}

fn note_empty(settings: &StoreSettings) {
    output::note(format_args!(
        "store {} was empty and is now initialized. If it had records before, its revocations and revoked tokens are lost: \
         import its last `authgate token export`",
        settings.name
    ));
}

impl From<ProvisioningError> for Failure {
    fn from(error: ProvisioningError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use authgate_auth::store::embedded::EmbeddedSettings;

    fn settings(name: &str) -> StoreSettings {
        let file = "/nonexistent/tokens.toml".into();
        StoreSettings {
            name: name.into(),
            kind: StoreKind::Embedded(EmbeddedSettings {
                file,
                digests: Digests::SHA256,
            }),
        }
    }

    #[test]
    fn store_is_optional_with_one_store_and_required_with_several() {
        let (none, one, two) = ([], [settings("a")], [settings("a"), settings("b")]);
        let check = |stores: &[StoreSettings], name: Option<&str>, expected: Result<&str, &str>| {
            let context = StoreContext {
                stores,
                largest_leeway: Duration::ZERO,
                authenticators: &[],
            };
            let chosen = StoreName {
                store: name.map(str::to_owned),
            };
            match (chosen.choose(&context), expected) {
                (Ok(store), Ok(expected)) => assert_eq!(&*store.name, expected),
                (Err(Failure::Usage(problem)), Err(part)) => assert!(problem.contains(part), "{problem}"),
                (other, expected) => panic!("{other:?}, expected {expected:?}"),
            }
        };
        check(&none, None, Err("[stores.NAME]"));
        check(&one, None, Ok("a"));
        check(&two, None, Err("a, b"));
        check(&two, Some("b"), Ok("b"));
        check(&two, Some("c"), Err("a, b"));
    }
}
