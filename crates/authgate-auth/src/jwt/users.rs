//! [`Users`]: where the user of a token comes from.

use std::sync::Arc;

use crate::claims::user::IdNumbers;
use crate::withdrawn::Withdrawn;

/// Where the user of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// From the claims only.
    Claims {
        /// The claim with the username.
        username_claim: String,
    },
    /// From a store: the user must exist there.
    Store {
        /// Name of the store.
        store: Arc<str>,
        /// The field of the record that the user id claim holds.
        field: UserIdField,
        /// Inactive users are refused.
        check_active: bool,
        /// The claim that must equal the record's `password_md5`, if that is checked.
        revoke_claim: Option<String>,
    },
}

impl Users {
    /// Name of the store, if the users are in one.
    pub fn store(&self) -> Option<&Arc<str>> {
        match self {
            Self::Claims { .. } => None,
            Self::Store { store, .. } => Some(store),
        }
    }

    /// Which numbers the user id claim may be.
    pub(super) fn id_numbers(&self) -> IdNumbers {
        match self {
            Self::Store {
                field: UserIdField::Id, ..
            } => IdNumbers::WholeFloats,
            Self::Claims { .. } | Self::Store { .. } => IdNumbers::Integers,
        }
    }

    pub(super) fn still_accepts(
        &self,
        previous: &Self,
        is_same_store: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(), Withdrawn> {
        match (self, previous) {
            (Self::Claims { .. }, Self::Claims { .. }) => Ok(()),
            (Self::Claims { .. }, Self::Store { .. }) => Err(Withdrawn::Store),
            (Self::Store { .. }, Self::Claims { .. }) => Err(Withdrawn::Stricter),
            (
                Self::Store {
                    store,
                    field,
                    check_active,
                    revoke_claim,
                },
                Self::Store {
                    store: previous_store,
                    field: previous_field,
                    check_active: checked_active,
                    revoke_claim: previous_claim,
                },
            ) => {
                if !is_same_store(store, previous_store) {
                    return Err(Withdrawn::Store);
                }
                let is_active_enough = !check_active || *checked_active;
                let is_claim_known = revoke_claim.is_none() || revoke_claim == previous_claim;
                match field == previous_field && is_active_enough && is_claim_known {
                    true => Ok(()),
                    false => Err(Withdrawn::Stricter),
                }
            }
        }
    }
}

/// The field of a user record that the user id claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdField {
    /// Its id.
    Id,
    /// Its login name.
    Username,
}
