//! [`Answer`]: what of an answer both sides must agree on, read off raw HTTP.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::wire::{Wire, WithoutLength};
use crate::harness::{Gate, RecordingUpstream};

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Somebody.
    Accepted { id: String, username: String },
    /// Nobody, and why.
    Refused {
        status: u16,
        challenges: Vec<String>,
        body: Value,
    },
    /// Django fell over; it says nothing about the credential.
    Crashed,
    /// The server refused the bytes before any authentication; what it says then is its own affair.
    NotHttp,
}

/// One connection to gunicorn, made again whenever it was closed.
pub struct Direct {
    address: String,
    wire: Option<Wire<TcpStream>>,
}

impl Direct {
    pub fn new(url: &str) -> Self {
        Self {
            address: url.trim_start_matches("http://").to_owned(),
            wire: None,
        }
    }

    pub fn ask(&mut self, request: &[u8]) -> Answer {
        let wire = self.wire.get_or_insert_with(|| {
            let tcp = TcpStream::connect(&self.address).expect("gunicorn listens");
            tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            tcp.set_nodelay(true).expect("no delay");
            Wire::new(tcp)
        });
        wire.write(request).expect("gunicorn reads");
        let head = wire.head().expect("in time").expect("an answer");
        let body = wire.body(&head, WithoutLength::Close).expect("a body");
        if head.header("connection") != Some("keep-alive") {
            self.wire = None;
        }
        let body: Option<Value> = serde_json::from_slice(&body.data).ok();
        let status: u16 = head.first[9..12].parse().expect("a status");
        match (status, body) {
            (200, Some(body)) => Answer::Accepted {
                id: body["id"].as_str().expect("text").to_owned(),
                username: body["username"].as_str().expect("text").to_owned(),
            },
            // A lone surrogate in the name cannot be read back.
            (200, None) => Answer::Accepted {
                id: String::new(),
                username: String::new(),
            },
            (500.., _) => Answer::Crashed,
            (status, Some(body)) => Answer::Refused {
                status,
                challenges: head.all("www-authenticate").into_iter().map(str::to_owned).collect(),
                body,
            },
            (_, None) => Answer::NotHttp,
        }
    }
}

/// What the gateway answers, and tells the upstream.
pub fn ask_gate(
    gate: &Gate,
    conn: &mut Option<crate::harness::Conn>,
    upstream: &RecordingUpstream,
    request: &[u8],
) -> Answer {
    let before = upstream.calls();
    let open = conn.get_or_insert_with(|| gate.connect());
    open.send(request);
    let reply = open.reply();
    let closes = reply
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if closes || reply.status == 400 || reply.status == 431 {
        *conn = None;
    }
    if reply.status == 200 {
        assert_eq!(
            upstream.calls(),
            before + 1,
            "one request became another number of them"
        );
        let seen = upstream.last();
        let field = |name: &str| decode(seen.header(name).unwrap_or_default());
        return Answer::Accepted {
            id: field("x-user-id"),
            username: field("x-user-name"),
        };
    }
    assert_eq!(upstream.calls(), before, "a refused request reached the upstream");
    if reply.status == 400 || reply.status == 431 {
        return Answer::NotHttp;
    }
    Answer::Refused {
        status: reply.status,
        challenges: reply
            .head
            .all("www-authenticate")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        body: reply.json(),
    }
}

/// The gateway writes all but visible ASCII as `%XX`.
fn decode(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .expect("UTF-8")
        .into_owned()
}
