//! Packs the files of a machine into an archive that the kernel unpacks at its start (cpio, format "newc").

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// An archive in the making.
pub struct Archive<W: Write> {
    sink: W,
    entries: u32,
    written: usize,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

impl<W: Write> Archive<W> {
    pub fn new(sink: W) -> Archive<W> {
        Archive { sink, entries: 0, written: 0 }
    }

    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    /// The file `from` of this machine, which may be executed, as `name`.
    pub fn file(&mut self, name: &str, from: &Path) -> io::Result<()> {
        self.entry(name, PROGRAM, (0, 0), &fs::read(from)?)
    }

    /// A file of this text.
    pub fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.entry(name, PROGRAM, (0, 0), text.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, DEVICE, (major, minor), &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.sink.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), bytes: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // The number of the entry, its mode, owner, group, links, time, size, device, the device that it is, name, no checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        let mut header = String::from("070701");
        fields.iter().for_each(|field| header.push_str(&format!("{field:08X}")));
        self.put(&[header.as_bytes(), name.as_bytes(), &[0]].concat())?;
        self.put(bytes)
    }

    /// Writes, and fills up to a multiple of four bytes.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        let padding = self.written.next_multiple_of(4) - self.written;
        self.written += padding;
        self.sink.write_all(bytes)?;
        self.sink.write_all(&[0; 3][..padding])
    }
}
