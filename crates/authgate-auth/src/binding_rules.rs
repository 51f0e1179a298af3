//! [`BindingRules`]: whether tokens are bound to a key (RFC 9449) or to a certificate (RFC 8705), and what a request must prove.

use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::BindingFault;
use serde_json::Value;

use crate::confirmation::{Confirmation, InvalidConfirmation};

/// Whether a kind of binding is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// It is not checked: a bound token is accepted like an unbound one.
    #[default]
    Off,
    /// A bound token is accepted only with its proof. An unbound one is accepted too.
    Accept,
    /// Only bound tokens are accepted.
    Require,
}

/// Where used proofs are recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReplayStore {
    /// In this process.
    #[default]
    Local,
    /// In the store of this name, which gateways may share.
    Store(Arc<str>),
}

/// The rules for bound tokens. They are the same for every kind of token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingRules {
    /// Tokens that are bound to a key (RFC 9449).
    pub dpop: Requirement,
    /// The largest difference between `iat` of a proof and the time of the request, in both directions.
    pub window: Duration,
    /// Where used proofs are recorded.
    pub replay: ReplayStore,
    /// Tokens that are bound to a certificate (RFC 8705).
    pub certificate_bound: Requirement,
    /// Whether the authenticator reads the scheme of key-bound tokens for another issuer. Then a token is refused under that scheme although
    /// `dpop` is off.
    pub dpop_beside: bool,
}

impl BindingRules {
    /// No binding is checked.
    pub const OFF: Self = Self {
        dpop: Requirement::Off,
        window: Duration::from_mins(1),
        replay: ReplayStore::Local,
        certificate_bound: Requirement::Off,
        dpop_beside: false,
    };

    /// Whether no binding is checked.
    pub(crate) fn is_off(&self) -> bool {
        self.dpop == Requirement::Off && self.certificate_bound == Requirement::Off
    }

    /// Name of the store with used proofs.
    pub fn store(&self) -> Option<&Arc<str>> {
        match &self.replay {
            ReplayStore::Store(name) if self.dpop != Requirement::Off => Some(name),
            ReplayStore::Store(_) | ReplayStore::Local => None,
        }
    }

    /// Whether a request that `previous` has accepted is accepted by these rules too, apart from its time.
    pub(crate) fn accept_all_of(&self, previous: &Self) -> bool {
        self.dpop <= previous.dpop && self.certificate_bound <= previous.certificate_bound
    }

    /// What requests with a token must prove. `confirmation` is the claim `cnf` of the token. `None`: nothing is checked.
    ///
    /// # Errors
    /// The claim cannot be checked.
    pub(crate) fn bind(
        self: &Arc<Self>,
        confirmation: Option<&Value>,
    ) -> Result<Option<Arc<TokenBinding>>, BindingFault> {
        let confirmation = match (self.is_off(), self.dpop_beside) {
            (true, false) => return Ok(None),
            (true, true) => Confirmation::default(),
            (false, _) => {
                let confirmation = Confirmation::from_claim(confirmation);
                confirmation.map_err(|InvalidConfirmation| BindingFault::Confirmation)?
            }
        };
        Ok(Some(Arc::new(TokenBinding {
            rules: Arc::clone(self),
            confirmation,
        })))
    }
}

/// What every request with a token must prove, also if the decision about the token is cached.
#[derive(Debug)]
pub(crate) struct TokenBinding {
    pub(crate) rules: Arc<BindingRules>,
    pub(crate) confirmation: Confirmation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stricter_rules_do_not_accept_what_wider_ones_did() {
        use Requirement::{Accept, Off, Require};
        for (own, previous, expected) in [
            (Off, Off, true),
            (Off, Require, true),
            (Accept, Require, true),
            (Require, Require, true),
            (Accept, Off, false),
            (Require, Off, false),
            (Require, Accept, false),
        ] {
            let key = |dpop| BindingRules {
                dpop,
                ..BindingRules::OFF
            };
            let certificate = |certificate_bound| BindingRules {
                certificate_bound,
                ..BindingRules::OFF
            };
            assert_eq!(key(own).accept_all_of(&key(previous)), expected);
            assert_eq!(certificate(own).accept_all_of(&certificate(previous)), expected);
        }
    }

    #[test]
    fn a_token_has_a_binding_only_where_one_is_checked() {
        let malformed = Value::Null;
        let off = Arc::new(BindingRules::OFF);
        assert!(off.bind(Some(&malformed)).is_ok_and(|binding| binding.is_none()));
        let on = Arc::new(BindingRules {
            certificate_bound: Requirement::Accept,
            ..BindingRules::OFF
        });
        assert_eq!(on.bind(Some(&malformed)).err(), Some(BindingFault::Confirmation));
        assert!(on.bind(None).is_ok_and(|binding| binding.is_some()));
    }
}
