//! From when to when a certificate is valid. rustls checks it and does not say it.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use x509_cert::certificate::{CertificateInner, Profile};
use x509_cert::der::Decode;

/// From when to when a certificate is valid (RFC 5280, section 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: UnixTime,
    /// The last moment.
    pub until: UnixTime,
}

/// Certificates as they come: whether they keep to RFC 5280 is for those to say that verify them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct AnyProfile;

impl Profile for AnyProfile {}

impl Validity {
    /// Of a certificate in DER; nothing if it cannot be read.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = CertificateInner::<AnyProfile>::from_der(der).ok()?;
        let validity = certificate.tbs_certificate().validity();
        let time = |at: Duration| UnixTime::since_unix_epoch(at);
        Some(Self {
            from: time(validity.not_before.to_unix_duration()),
            until: time(validity.not_after.to_unix_duration()),
        })
    }

    /// When the first of several certificates ends; nothing if one cannot be read.
    pub fn first_end<'c>(certificates: impl IntoIterator<Item = &'c [u8]>) -> Option<UnixTime> {
        let mut first = None;
        for der in certificates {
            let until = Self::of(der)?.until;
            first = Some(first.map_or(until, |first: UnixTime| first.min(until)));
        }
        first
    }
}
