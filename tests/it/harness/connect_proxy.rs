//! [`ConnectProxy`]: an HTTP proxy that opens tunnels (RFC 9110, section 9.3.6), all to one address.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::wire::{Head, Wire};

pub struct ConnectProxy {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Head>>>,
}

impl ConnectProxy {
    /// A proxy whose tunnels all lead to this address, whatever their host is.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let received: Arc<Mutex<Vec<Head>>> = Arc::default();
        let heads = Arc::clone(&received);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let heads = Arc::clone(&heads);
                thread::spawn(move || tunnel(&stream, target, &heads));
            }
        });
        Self { address, received }
    }

    /// `http://` with these credentials, if there are any.
    pub fn url(&self, credentials: &str) -> String {
        match credentials {
            "" => format!("http://{}", self.address),
            credentials => format!("http://{credentials}@{}", self.address),
        }
    }

    /// The heads of all requests so far.
    pub fn received(&self) -> Vec<Head> {
        self.received.lock().expect("no panic").clone()
    }
}

fn tunnel(client: &TcpStream, target: SocketAddr, heads: &Mutex<Vec<Head>>) -> io::Result<()> {
    let mut wire = Wire::new(client.try_clone()?);
    let Some(head) = wire.head()? else { return Ok(()) };
    let is_connect = head.first.starts_with("CONNECT ");
    heads.lock().expect("no panic").push(head);
    if !is_connect {
        return wire.write(b"HTTP/1.1 405 Tunnels Only\r\nContent-Length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(target)?;
    wire.write(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || copy(&from_server, &to_client));
    copy(client, &server);
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
