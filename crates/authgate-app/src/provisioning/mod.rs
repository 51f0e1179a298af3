//! Provisioning: the command line reads and writes the users, tokens and revocations of a store, and gateways write revocations for
//! `POST /revoke`. It blocks, and its timeouts suit interactive use: a gateway calls it on threads that may block.
//!
//! Each change is safe on its own. It never loses a `revoked` mark that another program sets at the same time, and an interrupted change
//! never grants access. Running the command again completes it.

// Calls the method of the same name for the kind of the store. `WritableStore` and `ImportTarget` have the same kinds.
macro_rules! dispatch {
    ($kinds:ident: $store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            $kinds::Redis(redis) => redis.$method($($argument),*),
            $kinds::Embedded(file) => file.$method($($argument),*),
        }
    };
}

mod drift;
mod embedded;
mod error;
mod import;
mod names;
mod outcomes;
mod redis;
mod revocation;
pub mod time;
mod update;
mod writable_store;

use aws_lc_rs::rand;

pub use self::drift::{Compared, Difference, Drift, Expected, Kind, Kinds};
pub use self::error::ProvisioningError;
pub use self::import::{Import, Imported, Keep, Pruned};
use self::names::next_batch;
pub use self::names::{NameSorter, SortedNames};
pub use self::outcomes::{Deleted, Replication, Resealed, Resealing, Revoked, Step};
pub use self::revocation::{InFuture, LongExpired, Revocation};
pub use self::update::{TokenMember, TokenUpdate, UserMember, UserUpdate};
pub use self::writable_store::{Begin, Begun, NameClash, StoreState, Tombstones, WritableStore};

/// Returns `BYTES` random bytes in lower-case hexadecimal digits.
///
/// # Errors
/// The operating system returned no random numbers.
pub fn random_hex<const BYTES: usize>() -> Result<String, ProvisioningError> {
    let mut bytes = [0_u8; BYTES];
    rand::fill(&mut bytes).map_err(|_| ProvisioningError::Random)?;
    Ok(hex::encode(bytes))
}
