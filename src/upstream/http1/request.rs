//! A request on its way to a server: its head in one buffer, its body behind that, framed anew (RFC 9112, sections 3 and 6).

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::upstream::body::{BodyFault, RequestBody};

/// A request, as far as it has not left.
#[derive(Debug)]
pub(super) struct Sending {
    /// The head, and what frames the body, up to where `data` comes.
    out: Vec<u8>,
    written: usize,
    data: Bytes,
    /// What is still to be asked for; `None`: all of it was.
    body: Option<RequestBody>,
    framing: Framing,
    /// Whether a byte has left.
    begun: bool,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked {
        /// Whether the line end behind a chunk is due.
        behind_chunk: bool,
    },
}

/// Why a request could not be sent whole.
#[derive(Debug)]
pub(super) enum Unsendable {
    Io(io::Error),
    Body(BodyFault),
}

impl Sending {
    /// A request; `out` is a buffer to write in.
    pub(super) fn new(mut out: Vec<u8>, head: &Parts, body: RequestBody) -> Self {
        out.clear();
        let framing = write_head(&mut out, head, &body);
        Self {
            out,
            written: 0,
            data: Bytes::new(),
            body: (!body.is_end_stream()).then_some(body),
            framing,
            begun: false,
        }
    }

    /// Whether a byte has left.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Bytes that wait for the server to take them.
    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.written + self.data.len()
    }

    /// The body, of which nothing was taken; to be asked only where no byte has left.
    pub(super) fn into_body(self) -> Option<RequestBody> {
        match self.body {
            // A piece was taken already, and cannot be put back.
            _ if !self.data.is_empty() => None,
            Some(body) => Some(body),
            None => Some(RequestBody::none()),
        }
    }

    /// The buffer, for the next request.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.out
    }

    /// Sends on; ready once all has left.
    pub(super) fn poll<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsendable>> {
        loop {
            let waits = self.data.is_empty() && self.body.is_some() && self.poll_body(cx)?.is_pending();
            while self.written < self.out.len() || !self.data.is_empty() {
                let count =
                    ready!(poll_write(io, cx, &self.out[self.written..], &self.data)).map_err(Unsendable::Io)?;
                self.begun = true;
                let of_out = count.min(self.out.len() - self.written);
                self.written += of_out;
                self.data.advance(count - of_out);
            }
            self.out.clear();
            self.written = 0;
            if waits || self.body.is_none() {
                ready!(Pin::new(io).poll_flush(cx)).map_err(Unsendable::Io)?;
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// Asks for the next piece of the body, and frames it.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsendable>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose();
        let data = frame
            .map_err(Unsendable::Body)?
            .map(|frame| frame.into_data().unwrap_or_default());
        let last = data.is_none() || body.is_end_stream();
        if let Some(data) = data {
            self.frame(data)?;
        }
        if last {
            self.body = None;
            self.end()?;
        }
        Poll::Ready(Ok(()))
    }

    fn frame(&mut self, data: Bytes) -> Result<(), Unsendable> {
        match &mut self.framing {
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return Err(Unsendable::Body(BodyFault::Broken)),
            },
            // An empty chunk would be the last one.
            Framing::Chunked { .. } if data.is_empty() => {}
            Framing::Chunked { behind_chunk } => {
                let line_end = if *behind_chunk { "\r\n" } else { "" };
                *behind_chunk = true;
                write!(self.out, "{line_end}{:x}\r\n", data.len()).map_err(Unsendable::Io)?;
            }
        }
        self.data = data;
        Ok(())
    }

    /// What comes behind the last piece. Where a piece is still to be written, it is put behind that.
    fn end(&mut self) -> Result<(), Unsendable> {
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return Err(Unsendable::Body(BodyFault::Broken)),
            Framing::Chunked { behind_chunk } => {
                let end: &[u8] = if behind_chunk { b"\r\n0\r\n\r\n" } else { b"0\r\n\r\n" };
                if self.data.is_empty() {
                    self.out.extend_from_slice(end);
                } else {
                    self.data = [&self.data, end].concat().into();
                }
            }
        }
        Ok(())
    }
}

fn poll_write<I: AsyncWrite + Unpin>(
    io: &mut I,
    cx: &mut Context<'_>,
    out: &[u8],
    data: &[u8],
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    let written = match (out.is_empty(), data.is_empty()) {
        (false, false) if io.is_write_vectored() => {
            io.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(data)])
        }
        (false, _) => io.poll_write(cx, out),
        (true, _) => io.poll_write(cx, data),
    };
    written.map(|count| match count {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        count => count,
    })
}

/// Writes the request line and the fields; the fields that frame the body are our own.
fn write_head(out: &mut Vec<u8>, head: &Parts, body: &RequestBody) -> Framing {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    // First of all, as RFC 9110, section 7.2, wants it.
    if let Some(host) = head.headers.get(HOST) {
        write_field(out, &HOST, host);
    }
    for (name, value) in &head.headers {
        if *name != HOST && *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    let length = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    let framing = match length {
        Some(length) => {
            // Where a body is expected, its absence is said too (RFC 9110, section 8.6).
            if length > 0 || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Framing::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked { behind_chunk: false }
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
