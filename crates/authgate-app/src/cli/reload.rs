//! `authgate reload`: asks the running gateway to read its configuration again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::admin_client::{AdminClient, AdminFlags};
use super::http_client::Address;
use super::{Failure, output, runtime};

/// A gateway that checks a large configuration may take long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause while another reload is under way.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often it asks while another reload is under way.
const MAX_ATTEMPTS: usize = 60;
const MAX_ANSWER: usize = 4 << 20;

/// Ask the running gateway to read its configuration again, and print what has changed or every problem
///
/// Exit code 0: the configuration is in force. Exit code 1: no gateway answers. Exit code 2: the gateway refuses the configuration, and serves
/// on with the old one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminFlags,
}

const EXAMPLES: &str = "\
Examples:
  authgate reload --config gateway.toml
  authgate reload --admin unix:/run/authgate/admin.sock
  authgate reload --admin https://gate.internal:9901 --token admin.token --ca ca.pem";

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let client = args.admin.client(file)?;
    runtime()?.block_on(ask(&client))
}

async fn ask(client: &AdminClient) -> Result<(), Failure> {
    for _ in 0..MAX_ATTEMPTS {
        let request = Request::post("/reload")
            .header("x-authgate-command", "reload")
            .body(Bytes::new())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let answered = client.send(request, ANSWER_TIMEOUT, MAX_ANSWER).await;
        let (address, answer) = answered.map_err(|problems| {
            Failure::Failed(format!(
                "no gateway answers at its admin listener:{}\nStart it, or name its admin listener with --admin URL.",
                problems.lines()
            ))
        })?;
        if answer.status() != StatusCode::CONFLICT {
            return report(address, answer.status(), answer.body());
        }
        output::note(format_args!("another reload is under way; asking again"));
        sleep(BUSY_PAUSE).await;
    }
    Err(Failure::Failed(
        "other reloads were under way the whole time; try again".to_owned(),
    ))
}

fn report(address: &Address, status: StatusCode, body: &[u8]) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let problems = answer["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    match status {
        StatusCode::OK => {
            print_problems(problems);
            let changes = answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
            for change in changes.iter().filter_map(Value::as_str) {
                output::line(format_args!("{change}"))?;
            }
            if changes.is_empty() {
                output::line(format_args!("The configuration is in force. Nothing has changed."))
            } else {
                output::line(format_args!("The configuration is in force."))
            }
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            print_problems(problems);
            Err(Failure::Usage(
                "the gateway refuses the configuration, and serves on with the old one".to_owned(),
            ))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Failed(format!(
            "the gateway at {address} does not accept the command ({status}): {}\nName the file of its token with --token FILE.",
            String::from_utf8_lossy(body).trim_end()
        ))),
        status => Err(Failure::Failed(format!(
            "{address} answers {status}: {}",
            String::from_utf8_lossy(body)
                .chars()
                .take(1000)
                .collect::<String>()
                .trim_end()
        ))),
    }
}

/// Prints problems as `authgate check` does, without the excerpts of the file: it may be on another machine.
fn print_problems(problems: &[Value]) {
    for problem in problems {
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        let number = |name: &str| {
            problem[name]
                .as_u64()
                .map(|number| format!(":{number}"))
                .unwrap_or_default()
        };
        let key = match text("key") {
            "" => String::new(),
            key => format!("[{key}]"),
        };
        output::problem(format_args!(
            "{}{key}: {}\n  --> {}{}{}\n   = help: {}\n",
            text("severity"),
            text("message"),
            text("file"),
            number("line"),
            number("column"),
            text("help"),
        ));
    }
}
