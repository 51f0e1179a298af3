//! TLS session resumption with https upstreams: only while the certificate that was checked in the full handshake is valid.
//!
//! A resumed session has no certificate, and a server could resume sessions without end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::{ServerName, UnixTime};

/// Maximum number of servers with stored sessions.
const MAX_SERVERS: usize = 256;

/// The sessions of one upstream's servers.
#[derive(Debug)]
pub(super) struct SessionStore {
    cache: ClientSessionMemoryCache,
    /// By server: the earliest expiry of all certificates that it has presented since its sessions were last dropped. At most one entry for
    /// each server of the upstream.
    expiries: Mutex<HashMap<ServerName<'static>, UnixTime>>,
}

impl SessionStore {
    pub(super) fn new() -> Self {
        Self {
            cache: ClientSessionMemoryCache::new(MAX_SERVERS),
            expiries: Mutex::default(),
        }
    }

    /// Records that a server's certificate was accepted. If its expiry is unknown, the server's sessions are not resumed.
    pub(super) fn certificate_accepted(&self, name: &ServerName<'static>, until: Option<UnixTime>) {
        let mut expiries = self.expiries();
        match (until, expiries.get_mut(name)) {
            (None, _) => drop(expiries.remove(name)),
            (Some(until), Some(expiry)) => *expiry = until.min(*expiry),
            (Some(until), None) => drop(expiries.insert(name.clone(), until)),
        }
    }

    /// Whether sessions with that server may be resumed; if not, drops them.
    fn may_resume(&self, name: &ServerName<'static>) -> bool {
        let now = UnixTime::now();
        let mut expiries = self.expiries();
        if expiries.get(name).is_some_and(|expiry| now <= *expiry) {
            return true;
        }
        expiries.remove(name);
        self.cache.remove_tls12_session(name);
        while self.cache.take_tls13_ticket(name).is_some() {}
        false
    }

    fn expiries(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, UnixTime>> {
        // No code panics while it holds the lock.
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.may_resume(&server_name.to_owned())
            .then(|| self.cache.tls12_session(server_name))
            .flatten()
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.cache.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.cache.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.may_resume(server_name)
            .then(|| self.cache.take_tls13_ticket(server_name))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;
    use crate::tls::{client, load_authorities, provider};

    /// One handshake between the two, and the messages after it. Returns whether it was full or resumed.
    fn handshake(
        client: &Arc<rustls::ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> Result<HandshakeKind, rustls::Error> {
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        for _ in 0..10 {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            client.write_tls(&mut there).expect("memory");
            server.read_tls(&mut &there[..]).expect("memory");
            server.process_new_packets()?;
            server.write_tls(&mut back).expect("memory");
            client.read_tls(&mut &back[..]).expect("memory");
            client.process_new_packets()?;
        }
        Ok(client.handshake_kind().expect("a handshake"))
    }

    #[test]
    fn session_is_not_resumed_after_its_certificate_has_expired() {
        let now = || UnixTime::now().as_secs();
        for version in [&TLS12, &TLS13] {
            let (key, until) = (KeyPair::generate().expect("a key"), now() + 3);
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
            params.not_before = rcgen::date_time_ymd(1970, 1, 1);
            params.not_after = params.not_before + Duration::from_secs(until);
            let certificate = params.self_signed(&key).expect("a certificate");
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("ca.pem");
            std::fs::write(&file, certificate.pem()).expect("writable");
            let ca = load_authorities(&file).expect("a certificate");
            let mut server = ServerConfig::builder_with_provider(provider::provider())
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::Pkcs8(key.serialize_der().into()),
                )
                .expect("a certificate and its key");
            server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("keys");
            let server = Arc::new(server);
            let settings = client::ClientTlsSettings {
                ca: Some(ca),
                identity: None,
            };
            let (client, _) = client::config(&settings).expect("roots");
            assert_eq!(handshake(&client, &server), Ok(HandshakeKind::Full));
            assert_eq!(handshake(&client, &server), Ok(HandshakeKind::Resumed));
            while now() <= until {
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(
                handshake(&client, &server).is_err(),
                "the certificate was valid at the first handshake, and has expired"
            );
        }
    }
}
