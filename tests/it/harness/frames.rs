//! HTTP/2 as bytes: frames that are put together by hand, and a client that sends them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::Gate;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const RST_STREAM: u8 = 3;
pub const HEADERS: u8 = 1;
pub const DATA: u8 = 0;
pub const CONTINUATION: u8 = 9;
pub const SETTINGS: u8 = 4;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
pub const CANCEL: u8 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as literals that no table keeps (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 128);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub const PLAIN: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/x"),
];

pub fn head(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, 4 | flags, stream, &block(fields))
}

pub struct Raw(pub TcpStream);

impl Raw {
    pub fn open(gate: &Gate) -> Self {
        let tcp = TcpStream::connect(gate.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut raw = Self(tcp);
        raw.send(&[PREFACE, EMPTY_SETTINGS].concat());
        raw
    }

    /// The gateway may have closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// The next frame: type, stream and payload; `None` at the end.
    pub fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let (kind, _, stream, payload) = self.next_flagged()?;
        Some((kind, stream, payload))
    }

    /// The same, with flags behind the type.
    pub fn next_flagged(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        Some((header[3], header[4], stream, payload))
    }

    /// The payload of the next frame of a type.
    pub fn until(&mut self, wanted: u8) -> Vec<u8> {
        loop {
            let (kind, _, payload) = self.next().expect("an open connection");
            if kind == wanted {
                return payload;
            }
        }
    }

    /// The next frame: type, flags and payload; `None` at the end.
    pub fn next_with_flags(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((header[3], header[4], payload))
    }

    /// The error of the GOAWAY or RST_STREAM that comes; `None`: it just ended.
    pub fn error(&mut self) -> Option<u32> {
        loop {
            match self.next()? {
                (GOAWAY, _, payload) => return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                (RST_STREAM, _, payload) => return Some(u32::from_be_bytes(payload[..4].try_into().unwrap())),
                _ => {}
            }
        }
    }

    /// The first byte of the block of a response's fields, and its body.
    pub fn response(&mut self) -> (u8, Vec<u8>) {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let (kind, _, payload) = self.next().expect("a response");
            match kind {
                HEADERS => status = payload[0],
                DATA => body.extend_from_slice(&payload),
                RST_STREAM | GOAWAY => panic!("no response but an error: {payload:?}"),
                _ => {}
            }
            if kind == DATA && serde_json::from_slice::<Value>(&body).is_ok() {
                return (status, body);
            }
        }
    }
}

/// A client of frames that keeps to the windows that it is given.
pub struct Sender {
    pub raw: Raw,
    pub connection: i64,
    streams: HashMap<u32, i64>,
    /// Streams whose answer is whole.
    pub answered: usize,
    /// RST_STREAM frames that have come, each with its error.
    pub resets: Vec<(u32, Vec<u8>)>,
}

impl Sender {
    pub fn open(gate: &Gate) -> Self {
        let mut sender = Self {
            raw: Raw::open(gate),
            connection: 65_535,
            streams: HashMap::new(),
            answered: 0,
            resets: Vec::new(),
        };
        // The SETTINGS of the gateway come first, and hold once they are acknowledged. Answers have room for good.
        sender.frame();
        let room = frame(WINDOW_UPDATE, 0, 0, &1_000_000_000_u32.to_be_bytes());
        sender.raw.send(&[frame(SETTINGS, 1, 0, &[]), room].concat());
        sender
    }

    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)], flags: u8) {
        // What the gateway gives each stream to begin with.
        self.streams.insert(stream, 256 * 1024);
        assert!(self.raw.send(&head(stream, fields, flags)));
    }

    /// Takes one frame.
    pub fn frame(&mut self) {
        let (kind, flags, stream, payload) = self.raw.next_flagged().expect("a frame");
        match kind {
            WINDOW_UPDATE => {
                let more = i64::from(u32::from_be_bytes(payload.try_into().unwrap()));
                match stream {
                    0 => self.connection += more,
                    _ => *self.streams.entry(stream).or_default() += more,
                }
            }
            HEADERS | DATA if flags & END_STREAM != 0 => self.answered += 1,
            RST_STREAM => self.resets.push((stream, payload)),
            GOAWAY => panic!("GOAWAY {payload:?}"),
            _ => {}
        }
    }

    /// Sends so much of a body, and waits for windows where it has to.
    pub fn data(&mut self, stream: u32, bytes: usize, flags: u8) {
        let length = i64::try_from(bytes).unwrap();
        while self.connection < length || self.streams[&stream] < length {
            self.frame();
        }
        self.connection -= length;
        *self.streams.get_mut(&stream).unwrap() -= length;
        assert!(self.raw.send(&frame(DATA, flags, stream, &vec![b'x'; bytes])));
    }

    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.frame();
        }
    }

    /// Asks for something else on the same connection.
    pub fn is_served(&mut self, stream: u32) {
        let answered = self.answered;
        self.request(stream, &PLAIN, END_STREAM);
        self.until(|sender| sender.answered > answered);
    }
}
