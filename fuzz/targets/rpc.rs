//! The socket: any bytes as a frame, and any frame as a request, a question or an answer.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flock::rpc::frame::{self, FrameError};
use flock::rpc::message::{Incoming, Request, Response, encode};

/// So much goes into a socket before anybody reads from it.
const FITS: usize = 64 * 1024;

/// Names of fields that were left out and are written, with their punctuation.
const SPELT_OUT: usize = 200;

pub(crate) fn check(data: &[u8]) {
    let data = data.get(..FITS).unwrap_or(data);
    as_frame(data);
    as_request(data);
    as_question(data);
    as_response(data);
}

fn as_frame(data: &[u8]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut sender, receiver) = UnixStream::pair().expect("a pair of sockets");
    sender.write_all(data).expect("it fits");
    drop(sender);
    let got = frame::read(&receiver, deadline);
    match (data.iter().position(|byte| *byte == b'\n'), got) {
        (Some(end), Ok(frame)) => assert_eq!(frame, data[..end], "up to the first line end, and nothing behind it"),
        (None, Err(FrameError::Closed(length))) => assert_eq!(length, data.len()),
        (end, got) => panic!("line end at {end:?}, and {got:?}"),
    }
}

fn as_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(data) else { return };
    let line = encode(&request).expect("what was read can be written");
    assert_one_frame(&line, data);
    let again: Request = serde_json::from_slice(&line).expect("what was written can be read");
    assert_eq!(again, request);
}

fn as_question(data: &[u8]) {
    let Ok(Incoming::Query(query)) = Incoming::read(data) else { return };
    let line = query.encode().expect("what was read can be written");
    assert_one_frame(&line, data);
    let again = Incoming::read(&line).expect("what was written can be read");
    assert!(matches!(again, Incoming::Query(again) if again == query));
}

fn as_response(data: &[u8]) {
    let Ok(response) = serde_json::from_slice::<Response>(data) else { return };
    let line = encode(&response).expect("what was read can be written");
    // The result passes through as it stands, and what came in a frame has no line end.
    if !data.contains(&b'\n') {
        assert_one_frame(&line, data);
    }
    let again: Response = serde_json::from_slice(&line).expect("what was written can be read");
    assert_eq!(encode(&again).expect("and written again"), line);
}

fn assert_one_frame(line: &[u8], data: &[u8]) {
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line end, at the end");
    assert!(line.len() <= data.len() + SPELT_OUT, "{} bytes became {}", data.len(), line.len());
}
