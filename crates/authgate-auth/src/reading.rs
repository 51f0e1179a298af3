//! [`Reading`]: what a header holds for an authenticator.

use authgate_core::credential::Refusal;

/// What a header holds for an authenticator.
#[derive(Debug)]
pub(crate) enum Reading<'w> {
    /// No credential, or one of another scheme.
    OtherScheme,
    /// A credential of the scheme in a form that the authenticator does not read: see [`CredentialForm`](crate::CredentialForm). It is refused
    /// for this reason if no other authenticator of the route reads it.
    OtherForm(Refusal),
    /// A credential without a valid form.
    Malformed(Refusal),
    /// A credential.
    Credential(&'w [u8]),
    /// A credential joined from several lines of the header. It is never accepted: it is refused for the reason that the evaluation finds,
    /// or else for this one.
    Joined(&'w [u8], Refusal),
}
