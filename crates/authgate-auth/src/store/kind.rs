//! The table of the kinds of stores. A new kind is a module and a line in this table.
//!
//! A module has three types with the same methods in each kind: its settings, the part that all workers share, and a worker's handle.

use std::sync::Arc;
use std::time::Duration;

use super::django::{DjangoSettings, DjangoStore, SharedDjango};
use super::embedded::{EmbeddedFile, EmbeddedSettings, EmbeddedStore};
use super::redis::{RedisSettings, RedisStore, SharedRedis};
use super::{Digests, JwtFacts, JwtQuery, Lookup, RevokedItem, StoreError, TokenFacts};
use crate::metrics::StoreMetrics;
use crate::store_changes::StoreChanges;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal: $settings:ty, $shared:ty, $handle:ty;)+) => {
        /// The settings of one kind of store.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum StoreKind {
            $($(#[$doc])* $kind($settings),)+
        }

        impl StoreKind {
            /// `kind` in the configuration.
            pub(super) fn name(&self) -> &'static str {
                match self { $(Self::$kind(_) => $name,)+ }
            }

            pub(super) fn digests(&self) -> Digests {
                match self { $(Self::$kind(settings) => settings.digests,)+ }
            }

            /// Whether it is the store that `previous` was, with the same records: not another server, database or file.
            pub(crate) fn has_records_of(&self, previous: &Self) -> bool {
                match (self, previous) {
                    $((Self::$kind(settings), Self::$kind(previous)) => {
                        settings.has_records_of(previous) && settings.digests.include(previous.digests)
                    })+
                    _ => false,
                }
            }

            pub(super) fn share(self, name: &Arc<str>, changes: Arc<StoreChanges>, metrics: &StoreMetrics) -> SharedKind {
                match self {
                    $(Self::$kind(settings) => {
                        SharedKind::$kind(Arc::new(<$shared>::new(Arc::clone(name), settings, changes, metrics.clone())))
                    })+
                }
            }
        }

        /// The part that all workers share; clones share it too.
        #[derive(Debug, Clone)]
        pub(super) enum SharedKind {
            $($kind(Arc<$shared>),)+
        }

        impl SharedKind {
            pub(super) fn was_reached(&self) -> bool {
                match self { $(Self::$kind(shared) => shared.was_reached(),)+ }
            }

            pub(super) fn is_usable(&self) -> bool {
                match self { $(Self::$kind(shared) => shared.is_usable(),)+ }
            }

            /// Whether it could not answer at the last check. A store whose records must not be used has answered.
            pub(super) fn is_in_outage(&self) -> bool {
                match self { $(Self::$kind(shared) => shared.is_in_outage(),)+ }
            }

            /// Watches the store for changes; never returns.
            pub(super) async fn watch(&self) {
                match self { $(Self::$kind(shared) => shared.watch().await,)+ }
            }

            pub(super) fn handle(&self) -> Handle {
                match self { $(Self::$kind(shared) => Handle::$kind(<$handle>::new(Arc::clone(shared))),)+ }
            }
        }

        /// A worker's handle.
        #[derive(Debug)]
        #[expect(clippy::large_enum_variant, reason = "a worker has one for each store")]
        pub(super) enum Handle {
            $($kind($handle),)+
        }

        impl Handle {
            pub(super) fn time_limit(&self) -> Duration {
                match self { $(Self::$kind(handle) => handle.time_limit(),)+ }
            }

            /// Whether every look-up fails now, without being sent.
            pub(super) fn is_down(&self) -> bool {
                match self { $(Self::$kind(handle) => handle.is_down(),)+ }
            }

            pub(super) async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
                match self { $(Self::$kind(handle) => handle.token(key, lookup).await,)+ }
            }

            pub(super) async fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
                match self { $(Self::$kind(handle) => handle.jwt(query, lookup).await,)+ }
            }
        }
    };
}

impl SharedKind {
    /// This process has revoked something in it.
    pub(super) fn revoked(&self, item: RevokedItem<'_>) {
        match self {
            Self::Redis(redis) => redis.revoked(item),
            Self::Embedded(file) => file.read(),
            // It has no revocations.
            Self::Django(_) => {}
        }
    }

    /// Whether the store reports its changes by itself, without a subscription that can be lost.
    pub(super) fn is_watched(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Redis(_) | Self::Django(_) => false,
        }
    }

    /// The part of a Redis, which can be written to.
    pub(super) fn as_redis(&self) -> Option<&Arc<SharedRedis>> {
        match self {
            Self::Redis(redis) => Some(redis),
            Self::Embedded(_) | Self::Django(_) => None,
        }
    }

    /// The part of a Django database, which can be a source.
    pub(super) fn as_django(&self) -> Option<&Arc<SharedDjango>> {
        match self {
            Self::Django(django) => Some(django),
            Self::Redis(_) | Self::Embedded(_) => None,
        }
    }
}

kinds! {
    /// A Redis server.
    Redis = "redis": RedisSettings, SharedRedis, RedisStore;
    /// A local file.
    Embedded = "embedded": EmbeddedSettings, EmbeddedFile, EmbeddedStore;
    /// The database of a Django application.
    Django = "django": DjangoSettings, SharedDjango, DjangoStore;
}
