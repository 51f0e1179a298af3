//! Keys that sign identities must not be keys of authenticators.

use authgate_auth::jwt::keys::VerificationKey;

use super::authenticators::Authenticators;
use super::signed::{WrittenKey, creation};
use crate::config::problem::Problem;
use crate::config::reader::Section;

/// A token that the gateway signs must not be a credential that one of its authenticators accepts.
pub(super) fn refuse_authenticator_keys(root: &Section<'_>, published: &[WrittenKey], authenticators: &Authenticators) {
    for WrittenKey { published, span } in published {
        for (name, authenticator) in &authenticators.settings {
            let keys = authenticator.kind.as_jwt().map(|jwt| jwt.keys.keys());
            let is_same = |key: &VerificationKey| key.fingerprint() == published.key.fingerprint();
            if keys.is_some_and(|keys| keys.iter().any(is_same)) {
                let message = format!(
                    "this key is also a key of authenticators.{name}: a signed identity could be presented as a credential"
                );
                let help = format!(
                    "use a key that signs identities and nothing else: {} creates one",
                    creation(published.key.algorithm())
                );
                root.add(Problem::error(span.clone(), &published.path, message, help));
            }
        }
    }
}
