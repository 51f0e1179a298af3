//! [`Pki`]: a certificate authority that lives as long as a test.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A public key of P-256.
struct PublicPoint(Vec<u8>);

impl PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Pki {
    pub fn new() -> Arc<Self> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let root = params.self_signed(&key).expect("a certificate").der().clone();
        Arc::new(Self {
            issuer: Issuer::new(params, key),
            root,
        })
    }

    /// Chain and key, in PEM.
    pub fn leaf(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .expect("names")
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The same, and the certificate ends at that time, in seconds since 1970.
    pub fn leaf_until(&self, names: &[&str], until: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(until);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The certificate alone, for the key of a signing request in DER, which is of P-256.
    pub fn certificate_for(&self, request: &[u8], names: &[&str], until: u64) -> String {
        // BIT STRING of 66 bytes: no unused bits, and an uncompressed point.
        let point = [0x03, 0x42, 0x00, 0x04];
        let at = request
            .windows(4)
            .position(|four| four == point)
            .expect("a key of P-256");
        let key = PublicPoint(request[at + 3..at + 68].to_vec());
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(until);
        params.signed_by(&key, &self.issuer).expect("a certificate").pem()
    }

    /// The same, and the certificate begins at that time too.
    pub fn leaf_between(&self, names: &[&str], from: u64, until: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        (params.not_before, params.not_after) = (at(from), at(until));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate whose subject is not made of names: webpki does not look into it, and a full parser cannot read the certificate.
    pub fn leaf_with_unreadable_subject(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "unreadable");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        // SEQUENCE { what is signed, SEQUENCE of the algorithm, BIT STRING }
        let der = certificate.der();
        let signed = value_at(&der[header(der)..]);
        let algorithm = value_at(&der[header(der) + signed.len()..]);
        let mut signed = signed.to_vec();
        let name = signed
            .windows(10)
            .rposition(|ten| ten == b"unreadable")
            .expect("the subject");
        // SET { SEQUENCE { OBJECT IDENTIFIER of 5 bytes, string } }: the set becomes a NULL.
        assert_eq!(signed[name - 11], 0x31);
        signed[name - 11] = 0x05;
        let signature = self.issuer.key().sign(&signed).expect("signed");
        let bits = value(0x03, &[&[0], &signature[..]].concat());
        let der = value(0x30, &[&signed[..], algorithm, &bits].concat());
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        (pem, key.serialize_pem())
    }

    /// The same, and the certificate says where the one of its issuer is (RFC 5280, section 4.2.2.1).
    pub fn leaf_with_issuer_at(&self, names: &[&str], url: &str) -> (String, String) {
        const CA_ISSUERS: [u8; 10] = [0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let tagged = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).expect("a short length in DER");
            [&[tag, length], content].concat()
        };
        let access = tagged(0x30, &[&CA_ISSUERS, &tagged(0x86, url.as_bytes())[..]].concat());
        let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], tagged(0x30, &access));
        params.custom_extensions.push(extension);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The authority's own certificate, in PEM.
    pub fn root_pem(&self) -> String {
        let base64 = base64::engine::general_purpose::STANDARD.encode(&self.root);
        format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
    }

    /// A server that speaks HTTP/2 and, if asked to, wants a certificate of this authority.
    pub fn server(&self, names: &[&str], wants_certificate: bool) -> rustls::ServerConfig {
        let (chain, key) = self.leaf(names);
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if wants_certificate {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of this provider")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// A client that shows a certificate of that authority, or none.
    pub fn client_as(&self, authority: Option<&Self>, alpn: &[&str]) -> ClientConfig {
        let mut config = self.client(alpn, rustls::ALL_VERSIONS);
        if let Some(authority) = authority {
            show(&mut config, authority.leaf(&["client.example"]));
        }
        config
    }

    /// A client that trusts this authority and offers these protocols.
    pub fn client(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions of this provider")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// The length of the header of the first value in DER.
fn header(der: &[u8]) -> usize {
    match der[1] {
        0..0x80 => 2,
        long => usize::from(long & 0x7f) + 2,
    }
}

/// The first value in DER, with its header.
fn value_at(der: &[u8]) -> &[u8] {
    let header = header(der);
    let length = match header {
        2 => usize::from(der[1]),
        _ => der[2..header]
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    &der[..header + length]
}

/// A value in DER with a length of two bytes at most.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&header, content].concat()
}

/// A client that trusts this authority, in PEM, and offers these protocols.
pub fn client_trusting(root: &str, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of this provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Has a client show a certificate.
pub fn show(config: &mut ClientConfig, pair: (String, String)) {
    show_with(config, pair, &[]);
}

/// Has a client show a certificate, and more behind it.
pub fn show_with(config: &mut ClientConfig, (chain, key): (String, String), more: &[&[u8]]) {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM");
    let more = more.iter().map(|der| CertificateDer::from(der.to_vec()));
    let chain = std::iter::once(leaf).chain(more).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let key = config
        .crypto_provider()
        .key_provider
        .load_private_key(key)
        .expect("a key");
    let key = rustls::sign::CertifiedKey::new(chain, key);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
}

/// Chain and key of a certificate that is signed by its own key, in PEM.
pub fn self_signed(names: &[&str], is_ca: bool) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// A server that speaks HTTP/2 and shows this certificate.
pub fn server_showing((chain, key): &(String, String)) -> rustls::ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of this provider")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
