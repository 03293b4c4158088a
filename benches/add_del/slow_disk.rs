//! A disk whose every sync takes a given time: a file system in this process's memory, which the kernel asks by `/dev/fuse`.
//!
//! Device mapper's delay target is what one would take first, and few kernels of virtual machines have it. FUSE asks nothing of the programs
//! that are measured: they sync a file, and wait. Everything but a sync is answered at once, also while one lasts. Knows of the protocol what
//! an agent's record needs, and says of anything else that it is not there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// What the kernel sends at most at once: a request and its data.
const REQUEST: usize = (1 << 17) + 4096;
const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Mounts it at `path`; none where this kernel or this user cannot.
pub fn start(path: &Path, sync: Duration) -> Result<(), String> {
    let device =
        File::options().read(true).write(true).open("/dev/fuse").map_err(|error| format!("/dev/fuse: {error}"))?;
    let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,default_permissions", device.as_raw_fd());
    let options = CString::new(options).expect("no zero");
    mount("slow", path, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .map_err(|error| format!("mount: {error}"))?;
    thread::spawn(move || serve(&Arc::new(device), sync));
    Ok(())
}

fn serve(device: &Arc<File>, sync: Duration) {
    let mut disk = Disk::default();
    disk.make(DIRECTORY | 0o755);
    let mut buffer = vec![0; REQUEST];
    loop {
        let length = match device.as_ref().read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // The file system is no longer mounted.
            Err(_) => return,
        };
        let request = Request(&buffer[..length]);
        let unique = request.u64(8);
        match request.u32(4) {
            // FORGET, INTERRUPT and BATCH_FORGET have no answer.
            2 | 36 | 42 => {}
            // FSYNC and FSYNCDIR.
            20 | 30 => {
                let device = device.clone();
                thread::spawn(move || {
                    thread::sleep(sync);
                    reply(&device, unique, Ok(Vec::new()));
                });
            }
            operation => reply(device, unique, disk.carry_out(operation, &request)),
        }
    }
}

fn reply(mut device: &File, unique: u64, answer: Result<Vec<u8>, Errno>) {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(errno) => (-errno.raw_os_error(), Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).expect("short");
    let bytes = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &body].concat();
    device.write_all(&bytes).ok();
}

/// A request: a header of 40 bytes, and what the operation takes.
struct Request<'a>(&'a [u8]);

impl<'a> Request<'a> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn node(&self) -> u64 {
        self.u64(16)
    }

    /// The names behind the first `fixed` bytes of the body, each of which a zero ends.
    fn name(&self, fixed: usize, at: usize) -> Vec<u8> {
        self.0[40 + fixed..].split(|byte| *byte == 0).nth(at).unwrap_or_default().to_vec()
    }

    fn data(&self, fixed: usize, length: usize) -> &'a [u8] {
        &self.0[40 + fixed..40 + fixed + length]
    }
}

#[derive(Default)]
struct Node {
    mode: u32,
    bytes: Vec<u8>,
    entries: BTreeMap<Vec<u8>, u64>,
}

#[derive(Default)]
struct Disk {
    nodes: HashMap<u64, Node>,
}

impl Disk {
    fn make(&mut self, mode: u32) -> u64 {
        let number = ROOT + self.nodes.len() as u64;
        self.nodes.insert(number, Node { mode, ..Node::default() });
        number
    }

    fn node(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::NOENT)
    }

    fn carry_out(&mut self, operation: u32, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let of = request.node();
        match operation {
            // LOOKUP
            1 => {
                let found = self.node(of)?.entries.get(&request.name(0, 0)).copied().ok_or(Errno::NOENT)?;
                self.entry(found)
            }
            // GETATTR
            3 => self.attributes_of(of),
            // SETATTR: of all that it may set, mode and size.
            4 => {
                let (valid, size, mode) = (request.u32(40), request.u64(40 + 16), request.u32(40 + 68));
                let node = self.node(of)?;
                if valid & 1 != 0 {
                    node.mode = node.mode & 0o170_000 | mode & 0o7777;
                }
                if valid & 8 != 0 {
                    node.bytes.resize(usize::try_from(size).map_err(|_| Errno::FBIG)?, 0);
                }
                self.attributes_of(of)
            }
            // MKDIR
            9 => {
                let made = self.make(DIRECTORY | request.u32(40) & 0o7777);
                self.node(of)?.entries.insert(request.name(8, 0), made);
                self.entry(made)
            }
            // UNLINK and RMDIR
            10 | 11 => self.node(of)?.entries.remove(&request.name(0, 0)).map(|_| Vec::new()).ok_or(Errno::NOENT),
            // RENAME and RENAME2, whose flags are not looked at.
            12 | 45 => {
                let fixed = if operation == 12 { 8 } else { 16 };
                let moved = self.node(of)?.entries.remove(&request.name(fixed, 0)).ok_or(Errno::NOENT)?;
                self.node(request.u64(40))?.entries.insert(request.name(fixed, 1), moved);
                Ok(Vec::new())
            }
            // OPEN and OPENDIR
            14 | 27 => Ok(vec![0; 16]),
            // READ
            15 => {
                let (offset, size) = (request.u64(48), request.u32(56) as usize);
                let bytes = &self.node(of)?.bytes;
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes[from..(from + size).min(bytes.len())].to_vec())
            }
            // WRITE
            16 => {
                let (offset, size) = (request.u64(48), request.u32(56));
                let (from, length) = (usize::try_from(offset).map_err(|_| Errno::FBIG)?, size as usize);
                let bytes = &mut self.node(of)?.bytes;
                bytes.resize(bytes.len().max(from + length), 0);
                bytes[from..from + length].copy_from_slice(request.data(40, length));
                Ok([size.to_ne_bytes(), [0; 4]].concat())
            }
            // STATFS: much room.
            17 => {
                let numbers = [1u64 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20].map(u64::to_ne_bytes).concat();
                Ok([numbers, [4096u32, 255, 4096, 0, 0, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat()].concat())
            }
            // RELEASE, FLUSH, RELEASEDIR, ACCESS
            18 | 25 | 29 | 34 => Ok(Vec::new()),
            // INIT: this version, and nothing that may be had besides.
            26 => {
                let head = [7u32, 31, request.u32(48), 0, 0, 1 << 17, 1].map(u32::to_ne_bytes).concat();
                Ok([head, vec![0; 64 - 28]].concat())
            }
            // READDIR
            28 => {
                let (skip, size) = (request.u64(48), request.u32(56) as usize);
                let entries: Vec<_> = self.node(of)?.entries.clone().into_iter().collect();
                let mut listed = Vec::new();
                for (at, (name, number)) in entries.iter().enumerate().skip(usize::try_from(skip).unwrap_or(usize::MAX))
                {
                    let kind = self.node(*number)?.mode >> 12;
                    let mut entry = [number.to_ne_bytes(), (at as u64 + 1).to_ne_bytes()].concat();
                    entry.extend([u32::try_from(name.len()).expect("short"), kind].map(u32::to_ne_bytes).concat());
                    entry.extend(name);
                    entry.resize(entry.len().next_multiple_of(8), 0);
                    if listed.len() + entry.len() > size {
                        break;
                    }
                    listed.extend(entry);
                }
                Ok(listed)
            }
            // CREATE
            35 => {
                let name = request.name(16, 0);
                let made = match self.node(of)?.entries.get(&name) {
                    Some(found) => *found,
                    None => self.make(REGULAR | request.u32(44) & 0o7777),
                };
                self.node(of)?.entries.insert(name, made);
                Ok([self.entry(made)?, vec![0; 16]].concat())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    /// `struct fuse_entry_out`, valid for no time.
    fn entry(&mut self, number: u64) -> Result<Vec<u8>, Errno> {
        let head = [number, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        Ok([head, self.attributes(number)?].concat())
    }

    /// `struct fuse_attr_out`, valid for no time.
    fn attributes_of(&mut self, number: u64) -> Result<Vec<u8>, Errno> {
        Ok([vec![0; 16], self.attributes(number)?].concat())
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, number: u64) -> Result<Vec<u8>, Errno> {
        let node = self.node(number)?;
        let size = node.bytes.len() as u64;
        let longs = [number, size, size.div_ceil(512), 0, 0, 0].map(u64::to_ne_bytes).concat();
        Ok([longs, [0, 0, 0, node.mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat()].concat())
    }
}
