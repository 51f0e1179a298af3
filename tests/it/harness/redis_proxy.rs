//! [`RedisProxy`]: a TCP proxy before a [`Redis`] that reads the commands, and replaces, delays or cuts chosen replies.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use super::Redis;

/// What happens to a command.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Redis answers it.
    None,
    /// Redis answers it after this time.
    Delay(Duration),
    /// This is the reply, and Redis never sees the command.
    Reply(&'static str),
    /// The reply begins so, and then the connection is closed.
    Cut(&'static str),
    /// Redis executes it, and the connection is closed before the reply.
    Lose,
    /// There is no reply, and none to any later command of this connection.
    Silence,
}

type Rule = dyn Fn(&[String]) -> Fault + Send + Sync;

pub struct RedisProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    redis: PathBuf,
    rule: Mutex<Arc<Rule>>,
    clients: Mutex<Vec<TcpStream>>,
    /// Connections with a lower number pass nothing on, and stay open.
    forgotten: AtomicUsize,
    accepted: AtomicUsize,
    commands: AtomicUsize,
}

impl RedisProxy {
    pub fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            redis: redis.socket(),
            rule: Mutex::new(Arc::new(|_: &[String]| Fault::None)),
            clients: Mutex::default(),
            forgotten: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            commands: AtomicUsize::new(0),
        });
        let of_proxy = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let shared = Arc::clone(&of_proxy);
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                let _ = client.set_nodelay(true);
                shared
                    .clients
                    .lock()
                    .expect("no panic")
                    .push(client.try_clone().expect("cloned"));
                thread::spawn(move || {
                    let _ = shared.serve(&client, number);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on this rule decides about each command: its words, as they were sent.
    pub fn rule(&self, rule: impl Fn(&[String]) -> Fault + Send + Sync + 'static) {
        *self.shared.rule.lock().expect("no panic") = Arc::new(rule);
    }

    /// From now on Redis answers.
    pub fn pass(&self) {
        self.rule(|_| Fault::None);
    }

    /// Closes every connection that is open now.
    pub fn close_connections(&self) {
        for client in self.shared.clients.lock().expect("no panic").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// The connections of now pass nothing on any more, as behind a firewall that has dropped their state.
    pub fn forget_connections(&self) {
        let accepted = self.shared.accepted.load(Ordering::SeqCst);
        self.shared.forgotten.store(accepted, Ordering::SeqCst);
    }

    /// How many connections were made so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many commands were received so far.
    pub fn commands(&self) -> usize {
        self.shared.commands.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, mut client: &TcpStream, number: usize) -> io::Result<()> {
        let mut server = UnixStream::connect(&self.redis)?;
        let (replied, reply) = mpsc::channel();
        let is_silent = Arc::new(AtomicBool::new(false));
        {
            let (shared, is_silent) = (Arc::clone(self), Arc::clone(&is_silent));
            let (server, mut client) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || -> io::Result<()> {
                let mut server = BufReader::new(server);
                loop {
                    let value = match value(&mut server) {
                        Ok(value) => value,
                        Err(error) => {
                            let _ = client.shutdown(Shutdown::Both);
                            return Err(error);
                        }
                    };
                    if is_silent.load(Ordering::SeqCst) || number < shared.forgotten.load(Ordering::SeqCst) {
                        continue;
                    }
                    // A push answers no command.
                    if value[0] == b'>' {
                        client.write_all(&value)?;
                    } else if replied.send(value).is_err() {
                        return Ok(());
                    }
                }
            });
        }
        let mut commands = BufReader::new(client.try_clone()?);
        loop {
            let bytes = value(&mut commands)?;
            let words = words(&bytes);
            if number < self.forgotten.load(Ordering::SeqCst) {
                continue;
            }
            self.commands.fetch_add(1, Ordering::SeqCst);
            let rule = Arc::clone(&self.rule.lock().expect("no panic"));
            let fault = rule(&words);
            if is_silent.load(Ordering::SeqCst) {
                continue;
            }
            match fault {
                Fault::Reply(reply) => {
                    client.write_all(reply.as_bytes())?;
                    continue;
                }
                Fault::Cut(reply) => return client.write_all(reply.as_bytes()),
                Fault::Silence => {
                    is_silent.store(true, Ordering::SeqCst);
                    continue;
                }
                Fault::Delay(time) => thread::sleep(time),
                Fault::None | Fault::Lose => {}
            }
            server.write_all(&bytes)?;
            let Ok(reply) = reply.recv() else { return Ok(()) };
            if matches!(fault, Fault::Lose) {
                return Ok(());
            }
            client.write_all(&reply)?;
        }
    }
}

/// The bytes of one value of RESP.
fn value(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let count = std::str::from_utf8(&bytes[1..])
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    match (bytes[0], count) {
        (b'$' | b'=' | b'!', Some(length)) => {
            let at = bytes.len();
            bytes.resize(at + length + 2, 0);
            from.read_exact(&mut bytes[at..])?;
        }
        (b'*' | b'~' | b'>' | b'%', Some(count)) => {
            let parts = if bytes[0] == b'%' { 2 * count } else { count };
            for _ in 0..parts {
                bytes.append(&mut value(from)?);
            }
        }
        _ => {}
    }
    Ok(bytes)
}

/// The words of a command: an array of strings.
fn words(command: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(command);
    let lines = text.split("\r\n").skip(2).step_by(2);
    lines.map(str::to_owned).filter(|word| !word.is_empty()).collect()
}
