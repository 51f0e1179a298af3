//! Counts the frames that an HTTP/2 client sends besides requests: frames that cost CPU time and carry no data.
//!
//! h2 limits what a client may make it *hold*. This limits what a client may make it *do*, before h2 reads the frames. Counted are PING and
//! SETTINGS, which need an answer, empty DATA and CONTINUATION, PRIORITY, WINDOW_UPDATE and unknown frames (CVE-2019-9511 to 9518). Also
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

/// Control frames that a connection may send at once, and for each second.
const CONTROL: Rate = Rate {
    most: 1_000,
    each_second: 100,
};
/// Twice the resets that a connection may send at once, and for each second. An opened stream earns half a reset: only a client that
/// resets most of its streams uses up this budget.
const RESETS: Rate = Rate {
    most: 400,
    each_second: 100,
};
const A_RESET: u32 = 2;
/// A frame that needs an answer costs more than the bytes of the answer earn.
const AN_ANSWER: u32 = 2;
/// So many bytes to the client earn one frame: the client must open windows, and may answer each small DATA frame with two frames.
const BYTES_A_FRAME: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Rate {
    most: u32,
    each_second: u32,
}

/// Resets that cost nothing: those of requests that were answered before the end of their bodies.
#[derive(Debug, Default, Clone)]
pub(super) struct Excused(Rc<Cell<u32>>);

impl Excused {
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
pub(super) struct Frames<T> {
    io: T,
    at: At,
    control: Budget,
    resets: Budget,
    excused: Excused,
    /// Bytes of all DATA frames.
    received: u64,
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
enum At {
    /// So many bytes of the preface remain.
    Preface(usize),
    /// So many bytes of a frame header were read.
    Header([u8; HEADER], usize),
    /// So many bytes of a payload remain.
    Payload(usize),
}

#[derive(Debug)]
struct Budget {
    rate: Rate,
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            left: rate.most,
            since: Instant::now(),
        }
    }

    fn earn(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(self.rate.most);
    }

    /// Reads the clock only when the budget is used up.
    fn spend(&mut self, amount: u32) -> bool {
        if self.left < amount {
            let passed = self.since.elapsed().min(Duration::from_secs(60));
            let earned = passed.as_millis() * u128::from(self.rate.each_second) / 1000;
            if earned > 0 {
                self.since = Instant::now();
                self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            }
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }
}

impl<T> Frames<T> {
    pub(super) fn new(io: T, excused: Excused) -> Self {
        Self {
            io,
            at: At::Preface(PREFACE),
            control: Budget::new(CONTROL),
            resets: Budget::new(RESETS),
            excused,
            received: 0,
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
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while !bytes.is_empty() {
            let taken = match &mut self.at {
                At::Preface(left) | At::Payload(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    taken
                }
                At::Header(header, have) => {
                    let taken = bytes.len().min(HEADER - *have);
                    header[*have..*have + taken].copy_from_slice(&bytes[..taken]);
                    *have += taken;
                    taken
                }
            };
            bytes = &bytes[taken..];
            match self.at {
                At::Header(header, HEADER) => self.at = At::Payload(self.frame(header)?),
                At::Preface(_) | At::Header(..) | At::Payload(_) => {}
            }
            if let At::Preface(0) | At::Payload(0) = self.at {
                self.at = At::Header([0; HEADER], 0);
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
                self.received += length as u64;
                self.control.earn(1);
            }
            HEADERS => {
                self.control.earn(AN_ANSWER);
                self.resets.earn(1);
            }
            RST_STREAM => {
                self.resets.earn(A_RESET.saturating_mul(self.excused.take()));
                if !self.resets.spend(A_RESET) {
                    return Err(Excess::Resets);
                }
            }
            SETTINGS | PING if self.control.spend(AN_ANSWER) => {}
            SETTINGS | PING => return Err(Excess::Control),
            _ if self.control.spend(1) => {}
            _ => return Err(Excess::Control),
        }
        Ok(length)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Frames<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Err(excess) = self.read(&buf.filled()[before..]) {
            self.excess = Some(excess);
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Frames<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        let frames = written / BYTES_A_FRAME;
        self.control.earn(u32::try_from(frames).unwrap_or(u32::MAX));
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
    fn most(bytes: &[u8]) -> (usize, Option<Excess>) {
        const TRIES: usize = 5_000;
        let count = |cut: usize| {
            let mut frames = Frames::new((), Excused::default());
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
        // Byte by byte takes longer, so the budget earns a few more frames.
        assert_eq!(count(1).1, whole.1);
        whole
    }

    #[test]
    fn frames_that_carry_nothing_run_out() {
        for frame in [
            &PING[..],
            &EMPTY_DATA,
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0, 0, 99, 0, 0, 0, 0, 0],
        ] {
            let (count, excess) = most(frame);
            let least = if matches!(frame[3], 4 | 6) { 500 } else { 1_000 };
            assert!((least..least + 200).contains(&count), "{count}");
            assert_eq!(excess, Some(Excess::Control));
        }
        let (count, excess) = most(&RESET);
        assert!((200..300).contains(&count), "{count}");
        assert_eq!(excess, Some(Excess::Resets));
        let (count, excess) = most(&[&HEADERS[..], &RESET].concat());
        assert!((390..600).contains(&count), "{count}");
        assert_eq!(excess, Some(Excess::Resets));
    }

    #[test]
    fn resets_that_early_answers_lead_to_are_free() {
        let excused = Excused::default();
        let mut frames = Frames::new((), excused.clone());
        frames.read(&[0; PREFACE]).expect("the preface");
        for _ in 0..5_000 {
            excused.add();
            frames.read(&RESET).expect("it is excused");
        }
    }

    #[test]
    fn traffic_earns_what_they_spend() {
        assert_eq!(most(&[&HEADERS[..], &PING].concat()).1, None);
        assert_eq!(most(&[&HEADERS[..], &HEADERS, &RESET].concat()).1, None);
        assert_eq!(most(&[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x']).1, None);
        assert_eq!(most(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).1, None, "acknowledgements");
    }
}
