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
            let issuers = authenticator
                .kind
                .as_jwt()
                .into_iter()
                .flat_map(|jwt| jwt.issuers.all());
            let is_same = |key: &VerificationKey| key.fingerprint() == published.key.fingerprint();
            if issuers.flat_map(|issuer| issuer.keys.keys()).any(is_same) {
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
