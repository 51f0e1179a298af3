//! A drain ends connections in order.

use crate::harness::{RawClient, Server, echoed, last};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;

#[test]
fn a_request_under_way_is_answered_and_closes_its_connection() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    server.drain();
    client.send("hello");
    client.expect(&last("200 OK", "hello"));
    client.expect_end();
    server.join();
}

#[test]
fn an_idle_connection_closes_without_a_response() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.expect(&echoed(""));
    server.drain();
    client.expect_end();
    server.join();
}

#[test]
fn an_http2_connection_ends_with_goaway() {
    let server = Server::start();
    let mut client = server.connect();
    client.send([PREFACE, EMPTY_SETTINGS].concat());
    // The SETTINGS of the server, or their acknowledgement: the connection is served.
    read_frame(&mut client);
    server.drain();
    let goaway = loop {
        let (kind, payload) = read_frame(&mut client);
        if kind == GOAWAY {
            break payload;
        }
    };
    let (_last_stream, error_code) = goaway.split_at(4);
    assert_eq!(error_code[..4], [0; 4], "NO_ERROR");
    drop(client);
    server.join();
}

/// The type and payload of the next frame.
fn read_frame(client: &mut RawClient) -> (u8, Vec<u8>) {
    let header = client.read(9);
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    (header[3], client.read(length as usize))
}
