//! [`Sentinels`]: a primary, a replica, and three sentinels that watch them. [`FakeSentinel`]: one that names what a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use redis::Value;

use super::server::{Server, settles};

pub struct Sentinels {
    /// The first one is the primary at the start.
    pub servers: [Server; 2],
    pub sentinels: Vec<Server>,
}

impl Sentinels {
    /// Started, and agreed. A password is that of all of them, sentinels too.
    pub fn start(password: Option<&str>) -> Self {
        let primary = Server::with_password(&[], "", password);
        let port = primary.port;
        let replica = Server::with_password(&[], &format!("replicaof 127.0.0.1 {port}\n"), password);
        settles("the replica follows", || replica.is_replicating());
        let watch = format!(
            "sentinel monitor mymaster 127.0.0.1 {port} 2\nsentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 2000\n"
        );
        let login = password.map_or_else(String::new, |password| {
            format!("sentinel auth-pass mymaster {password}\n")
        });
        let start = |_| Server::with_password(&["--sentinel"], &format!("{watch}{login}"), password);
        let started = Self {
            servers: [primary, replica],
            sentinels: (0..3).map(start).collect(),
        };
        for sentinel in &started.sentinels {
            settles("the sentinels list each other and the replica", || {
                let count = |list: &str| match sentinel.run(&["SENTINEL", list, "mymaster"]) {
                    Value::Array(known) => known.len(),
                    _ => 0,
                };
                count("SENTINELS") == 2 && count("REPLICAS") == 1
            });
        }
        started
    }

    /// `urls`, for the configuration.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("{:?}", sentinel.url()))
            .collect();
        urls.join(", ")
    }
}

/// A sentinel of the test. What it names can change.
pub struct FakeSentinel {
    pub port: u16,
    named: Arc<Mutex<Option<u16>>>,
}

impl FakeSentinel {
    /// Names a server at this port of 127.0.0.1 for any service; `None`: it knows no service.
    pub fn naming(port: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let fake = Self {
            port: listener.local_addr().expect("bound").port(),
            named: Arc::new(Mutex::new(port)),
        };
        let named = Arc::clone(&fake.named);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let named = Arc::clone(&named);
                std::thread::spawn(move || answer(stream, &named));
            }
        });
        fake
    }

    pub fn name(&self, port: u16) {
        *self.named.lock().expect("no test fails inside") = Some(port);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// Answers the commands of one client until it closes.
fn answer(stream: TcpStream, named: &Mutex<Option<u16>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut words = Vec::new();
        let count: usize = line(&mut reader)?.strip_prefix('*')?.parse().ok()?;
        for _ in 0..count {
            let length: usize = line(&mut reader)?.strip_prefix('$')?.parse().ok()?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word).ok()?;
            words.push(String::from_utf8_lossy(&word[..length]).to_uppercase());
        }
        let reply = match words.first()?.as_str() {
            "SENTINEL" => match *named.lock().expect("no test fails inside") {
                Some(port) => {
                    let port = port.to_string();
                    format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
                }
                None => "*-1\r\n".to_owned(),
            },
            "HELLO" => "-NOPROTO unsupported protocol version\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        stream.write_all(reply.as_bytes()).ok()?;
    }
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
}
