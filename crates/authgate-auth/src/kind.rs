//! The table of the kinds of authenticators. A new kind is a module and a line in this table.
//!
//! A module has the settings of its kind, the part that all workers share, and an evaluator, which has the same three methods in each kind:
//!
//! - `read` finds the credential among the words of the header.
//! - `evaluate` decides about a credential that is not in the cache. It runs once for concurrent requests with the same credential. Before
//!   it reads anything that may change, a record in a store or a key that is refreshed, it marks the item in `lookup.dependencies`, so that
//!   a change invalidates the cached decision.
//! - `down` says whether `evaluate` would fail, because something that it asks is known to be unable to answer.
//!
//! The settings list the stores that the evaluator asks. Their `still_accepts` compares them with the settings of an earlier configuration.

use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Acceptance, Words};
use authgate_core::identity::UserInfo;
use tokio::time::Instant;

use crate::binding_rules::{BindingRules, Requirement};
use crate::decision::Decision;
use crate::dependencies::ChangeCounters;
use crate::error::EvaluationError;
use crate::form::CredentialForm;
use crate::identities::IdentityFactory;
use crate::introspection::{IntrospectionEvaluator, IntrospectionSettings, SharedEndpoint};
use crate::jwt::{JwtEvaluator, JwtSettings, KeySources};
use crate::keys::remote::SharedKeySource;
use crate::now::Now;
use crate::outage::Outage;
use crate::reading::Reading;
use crate::revocable::{Revocable, RevocationKind};
use crate::scheme::AuthScheme;
use crate::store::Lookup;
use crate::token::{OnUnknown, TokenEvaluator, TokenSettings};
use crate::withdrawn::Withdrawn;
use crate::worker::WorkerResources;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $settings:ty, $shared:ty, $evaluator:ty;)+) => {
        /// The settings of one kind of authenticator.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum KindSettings {
            $($(#[$doc])* $kind(Arc<$settings>),)+
        }

        impl KindSettings {
            /// The names of the stores that it asks.
            pub fn stores(&self) -> Vec<&Arc<str>> {
                match self { $(Self::$kind(settings) => settings.stores(),)+ }
            }

            /// Whether a credential that was accepted under the settings `previous`, with what is known of it, is accepted under these.
            /// `is_same_store` compares a store of these settings with one of `previous`, by their names.
            pub(super) fn still_accepts(
                &self,
                user: &UserInfo,
                previous: &Self,
                is_same_store: &dyn Fn(&str, &str) -> bool,
            ) -> Result<(), Withdrawn> {
                match (self, previous) {
                    $((Self::$kind(settings), Self::$kind(previous)) => {
                        settings.still_accepts(user, previous, is_same_store)
                    })+
                    _ => Err(Withdrawn::Authenticator),
                }
            }

            /// Makes the part that all workers share for the authenticator of this name, or takes it from `previous`.
            pub(super) fn share(
                &self,
                name: &Arc<str>,
                previous: Option<&SharedKind>,
                counters: &Arc<ChangeCounters>,
            ) -> SharedKind {
                match self {
                    $(Self::$kind(settings) => {
                        let previous = match previous {
                            Some(SharedKind::$kind(_, previous)) => Some(previous),
                            _ => None,
                        };
                        SharedKind::$kind(Arc::clone(settings), settings.share(name, previous, counters))
                    })+
                }
            }
        }

        /// What all workers share of an authenticator, beside its cache.
        #[derive(Debug)]
        pub(super) enum SharedKind {
            $($kind(Arc<$settings>, $shared),)+
        }

        impl SharedKind {
            /// Makes the evaluator of one worker.
            pub(super) fn evaluator(&self, identities: &IdentityFactory, worker: &WorkerResources) -> Evaluator {
                match self {
                    $(Self::$kind(settings, shared) => {
                        Evaluator::$kind(<$evaluator>::new(settings, shared, identities, worker))
                    })+
                }
            }
        }

        /// One worker's evaluator.
        #[derive(Debug)]
        pub(super) enum Evaluator {
            $($kind($evaluator),)+
        }

        impl Evaluator {
            pub(super) fn read<'w>(
                &self,
                scheme: &AuthScheme,
                words: &'w Words<'_>,
                acceptance: Acceptance,
            ) -> Reading<'w> {
                match self { $(Self::$kind(evaluator) => evaluator.read(scheme, words, acceptance),)+ }
            }

            /// The present outage in which no credential can be evaluated, if that is known without asking.
            pub(super) fn down(&self) -> Option<&Outage> {
                match self { $(Self::$kind(evaluator) => evaluator.down(),)+ }
            }

            pub(super) async fn evaluate(
                &self,
                credential: &[u8],
                now: Now,
                lookup: &mut Lookup,
            ) -> Result<Decision, EvaluationError> {
                match self { $(Self::$kind(evaluator) => evaluator.evaluate(credential, now, lookup).await,)+ }
            }
        }
    };
}

kinds! {
    /// Opaque tokens, which a store knows.
    Token: TokenSettings, (), TokenEvaluator;
    /// JSON Web Tokens.
    Jwt: JwtSettings, KeySources, JwtEvaluator;
    /// Tokens that an authorization server is asked about.
    Introspection: IntrospectionSettings, Arc<SharedEndpoint>, IntrospectionEvaluator;
}

impl SharedKind {
    /// The introspection endpoint, if it asks one.
    pub(super) fn endpoint(&self) -> Option<&Arc<SharedEndpoint>> {
        match self {
            Self::Introspection(_, endpoint) => Some(endpoint),
            Self::Token(..) | Self::Jwt(..) => None,
        }
    }

    /// The sources of the keys that identity providers publish.
    pub(super) fn key_sources(&self) -> impl Iterator<Item = &Arc<SharedKeySource>> {
        let sources = match self {
            Self::Jwt(_, sources) => Some(sources),
            Self::Token(..) | Self::Introspection(..) => None,
        };
        sources.into_iter().flat_map(KeySources::all)
    }

    /// What it says about a token that is to be revoked.
    pub(super) async fn revocable(
        &self,
        token: &[u8],
        now: Now,
        deadline: Instant,
    ) -> Result<Revocable, EvaluationError> {
        match self {
            // Whether it knows an opaque token is a question to its store.
            Self::Token(..) => Ok(Revocable::NotAccepted),
            Self::Jwt(settings, sources) => settings.revocable(sources, token, now, deadline).await,
            Self::Introspection(settings, endpoint) => settings.revocable(endpoint, token, now).await,
        }
    }

    /// How long a credential waits for what is asked over a network, before the stores are asked.
    pub(super) fn network_timeout(&self) -> Duration {
        match self {
            Self::Token(..) => Duration::ZERO,
            Self::Jwt(_, sources) => sources.timeout(),
            Self::Introspection(_, endpoint) => endpoint.timeout(),
        }
    }
}

impl KindSettings {
    /// Whether a key that no record knows may be forwarded.
    pub fn forwards_unknown(&self) -> bool {
        match self {
            Self::Token(settings) => settings.on_unknown == OnUnknown::Forward,
            Self::Jwt(_) | Self::Introspection(_) => false,
        }
    }

    /// Whether the date at which a credential expires may change. That of a JWT is signed, and that of an introspected token counts as it was
    /// answered last.
    pub(super) fn may_extend_credentials(&self) -> bool {
        match self {
            Self::Token(_) => true,
            Self::Jwt(_) | Self::Introspection(_) => false,
        }
    }

    /// The clock difference that it accepts in the dates of a credential.
    pub fn leeway(&self) -> Duration {
        match self {
            Self::Token(_) => Duration::ZERO,
            Self::Jwt(settings) => settings.issuers.leeway(),
            Self::Introspection(settings) => settings.rules.leeway,
        }
    }

    /// The store in which it looks for revocations of this kind.
    pub fn checks(&self, kind: RevocationKind) -> Option<&Arc<str>> {
        match (self, kind) {
            (Self::Token(settings), RevocationKind::Token | RevocationKind::User) => Some(&settings.store),
            (Self::Jwt(settings), RevocationKind::User | RevocationKind::Kid) => settings.revocation.as_ref(),
            (Self::Jwt(settings), RevocationKind::Jti) => {
                let reads_ids = settings.issuers.all().any(|issuer| issuer.rules.jti_claim.is_some());
                settings.revocation.as_ref().filter(|_| reads_ids)
            }
            (Self::Introspection(settings), RevocationKind::User) => settings.revocation.as_ref(),
            (Self::Introspection(settings), RevocationKind::Jti) => {
                let reads_ids = settings.rules.jti_claim.is_some();
                settings.revocation.as_ref().filter(|_| reads_ids)
            }
            (Self::Token(_), RevocationKind::Jti | RevocationKind::Kid)
            | (Self::Jwt(_), RevocationKind::Token)
            | (Self::Introspection(_), RevocationKind::Token | RevocationKind::Kid) => None,
        }
    }

    /// The form of the credentials that it reads.
    pub fn form(&self) -> CredentialForm {
        match self {
            Self::Token(_) => CredentialForm::Any,
            Self::Jwt(settings) => settings.form,
            Self::Introspection(settings) => settings.form,
        }
    }

    /// What requests with bound tokens must prove: the rules of each issuer.
    pub fn bindings(&self) -> impl Iterator<Item = &BindingRules> {
        let (issuers, introspection) = match self {
            Self::Token(_) => (None, None),
            Self::Jwt(settings) => (Some(settings.issuers.all()), None),
            Self::Introspection(settings) => (None, Some(&*settings.rules.binding)),
        };
        let issuers = issuers.into_iter().flatten().map(|issuer| &*issuer.binding);
        issuers.chain(introspection)
    }

    /// Whether a proof may be sent beside the credential.
    pub fn has_proofs(&self) -> bool {
        self.bindings().any(|binding| binding.dpop != Requirement::Off)
    }

    /// The value of `kind` in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Jwt(_) => "jwt",
            Self::Introspection(_) => "introspection",
        }
    }

    /// The settings for JWTs, if it is that kind.
    pub fn as_jwt(&self) -> Option<&JwtSettings> {
        match self {
            Self::Jwt(settings) => Some(settings),
            _ => None,
        }
    }
}

impl Evaluator {
    pub(super) fn as_jwt(&self) -> Option<&JwtEvaluator> {
        match self {
            Self::Jwt(evaluator) => Some(evaluator),
            _ => None,
        }
    }
}
