//! An archive of tar in the format ustar, which every tar reads: small files of root's with fixed names, all of one time.
//!
//! Built in memory, since what goes in is bounded by who puts it in. Must not read a file itself.

/// Bytes of a block; an archive is a whole number of them.
const BLOCK: usize = 512;

/// Longest name, in bytes.
const NAME_MAX: usize = 100;

/// Largest file that the format has a number for, in bytes.
const SIZE_MAX: usize = 0o777_7777_7777;

/// An archive that is being made.
#[derive(Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    /// Seconds since 1970.
    time: u64,
}

impl Archive {
    /// One without a file. What is put into it is of this time, in seconds since 1970.
    pub fn new(time: u64) -> Archive {
        Archive { bytes: Vec::new(), time }
    }

    /// Puts a file in. What the format has no room for, of a name or of a content, is cut off.
    pub fn put(&mut self, name: &str, content: &[u8]) {
        let content = content.get(..SIZE_MAX).unwrap_or(content);
        self.bytes.extend(header(name, content.len(), self.time));
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive, which ends with two empty blocks.
    pub fn whole(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

fn header(name: &str, size: usize, time: u64) -> Vec<u8> {
    let (size, time) = (format!("{size:011o}"), format!("{:011o}", time.min(SIZE_MAX as u64)));
    // Mode, owner and group; at the end the kind of file, no target, the format's mark, and the names of owner and group.
    let with = |sum: &str| {
        let fields: [(&str, usize); 12] = [
            (name, NAME_MAX),
            ("0000600", 8),
            ("0000000", 8),
            ("0000000", 8),
            (&size, 12),
            (&time, 12),
            (sum, 8),
            ("0", 1),
            ("", 100),
            ("ustar\x0000", 8),
            ("root", 32),
            ("root", 32),
        ];
        let mut header = Vec::with_capacity(BLOCK);
        for (text, width) in fields {
            let end = header.len() + width;
            header.extend(text.bytes().take(width));
            header.resize(end, 0);
        }
        header.resize(BLOCK, 0);
        header
    };
    // The sum is that of the header with blanks in its place.
    let sum: u32 = with("        ").iter().copied().map(u32::from).sum();
    with(&format!("{sum:06o}\0 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_and_whole_blocks() {
        let mut archive = Archive::new(0o1234);
        archive.put("a/b", b"12345");
        archive.put("empty", b"");
        let bytes = archive.whole();
        assert_eq!(bytes.len(), (1 + 1 + 1 + 2) * BLOCK);
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
        assert_eq!(text(0..4), "a/b\0");
        assert_eq!(text(100..108), "0000600\0");
        assert_eq!(text(124..148), "00000000005\0".to_owned() + "00000001234\0");
        assert_eq!(text(257..265), "ustar\x0000");
        assert_eq!(text(512..518), "12345\0");
        let sum: u32 = bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..512]).copied().map(u32::from).sum();
        assert_eq!(text(148..156), format!("{sum:06o}\0 "));
        assert!(bytes[3 * BLOCK..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_name_that_is_too_long_stays_in_its_field() {
        let mut archive = Archive::new(u64::MAX);
        archive.put(&"n".repeat(300), b"");
        let bytes = archive.whole();
        assert_eq!(&bytes[99..108], b"n0000600\0");
        assert_eq!(&bytes[136..148], b"77777777777\0");
    }
}
