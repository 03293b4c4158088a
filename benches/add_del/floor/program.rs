//! The floor of a plugin: the smallest program of Rust's standard library that does what each CNI plugin with a daemon has to do. It
//! reads its standard input, sends [`SIZE`] bytes to a socket, hears as many back, prints them and ends.
//!
//! Built like flock: static, and with the same profile. Knows nothing of CNI.
#![allow(missing_docs)]

use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// What goes each way, in bytes. `server.rs` has the same.
const SIZE: usize = 2048;

fn main() -> io::Result<()> {
    let mut input = Vec::with_capacity(SIZE);
    io::stdin().read_to_end(&mut input)?;
    input.resize(SIZE, 0);
    let mut arguments = env::args_os().skip(1);
    let socket = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut connection = UnixStream::connect(socket)?;
    connection.write_all(&input)?;
    let mut answer = [0; SIZE];
    connection.read_exact(&mut answer)?;
    io::stdout().write_all(&answer)
}
