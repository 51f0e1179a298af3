//! WebSockets for tests: the upstream's side of a handshake, and clients of both versions of HTTP.

use base64::Engine;
use hyper::ext::Protocol;

use super::client::{Call, Reply, get};
use super::gate::Gate;
use super::h2::{H2, read};
use super::upstream::{Exchange, MARK};

/// RFC 6455, section 4.2.2.
pub fn accept_of(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

impl Exchange<'_> {
    /// Switches, as an application does that can.
    pub fn switch(&mut self, fields: &str) -> bool {
        let accept = accept_of(self.head.header("sec-websocket-key").unwrap_or_default());
        self.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\n{MARK}: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
        ))
    }
}

/// How a client asks for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Http1,
    Http2,
}

impl Over {
    pub const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    /// The answer to a request for a WebSocket with these fields, on a connection of its own. 101 or 200 is an open one.
    pub fn open(self, gate: &Gate, target: &str, fields: &[(&str, &str)]) -> Reply {
        let with = |call: Call| {
            fields
                .iter()
                .fold(call, |call, (name, value)| call.header(name, *value))
        };
        let call = with(get(target).header("Sec-WebSocket-Version", "13"));
        match self {
            Self::Http1 => {
                let call = call
                    .header("Connection", "Upgrade")
                    .header("Upgrade", "websocket")
                    .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
                let mut conn = gate.connect();
                conn.send(call.bytes());
                let head = conn.wire.head().expect("an answer in time").expect("an answer");
                if head.first.starts_with("HTTP/1.1 101 ") {
                    return Reply {
                        status: 101,
                        head,
                        ..Reply::default()
                    };
                }
                conn.wire.unread(&head);
                conn.reply()
            }
            Self::Http2 => {
                let mut h2 = H2::connect(gate);
                // By its answer, the gateway has said that it takes such requests.
                h2.call(&get("/nowhere"));
                let mut request = h2.request(&call);
                *request.method_mut() = http::Method::CONNECT;
                request.extensions_mut().insert(Protocol::from_static("websocket"));
                let sent = h2.sender.send_request(request);
                h2.runtime
                    .block_on(async { read(sent.await.expect("an answer")).await })
            }
        }
    }

    /// The status of a WebSocket that is open.
    pub fn opened(self) -> u16 {
        match self {
            Self::Http1 => 101,
            Self::Http2 => 200,
        }
    }
}
