//! [`Answer`]: what of an answer both sides must agree on, read off raw HTTP.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::RecordingUpstream;
use crate::harness::wire::{Head, Wire, WithoutLength};

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The user who was accepted.
    Accepted { id: String, username: String },
    /// The response to a refused credential.
    Refused {
        status: u16,
        challenges: Vec<String>,
        body: Value,
    },
    /// The server failed, which is no decision about the credential.
    Crashed,
    /// The server refused the bytes before any authentication; its response is not compared.
    NotHttp,
}

/// One connection, made again whenever it was closed.
pub struct Client {
    address: String,
    wire: Option<Wire<TcpStream>>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self {
            address: address.trim_start_matches("http://").to_owned(),
            wire: None,
        }
    }

    fn ask(&mut self, request: &[u8]) -> (u16, Head, Vec<u8>) {
        let wire = self.wire.get_or_insert_with(|| {
            let tcp = TcpStream::connect(&self.address).expect("the server listens");
            tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            tcp.set_nodelay(true).expect("no delay");
            Wire::new(tcp)
        });
        wire.write(request).expect("the server reads");
        let head = wire.head().expect("in time").expect("an answer");
        let body = wire.body(&head, WithoutLength::Close).expect("a body");
        if head
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            self.wire = None;
        }
        let status = head.first[9..12].parse().expect("a status");
        (status, head, body.data)
    }

    pub fn ask_django(&mut self, request: &[u8]) -> Answer {
        let (status, head, body) = self.ask(request);
        if status != 200 {
            return refusal(status, &head, &body);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // A lone surrogate cannot be read back; no such identity is ever equal to the gateway's.
        let text = |name: &str| body[name].as_str().unwrap_or("\u{fffd}").to_owned();
        Answer::Accepted {
            id: text("id"),
            username: text("username"),
        }
    }

    /// What the gateway answers, and tells the upstream.
    pub fn ask_gate(&mut self, upstream: &RecordingUpstream, request: &[u8]) -> Answer {
        let before = upstream.calls();
        let (status, head, body) = self.ask(request);
        let shown = String::from_utf8_lossy(&body);
        assert!(!shown.contains("canary"), "a credential is in a reply: {shown}");
        let calls = upstream.calls() - before;
        if status != 200 {
            assert_eq!(calls, 0, "a refused request reached the upstream");
            return refusal(status, &head, &body);
        }
        assert_eq!(calls, 1, "one request became another number of them");
        let seen = upstream.last();
        let field = |name: &str| decode(seen.header(name).unwrap_or_default());
        Answer::Accepted {
            id: field("x-user-id"),
            username: field("x-user-name"),
        }
    }
}

fn refusal(status: u16, head: &Head, body: &[u8]) -> Answer {
    match status {
        500.. => Answer::Crashed,
        400 | 431 => Answer::NotHttp,
        _ => Answer::Refused {
            status,
            challenges: head.all("www-authenticate").into_iter().map(str::to_owned).collect(),
            body: serde_json::from_slice(body).expect("a refusal is JSON"),
        },
    }
}

/// The gateway writes all but visible ASCII as `%XX`.
fn decode(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .expect("UTF-8")
        .into_owned()
}
