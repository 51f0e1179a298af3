//! [`Orders`]: obtains one certificate after the other: account, order, challenge, certificate (RFC 8555, section 7.1).

use std::io;
use std::time::Duration;

use authgate_dataplane::tls::certificate::Certificate;
use authgate_dataplane::tls::client::RootsError;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use tokio::time::timeout;

use super::AcmeSettings;
use super::directory::DirectoryClient;
use super::schedule::Failure;
use super::store::{AcmeStore, OrderLock};

/// The limit for one order. The lock is held for this time at most for each domain.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);

/// How the gateway asks for the result of a validation and for the certificate.
const RETRIES: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// A kind of challenge: how the authority validates that the gateway serves the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge {
    /// TLS-ALPN-01 on port 443 (RFC 8737).
    TlsAlpn,
    /// HTTP-01 on port 80 (RFC 8555, section 8.3).
    Http,
}

impl Challenge {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn => "tls-alpn-01",
            Self::Http => "http-01",
        }
    }

    fn kind(self) -> ChallengeType {
        match self {
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Http => ChallengeType::Http01,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::TlsAlpn => Self::Http,
            Self::Http => Self::TlsAlpn,
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// The authority, or the way to it.
    #[error("{}", Explained(.0))]
    Authority(#[from] Error),
    /// The authority could not validate the domain.
    #[error("the authority could not validate the domain by {}: {detail}", .challenge.name())]
    Validation { challenge: Challenge, detail: String },
    /// No offered challenge can be answered.
    #[error("the authority offers no challenge that this gateway answers: {offered}")]
    NoChallenge { offered: String },
    /// The folder.
    #[error("the folder `store` cannot be used: {0}")]
    Store(String),
    /// Keys cannot be made.
    #[error("a key or a signing request cannot be made: {0}")]
    Request(#[from] rcgen::Error),
    /// The authority's certificate is not usable.
    #[error("the certificate that the authority issued cannot be used: {0}")]
    Certificate(String),
    /// TLS to the directory.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// It took too long.
    #[error("the order was not completed in time")]
    Timeout,
}

impl OrderError {
    /// What it says about the next attempt.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Authority(Error::Api(problem)) if problem.r#type.as_deref() == Some(RATE_LIMITED) => {
                Failure::RateLimited
            }
            // An order that was not completed in time counts too.
            Self::Authority(Error::Api(_) | Error::Timeout(_))
            | Self::Validation { .. }
            | Self::NoChallenge { .. }
            | Self::Certificate(_)
            | Self::Timeout => Failure::Refused,
            Self::Authority(_) | Self::Store(_) | Self::Request(_) | Self::Roots(_) => Failure::NotRefused,
        }
    }
}

impl From<io::Error> for OrderError {
    fn from(problem: io::Error) -> Self {
        Self::Store(problem.to_string())
    }
}

/// An error of `instant_acme` with what the authority says.
struct Explained<'e>(&'e Error);

impl std::fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Error::Api(problem) => {
                let detail = problem.detail.as_deref().unwrap_or("no reason given");
                let kind = problem.r#type.as_deref().unwrap_or("no type");
                write!(f, "the authority refuses: {detail} ({kind})")
            }
            Error::Other(problem) => write!(f, "the directory cannot be reached: {problem}"),
            other => write!(f, "{other}"),
        }
    }
}

/// The file of the account.
#[derive(Serialize, Deserialize)]
struct StoredAccount {
    email: Option<String>,
    credentials: AccountCredentials,
}

/// Orders at one directory, while the lock is held.
pub(super) struct Orders<'s> {
    settings: &'s AcmeSettings,
    store: &'s AcmeStore,
    lock: OrderLock,
    account: Option<Account>,
}

impl<'s> Orders<'s> {
    pub(super) fn new(settings: &'s AcmeSettings, store: &'s AcmeStore, lock: OrderLock) -> Self {
        Self {
            settings,
            store,
            lock,
            account: None,
        }
    }

    /// Obtains a certificate for a domain within [`ORDER_TIMEOUT`], and removes the answers to its challenges, however it ends.
    pub(super) async fn obtain(
        &mut self,
        domain: &str,
        first: Challenge,
    ) -> Result<(Certificate, Challenge), OrderError> {
        let obtained = timeout(ORDER_TIMEOUT, self.obtain_by_any(domain, first)).await;
        self.lock.remove_answers().await;
        obtained.unwrap_or(Err(OrderError::Timeout))
    }

    /// Releases the lock.
    pub(super) async fn end(self) {
        self.lock.release().await;
    }

    /// Obtains a certificate for a domain, and stores it. If the authority cannot validate the domain by the `first` kind of challenge,
    /// tries the other one. Also returns the kind that was used.
    async fn obtain_by_any(&mut self, domain: &str, first: Challenge) -> Result<(Certificate, Challenge), OrderError> {
        match self.obtain_by(domain, first).await {
            Ok(certificate) => Ok((certificate, first)),
            Err(problem @ (OrderError::Validation { .. } | OrderError::NoChallenge { .. }))
                if self.settings.has_http =>
            {
                let other = first.other();
                match self.obtain_by(domain, other).await {
                    Ok(certificate) => Ok((certificate, other)),
                    Err(OrderError::Validation { detail, .. }) => Err(OrderError::Validation {
                        challenge: first,
                        detail: format!("{problem}; by {}: {detail}", other.name()),
                    }),
                    Err(other) => Err(other),
                }
            }
            Err(problem) => Err(problem),
        }
    }

    async fn obtain_by(&mut self, domain: &str, challenge: Challenge) -> Result<Certificate, OrderError> {
        let identifiers = [Identifier::Dns(domain.to_owned())];
        let mut order = self.new_order(&identifiers).await?;
        self.answer_challenges(&mut order, domain, challenge).await?;
        if order.state().status == OrderStatus::Pending {
            let ready = order.poll_ready(&RETRIES).await;
            if !matches!(ready, Ok(OrderStatus::Ready)) {
                let detail = failed_validation(&mut order).await;
                return match (detail, ready) {
                    (None, Err(problem)) => Err(problem.into()),
                    (detail, _) => Err(OrderError::Validation {
                        challenge,
                        detail: detail.unwrap_or_else(|| "it gives no reason".to_owned()),
                    }),
                };
            }
        }
        let key = KeyPair::generate()?;
        let mut request = CertificateParams::new([domain.to_owned()])?;
        request.distinguished_name = DistinguishedName::new();
        let request = request.serialize_request(&key)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&RETRIES).await?;
        self.save(domain, format!("{}{chain}", key.serialize_pem())).await
    }

    async fn new_order(&mut self, identifiers: &[Identifier]) -> Result<Order, OrderError> {
        let account = self.account().await?;
        match account.new_order(&NewOrder::new(identifiers)).await {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT) => {
                self.store.run(|files| files.remove_account()).await?;
                self.account = None;
                let account = self.account().await?;
                Ok(account.new_order(&NewOrder::new(identifiers)).await?)
            }
            order => Ok(order?),
        }
    }

    /// The account of the folder, or a new one.
    async fn account(&mut self) -> Result<Account, OrderError> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let ca = self.settings.ca.clone();
        // It may read the root certificates of the system.
        let client = self.store.run(move |_| DirectoryClient::new(ca.as_ref())).await?;
        let builder = Account::builder_with_http(Box::new(client));
        let email = self.settings.email.clone();
        let contact: Vec<String> = email.iter().map(|email| format!("mailto:{email}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let stored = self.store.run(|files| files.read_account()).await?;
        let stored = stored
            .map(|stored| serde_json::from_slice::<StoredAccount>(&stored))
            .transpose()
            .map_err(|problem| {
                OrderError::Store(format!("account.json: {problem}; remove it to make a new account"))
            })?;
        let account = match stored {
            Some(stored) => {
                let is_same = stored.email == email;
                let credentials = serde_json::to_vec(&stored.credentials).map_err(Error::from)?;
                let account = builder.from_credentials(stored.credentials).await?;
                if !is_same {
                    account.update_contacts(&contact).await?;
                    let credentials = serde_json::from_slice(&credentials).map_err(Error::from)?;
                    self.write_account(&StoredAccount { email, credentials }).await?;
                }
                account
            }
            None => {
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let directory = self.settings.directory.clone();
                let (account, credentials) = builder.create(&new, directory, None).await?;
                self.write_account(&StoredAccount { email, credentials }).await?;
                account
            }
        };
        self.account = Some(account.clone());
        Ok(account)
    }

    async fn write_account(&self, account: &StoredAccount) -> Result<(), OrderError> {
        let json = serde_json::to_vec(account).map_err(Error::from)?;
        Ok(self.store.run(move |files| files.write_account(&json)).await?)
    }

    /// Writes the answers to the challenges, and tells the authority that they are there. The lock keeps the answers.
    async fn answer_challenges(&mut self, order: &mut Order, domain: &str, by: Challenge) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let offered: Vec<String> = authorization
                .challenges
                .iter()
                .map(|challenge| format!("{:?}", challenge.r#type))
                .collect();
            let Some(mut challenge) = authorization.challenge(by.kind()) else {
                let offered = offered.join(", ");
                return Err(OrderError::NoChallenge { offered });
            };
            let response = challenge.key_authorization();
            let answer = match by {
                Challenge::TlsAlpn => {
                    let pem = challenge_pem(domain, response.digest().as_ref())?;
                    let domain = domain.to_owned();
                    let write = self.store.run(move |files| files.write_tls_challenge(&domain, &pem));
                    write.await?
                }
                Challenge::Http => {
                    let (token, response) = (challenge.token.clone(), response.as_str().to_owned());
                    let write = self
                        .store
                        .run(move |files| files.write_http_challenge(&token, &response));
                    write.await?
                }
            };
            self.lock.keep(answer);
            match challenge.set_ready().await {
                Ok(()) => {}
                // It has tried at once, and failed.
                Err(Error::Api(problem)) => {
                    return Err(OrderError::Validation {
                        challenge: by,
                        detail: problem.detail.unwrap_or_else(|| "it gives no reason".to_owned()),
                    });
                }
                Err(problem) => return Err(problem.into()),
            }
        }
        Ok(())
    }

    async fn save(&self, domain: &str, pem: String) -> Result<Certificate, OrderError> {
        let domain = domain.to_owned();
        let save = self.store.run(move |files| {
            let unusable = OrderError::Certificate;
            let certificate = Certificate::from_combined_pem(pem.as_bytes(), &files.certificate_file(&domain))
                .map_err(|problem| unusable(problem.to_string()))?;
            if !certificate.names().contains(&domain) {
                return Err(unusable(format!("it is for {:?}", certificate.names())));
            }
            files.write_certificate(&domain, &pem)?;
            Ok(certificate)
        });
        save.await
    }
}

const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The key and the self-signed certificate that answer a TLS-ALPN-01 challenge (RFC 8737, section 3).
fn challenge_pem(domain: &str, digest: &[u8]) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Why the authority could not validate the domain, if it says so.
async fn failed_validation(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.clone());
        if let Some(problem) = problem {
            return Some(problem.detail.unwrap_or_default());
        }
    }
    None
}
