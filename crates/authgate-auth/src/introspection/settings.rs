//! The settings of introspecting authenticators.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::UserInfo;

use super::endpoint::SharedEndpoint;
use super::endpoint_settings::EndpointSettings;
use crate::binding_rules::BindingRules;
use crate::claims::ClaimRules;
use crate::dependencies::ChangeCounters;
use crate::form::CredentialForm;
use crate::withdrawn::{Withdrawn, check_revocation};

/// The settings of this kind.
#[derive(Debug, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// The endpoint that is asked.
    pub endpoint: Arc<EndpointSettings>,
    /// The form of the tokens that are read.
    pub form: CredentialForm,
    /// Longer tokens are refused without asking.
    pub token_bytes: usize,
    /// Rules for the claims of an answer.
    pub rules: IntrospectionRules,
    /// Name of the store with revocations, if these are checked.
    pub revocation: Option<Arc<str>>,
}

/// Rules for the claims of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionRules {
    /// Accepted issuers; empty: not checked.
    pub issuer: Vec<String>,
    /// Accepted audiences; empty: not checked.
    pub audience: Vec<String>,
    /// Accepted clock difference.
    pub leeway: Duration,
    /// The claim that names the user.
    pub user_id_claim: String,
    /// The claim with the username.
    pub username_claim: String,
    /// The claim with the token id, if revocations of single tokens are checked.
    pub jti_claim: Option<String>,
    /// What requests with bound tokens must prove.
    pub binding: Arc<BindingRules>,
}

impl IntrospectionRules {
    pub(crate) fn claims(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuer: &self.issuer,
            audience: &self.audience,
            leeway: self.leeway,
            max_lifetime: None,
        }
    }

    /// Whether these rules accept every token that `previous` has accepted. The age of a token is not considered.
    fn accept_all_of(&self, previous: &Self) -> bool {
        self.claims().accept_all_of(previous.claims())
            && self.user_id_claim == previous.user_id_claim
            && (self.jti_claim.is_none() || self.jti_claim == previous.jti_claim)
            && self.binding.accept_all_of(&previous.binding)
    }
}

impl IntrospectionSettings {
    /// The endpoint is kept where its settings are equal.
    pub(crate) fn share(
        &self,
        authenticator: &Arc<str>,
        previous: Option<&Arc<SharedEndpoint>>,
        _: &Arc<ChangeCounters>,
    ) -> Arc<SharedEndpoint> {
        match previous {
            Some(previous) if *previous.settings() == self.endpoint => Arc::clone(previous),
            Some(_) | None => SharedEndpoint::new(authenticator, &self.endpoint),
        }
    }

    pub(crate) fn stores(&self) -> Vec<&Arc<str>> {
        let distinct: BTreeSet<&Arc<str>> = self.revocation.iter().chain(self.rules.binding.store()).collect();
        distinct.into_iter().collect()
    }

    pub(crate) fn still_accepts(
        &self,
        _: &UserInfo,
        previous: &Self,
        is_same_store: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(), Withdrawn> {
        if !self.endpoint.has_tokens_of(&previous.endpoint) {
            return Err(Withdrawn::Endpoint);
        }
        check_revocation(self.revocation.as_ref(), previous.revocation.as_ref(), is_same_store)?;
        match self.form.includes(previous.form) && self.rules.accept_all_of(&previous.rules) {
            true => Ok(()),
            false => Err(Withdrawn::Stricter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use authgate_core::secret::Secret;
    use rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::binding_rules::Requirement;
    use crate::fetch::{FetchTls, FetchUrl};
    use crate::identities::fixtures;
    use crate::introspection::{ClientAuthentication, IntrospectionClient, Location};

    fn settings() -> IntrospectionSettings {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        IntrospectionSettings {
            endpoint: Arc::new(EndpointSettings {
                location: at("https://idp.example/introspect"),
                client: IntrospectionClient {
                    id: "gateway".to_owned(),
                    secret: Secret::new("canary".to_owned()),
                    method: ClientAuthentication::Basic,
                },
                timeout: Duration::from_secs(1),
                tls: FetchTls {
                    config: Arc::new(config),
                    made_from: [0; 32],
                },
            }),
            form: CredentialForm::Opaque,
            token_bytes: 100,
            rules: IntrospectionRules {
                issuer: vec!["a".to_owned()],
                audience: vec!["x".to_owned(), "y".to_owned()],
                leeway: Duration::ZERO,
                user_id_claim: "sub".to_owned(),
                username_claim: "username".to_owned(),
                jti_claim: Some("jti".to_owned()),
                binding: Arc::new(BindingRules::OFF),
            },
            revocation: Some("redis".into()),
        }
    }

    fn at(url: &str) -> Location {
        Location::Url(FetchUrl::parse(url).expect("a URL"))
    }

    fn endpoint(settings: &mut IntrospectionSettings) -> &mut EndpointSettings {
        Arc::get_mut(&mut settings.endpoint).expect("the only one")
    }

    #[test]
    fn a_stream_goes_on_unless_the_endpoint_or_a_store_is_another_one_or_the_rules_are_stricter() {
        type Change = fn(&mut IntrospectionSettings);
        let cases: &[(Change, Result<(), Withdrawn>)] = &[
            (|_| (), Ok(())),
            (
                |new| endpoint(new).location = at("https://idp.example/other"),
                Err(Withdrawn::Endpoint),
            ),
            (
                |new| endpoint(new).client.id = "other".to_owned(),
                Err(Withdrawn::Endpoint),
            ),
            (
                |new| endpoint(new).client.secret = Secret::new("other".to_owned()),
                Ok(()),
            ),
            (|new| endpoint(new).timeout = Duration::from_secs(9), Ok(())),
            (|new| endpoint(new).tls.made_from = [1; 32], Ok(())),
            (|new| new.form = CredentialForm::Any, Ok(())),
            (|new| new.form = CredentialForm::Jwt, Err(Withdrawn::Stricter)),
            (|new| new.token_bytes = 10, Ok(())),
            (|new| new.rules.issuer.clear(), Ok(())),
            (|new| new.rules.issuer[0] = "b".to_owned(), Err(Withdrawn::Stricter)),
            (|new| drop(new.rules.audience.pop()), Err(Withdrawn::Stricter)),
            (
                |new| new.rules.user_id_claim = "username".to_owned(),
                Err(Withdrawn::Stricter),
            ),
            (|new| new.rules.jti_claim = None, Ok(())),
            (
                |new| {
                    new.rules.binding = Arc::new(BindingRules {
                        dpop: Requirement::Accept,
                        ..BindingRules::OFF
                    });
                },
                Err(Withdrawn::Stricter),
            ),
            (|new| new.revocation = None, Err(Withdrawn::Store)),
            (|new| new.revocation = Some("other".into()), Err(Withdrawn::Store)),
        ];
        let is_same_store = |own: &str, other: &str| own == other;
        let user = fixtures::user_info("idp", "1");
        for (at, (change, expected)) in cases.iter().enumerate() {
            let (mut new, previous) = (settings(), settings());
            change(&mut new);
            assert_eq!(
                new.still_accepts(&user, &previous, &is_same_store),
                *expected,
                "case {at}"
            );
        }
        let mut previous = settings();
        previous.revocation = None;
        let stricter = settings().still_accepts(&user, &previous, &is_same_store);
        assert_eq!(stricter, Err(Withdrawn::Stricter));
    }
}
