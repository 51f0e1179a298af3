//! `authgate top`: the status of a running gateway in a terminal, from its `/status.json`.

mod content;
mod screen;
mod snapshot;
#[cfg(test)]
mod tests;
mod units;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::screen::{Asked, Screen};
use super::admin_client::{AdminClient, AdminFlags};
use super::{Failure, output, runtime};
use crate::control::status::document::Status;

/// How often the gateway is asked.
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest status that is read.
const MAX_ANSWER: usize = 16 << 20;

/// Show the status of a running gateway in the terminal
///
/// It shows what is not well, traffic, refusals by reason, routes, upstreams, authenticators, stores, keys, certificates and the last reload. It
/// asks the admin listener for /status.json once a second. If standard output is not a terminal, it prints the status once, as text.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminFlags,
    /// Print the status once, as text
    #[arg(long)]
    once: bool,
}

const EXAMPLES: &str = "\
Examples:
  authgate top --config /etc/authgate/gateway.toml
  authgate top --admin unix:/run/authgate/admin.sock
  authgate top --admin https://gate.internal:9901 --token admin.token --ca ca.pem
  authgate top --once | grep -A5 Stores

Keys: q quits, arrows and Tab choose a table and scroll, ? shows all keys. NO_COLOR=1 switches colours off.";

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let client = args.admin.client(file)?;
    let runtime = runtime()?;
    let first = runtime
        .block_on(fetch(&client, Duration::ZERO))
        .map_err(|problem| Failure::Failed(format!("{}; {}", problem.text, problem.help)))?;
    if args.once || !io::stdout().is_terminal() {
        return output::data(|out| snapshot::write(out, &first));
    }
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(first, colours);
    let failed = |error: io::Error| Failure::Failed(format!("the terminal cannot be used: {error}; try --once"));
    let mut terminal = Restored::new().map_err(failed)?;
    runtime
        .block_on(show(&client, &mut screen, &mut terminal.0))
        .map_err(failed)
}

/// A terminal in raw mode, with a screen of its own. It is restored when this value is dropped, and after a panic.
struct Restored(DefaultTerminal);

impl Restored {
    fn new() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Draws until a key or a signal ends it.
async fn show(client: &AdminClient, screen: &mut Screen, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let [terminate, interrupt, hangup] = &mut signals;
    let mut events = events()?;
    let mut fetched = pin!(fetch(client, INTERVAL));
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            status = &mut fetched => {
                match status {
                    Ok(status) => screen.update(status),
                    Err(problem) => screen.lose(problem.text),
                }
                fetched.set(fetch(client, INTERVAL));
            }
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => match screen.key(key) {
                    Asked::Draw | Asked::Nothing => {}
                    Asked::Quit => return Ok(()),
                },
                // The next draw uses the new size.
                Some(Ok(Event::Resize(..) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_))) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// Reads the events of the terminal, on a thread that ends with the process.
fn events() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel(16);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Why there is no status.
struct Problem {
    text: String,
    help: &'static str,
}

/// Asks for the status after this delay.
async fn fetch(client: &AdminClient, delay: Duration) -> Result<Status, Problem> {
    let problem = |text: String, help: &'static str| Problem { text, help };
    sleep(delay).await;
    let request = Request::get("/status.json")
        .body(Bytes::new())
        .map_err(|error| problem(error.to_string(), "try again"))?;
    let answer = client.send(request, TIMEOUT, MAX_ANSWER).await;
    let (address, answer) = answer.map_err(|problems| {
        problem(
            format!("no gateway answers: {problems}"),
            "start it, or name its admin listener with --admin URL",
        )
    })?;
    match answer.status() {
        StatusCode::OK => serde_json::from_slice(answer.body()).map_err(|error| {
            problem(
                format!("the status of {address} cannot be read: {error}"),
                "the gateway may have another version: use the `authgate top` of that version",
            )
        }),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(problem(
            format!("{address} answers {status}"),
            "name the file of its token with --token FILE",
        )),
        status => Err(problem(
            format!("{address} answers {status}"),
            "name the admin listener of a gateway with --admin URL",
        )),
    }
}
