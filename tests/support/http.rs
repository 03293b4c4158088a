//! A connection of HTTP as a server sees it, over TLS or not: requests as they came, and answers as a test wants them, whole or cut.
//! Who listens, and what is answered, other files say.

use std::io::{Read, Write};

/// The end of an answer in chunks.
pub const END: &str = "0\r\n\r\n";

/// One connection, as the server sees it.
pub struct Conn<S> {
    pub stream: S,
    /// From 0.
    pub number: usize,
}

/// A request, whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// All lines up to the empty one.
    pub head: String,
    pub body: Vec<u8>,
    /// The number of its connection.
    pub connection: usize,
}

impl Request {
    /// The first line: method, target, version.
    pub fn line(&self) -> &str {
        self.head.lines().next().expect("a line")
    }

    /// The value of a header, whose name may be written in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl<S: Read + Write> Conn<S> {
    /// The next request; None when the client has left.
    pub fn request(&mut self) -> Option<Request> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        let head = String::from_utf8(head).expect("a head in UTF-8");
        let mut request = Request { head, body: Vec::new(), connection: self.number };
        let len = request.header("content-length").map_or(0, |len| len.parse().expect("a number of bytes"));
        request.body.resize(len, 0);
        self.stream.read_exact(&mut request.body).expect("a body as long as its head says");
        Some(request)
    }

    /// Sends these bytes. The client may have gone: that is for the client to explain.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).ok();
    }

    /// A whole answer. Each of the further `headers` ends with `\r\n`.
    pub fn answer(&mut self, status: &str, headers: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        self.say(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len()));
        self.say(body);
    }

    /// The head of an answer in chunks, which go on until [`END`].
    pub fn begin(&mut self) {
        self.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    /// One chunk.
    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.say([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    }

    /// Silence until the client leaves.
    pub fn wait_for_end(&mut self) {
        while matches!(self.stream.read(&mut [0; 64]), Ok(1..)) {}
    }

    /// Every request is answered so, until the client leaves.
    pub fn answer_all(&mut self, mut answer: impl FnMut(&mut Self, Request)) {
        while let Some(request) = self.request() {
            answer(self, request);
        }
    }
}
