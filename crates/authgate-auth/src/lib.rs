//! Authentication: the authenticators of a route, tried in order, and the verdict about a request.
//!
//! An authenticator passes (the credential has another scheme), accepts, or refuses. The first one that accepts or refuses decides, as in
//! Django REST Framework. An authenticator may also fail, because its store is unavailable. A failure is an error and never a verdict.
//!
//! A module imports only from its own floor and the floors below it in this map. A test of the gateway reads the map and reports every
//! `use crate::` that breaks the rule.
//!
//! ```text
//! -- 5  fuzzing
//! fuzzing        one function for each reader of untrusted bytes
//! -- 4  the route
//! chain          a route's authenticators, in order
//! -- 3  what all kinds have in common
//! authenticator  cache, single flight and deadline around an evaluator
//! basis          what the acceptance of a credential is based on
//! -- 2  the kinds
//! kind           the table of kinds
//! jwt            JWTs: segments and claims
//! binding        whether a request proves what its token is bound to
//! token          opaque tokens
//! introspection  tokens that an authorization server is asked about
//! error          why a credential could not be evaluated
//! identity_signer  JWTs that tell an upstream who the user is
//! -- 1  parts
//! worker         what the authenticators of one worker share
//! outage         since when a store or an endpoint cannot answer
//! cache          cached decisions
//! held           credentials of streams, and the decisions about them
//! identities     what identities contain
//! claims         claims of tokens: strict JSON, the checks of every kind, and the user
//! store          stores of tokens, users and revocations: Redis, or a file
//! replay         the proofs that clients have used
//! single_flight  one lookup for all requests that wait for the same credential
//! fetch          the HTTP client for identity providers
//! keys           keys that verify JWTs
//! -- 0  words
//! binding_rules  what requests with bound tokens must prove
//! confirmation   what a token is bound to
//! decision       the result of authenticating one credential
//! dependencies   what a cached decision depends on
//! form           the form of a credential: that of a JWT, or another one
//! reading        what a header holds for an authenticator
//! record         the records of stores
//! request        what a request says beside its credential
//! revocable      what can be revoked
//! scheme         the scheme before a credential
//! validity       when a credential is valid
//! store_changes  what a store reports as changed, and what its subscriptions confirm
//! subscriptions  until when the subscriptions of a store have confirmed what was read from it
//! withdrawn      why an accepted credential is not accepted any more
//! labels         label values of logs and metrics, with their texts
//! metrics        counters of caches and stores
//! now            both clocks
//! ```

mod authenticator;
mod basis;
mod binding;
mod binding_rules;
pub mod cache;
mod chain;
mod claims;
mod confirmation;
mod decision;
pub mod dependencies;
mod error;
pub mod fetch;
mod form;
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod identities;
pub mod identity_signer;
pub mod introspection;
pub mod jwt;
pub mod keys;
mod kind;
pub mod labels;
pub mod metrics;
mod now;
mod outage;
mod reading;
pub mod record;
mod replay;
mod request;
mod revocable;
mod scheme;
mod single_flight;
pub mod store;
mod store_changes;
mod subscriptions;
pub mod token;
mod validity;
mod withdrawn;
mod worker;

pub use self::authenticator::{Authenticator, AuthenticatorSettings, SharedAuthenticator};
pub use self::basis::Basis;
pub use self::binding::{DPOP_SCHEME, PROOF_ALGORITHMS, PROOF_HEADER};
pub use self::binding_rules::{BindingRules, ReplayStore, Requirement};
pub use self::chain::{Chain, Refused, Unavailable, Verdict};
pub use self::confirmation::Thumbprint;
pub use self::error::EvaluationError;
pub use self::form::CredentialForm;
pub use self::held::{CredentialId, HeldCredential, HeldCredentials, Question, Settled, Standing};
pub use self::identities::{IdentityRules, KeptClaims};
pub use self::kind::KindSettings;
pub use self::now::Now;
pub use self::outage::{OutageStatus, Serving};
pub use self::replay::{MAX_PROOFS, ReplayMemory};
#[doc(hidden)]
pub use self::request::PlainRequest;
pub use self::request::RequestFacts;
pub use self::revocable::{Irrevocable, Revocable, RevocationKind};
pub use self::scheme::AuthScheme;
pub use self::validity::Validity;
pub use self::withdrawn::Withdrawn;
pub use self::worker::WorkerResources;
