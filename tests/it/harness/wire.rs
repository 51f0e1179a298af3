//! A strict HTTP/1.1 reader for the client and the upstream of the tests. It keeps the raw bytes.

use std::io::{self, Read, Write};

/// The head of a message.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// As it came, with the empty line.
    pub raw: Vec<u8>,
    /// The first line.
    pub first: String,
    /// Names as sent, values without outer blanks.
    pub fields: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            .collect();
        Self {
            raw: raw.to_vec(),
            first,
            fields,
        }
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a field that may come once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// Every field whose name equals `name` in letters and digits, as some servers compare names.
    pub fn folded(&self, name: &str) -> Vec<(&str, &str)> {
        let fold = |name: &str| {
            name.chars()
                .filter(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase()
        };
        let wanted = fold(name);
        self.fields
            .iter()
            .filter(|(own, _)| fold(own) == wanted)
            .map(|(name, value)| (&**name, &**value))
            .collect()
    }

    fn is_chunked(&self) -> bool {
        self.all("transfer-encoding")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")
            .map(|length| length.parse().expect("a content-length of digits"))
    }
}

/// A body as it was read.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Its bytes.
    pub data: Vec<u8>,
    /// The lines behind the last chunk.
    pub trailers: Vec<u8>,
    /// Whether its framing says that it is whole.
    pub complete: bool,
}

/// How a body without `Content-Length` and `Transfer-Encoding` ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WithoutLength {
    /// It is empty: requests.
    Empty,
    /// With the connection: responses.
    Close,
}

/// A stream, with the bytes that were read ahead.
pub struct Wire<S> {
    pub stream: S,
    buffer: Vec<u8>,
    /// A reset, and the end of TLS without close_notify, are errors.
    pub is_strict: bool,
}

impl<S: Read + Write> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            is_strict: false,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads more; 0 is the end. An end without a TLS goodbye is an end too.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = match self.stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if !self.is_strict && ended(&error) => 0,
            Err(error) => return Err(error),
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// The next bytes; empty at the end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// The next head, or nothing if the other end closed before it.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(Some(Head::parse(&raw)));
            }
            if self.fill()? == 0 {
                assert!(
                    self.buffer.is_empty(),
                    "a head was cut: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return Ok(None);
            }
        }
    }

    /// Puts a head back, to be read again.
    pub fn unread(&mut self, head: &Head) {
        self.buffer.splice(..0, head.raw.iter().copied());
    }

    /// The body that a head announces.
    pub fn body(&mut self, head: &Head, otherwise: WithoutLength) -> io::Result<Body> {
        if head.is_chunked() {
            assert!(
                head.length().is_none(),
                "both framings: {}",
                String::from_utf8_lossy(&head.raw)
            );
            return self.chunked();
        }
        match (head.length(), otherwise) {
            (Some(length), _) => {
                let data = self.up_to(length)?;
                Ok(Body {
                    complete: data.len() == length,
                    data,
                    trailers: Vec::new(),
                })
            }
            (None, WithoutLength::Empty) => Ok(Body {
                complete: true,
                ..Body::default()
            }),
            (None, WithoutLength::Close) => Ok(Body {
                data: self.up_to(usize::MAX)?,
                complete: true,
                trailers: Vec::new(),
            }),
        }
    }

    /// So many bytes, or as many as come.
    pub fn up_to(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length && self.fill()? > 0 {}
        let length = length.min(self.buffer.len());
        Ok(self.buffer.drain(..length).collect())
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn chunked(&mut self) -> io::Result<Body> {
        let mut body = Body::default();
        loop {
            let Some(line) = self.line()? else { return Ok(body) };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).expect("a chunk size");
            if size == 0 {
                break;
            }
            let data = self.up_to(size + 2)?;
            body.data.extend_from_slice(&data[..data.len().min(size)]);
            if data.len() < size + 2 {
                return Ok(body);
            }
            assert!(data.ends_with(b"\r\n"), "a chunk ends with an empty line");
        }
        loop {
            match self.line()? {
                None => return Ok(body),
                Some(line) if line.is_empty() => break,
                Some(line) => body.trailers.extend_from_slice(format!("{line}\r\n").as_bytes()),
            }
        }
        body.complete = true;
        Ok(body)
    }

    /// Whether the other end closes without another byte; an error if it sends data or stays silent.
    pub fn closes(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.fill(), Ok(0))
    }
}

/// Whether an error means that the other end is gone.
pub fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}
