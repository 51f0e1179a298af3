//! One connection: TLS, then HTTP/1 or HTTP/2, each step with its timeout.

use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::{debug, info};

use super::closing::{ConnectionExpiry, Idle, IdleExpired, LINGER_TIMEOUT, close, next_bytes, unless_drained};
use super::context::WorkerContext;
use super::handler::{
    Connected, ConnectionEvent, Handler, Handshake, HeadFault, Origin, TlsAccept, TlsAccepted, TlsEnded,
};
use super::socket::Stream;
use super::{http1, http2, proxy_protocol};
use crate::alpn;
use crate::runtime::Rewind;

/// Serves a connection until it ends or reaches a limit. The future of each protocol is on the heap, so that an idle connection
/// holds memory only for the protocol that it speaks.
pub(super) async fn serve<H: Handler>(mut stream: Stream, context: Rc<WorkerContext<H>>) {
    let Ok(node) = stream.peer() else { return };
    stream.set_options();
    let handler = context.handler();
    let limits = handler.limits();
    let origin = if handler.expects_proxy_header(node) {
        match unless_drained(
            &context,
            timeout(limits.header_timeout, proxy_protocol::read(&mut stream)),
        )
        .await
        {
            Some(Ok(Ok(Some(client)))) => Origin::Named {
                client: client.into(),
                proxy: node,
            },
            Some(Ok(Ok(None))) => Origin::Unnamed { proxy: node },
            Some(Ok(Err(problem))) => {
                info!(proxy.ip = %node, reason = %problem, "a trusted proxy connected without a PROXY protocol header");
                return;
            }
            Some(Err(_)) | None => return,
        }
    } else {
        Origin::Peer(node)
    };
    let node = origin.node();
    match handler.tls() {
        None => {
            let connected = Connected { origin, tls: None };
            let connection = handler.connected(connected);
            let mut idle = Idle::now();
            let read = match next_bytes(&mut stream, &mut idle, ConnectionExpiry::default(), &context).await {
                Ok(read) if read.is_empty() => return,
                Ok(read) => read,
                Err(IdleExpired) => return close(stream, None, LINGER_TIMEOUT).await,
            };
            match timeout(limits.header_timeout, detect_protocol(&mut stream, read)).await {
                Ok(Ok(Protocol::Http2(read))) => {
                    Box::pin(http2::serve(
                        Rewind::new(stream, read),
                        connection,
                        node,
                        ConnectionExpiry::default(),
                        &context,
                    ))
                    .await;
                }
                Ok(Ok(Protocol::Http1(read))) => {
                    http1::serve(stream, read, connection, ConnectionExpiry::default(), &context).await
                }
                Ok(Err(problem)) => {
                    debug!(client.ip = %node, reason = %problem, "a connection ended before its first request")
                }
                Err(_) => {
                    let answer = http1::refusal(handler, &connection, HeadFault::TooSlow);
                    close(stream, Some(answer), LINGER_TIMEOUT).await;
                }
            }
        }
        Some(acceptor) => {
            let accepted = async {
                // The handshake begins with the first byte of the client, and TLS may have changed since it connected.
                stream.readable().await;
                let acceptor = handler.tls().unwrap_or(acceptor);
                let TlsAccepted { stream, expires } = acceptor.accept(stream).await?;
                Result::<_, TlsEnded<Stream>>::Ok((Box::new(stream), ConnectionExpiry::until(expires), acceptor))
            };
            // On the heap: the future is large, and idle connections need no room for it. The TLS state is boxed so that it is not moved.
            let handshake = Box::pin(timeout(limits.tls_handshake_timeout, accepted));
            let (tls, expiry, acceptor) = match Box::pin(unless_drained(&context, handshake)).await {
                None => return,
                Some(Ok(Ok(accepted))) => accepted,
                Some(Ok(Err(TlsEnded::Challenge(stream)))) => {
                    handler.count(ConnectionEvent::Handshake(Handshake::Challenge));
                    return Box::pin(close(stream, None, LINGER_TIMEOUT)).await;
                }
                Some(Ok(Err(TlsEnded::Failed(problem, stream)))) => {
                    handler.count(ConnectionEvent::Handshake(Handshake::Failed));
                    debug!(client.ip = %node, reason = %problem, "a TLS handshake failed");
                    // The alert tells the client the reason. A reset because of unread data could delete the alert.
                    return Box::pin(close(stream, None, LINGER_TIMEOUT)).await;
                }
                Some(Err(_)) => {
                    handler.count(ConnectionEvent::Handshake(Handshake::TimedOut));
                    return;
                }
            };
            let session = tls.get_ref().1;
            let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            handler.count(ConnectionEvent::Handshake(if resumed {
                Handshake::Resumed
            } else {
                Handshake::Full
            }));
            let is_http2 = session.alpn_protocol() == Some(alpn::H2);
            let connected = Connected {
                origin,
                tls: Some((session, &acceptor)),
            };
            let connection = handler.connected(connected);
            drop(acceptor);
            // ALPN decides the protocol; there is no fallback from h2 to HTTP/1.
            if is_http2 {
                Box::pin(http2::serve(tls, connection, node, expiry, &context)).await;
            } else {
                http1::serve(tls, Bytes::new(), connection, expiry, &context).await;
            }
        }
    }
}

/// The protocol of a cleartext client, and the bytes that were read.
enum Protocol {
    Http1(Bytes),
    Http2(Bytes),
}

/// Detects from the first bytes whether a cleartext client speaks HTTP/2 with prior knowledge (RFC 9113, section 3.3). Reads more if `read` is
/// too short. HTTP/1 has no method `PRI`.
async fn detect_protocol(stream: &mut Stream, read: Bytes) -> io::Result<Protocol> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    if read.starts_with(PREFACE) {
        return Ok(Protocol::Http2(read));
    }
    if !PREFACE.starts_with(&read) {
        return Ok(Protocol::Http1(read));
    }
    let mut read_buf = BytesMut::from(read);
    while read_buf.len() < PREFACE.len() && PREFACE.starts_with(&read_buf) {
        if stream.read_buf(&mut read_buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let read = read_buf.freeze();
    Ok(match read.starts_with(PREFACE) {
        true => Protocol::Http2(read),
        false => Protocol::Http1(read),
    })
}
