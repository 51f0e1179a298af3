//! [`Chain`]: a route's authenticators, tried in order.

use std::rc::Rc;
use std::sync::Arc;

use authgate_core::credential::{Presented, Refusal};
use authgate_core::identity::{Identity, UserId};
use http::HeaderMap;

use crate::authenticator::{Answer, Authenticator};
use crate::error::EvaluationError;
use crate::now::Now;
use crate::request::RequestFacts;
use crate::scheme::AuthScheme;

/// The result of authenticating one request.
#[derive(Debug)]
pub enum Verdict {
    /// The request has no credential for any authenticator of the route.
    Pass,
    /// An authenticator accepted the credential.
    Accept(Arc<Identity>),
    /// A credential was refused.
    Refuse(Refused),
}

/// The authenticator that refused, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Position of the authenticator in its route's order.
    pub by: usize,
    /// The reason.
    pub refusal: Refusal,
    /// The user that the credential was issued to, if that is certain.
    pub user: Option<Arc<UserId>>,
}

/// A route's authenticators, in its order.
#[derive(Debug, Clone)]
pub struct Chain {
    authenticators: Rc<[Rc<Authenticator>]>,
}

/// An authenticator failed: something that it asks is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("authenticator {authenticator} failed")]
pub struct Unavailable {
    /// Its name.
    pub authenticator: Arc<str>,
    /// The cause.
    #[source]
    pub source: EvaluationError,
}

impl Chain {
    /// Makes a chain of these authenticators.
    pub fn new(authenticators: Vec<Rc<Authenticator>>) -> Self {
        Self {
            authenticators: authenticators.into(),
        }
    }

    /// The authenticators.
    pub fn authenticators(&self) -> impl Iterator<Item = &Authenticator> {
        self.authenticators.iter().map(AsRef::as_ref)
    }

    /// Tries each authenticator in order, until one accepts or refuses. If the only reason why none did is the form of the credential, the
    /// first one that has this scheme refuses it: such a request is not anonymous.
    ///
    /// # Errors
    /// An authenticator failed. The remaining ones are not tried: one of them might accept a credential that the failed one would refuse.
    pub async fn authenticate(&self, request: &RequestFacts<'_>, now: Now) -> Result<Verdict, Unavailable> {
        let mut unread = None;
        for (by, authenticator) in self.authenticators.iter().enumerate() {
            let presented = Presented::from_headers(request.headers, authenticator.header());
            match authenticator.authenticate(&presented, request, now).await {
                Ok(Answer::NoCredential) => {}
                Ok(Answer::OtherForm(refusal)) => {
                    unread.get_or_insert(Refused {
                        by,
                        refusal,
                        user: None,
                    });
                }
                Ok(Answer::Decided(Ok(identity))) => return Ok(Verdict::Accept(identity)),
                Ok(Answer::Decided(Err(refused))) => {
                    let (refusal, user) = refused.into_parts();
                    return Ok(Verdict::Refuse(Refused { by, refusal, user }));
                }
                Err(source) => {
                    return Err(Unavailable {
                        authenticator: Arc::clone(authenticator.name()),
                        source,
                    });
                }
            }
        }
        Ok(unread.map_or(Verdict::Pass, Verdict::Refuse))
    }

    /// What a request has sent to the authenticator at this position of the order, without the scheme and with single blanks. `None`: the
    /// header is absent.
    pub fn credential_of(&self, by: usize, headers: &HeaderMap) -> Option<Vec<u8>> {
        let authenticator = self.authenticators.get(by)?;
        let presented = Presented::from_headers(headers, authenticator.header());
        let (words, _) = presented.words()?;
        let scheme_words = match authenticator.settings().scheme {
            AuthScheme::None => 0,
            AuthScheme::OneOf(_) | AuthScheme::OneOfExactly(_) => 1,
        };
        let words: Vec<&[u8]> = words.iter().skip(scheme_words).collect();
        Some(words.join(&b' '))
    }

    /// Whether a credential header of this chain occurs more than once.
    pub fn saw_repeated_credential(&self, headers: &HeaderMap) -> bool {
        self.authenticators.iter().any(|authenticator| {
            matches!(
                Presented::from_headers(headers, authenticator.header()),
                Presented::Several(_)
            )
        })
    }
}
