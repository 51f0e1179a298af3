//! [`Basis`]: what the acceptance of a credential is based on, apart from the credential itself. It is compared with that of a later
//! configuration when a stream, which was admitted long ago, may go on or not.

use std::sync::Arc;

use authgate_core::identity::UserInfo;

use crate::kind::KindSettings;
use crate::store::StoreSettings;
use crate::withdrawn::Withdrawn;

/// The keys and rules of an authenticator, and the settings of its stores. It has settings only: it keeps no cache and no connection alive.
#[derive(Debug)]
pub struct Basis {
    authenticator: Arc<str>,
    kind: KindSettings,
    stores: Vec<StoreSettings>,
}

impl Basis {
    pub(crate) fn new(authenticator: &Arc<str>, kind: &KindSettings, stores: Vec<StoreSettings>) -> Self {
        Self {
            authenticator: Arc::clone(authenticator),
            kind: kind.clone(),
            stores,
        }
    }

    /// Whether a credential that was accepted on the basis `previous` is accepted on this one too, as far as the configuration decides.
    /// `user` is what is known of it. How the credential is sent (`header`, `scheme`) makes no difference, and neither does its age.
    ///
    /// # Errors
    /// The reason why it is not accepted.
    pub fn still_accepts(&self, user: &UserInfo, previous: &Self) -> Result<(), Withdrawn> {
        if self.authenticator != previous.authenticator {
            return Err(Withdrawn::Authenticator);
        }
        let is_same_store = |own: &str, other: &str| match (self.store(own), previous.store(other)) {
            (Some(own), Some(other)) => own.kind.has_records_of(&other.kind),
            (None, _) | (_, None) => false,
        };
        self.kind.still_accepts(user, &previous.kind, &is_same_store)
    }

    fn store(&self, name: &str) -> Option<&StoreSettings> {
        self.stores.iter().find(|store| &*store.name == name)
    }
}
