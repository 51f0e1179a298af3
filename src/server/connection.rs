//! One connection: TLS, then HTTP/1 or HTTP/2, each step with its timeout.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::{debug, info};

use super::closing::{Expired, Idle, LAST_WORDS, Lease, end, next_bytes, unless_drained};
use super::socket::Stream;
use super::worker::Worker;
use super::{http1, http2, proxy_protocol};
use crate::outbound::forwarded::{Peer, Scheme};
use crate::proxy::Client;
use crate::proxy::rejection::Rejection;
use crate::runtime::Rewind;
use crate::tls::provider;

/// Serves a connection until it ends or reaches a limit. The future of each protocol is on the heap, so that an idle connection
/// holds memory only for the protocol that it speaks.
pub(super) async fn serve(mut stream: Stream, worker: Rc<Worker>) {
    let Ok(node) = stream.peer() else { return };
    stream.set_options();
    let limits = worker.limits();
    let trusted = worker.trusted();
    let (node, believed) = if worker.expects_proxy_header() && trusted.contains(node) {
        match unless_drained(
            &worker,
            timeout(limits.header_timeout, proxy_protocol::read(&mut stream)),
        )
        .await
        {
            Some(Ok(Ok(Some(client)))) => (client.into(), Arc::clone(trusted)),
            // The header names no client: the load balancer itself connects (a health check), or it does not know the client. Forwarding fields are not trusted.
            Some(Ok(Ok(None))) => (node, Arc::default()),
            Some(Ok(Err(problem))) => {
                info!(proxy.ip = %node, reason = %problem, "a trusted proxy connected without a PROXY protocol header");
                return;
            }
            Some(Err(_)) | None => return,
        }
    } else {
        (node, Arc::clone(trusted))
    };
    match worker.tls() {
        None => {
            let client = Client::new(Peer::new(node, Scheme::Http, &believed), None);
            let mut idle = Idle::now();
            let read = match next_bytes(&mut stream, &mut idle, Lease::default(), &worker).await {
                Ok(read) if read.is_empty() => return,
                Ok(read) => read,
                Err(Expired) => return end(stream, None, LAST_WORDS).await,
            };
            match timeout(limits.header_timeout, spoken(&mut stream, read)).await {
                Ok(Ok(Spoken::Http2(read))) => {
                    Box::pin(http2::serve(
                        Rewind::new(stream, read),
                        client,
                        Lease::default(),
                        &worker,
                    ))
                    .await;
                }
                Ok(Ok(Spoken::Http1(read))) => http1::serve(stream, read, client, Lease::default(), &worker).await,
                Ok(Err(problem)) => {
                    debug!(client.ip = %node, reason = %problem, "a connection ended before its first request")
                }
                Err(_) => {
                    let words = worker.proxy().refuse_head(&client.peer, &Rejection::HeadTooSlow);
                    end(stream, Some(words), LAST_WORDS).await;
                }
            }
        }
        Some(acceptor) => {
            let accepted = async {
                let (tls, until) = acceptor.accept(stream).await?;
                Result::<_, (io::Error, Stream)>::Ok((Box::new(tls), Lease::until(until)))
            };
            // On the heap: the future is large, and idle connections need no room for it. The TLS state is boxed so that it is not moved.
            let handshake = Box::pin(timeout(limits.tls_handshake_timeout, accepted));
            let (tls, lease) = match Box::pin(unless_drained(&worker, handshake)).await {
                None => return,
                Some(Ok(Ok(accepted))) => accepted,
                Some(Ok(Err((problem, stream)))) => {
                    worker.metrics().count_handshake("failed");
                    debug!(client.ip = %node, reason = %problem, "a TLS handshake failed");
                    // The alert tells the client the reason. A reset because of unread data could delete the alert.
                    return Box::pin(end(stream, None, LAST_WORDS)).await;
                }
                Some(Err(_)) => {
                    worker.metrics().count_handshake("timeout");
                    return;
                }
            };
            let connection = tls.get_ref().1;
            let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            worker
                .metrics()
                .count_handshake(if resumed { "resumed" } else { "full" });
            let served = acceptor.certificates.select(connection.server_name());
            let client = Client::new(Peer::new(node, Scheme::Https, &believed), Some(served));
            // ALPN decides the protocol; there is no fallback from h2 to HTTP/1.
            if connection.alpn_protocol() == Some(provider::H2) {
                Box::pin(http2::serve(tls, client, lease, &worker)).await;
            } else {
                http1::serve(tls, Bytes::new(), client, lease, &worker).await;
            }
        }
    }
}

/// The protocol of a cleartext client, and the bytes that were read.
enum Spoken {
    Http1(Bytes),
    Http2(Bytes),
}

/// Detects from the first bytes whether a cleartext client speaks HTTP/2 with prior knowledge (RFC 9113, section 3.3). Reads more if `read` is
/// too short. HTTP/1 has no method `PRI`.
async fn spoken(stream: &mut Stream, read: Bytes) -> io::Result<Spoken> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    if read.starts_with(PREFACE) {
        return Ok(Spoken::Http2(read));
    }
    if !PREFACE.starts_with(&read) {
        return Ok(Spoken::Http1(read));
    }
    let mut seen = BytesMut::from(read);
    while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let read = seen.freeze();
    Ok(match read.starts_with(PREFACE) {
        true => Spoken::Http2(read),
        false => Spoken::Http1(read),
    })
}
