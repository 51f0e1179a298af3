//! The two parts of the engine that could be hyper's, beside hyper: the HTTP/1 client and the HTTP/2 server. It prints the CPU time of
//! the side under test for each request, without its peer. docs/ARCHITECTURE.md has the results.
//!
//! ```sh
//! cargo bench -p authgate-http --bench engine                    # CPU time: the minimum of interleaved rounds
//! cargo bench -p authgate-http --bench engine -- instructions    # the same under callgrind, without system calls
//! cargo bench -p authgate-http --bench engine -- memory          # resident memory of idle connections and waiting streams
//! ```
//!
//! A word after that selects the cases whose names contain it. What is compared:
//!
//! - `own`: the engine, with the settings of the gateway.
//! - `hyper`: hyper in its usual form. A task drives the connection.
//! - `joined`, for the client: the request polls the connection of hyper itself, so that there is no second task.
//! - `buffered`, for the server: hyper behind the frame budgets and the write buffer of the engine, which a gateway needs in any case.

#![allow(clippy::print_stdout, reason = "it is a program that prints a table")]

#[allow(unused, reason = "the server of the engine uses the rest")]
#[path = "../../src/server/http2/frames.rs"]
mod frames;
#[allow(unused, reason = "the server of the engine uses the rest")]
#[path = "../../src/server/http2/write_buffer.rs"]
mod write_buffer;

mod client;
mod server;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of rounds. Each round measures every variant once.
const ROUNDS: usize = 11;
/// The size of the pieces of long bodies.
const PIECE: usize = 16 * 1024;
static DATA: [u8; PIECE] = [b'x'; PIECE];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["one", case, variant, requests] => run_one(case, variant, requests.parse().expect("a number")),
        ["memory-of", what, variant] => println!("{}", memory_of(what, variant)),
        ["instructions", ref filter @ ..] => print_table("instructions for a request", filter, instructions),
        ["memory", ..] => print_memory(),
        ref filter => print_table("microseconds of CPU for a request", filter, cpu_time),
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Case {
    side: Side,
    name: &'static str,
    /// Bytes of the body of each request and each response.
    request: usize,
    response: usize,
    /// Whether the handler waits once before it answers, as for an upstream.
    waits: bool,
    /// Requests that are under way at a time.
    streams: usize,
    /// Requests for one measurement of CPU time.
    requests: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn variants(self) -> [&'static str; 3] {
        match self {
            Self::Client => ["own", "hyper", "joined"],
            Self::Server => ["own", "hyper", "buffered"],
        }
    }
}

const KIB: usize = 1024;

#[rustfmt::skip]
const CASES: [Case; 13] = [
    Case { side: Side::Client, name: "client-get-1k", request: 0, response: KIB, waits: false, streams: 1, requests: 10_000 },
    Case { side: Side::Client, name: "client-get-64k", request: 0, response: 64 * KIB, waits: false, streams: 1, requests: 4_000 },
    Case { side: Side::Client, name: "client-get-1m", request: 0, response: KIB * KIB, waits: false, streams: 1, requests: 400 },
    Case { side: Side::Client, name: "client-post-1k", request: KIB, response: KIB, waits: false, streams: 1, requests: 10_000 },
    Case { side: Side::Client, name: "client-post-64k", request: 64 * KIB, response: KIB, waits: false, streams: 1, requests: 4_000 },
    Case { side: Side::Server, name: "server-get-1k", request: 0, response: KIB, waits: false, streams: 1, requests: 10_000 },
    Case { side: Side::Server, name: "server-get-64k", request: 0, response: 64 * KIB, waits: false, streams: 1, requests: 3_000 },
    Case { side: Side::Server, name: "server-post-64k", request: 64 * KIB, response: KIB, waits: false, streams: 1, requests: 3_000 },
    Case { side: Side::Server, name: "server-get-1k-by-32", request: 0, response: KIB, waits: false, streams: 32, requests: 16_000 },
    Case { side: Side::Server, name: "server-get-64k-by-32", request: 0, response: 64 * KIB, waits: false, streams: 32, requests: 3_200 },
    Case { side: Side::Server, name: "server-post-64k-by-32", request: 64 * KIB, response: KIB, waits: false, streams: 32, requests: 3_200 },
    Case { side: Side::Server, name: "server-wait-1k", request: 0, response: KIB, waits: true, streams: 1, requests: 10_000 },
    Case { side: Side::Server, name: "server-wait-1k-by-32", request: 0, response: KIB, waits: true, streams: 32, requests: 16_000 },
];

/// Runs requests on this thread, and returns its CPU time for those after `warm`.
fn run(case: Case, variant: &str, warm: usize, requests: usize) -> Duration {
    match case.side {
        Side::Client => client::run(case, variant, warm, requests),
        Side::Server => server::run(case, variant, warm, requests),
    }
}

fn run_one(case: &str, variant: &str, requests: usize) {
    let case = CASES.iter().find(|known| known.name == case).expect("a case");
    let _ = run(*case, variant, 0, requests);
}

/// Prints one line for each case: the measure of each variant, and its ratio to the first one.
fn print_table(unit: &str, filter: &[&str], measure: fn(Case) -> [f64; 3]) {
    println!("{unit}");
    for case in CASES {
        if !filter.is_empty() && !filter.iter().any(|word| case.name.contains(word)) {
            continue;
        }
        let measured = measure(case);
        let row = case.side.variants().into_iter().zip(measured);
        let row = row.map(|(variant, value)| format!("{variant} {value:>10.2} ({:.2})", value / measured[0]));
        println!("{:22} {}", case.name, row.collect::<Vec<_>>().join("   "));
    }
}

fn cpu_time(case: Case) -> [f64; 3] {
    let mut least = [f64::MAX; 3];
    for round in 0..ROUNDS {
        // Each variant is the first one in some rounds.
        for at in (0..3).map(|at| (at + round) % 3) {
            let took = run(case, case.side.variants()[at], case.requests / 5, case.requests);
            least[at] = least[at].min(took.as_secs_f64() * 1e6 / case.requests as f64);
        }
    }
    least
}

/// The difference between two runs under callgrind with different numbers of requests: what a connection costs cancels out.
fn instructions(case: Case) -> [f64; 3] {
    case.side.variants().map(|variant| {
        let few = (case.requests / 100).next_multiple_of(case.streams);
        let count = |requests: usize| instructions_of(&["one", case.name, variant, &requests.to_string()]);
        (count(few * 6) - count(few)) / (few * 5) as f64
    })
}

/// The instructions of the main thread of this program with these arguments.
fn instructions_of(arguments: &[&str]) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("calls");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("the path of this program"))
        .args(arguments)
        // callgrind counts each byte of `rep movsb`. Without it, copies are counted by the vector.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000")
        .status();
    assert!(status.expect("valgrind").success());
    totals(&folder.path().join("calls-01"))
}

fn totals(path: &Path) -> f64 {
    let text = std::fs::read_to_string(path).expect("the counts of the main thread");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a total")
}

/// What is held: how many connections, and how many streams on each of them wait for their response.
const MEMORY: [(Side, &str, usize, usize); 3] = [
    (Side::Client, "idle client connection", 1000, 0),
    (Side::Server, "idle server connection", 1000, 0),
    (Side::Server, "waiting stream", 100, 64),
];

fn print_memory() {
    println!("bytes of resident memory");
    for (side, what, ..) in MEMORY {
        let row = side.variants().map(|variant| {
            let child = Command::new(std::env::current_exe().expect("the path of this program"))
                .args(["memory-of", what, variant])
                .output()
                .expect("a child");
            format!("{variant} {:>7}", String::from_utf8_lossy(&child.stdout).trim())
        });
        println!("{what:24} {}", row.join("   "));
    }
}

fn memory_of(what: &str, variant: &str) -> usize {
    let (side, _, connections, streams) = *MEMORY.iter().find(|(_, name, ..)| *name == what).expect("a case");
    let held = match side {
        Side::Client => client::memory(variant, connections),
        Side::Server => server::memory(variant, connections, streams),
    };
    held / (connections * streams.max(1))
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("pages");
    pages * 4096
}

/// The CPU time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Runs a task on a runtime of the kind that workers have.
fn block_on<F: Future + 'static>(task: impl FnOnce() -> F) -> F::Output {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { spawn_local(task()).await.expect("no panic") })
}

/// A body of this many bytes, in pieces.
#[derive(Debug)]
struct Pieces(usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let count = self.0.min(PIECE);
        self.0 -= count;
        Poll::Ready((count > 0).then(|| Ok(Frame::data(Bytes::from_static(&DATA[..count])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0 as u64)
    }
}

/// Reads a body to its end, and returns its length.
async fn read_to_end<B: Body<Data = Bytes, Error: fmt::Debug> + Unpin>(mut body: B) -> usize {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("a frame").into_data().map_or(0, |data| data.len());
    }
    length
}
