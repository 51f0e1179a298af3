//! HTTP/1.1 with a client.

use crate::harness::{Server, echoed, last};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start();
    let mut client = server.connect();
    for body in ["one", "two", ""] {
        client.send(post("/", body));
        client.expect(&echoed(body));
    }
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    client.expect(&last("200 OK", ""));
    client.expect_end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(["one", "two", "three"].map(|body| post("/", body)).concat());
    client.expect(&["one", "two", "three"].map(echoed).concat());
}

#[test]
fn a_chunked_upload_is_decoded_however_it_is_split() {
    let server = Server::start();
    let upload =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n";
    let mut client = server.connect();
    client.send(upload);
    client.expect(&echoed("hello world"));
    for byte in upload.bytes() {
        client.send([byte]);
    }
    client.expect(&echoed("hello world"));
}

#[test]
fn a_100_continue_is_sent_once_the_handler_reads_the_body() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.expect(CONTINUE);
    client.send("hello");
    client.expect(&echoed("hello"));
    // This handler drops the body. The client may never send it, so the connection closes.
    client.send("POST /ignored HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.expect(&last("200 OK", "ignored"));
    client.expect_end();
}

#[test]
fn the_rest_of_a_short_ignored_body_is_discarded() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST /ignored HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    client.expect(&echoed("ignored"));
    client.send("world");
    client.send(post("/", "next"));
    client.expect(&echoed("next"));
}

#[test]
fn early_hints_precede_the_response() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(post("/hints", "body"));
    client.expect("HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n");
    client.expect(&echoed("body"));
}

#[test]
fn an_invalid_head_gets_exactly_one_400_response() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost : h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.expect(&last("400 Bad Request", "Malformed(\"a field's name\")"));
    client.expect_end();
}

#[test]
fn a_body_with_invalid_framing_ends_the_connection() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n");
    client.expect(&last("400 Bad Request", "incomplete"));
    client.expect_end();
}

#[test]
fn an_upgrade_hands_the_connection_to_the_tunnel() {
    let server = Server::start();
    let mut client = server.connect();
    // The first bytes of the new protocol arrive with the head.
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    client.expect(&format!(
        "HTTP/1.1 101 Switching Protocols\r\ndate: {}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst",
        crate::harness::TEST_DATE
    ));
    client.send("GET / HTTP/1.1\r\n\r\n");
    client.expect("GET / HTTP/1.1\r\n\r\n");
}
