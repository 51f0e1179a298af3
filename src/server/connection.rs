//! One socket: TLS, then HTTP/1 or HTTP/2, each step under its deadline.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info};

use super::Limits;
use super::socket::Stream;
use super::worker::{Stage, Worker};
use super::{http1, http2, proxy_protocol};
use crate::outbound::forwarded::{Peer, Scheme};
use crate::proxy::Client;
use crate::proxy::rejection::Rejection;
use crate::runtime::Replay;
use crate::tls::provider;

/// How long the last words to a client may take, and how long it may then be silent.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// What it still sends of a body that was answered may keep us for so long.
pub(super) const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// Serves a connection until it ends, and never longer than it may. Each protocol's future is on the heap by itself: an idle connection
/// holds room for what it speaks, and not for what it might have spoken.
pub(super) async fn serve(mut stream: Stream, worker: Rc<Worker>) {
    let Ok(node) = stream.peer() else { return };
    stream.prepare();
    let limits = worker.limits();
    let trusted = worker.trusted();
    let (node, believed) = if worker.expects_proxy_header() && trusted.contains(node) {
        match unless_draining(
            &worker,
            timeout(limits.header_timeout, proxy_protocol::read(&mut stream)),
        )
        .await
        {
            Some(Ok(Ok(Some(client)))) => (client.into(), Arc::clone(trusted)),
            // Whoever is behind it is nobody that the balancer would speak for: its own health checks, or what it could not name.
            Some(Ok(Ok(None))) => (node, Arc::default()),
            Some(Ok(Err(problem))) => {
                info!(proxy.ip = %node, reason = %problem, "a trusted proxy began without a PROXY protocol header");
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
            match unless_draining(&worker, spoken(&mut stream, &limits)).await {
                Some(Ok((Spoken::Http2, read))) => {
                    Box::pin(http2::serve(Replay::new(stream, read), client, &worker)).await
                }
                Some(Ok((Spoken::Http1, read))) => {
                    http1::serve(stream, read, client, &worker, Stream::reset_when_closed).await
                }
                Some(Ok((Spoken::TooLittle, _))) => {
                    let words = worker.proxy().refuse_head(&client.peer, &Rejection::HeadTooSlow);
                    end(stream, Some(words), LAST_WORDS).await;
                }
                Some(Err(_)) | None => {}
            }
        }
        Some(acceptor) => {
            let accepted = async { io::Result::Ok(Box::new(acceptor.tls.accept(stream).await?)) };
            // Large, and over before anything else begins: an idle connection holds no room for it. Nor is the state of TLS moved about.
            let handshake = Box::pin(timeout(limits.tls_handshake_timeout, accepted));
            let tls = match Box::pin(unless_draining(&worker, handshake)).await {
                None => return,
                Some(Ok(Ok(tls))) => tls,
                Some(Ok(Err(problem))) => {
                    worker.metrics().handshake_ended("failed");
                    debug!(client.ip = %node, reason = %problem, "a TLS handshake failed");
                    return;
                }
                Some(Err(_)) => {
                    worker.metrics().handshake_ended("timeout");
                    return;
                }
            };
            let connection = tls.get_ref().1;
            let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            worker
                .metrics()
                .handshake_ended(if resumed { "resumed" } else { "full" });
            let served = acceptor.hosts.served(connection.server_name());
            let client = Client::new(Peer::new(node, Scheme::Https, &believed), Some(served));
            // What ALPN agreed on is what is spoken; h2 never falls back to HTTP/1.
            if connection.alpn_protocol() == Some(provider::H2) {
                Box::pin(http2::serve(tls, client, &worker)).await;
            } else {
                http1::serve(tls, Bytes::new(), client, &worker, |tls| {
                    tls.get_ref().0.reset_when_closed()
                })
                .await;
            }
        }
    }
}

/// What a cleartext client speaks.
enum Spoken {
    Http1,
    Http2,
    /// It began, and did not go on until anybody could tell.
    TooLittle,
}

/// Finds out whether a cleartext client speaks HTTP/2 with prior knowledge (RFC 9113, section 3.3), and hands back what was read for
/// that. `PRI` is no method of HTTP/1.
async fn spoken(stream: &mut Stream, limits: &Limits) -> io::Result<(Spoken, Bytes)> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut seen = [0; PREFACE.len()];
    let mut count = timeout(limits.idle_timeout, read_some(stream, &mut seen)).await??;
    let rest = async {
        while count < PREFACE.len() && seen[..count] == PREFACE[..count] {
            count += read_some(stream, &mut seen[count..]).await?;
        }
        io::Result::Ok(())
    };
    let spoken = match timeout(limits.header_timeout, rest).await {
        Err(_) => Spoken::TooLittle,
        Ok(done) => {
            done?;
            if seen[..count] == *PREFACE {
                Spoken::Http2
            } else {
                Spoken::Http1
            }
        }
    };
    Ok((spoken, Bytes::copy_from_slice(&seen[..count])))
}

/// Reads one byte at least.
async fn read_some(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// Says some last words, and closes so that they are heard: what the client still sends is taken for so long.
pub(super) async fn end<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, words: Option<Bytes>, linger: Duration) {
    let say = async {
        if let Some(words) = words {
            io.write_all(&words).await?;
        }
        io.shutdown().await
    };
    match timeout(LAST_WORDS, say).await {
        Ok(Ok(())) => {
            let _ = timeout(linger, take_the_rest(&mut io)).await;
        }
        Ok(Err(problem)) => debug!(reason = %problem, "a connection did not end well"),
        Err(_) => {}
    }
}

/// Takes what a client still sends, as long as it does: closing before it is read would reset the connection, and the client might never
/// see the answer (RFC 9112, section 9.6).
async fn take_the_rest<I: AsyncRead + Unpin>(io: &mut I) {
    // Not part of every connection's future.
    let mut piece = vec![0; 16 * 1024];
    while let Ok(Ok(1..)) = timeout(LAST_WORDS, io.read(&mut piece)).await {}
}

/// What a connection does before its first request: there is no point in it once no request will be taken.
async fn unless_draining<T>(worker: &Worker, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = draining(worker.stage()) => None,
    }
}

/// Ends when connections are to take no more requests.
async fn draining(mut stage: watch::Receiver<Stage>) {
    // The sender lives as long as the process; were it gone, nobody could ask for anything else.
    let _ = stage.wait_for(|stage| *stage == Stage::Draining).await;
}

pin_project! {
    /// [`draining`] for a task that polls it at every turn: it is really asked once, and then only when something has changed.
    pub(super) struct Drain<F> {
        stage: watch::Receiver<Stage>,
        asked: bool,
        #[pin]
        draining: F,
    }
}

impl Drain<()> {
    pub(super) fn new(stage: watch::Receiver<Stage>) -> Drain<impl Future<Output = ()>> {
        Drain {
            asked: false,
            draining: draining(stage.clone()),
            stage,
        }
    }
}

impl<F: Future<Output = ()>> Future for Drain<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if mem::replace(this.asked, true) && !this.stage.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        this.draining.poll(cx)
    }
}
