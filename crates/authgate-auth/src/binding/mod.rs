//! Bound tokens: whether a request proves that it comes from the client that the token was issued to.
//!
//! The decision about a token says what the token is bound to, and is cached. [`BindingChecker`] runs for every request after the decision: a
//! token alone is useless, whether it is remembered or not.

pub(crate) mod proof;
pub(crate) mod target_uri;

use std::rc::Rc;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::BindingFault;
use authgate_core::outbound::forwarded::requested_origin;
use authgate_http::framing::target;
use http::HeaderName;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use self::proof::Expected;
use self::target_uri::RequestedUri;
use crate::binding_rules::{ReplayStore, Requirement, TokenBinding};
use crate::confirmation::Thumbprint;
use crate::error::EvaluationError;
use crate::now::{Now, milliseconds};
use crate::replay::{Full, ProofId, ReplayMemory};
use crate::request::RequestFacts;
use crate::single_flight::WorkQueue;
use crate::store::{LOCAL_TIME_LIMIT, Store};
use crate::worker::WorkerResources;

/// The field of a proof.
pub const PROOF_HEADER: HeaderName = HeaderName::from_static("dpop");
/// The scheme of a token that is bound to a key.
pub const DPOP_SCHEME: &str = "DPoP";
/// The algorithms of proofs, as a challenge lists them (RFC 9449, section 7.1).
pub const PROOF_ALGORITHMS: &str = "ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512";

/// Checks requests with bound tokens, for the authenticators of one worker.
#[derive(Debug)]
pub(crate) struct BindingChecker {
    queue: Rc<WorkQueue>,
    memory: Arc<ReplayMemory>,
    /// The stores of the authenticator, with those that record used proofs.
    stores: Vec<Rc<Store>>,
}

/// The credential of a request that was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptedCredential<'r> {
    /// The scheme before it.
    pub(crate) scheme: &'r [u8],
    /// Its SHA-256 digest.
    pub(crate) digest: &'r [u8; 32],
}

impl BindingChecker {
    pub(crate) fn new(worker: &WorkerResources, stores: Vec<Rc<Store>>) -> Self {
        Self {
            queue: worker.queue(),
            memory: worker.replays(),
            stores,
        }
    }

    /// Whether the request proves what its token is bound to.
    ///
    /// # Errors
    /// It could not be checked whether the proof was used before, or the check did not end in time.
    pub(crate) async fn check(
        &self,
        binding: &TokenBinding,
        credential: AcceptedCredential<'_>,
        request: &RequestFacts<'_>,
        now: Now,
    ) -> Result<Result<(), BindingFault>, EvaluationError> {
        if let Err(fault) = check_certificate(binding, request.certificate) {
            return Ok(Err(fault));
        }
        match find_proof(binding, credential.scheme, request) {
            Ok(None) => Ok(Ok(())),
            Ok(Some((proof, key))) => self.check_proof(binding, key, proof, credential, request, now).await,
            Err(fault) => Ok(Err(fault)),
        }
    }

    async fn check_proof(
        &self,
        binding: &TokenBinding,
        key: &Thumbprint,
        proof: &[u8],
        credential: AcceptedCredential<'_>,
        request: &RequestFacts<'_>,
        now: Now,
    ) -> Result<Result<(), BindingFault>, EvaluationError> {
        let Ok(()) = timeout_at(Instant::now() + LOCAL_TIME_LIMIT, self.queue.next()).await else {
            return Err(EvaluationError::Busy);
        };
        let (scheme, authority) = requested_origin(request.peer, request.headers, request.host);
        let expected = Expected {
            key,
            token: credential.digest,
            method: request.method,
            uri: RequestedUri {
                scheme,
                // An invalid host has no route.
                authority: str::from_utf8(authority).unwrap_or_default(),
                path: target::path_of(request.uri, request.extensions),
            },
            window: (!request.is_repeated).then_some(binding.rules.window),
            now,
        };
        let proof_id = match proof::check(proof, &expected) {
            Ok(proof_id) => proof_id,
            Err(fault) => return Ok(Err(fault)),
        };
        // Only a proof that is valid is recorded: others could fill the memory with anything.
        if request.is_repeated || self.record(binding, &proof_id, now).await? {
            return Ok(Ok(()));
        }
        Ok(Err(BindingFault::Replayed))
    }

    /// Records that a proof is used. Returns `false` if it was used before.
    async fn record(&self, binding: &TokenBinding, proof: &ProofId, now: Now) -> Result<bool, EvaluationError> {
        // A proof is accepted from `iat - window` to `iat + window`. The clock of another gateway may differ by as much as is left.
        let lifetime = 2 * binding.rules.window + Duration::from_secs(1);
        match &binding.rules.replay {
            ReplayStore::Local => {
                let lifetime_ms = milliseconds(lifetime);
                let recorded = self.memory.record(proof, lifetime_ms, now);
                recorded.map_err(|Full| EvaluationError::ReplayMemoryFull)
            }
            ReplayStore::Store(name) => {
                // The configuration check has found the store, and the authenticator lists it.
                let Some(store) = self.stores.iter().find(|store| store.settings().name == *name) else {
                    return Err(EvaluationError::Busy);
                };
                let deadline = Instant::now() + store.time_limit();
                match timeout_at(deadline, store.record_proof(proof, lifetime, deadline)).await {
                    Ok(recorded) => Ok(recorded?),
                    Err(Elapsed { .. }) => Err(store.timeout_error().into()),
                }
            }
        }
    }
}

fn check_certificate(binding: &TokenBinding, shown: Option<&Thumbprint>) -> Result<(), BindingFault> {
    match (binding.rules.certificate_bound, &binding.confirmation.certificate) {
        (Requirement::Off, _) | (Requirement::Accept, None) => Ok(()),
        (Requirement::Require, None) => Err(BindingFault::NotCertificateBound),
        (Requirement::Accept | Requirement::Require, Some(bound)) => match shown {
            None => Err(BindingFault::NoCertificate),
            Some(shown) if shown == bound => Ok(()),
            Some(_) => Err(BindingFault::OtherCertificate),
        },
    }
}

/// The proof that must be checked, and the key that it must be made with. `None`: no proof is necessary.
fn find_proof<'r>(
    binding: &'r TokenBinding,
    scheme: &[u8],
    request: &RequestFacts<'r>,
) -> Result<Option<(&'r [u8], &'r Thumbprint)>, BindingFault> {
    let is_dpop = scheme.eq_ignore_ascii_case(DPOP_SCHEME.as_bytes());
    if binding.rules.dpop == Requirement::Off {
        // The scheme is that of another issuer: no token of this one is accepted under it.
        return if is_dpop {
            Err(BindingFault::NotKeyBound)
        } else {
            Ok(None)
        };
    }
    let mut lines = request.headers.get_all(PROOF_HEADER).iter();
    let (proof, another) = (lines.next(), lines.next());
    // Intermediaries may join lines (RFC 9110, section 5.3). A proof has no comma.
    if another.is_some() || proof.is_some_and(|line| line.as_bytes().contains(&b',')) {
        return Err(BindingFault::SeveralProofs);
    }
    match (&binding.confirmation.key, is_dpop) {
        (Some(key), true) => match proof {
            Some(proof) => Ok(Some((proof.as_bytes().trim_ascii(), key))),
            None => Err(BindingFault::NoProof),
        },
        (Some(_), false) => Err(BindingFault::KeyBoundAsBearer),
        (None, true) => Err(BindingFault::NotKeyBound),
        (None, false) if binding.rules.dpop == Requirement::Require => Err(BindingFault::NotKeyBound),
        (None, false) => Ok(None),
    }
}
