//! [`KeySources`]: the sources of the keys that identity providers publish, and how a token finds its key there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::Defect;
use tokio::time::Instant;

use super::key_set::KeySelection;
use super::keys::remote::{KnownKeys, RemoteKeys, SharedKeySource};
use super::signed::Unverified;
use crate::dependencies::ChangeCounters;
use crate::error::EvaluationError;
use crate::store::Lookup;

/// For each issuer of an authenticator, in their order, the source of its keys, if they are published. All workers share them.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    by_issuer: Arc<[Option<Arc<SharedKeySource>>]>,
    /// Each source once: issuers with equal settings share one.
    distinct: Arc<[Arc<SharedKeySource>]>,
    /// The longest time that a token waits for a fetch.
    timeout: Duration,
}

impl KeySources {
    pub(super) fn new<'s>(
        authenticator: &Arc<str>,
        remote: impl Iterator<Item = Option<&'s Arc<RemoteKeys>>>,
        previous: Option<&Self>,
        counters: &Arc<ChangeCounters>,
    ) -> Self {
        // Several sources may have one location, with different settings.
        let mut known: HashMap<Arc<str>, Vec<Arc<SharedKeySource>>> = HashMap::new();
        for source in previous.into_iter().flat_map(Self::all) {
            let there = known.entry(Arc::clone(source.location())).or_default();
            there.push(Arc::clone(source));
        }
        let (mut by_issuer, mut distinct) = (Vec::new(), Vec::new());
        let mut is_used = HashSet::new();
        for remote in remote {
            let source = remote.map(|remote| {
                let there = known.entry(remote.location.as_str().into()).or_default();
                let same = there.iter().find(|source| *source.settings() == *remote);
                let source = same.map_or_else(|| SharedKeySource::new(authenticator, remote, counters), Arc::clone);
                if is_used.insert(Arc::as_ptr(&source)) {
                    distinct.push(Arc::clone(&source));
                    there.push(Arc::clone(&source));
                }
                source
            });
            by_issuer.push(source);
        }
        let timeouts = distinct.iter().map(|source: &Arc<SharedKeySource>| source.timeout());
        Self {
            timeout: timeouts.max().unwrap_or_default(),
            by_issuer: by_issuer.into(),
            distinct: distinct.into(),
        }
    }

    /// All sources, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<SharedKeySource>> {
        self.distinct.iter()
    }

    /// The source of the issuer at this position.
    pub(super) fn of_issuer(&self, at: usize) -> Option<&Arc<SharedKeySource>> {
        self.by_issuer.get(at)?.as_ref()
    }

    /// The longest time that a token waits for a fetch.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// A key of a set.
#[derive(Debug)]
pub(super) struct FoundKey {
    pub(super) known: Arc<KnownKeys>,
    /// Its position.
    pub(super) at: usize,
}

/// Why no key was found.
pub(super) enum NotFound {
    /// The token is refused.
    Defect(Defect),
    /// The keys are not there.
    Failed(EvaluationError),
}

/// Finds the key of `source` that verifies the token. If its `kid` is unknown, waits for a fetch, and then for its turn to verify again.
///
/// A cached decision must end when the key leaves the set. So the key is marked first, and then the set is read again: a key that leaves
/// after that increments the counter that was marked. A refusal depends on the whole set in the same way.
pub(super) async fn find(
    source: &SharedKeySource,
    token: &Unverified<'_, '_>,
    turn: impl AsyncFn(),
    lookup: &mut Lookup,
) -> Result<FoundKey, NotFound> {
    let failed = |error| NotFound::Failed(EvaluationError::Keys(error));
    let deadline = lookup.deadline.min(Instant::now() + source.timeout());
    let mut known = source.keys().map_err(failed)?;
    loop {
        match token.find_key(&known.keys, KeySelection::ByKid) {
            Ok(at) => {
                if let Some(key) = known.keys.get(at) {
                    source.mark_key(&mut lookup.dependencies, key.identity());
                }
                if source.has_still(&known) {
                    return Ok(FoundKey { known, at });
                }
            }
            Err(Defect::KeyId) if token.has_kid() => {
                let Some(newer) = source.newer_than(&known, deadline).await.map_err(failed)? else {
                    // It may be found when the cooldown is over.
                    lookup.dependencies.forbid_caching();
                    return Err(NotFound::Defect(Defect::KeyId));
                };
                known = newer;
                turn().await;
                continue;
            }
            Err(defect) => {
                source.mark_set(&mut lookup.dependencies);
                if source.has_still(&known) {
                    return Err(NotFound::Defect(defect));
                }
            }
        }
        known = source.keys().map_err(failed)?;
    }
}
