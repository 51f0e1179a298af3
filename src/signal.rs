//! Signals as events: what an operator or a supervisor asks of a running gateway.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT: end, after what is under way.
    Drain,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over; from here on none of them kills the process by itself.
    ///
    /// # Errors
    /// They cannot be caught.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Drain,
            _ = self.interrupt.recv() => Event::Drain,
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}
