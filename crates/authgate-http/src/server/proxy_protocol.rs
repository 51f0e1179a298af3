//! The PROXY protocol, versions 1 and 2: a load balancer sends the client's address before the first byte of the connection.

use std::io;
use std::net::IpAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its CRLF.
const MAX_V1_BYTES: usize = 107;
/// The limit of addresses and extensions in version 2: load balancers send a few hundred bytes.
const MAX_V2_BYTES: usize = 4 * 1024;

/// Reads the header and no byte after it. Returns the client's address, or `None` if the header names no client (`LOCAL`, `UNKNOWN`).
///
/// # Errors
/// There is no such header, or it is invalid.
pub(super) async fn read<I: AsyncRead + Unpin>(io: &mut I) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    io.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_v2(io, header).await
    } else if header.starts_with(b"PROXY ") {
        read_v1(io, header).await
    } else {
        Err(invalid("no PROXY protocol header"))
    }
}

async fn read_v1<I: AsyncRead + Unpin>(io: &mut I, mut header: Vec<u8>) -> io::Result<Option<IpAddr>> {
    while !header.ends_with(b"\r\n") {
        if header.len() == MAX_V1_BYTES {
            return Err(invalid("a header of version 1 is too long"));
        }
        header.push(io.read_u8().await?);
    }
    let parsed = v1::Header::try_from(header.as_slice()).map_err(|_| invalid("a header of version 1"))?;
    Ok(match parsed.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    })
}

async fn read_v2<I: AsyncRead + Unpin>(io: &mut I, mut header: Vec<u8>) -> io::Result<Option<IpAddr>> {
    let mut fixed = [0; 4];
    io.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > MAX_V2_BYTES {
        return Err(invalid("a header of version 2 is too long"));
    }
    header.extend_from_slice(&fixed);
    let begin = header.len();
    header.resize(begin + length, 0);
    io.read_exact(&mut header[begin..]).await?;
    let parsed = v2::Header::try_from(header.as_slice()).map_err(|_| invalid("a header of version 2"))?;
    Ok(match (parsed.command, parsed.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the address, and what remains after the header.
    fn check(header: &[u8], expected: Result<Option<&str>, ()>) {
        let bytes = [header, b"GET /"].concat();
        let mut remaining = bytes.as_slice();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let read = runtime.block_on(read(&mut remaining));
        let shown = header.escape_ascii().to_string();
        let read = read.map(|ip| ip.map(|ip| ip.to_string()));
        match expected {
            Ok(expected) => {
                assert_eq!(read.ok(), Some(expected.map(str::to_owned)), "{shown}");
                assert_eq!(remaining, b"GET /", "{shown}");
            }
            Err(()) => assert!(read.is_err(), "{shown}"),
        }
    }

    #[test]
    fn both_versions_are_read_and_no_byte_after_the_header() {
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n", Ok(Some("192.0.2.1")));
        check(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n",
            Ok(Some("2001:db8::1")),
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        let v2 = |body: &[u8]| [SIGNATURE, body].concat();
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 1, 0xbb];
        check(&v2(&[&[0x21, 0x11, 0, 12][..], &v4].concat()), Ok(Some("192.0.2.1")));
        check(
            &v2(&[&[0x21, 0x11, 0, 16][..], &v4, &[4, 0, 1, 0]].concat()),
            Ok(Some("192.0.2.1")),
        );
        check(&v2(&[&[0x20, 0x11, 0, 12][..], &v4].concat()), Ok(None));
        check(&v2(&[0x20, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for header in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
            b"PROXY TCP4 192.0.2.999 192.0.2.2 5000 443\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 5000 443\r\n",
            b"proxy TCP4 192.0.2.1 192.0.2.2 5000 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x00",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            check(header, Err(()));
        }
        check(
            &[b"PROXY UNKNOWN ", "x".repeat(100).as_bytes(), b"\r\n"].concat(),
            Err(()),
        );
    }
}
