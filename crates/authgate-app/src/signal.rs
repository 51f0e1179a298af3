//! Turns process signals into events.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request from the operator or the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT: finish running requests, then stop.
    Drain,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// A stream of the signals of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs the signal handlers. After this, these signals no longer terminate the process.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Drain,
            _ = self.interrupt.recv() => Event::Drain,
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}
