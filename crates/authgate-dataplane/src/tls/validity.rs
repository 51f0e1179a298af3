//! The validity period of a certificate. rustls checks it but does not expose it.

use std::path::Path;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_cert::certificate::{CertificateInner, Profile};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::AuthorityInfoAccessSyntax;
use x509_cert::ext::pkix::name::GeneralName;

use crate::file;

/// The validity period of a certificate (RFC 5280, section 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Start, inclusive.
    pub not_before: UnixTime,
    /// End, inclusive.
    pub not_after: UnixTime,
}

/// A lenient parser profile: checking certificates against RFC 5280 is the task of the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct AnyProfile;

impl Profile for AnyProfile {}

impl Validity {
    /// The period of a certificate in DER; `None` if it cannot be parsed.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = CertificateInner::<AnyProfile>::from_der(der).ok()?;
        let validity = certificate.tbs_certificate().validity();
        let time = |at: Duration| UnixTime::since_unix_epoch(at);
        Some(Self {
            not_before: time(validity.not_before.to_unix_duration()),
            not_after: time(validity.not_after.to_unix_duration()),
        })
    }

    /// The periods of all certificates in a PEM file, in order, without those that cannot be parsed.
    pub fn of_file(file: &Path) -> Vec<(usize, Self)> {
        let Ok(bytes) = file::read(file) else {
            return Vec::new();
        };
        CertificateDer::pem_slice_iter(&bytes)
            .enumerate()
            .filter_map(|(at, der)| Some((at, Self::of(&der.ok()?)?)))
            .collect()
    }

    /// The earliest end of a chain, leaf first; `None` if the leaf cannot be parsed, or another one that a verifier may have used.
    pub fn chain_expiry<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<UnixTime> {
        let all = Self::of_chain(chain)?;
        all.into_iter().map(|validity| validity.not_after).min()
    }

    /// The same for a chain that was accepted at `now`. The leaf always counts. Another one that had expired by then is ignored: it was sent
    /// but not needed for the chain.
    pub fn accepted_chain_expiry<'c>(now: UnixTime, chain: impl IntoIterator<Item = &'c [u8]>) -> Option<UnixTime> {
        let mut expiries = Self::of_chain(chain)?.into_iter().map(|validity| validity.not_after);
        let leaf = expiries.next()?;
        Some(expiries.filter(|expiry| *expiry >= now).fold(leaf, UnixTime::min))
    }

    /// The periods of a chain, without those of extra certificates that webpki cannot parse: none of them is in a chain that it has verified.
    fn of_chain<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<Vec<Self>> {
        let mut chain = chain.into_iter();
        let leaf = Self::of(chain.next()?)?;
        let is_verifiable = |der: &&[u8]| EndEntityCert::try_from(&CertificateDer::from(*der)).is_ok();
        let others = chain.filter(is_verifiable).map(Self::of);
        std::iter::once(Some(leaf)).chain(others).collect()
    }
}

/// The position of the first certificate in a chain that the next one has not issued, by their names (RFC 8446, section 4.4.2).
pub fn first_unissued<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<usize> {
    let names = |der: &[u8]| {
        let certificate = CertificateInner::<AnyProfile>::from_der(der).ok()?;
        let tbs = certificate.tbs_certificate();
        Some((tbs.subject().to_der().ok()?, tbs.issuer().to_der().ok()?))
    };
    let names: Option<Vec<_>> = chain.into_iter().map(names).collect();
    let names = names?;
    let mut pairs = names.iter().zip(names.iter().skip(1));
    pairs.position(|((_, issuer), (next, _))| issuer != next)
}

/// Where the certificate of a leaf's issuer can be had (RFC 5280, section 4.2.2.1), if the chain has only the leaf and the issuer is not a
/// root certificate of this system. Then the chain probably lacks an intermediate certificate.
pub fn missing_issuer<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<String> {
    const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
    let mut chain = chain.into_iter();
    let (leaf, None) = (chain.next()?, chain.next()) else {
        return None;
    };
    let certificate = CertificateInner::<AnyProfile>::from_der(leaf).ok()?;
    let tbs = certificate.tbs_certificate();
    let (_, access) = tbs.get_extension::<AuthorityInfoAccessSyntax>().ok()??;
    let url = access.0.iter().find_map(|access| match &access.access_location {
        GeneralName::UniformResourceIdentifier(url) if access.access_method == CA_ISSUERS => Some(url.to_string()),
        _ => None,
    })?;
    let issuer = tbs.issuer().to_der().ok()?;
    let is_root = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.subjects().iter().any(|root| root.as_ref() == issuer)
    };
    (tbs.subject() != tbs.issuer() && !is_root()).then_some(url)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn certificate_until(seconds: u64) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(seconds);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn extra_certificates_that_no_verifier_uses_do_not_change_the_expiry_of_a_chain() {
        let chain = [5_000, 1_000, 3_000].map(certificate_until);
        let end = |now| Validity::accepted_chain_expiry(at(now), chain.iter().map(Vec::as_slice));
        assert_eq!(end(500), Some(at(1_000)));
        assert_eq!(end(1_000), Some(at(1_000)));
        assert_eq!(end(1_001), Some(at(3_000)));
        assert_eq!(end(3_001), Some(at(5_000)));
        assert_eq!(end(5_001), Some(at(5_000)), "the leaf always counts");
        let leaf = &chain[0][..];
        for extra in [b"x", &leaf[1..], b""] {
            let end = |chain: [&[u8]; 2]| Validity::accepted_chain_expiry(at(0), chain);
            assert_eq!((end([leaf, extra]), end([extra, leaf])), (Some(at(5_000)), None));
            assert_eq!(Validity::chain_expiry([leaf, extra]), Some(at(5_000)));
        }
        assert_eq!(Validity::accepted_chain_expiry(at(0), []), None);
    }

    /// A certificate whose subject webpki accepts, because it reads no names in it, and this parser does not.
    #[test]
    fn a_chain_with_a_certificate_that_only_the_verifier_can_parse_has_no_expiry() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, "name");
        let leaf = params.self_signed(&key).expect("a certificate").der().to_vec();
        let mut odd = leaf.clone();
        // The set in a name becomes a NULL.
        for at in 1..odd.len() {
            if odd[at..].starts_with(&[0x31, 0x0d, 0x30]) {
                odd[at] = 0x05;
            }
        }
        assert!(EndEntityCert::try_from(&CertificateDer::from(&odd[..])).is_ok());
        assert_eq!(Validity::of(&odd), None);
        assert!(Validity::chain_expiry([&leaf[..]]).is_some());
        assert_eq!(Validity::chain_expiry([&leaf[..], &odd]), None);
        assert_eq!(Validity::accepted_chain_expiry(at(0), [&leaf[..], &odd]), None);
    }
}
