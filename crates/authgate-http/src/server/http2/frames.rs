//! Counts the frames that an HTTP/2 client sends besides requests: frames that cost CPU time and carry no data.
//!
//! h2 limits what a client may make it *hold*. This limits what a client may make it *do*, before h2 reads the frames. Counted are PING and
//! SETTINGS, which need a reply, empty DATA and CONTINUATION, PRIORITY, WINDOW_UPDATE and unknown frames (CVE-2019-9511 to 9518). Also
//! counted are streams that the client resets right after it opens them (CVE-2023-44487). Traffic refills the budgets, so a busy gRPC
//! connection with its pings stays far from the limits.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The client connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

/// Control frames: how many a connection may send in a burst, and per second.
const CONTROL: RefillRate = RefillRate {
    burst: 1_000,
    per_second: 100,
};
/// Twice the number of resets that a connection may send in a burst, and per second. An opened stream refills half a reset: only a client that
/// resets most of its streams uses up this budget.
const RESETS: RefillRate = RefillRate {
    burst: 400,
    per_second: 100,
};
const RESET_COST: u32 = 2;
/// The cost of a frame that needs a reply. It is more than the bytes of the reply refill.
const REPLY_COST: u32 = 2;
/// This many bytes to the client pay for one frame of the client: it must open windows, and may reply to a small DATA frame with two frames.
const BYTES_PER_FRAME: usize = 16;

#[derive(Debug, Clone, Copy)]
struct RefillRate {
    burst: u32,
    per_second: u32,
}

/// Resets that cost nothing: those of requests that were answered before the end of their bodies.
#[derive(Debug, Default, Clone)]
pub(super) struct ExcusedResets(Rc<Cell<u32>>);

impl ExcusedResets {
    /// Adds one.
    pub(super) fn add(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }

    fn take(&self) -> u32 {
        self.0.take()
    }
}

/// A client connection whose frames are counted. When a budget is used up, reads fail.
#[derive(Debug)]
pub(super) struct FrameLimiter<T> {
    io: T,
    position: Position,
    control: TokenBucket,
    resets: TokenBucket,
    excused_resets: ExcusedResets,
    /// Bytes of all DATA frames.
    data_received: u64,
    /// Set when a bucket was empty. Reads fail from then on.
    excess: Option<Excess>,
}

/// The budget that the client has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Frames that carry no data.
    Control,
    /// Streams that were opened and reset.
    Resets,
}

impl Excess {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Control => "control frames",
            Self::Resets => "resets",
        }
    }
}

/// The position of the next byte.
#[derive(Debug, Clone, Copy)]
enum Position {
    /// This many bytes of the preface remain.
    Preface(usize),
    /// The frame header, of which this many bytes were read.
    Header([u8; HEADER], usize),
    /// This many bytes of a payload remain.
    Payload(usize),
}

/// A token bucket: each counted frame takes tokens, and time and traffic refill it.
#[derive(Debug)]
struct TokenBucket {
    rate: RefillRate,
    // tokens <= rate.burst
    tokens: u32,
    refilled_at: Instant,
}

impl TokenBucket {
    fn new(rate: RefillRate) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            refilled_at: Instant::now(),
        }
    }

    fn refill(&mut self, amount: u32) {
        self.tokens = self.tokens.saturating_add(amount).min(self.rate.burst);
    }

    /// Returns false if too few tokens are left. Reads the clock only then.
    fn try_take(&mut self, amount: u32) -> bool {
        if self.tokens < amount {
            let passed = self.refilled_at.elapsed().min(Duration::from_secs(60));
            let refill = passed.as_millis() * u128::from(self.rate.per_second) / 1000;
            if refill > 0 {
                self.refilled_at = Instant::now();
                self.refill(u32::try_from(refill).unwrap_or(u32::MAX));
            }
        }
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }
}

impl<T> FrameLimiter<T> {
    pub(super) fn new(io: T, excused_resets: ExcusedResets) -> Self {
        Self {
            io,
            position: Position::Preface(PREFACE),
            control: TokenBucket::new(CONTROL),
            resets: TokenBucket::new(RESETS),
            excused_resets,
            data_received: 0,
            excess: None,
        }
    }

    /// The connection without the counting.
    pub(super) fn into_io(self) -> T {
        self.io
    }

    /// The budget that was used up, if any.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// Bytes of all DATA frames that have begun.
    pub(super) fn data_received(&self) -> u64 {
        self.data_received
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while !bytes.is_empty() {
            let taken = match &mut self.position {
                Position::Preface(remaining) | Position::Payload(remaining) => {
                    let taken = bytes.len().min(*remaining);
                    *remaining -= taken;
                    taken
                }
                Position::Header(header, have) => {
                    let taken = bytes.len().min(HEADER - *have);
                    header[*have..*have + taken].copy_from_slice(&bytes[..taken]);
                    *have += taken;
                    taken
                }
            };
            bytes = &bytes[taken..];
            match self.position {
                Position::Header(header, HEADER) => self.position = Position::Payload(self.frame(header)?),
                Position::Preface(_) | Position::Header(..) | Position::Payload(_) => {}
            }
            if let Position::Preface(0) | Position::Payload(0) = self.position {
                self.position = Position::Header([0; HEADER], 0);
            }
        }
        Ok(())
    }

    /// Counts a frame, and returns the length of its payload. Types and flags are those of RFC 9113, section 6.
    fn frame(&mut self, [a, b, c, kind, flags, ..]: [u8; HEADER]) -> Result<usize, Excess> {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        const ACK: u8 = 1;
        const END_STREAM: u8 = 1;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            // Acknowledgements answer frames that we sent. h2 treats unexpected ones as an error.
            SETTINGS | PING if flags & ACK != 0 => {}
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.data_received += length as u64;
                self.control.refill(1);
            }
            HEADERS => {
                self.control.refill(REPLY_COST);
                self.resets.refill(1);
            }
            RST_STREAM => {
                self.resets
                    .refill(RESET_COST.saturating_mul(self.excused_resets.take()));
                if !self.resets.try_take(RESET_COST) {
                    return Err(Excess::Resets);
                }
            }
            SETTINGS | PING if self.control.try_take(REPLY_COST) => {}
            SETTINGS | PING => return Err(Excess::Control),
            _ if self.control.try_take(1) => {}
            _ => return Err(Excess::Control),
        }
        Ok(length)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FrameLimiter<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Err(excess) = self.read(&buf.filled()[before..]) {
            self.excess = Some(excess);
            return Poll::Ready(Err(io::Error::other("too many frames without data")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FrameLimiter<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        let frames = written / BYTES_PER_FRAME;
        self.control.refill(u32::try_from(frames).unwrap_or(u32::MAX));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const EMPTY_DATA: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82];
    const RESET: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];

    /// How often these bytes may be sent at once, independent of how they are cut, and which budget is then used up.
    fn count_until_excess(bytes: &[u8]) -> (usize, Option<Excess>) {
        const TRIES: usize = 5_000;
        let count = |cut: usize| {
            let mut frames = FrameLimiter::new((), ExcusedResets::default());
            frames.read(&[0; PREFACE]).expect("the preface");
            for at in 0..TRIES {
                for piece in bytes.chunks(cut) {
                    if let Err(excess) = frames.read(piece) {
                        return (at, Some(excess));
                    }
                }
            }
            (TRIES, None)
        };
        let whole = count(bytes.len());
        // Byte by byte takes longer, so the bucket refills by a few more frames.
        assert_eq!(count(1).1, whole.1);
        whole
    }

    #[test]
    fn frames_without_data_exhaust_the_budget() {
        for frame in [
            &PING[..],
            &EMPTY_DATA,
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0, 0, 99, 0, 0, 0, 0, 0],
        ] {
            let (count, excess) = count_until_excess(frame);
            let minimum = if matches!(frame[3], 4 | 6) { 500 } else { 1_000 };
            assert!((minimum..minimum + 200).contains(&count), "{count}");
            assert_eq!(excess, Some(Excess::Control));
        }
        let (count, excess) = count_until_excess(&RESET);
        assert!((200..300).contains(&count), "{count}");
        assert_eq!(excess, Some(Excess::Resets));
        let (count, excess) = count_until_excess(&[&HEADERS[..], &RESET].concat());
        assert!((390..600).contains(&count), "{count}");
        assert_eq!(excess, Some(Excess::Resets));
    }

    #[test]
    fn resets_after_early_responses_cost_nothing() {
        let excused_resets = ExcusedResets::default();
        let mut frames = FrameLimiter::new((), excused_resets.clone());
        frames.read(&[0; PREFACE]).expect("the preface");
        for _ in 0..5_000 {
            excused_resets.add();
            frames.read(&RESET).expect("excused");
        }
    }

    #[test]
    fn traffic_refills_the_budget() {
        assert_eq!(count_until_excess(&[&HEADERS[..], &PING].concat()).1, None);
        assert_eq!(count_until_excess(&[&HEADERS[..], &HEADERS, &RESET].concat()).1, None);
        assert_eq!(count_until_excess(&[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x']).1, None);
        assert_eq!(
            count_until_excess(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).1,
            None,
            "acknowledgements"
        );
    }
}
