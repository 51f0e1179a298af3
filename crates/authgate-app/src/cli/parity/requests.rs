//! [`Requests`]: the requests of a recording of the gateway, line by line, or of a HAR file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::vec;

use authgate_dataplane::recording::line::{MAX_BODY, PlainRequest, RecordedRequest};
use authgate_dataplane::recording::seal::Seal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::Failure;

/// The longest line: a body in base64, and a head with characters that JSON escapes.
const MAX_LINE: u64 = 4 * MAX_BODY as u64 + (4 << 20);
/// The longest HAR file.
const MAX_HAR: u64 = 512 << 20;

type Numbered = (usize, Result<PlainRequest, Failure>);

/// The requests, with their numbers from 1.
pub(super) enum Requests<'s> {
    Lines {
        input: Box<dyn BufRead>,
        /// The line that was read to find the format.
        first: Option<String>,
        seal: Option<&'s Seal>,
        number: usize,
    },
    Har(vec::IntoIter<Numbered>),
}

impl<'s> Requests<'s> {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// It cannot be read, or has neither format.
    pub(super) fn read(path: &Path, seal: Option<&'s Seal>) -> Result<Self, Failure> {
        let usage = |problem: String| Failure::Usage(format!("{}: {problem}", path.display()));
        let mut input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(
                File::open(path).map_err(|error| usage(error.to_string()))?,
            ))
        };
        let first = read_line(&mut input).map_err(|error| usage(error.to_string()))?;
        if first.trim().is_empty() || serde_json::from_str::<RecordedRequest>(&first).is_ok() {
            return Ok(Self::Lines {
                input,
                first: Some(first),
                seal,
                number: 0,
            });
        }
        let mut text = first.into_bytes();
        let rest = input.take(MAX_HAR).read_to_end(&mut text);
        rest.map_err(|error| usage(error.to_string()))?;
        let har: Har = serde_json::from_slice(&text).map_err(|error| {
            usage(format!(
                "it is neither a recording of the gateway (JSON lines with `method` and `url`) nor a HAR file: {error}"
            ))
        })?;
        let entries = har.log.entries.into_iter().enumerate();
        let requests = entries.map(|(at, entry)| {
            let number = at + 1;
            let request = entry.request.open();
            (
                number,
                request.map_err(|problem| usage(format!("request {number}: {problem}"))),
            )
        });
        Ok(Self::Har(requests.collect::<Vec<_>>().into_iter()))
    }
}

impl Iterator for Requests<'_> {
    type Item = Numbered;

    fn next(&mut self) -> Option<Numbered> {
        let (input, first, seal, number) = match self {
            Self::Har(requests) => return requests.next(),
            Self::Lines {
                input,
                first,
                seal,
                number,
            } => (input, first, seal, number),
        };
        loop {
            *number += 1;
            let usage = |problem: String| Failure::Usage(format!("line {number}: {problem}"));
            let line = match first.take().map_or_else(|| read_line(input), Ok) {
                Ok(line) => line,
                Err(error) => return Some((*number, Err(usage(error.to_string())))),
            };
            if line.is_empty() {
                return None;
            }
            if line.trim().is_empty() {
                continue;
            }
            let recorded = serde_json::from_str::<RecordedRequest>(&line);
            let request = match recorded {
                Ok(recorded) => recorded.open(*seal).map_err(|error| usage(error.to_string())),
                Err(error) => Err(usage(format!("it is not a recorded request: {error}"))),
            };
            return Some((*number, request));
        }
    }
}

/// The next line with its line feed; empty at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(MAX_LINE).read_line(&mut line)?;
    if line.len() as u64 == MAX_LINE && !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {} MiB", MAX_LINE >> 20),
        ));
    }
    Ok(line)
}

/// HTTP Archive 1.2, as browsers save it: the parts that are sent again.
#[derive(Deserialize)]
struct Har {
    log: HarLog,
}

#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
struct HarEntry {
    request: HarRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<HarHeader>,
    post_data: Option<HarBody>,
}

#[derive(Deserialize)]
struct HarHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct HarBody {
    #[serde(default)]
    text: String,
    encoding: Option<String>,
}

impl HarRequest {
    fn open(self) -> Result<PlainRequest, &'static str> {
        let mut headers = HeaderMap::new();
        // Browsers list the pseudo-header fields of HTTP/2 too.
        for HarHeader { name, value } in self.headers.into_iter().filter(|header| !header.name.starts_with(':')) {
            let name = HeaderName::try_from(name).map_err(|_| "the name of a header is not valid")?;
            let value = HeaderValue::try_from(value).map_err(|_| "the value of a header is not valid")?;
            headers.append(name, value);
        }
        let body = match self.post_data {
            None => Vec::new(),
            Some(body) if body.encoding.as_deref() == Some("base64") => {
                STANDARD.decode(body.text).map_err(|_| "its body is not base64")?
            }
            Some(body) => body.text.into_bytes(),
        };
        Ok(PlainRequest {
            method: self.method.parse().map_err(|_| "its method is not valid")?,
            // A fragment is never sent.
            url: self.url.split('#').next().unwrap_or_default().to_owned(),
            headers,
            body: Some(Bytes::from(body)),
        })
    }
}
