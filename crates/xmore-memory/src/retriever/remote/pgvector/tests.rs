//! The client against servers that answer with nonsense, or not at all.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::*;
use crate::retriever::RemoteError;

/// A server that reads a little of each connection, then says `reply` and repeats `more` for ever, and stays.
fn server(reply: &'static [u8], more: &'static [u8]) -> PgvectorAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(reply);
                while !more.is_empty() && stream.write_all(more).is_ok() {}
                // Until the client goes away.
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });
    format!("postgres://me:secret@127.0.0.1:{port}/d/t").parse().unwrap()
}

fn options() -> RemoteOptions {
    RemoteOptions {
        timeout: Duration::from_millis(300),
        attempts: 2,
        max_answer: 1 << 20,
        ..RemoteOptions::default()
    }
}

/// `ParameterStatus`.
const PARAMETER: &[u8] = b"S\0\0\0\x08a\0b\0";
/// `AuthenticationOk` and `ReadyForQuery`.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

#[test]
fn servers_that_make_no_sense_are_errors_in_time() {
    for (reply, more) in [
        (&b""[..], &b""[..]),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
        (b"", b"\0"),
        // A message of 2 GB that is begun, parameters without an end, rows that were not asked for.
        (b"", b"R\x7f\xff\xff\xffabc"),
        (b"", PARAMETER),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05ID\0\0\0\x06\0\0", b""),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IT\0\0\0\x06\xff\xff", b""),
        (WELCOME, b""),
        (WELCOME, WELCOME),
        // The setting is taken; rows of no column, and one that says it has more columns than it has, are no answer.
        (WELCOME, b"C\0\0\0\x08SET\0Z\0\0\0\x05I1\0\0\0\x042\0\0\0\x04T\0\0\0\x06\0\0D\0\0\0\x06\xff\xff"),
    ] {
        let start = Instant::now();
        let error = Pgvector::open(&server(reply, more), &options()).err().unwrap();
        assert!(
            matches!(
                error,
                MemoryError::Remote(RemoteError::Refused { .. })
                    | MemoryError::Remote(RemoteError::Unreachable { .. })
            ),
            "{reply:?}: {error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_answer_that_does_not_end_is_cut_off() {
    let error = Pgvector::open(
        &server(b"R\0\0\0\x08\0\0\0\0", PARAMETER),
        &RemoteOptions { timeout: Duration::from_secs(20), ..options() },
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("1048576 bytes"), "{error}");
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_sent() {
    // No server listens there.
    let address: PgvectorAddress = "postgres://127.0.0.1:1/d/t".parse().unwrap();
    let model = |dim| ModelIdentity::new("m", "00", dim);
    let create = |dim, index| Pgvector::create(&address, &model(dim), 1, index, &options()).err().unwrap();
    assert!(create(16_001, IndexKind::Flat).to_string().contains("16000"));
    assert!(create(4, IndexKind::Auto).to_string().contains("vector_ip_ops"));
    let error = Pgvector::open(&address, &options()).err().unwrap();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Unreachable { attempts: 2, .. })), "{error}");
}

#[test]
fn a_connection_may_be_opened_and_dropped_in_asynchronous_code() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert!(Pgvector::open(&server(WELCOME, b""), &options()).is_err());
    });
}

#[test]
fn names_in_a_comment_are_quoted() {
    assert_eq!(comment("\"t\"", "it's"), "COMMENT ON TABLE \"t\" IS 'it''s'");
    assert_eq!(comment("\"t\"", "a\\'b"), "COMMENT ON TABLE \"t\" IS  E'a\\\\''b'");
}
