//! [`BindingFault`]: why the binding of a valid token to a key (RFC 9449) or to a certificate (RFC 8705) makes the gateway refuse a request.

use super::{Refusal, labels};
use crate::label_value::LabelValue;

/// Why a valid token is refused: the request does not prove what the token is bound to, or the token is not bound although it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingFault {
    /// The claim `cnf` is malformed, or names only methods that the gateway does not know.
    Confirmation,
    /// The token is bound to a key, and the scheme of the request is not `DPoP`.
    KeyBoundAsBearer,
    /// The scheme is `DPoP`, or every token must be bound to a key, and this one is not.
    NotKeyBound,
    /// The request has more than one proof.
    SeveralProofs,
    /// The request has no proof.
    NoProof,
    /// The proof is not valid for this request.
    Proof(ProofDefect),
    /// The proof is made with another key than the one that the token is bound to.
    OtherKey,
    /// The proof was used before.
    Replayed,
    /// Every token must be bound to a certificate, and this one is not.
    NotCertificateBound,
    /// The token is bound to a certificate, and the client has shown none on this connection.
    NoCertificate,
    /// The token is bound to another certificate than the one that the client has shown.
    OtherCertificate,
}

impl BindingFault {
    /// A short name for logs and metrics.
    pub fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Confirmation => &labels::CNF_INVALID,
            Self::KeyBoundAsBearer => &labels::DPOP_BOUND_AS_BEARER,
            Self::NotKeyBound => &labels::DPOP_NOT_BOUND,
            Self::SeveralProofs => &labels::DPOP_SEVERAL_PROOFS,
            Self::NoProof => &labels::DPOP_NO_PROOF,
            Self::Proof(_) => &labels::DPOP_PROOF_INVALID,
            Self::OtherKey => &labels::DPOP_OTHER_KEY,
            Self::Replayed => &labels::DPOP_REPLAYED,
            Self::NotCertificateBound => &labels::CERTIFICATE_NOT_BOUND,
            Self::NoCertificate => &labels::CERTIFICATE_MISSING,
            Self::OtherCertificate => &labels::CERTIFICATE_OTHER,
        }
    }

    /// Whether the proof is at fault, and not the token (RFC 9449, section 7.1).
    pub fn is_of_proof(self) -> bool {
        match self {
            Self::SeveralProofs | Self::NoProof | Self::Proof(_) | Self::Replayed => true,
            Self::Confirmation
            | Self::KeyBoundAsBearer
            | Self::NotKeyBound
            | Self::OtherKey
            | Self::NotCertificateBound
            | Self::NoCertificate
            | Self::OtherCertificate => false,
        }
    }
}

impl From<BindingFault> for Refusal {
    fn from(fault: BindingFault) -> Self {
        Self::Binding(fault)
    }
}

impl From<ProofDefect> for BindingFault {
    fn from(defect: ProofDefect) -> Self {
        Self::Proof(defect)
    }
}

/// Why a DPoP proof is not valid for a request (RFC 9449, section 4.3), in the order of the checks. Clients do not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofDefect {
    /// It is longer than any real proof.
    Size,
    /// It is not three segments of canonical base64url.
    Form,
    /// The header is not a JSON object, or has an unsupported parameter.
    Header,
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is not a supported asymmetric algorithm.
    Algorithm,
    /// `jwk` is missing, invalid, private, or not for this algorithm.
    Key,
    /// The claims are not a JSON object, or `jti` is missing.
    Claims,
    /// `htm` is not the method of the request.
    Method,
    /// `htu` is not the URI of the request.
    Target,
    /// `iat` is too old, or too far in the future.
    IssuedAt,
    /// `ath` is not the hash of the token.
    Token,
    /// The key in the header does not verify the signature.
    Signature,
}

impl ProofDefect {
    /// A short name for the log.
    pub fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Size => &labels::PROOF_SIZE,
            Self::Form => &labels::PROOF_FORM,
            Self::Header => &labels::PROOF_HEADER,
            Self::Type => &labels::PROOF_TYPE,
            Self::Algorithm => &labels::PROOF_ALGORITHM,
            Self::Key => &labels::PROOF_KEY,
            Self::Claims => &labels::PROOF_CLAIMS,
            Self::Method => &labels::PROOF_METHOD,
            Self::Target => &labels::PROOF_TARGET,
            Self::IssuedAt => &labels::PROOF_ISSUED_AT,
            Self::Token => &labels::PROOF_TOKEN,
            Self::Signature => &labels::PROOF_SIGNATURE,
        }
    }
}
