//! The words and rules of authgate: credentials, identities, policies, and the request that may leave. It is pure: no async, no I/O, no clock.
//!
//! The types carry proofs: no [`Outbound`](outbound::Outbound) without a [`Permit`](policy::Permit), and no `Permit` without a
//! [`Policy`](policy::Policy).
//!
//! A module imports only from its own floor and the floors below it in this map. A test of the gateway reads the map and reports every
//! `use crate::` that breaks the rule.
//!
//! ```text
//! -- 2  the request that leaves
//! outbound       the only type of request that can be forwarded, and its identity headers
//! -- 1  the decision
//! policy         authorization rules, and the Permit that proves that they were evaluated or are only observed
//! -- 0  words
//! credential     parses credential headers, and the reasons to refuse them
//! identity       the identity of a user, in text that is valid in headers
//! member         paths to members of JSON objects: names of claims and attributes
//! path           all interpretations of a request path by common servers
//! secret         values that cannot be printed
//! printable      escapes untrusted text for output to people
//! table          constants, and the table of all of them
//! label_value    a value of a metric label, with its text for the reference
//! token_slot     where an identity keeps its signed token for one audience
//! ```

pub mod credential;
pub mod identity;
pub mod label_value;
pub mod member;
pub mod outbound;
pub mod path;
pub mod policy;
pub mod printable;
pub mod secret;
mod table;
pub mod token_slot;
