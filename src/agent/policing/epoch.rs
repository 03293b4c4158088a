//! The epoch: which connections were allowed since the last time that something was taken away.
//!
//! It is a number in some bits of the connection mark. Each revocation takes the next one, and whatever is marked with another is
//! judged anew by its next packet. A number must never come again while a connection may bear it, so the last one is kept in a
//! file of this boot, written before the number is used. When the numbers have run out, no connection is remembered until the
//! marks of all of them are gone: each packet takes its connection's mark away, and connections without packets end. Must not know
//! what was taken away.

use std::path::{Path, PathBuf};

use crate::process::log;
use crate::record::boot_clock;
use crate::record::disk::{Directory, Disk as _, DiskError};

/// The file in the state directory, and its name until it is whole.
const FILE: &str = "epoch";
const FILE_NEW: &str = "epoch.new";

/// How long a connection may bear its mark without a packet, in milliseconds: six days, one more than the longest time that the
/// kernel keeps one by default (`nf_conntrack_tcp_timeout_established`).
const REST: u64 = 6 * 24 * 3600 * 1000;

/// The epoch.
#[derive(Debug)]
pub struct Epoch {
    state_dir: PathBuf,
    boot: String,
    /// The bits of the connection mark.
    mask: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The number in force, from 1 on.
    Number(u32),
    /// No connection is remembered, until this time of the boot clock in milliseconds.
    Resting(u64),
}

impl Epoch {
    /// The epoch in force, by the file in `state_dir`; the first one where this boot has had none. `mask` has at least two bits.
    pub fn open(state_dir: &Path, mask: u32) -> Epoch {
        let boot = boot_clock::id().unwrap_or_default();
        let state = match Directory::open(state_dir).and_then(|mut disk| disk.read(FILE)) {
            Ok(None) => State::Number(1),
            Ok(Some(bytes)) => match parse(&bytes, &boot) {
                Some(state) => state,
                None => rest("it is damaged"),
            },
            Err(error) => rest(error),
        };
        let mut epoch = Epoch { state_dir: state_dir.into(), boot, mask, state };
        if let State::Number(number) = state
            && number > epoch.largest()
        {
            epoch.state = rest("the mark has fewer bits than before");
        }
        epoch
    }

    /// Learns that connections of this boot may bear `mark`, as a table in the kernel says.
    pub fn at_least(&mut self, mark: u32) {
        let found = (mark & self.mask) >> self.mask.trailing_zeros();
        if let State::Number(number) = self.state {
            self.state = State::Number(number.max(found));
        }
    }

    fn largest(&self) -> u32 {
        self.mask >> self.mask.trailing_zeros()
    }

    /// The value of the mark within its bits; none while no connection is remembered.
    pub fn value(&self) -> Option<u32> {
        match self.state {
            State::Number(number) => Some(number << self.mask.trailing_zeros()),
            State::Resting(_) => None,
        }
    }

    /// The next epoch, for a change that takes something away. To be called before that change.
    pub fn advance(&mut self) -> Option<u32> {
        let now = boot_clock::now_ms();
        let next = match self.state {
            State::Number(number) if number < self.largest() => State::Number(number + 1),
            State::Number(_) => State::Resting(now + REST),
            State::Resting(until) if now >= until => State::Number(1),
            resting => resting,
        };
        if next != self.state {
            self.state = match self.write(next) {
                Ok(()) => next,
                Err(error) => rest(error),
            };
        }
        self.value()
    }

    fn write(&self, state: State) -> Result<(), DiskError> {
        let text = match state {
            State::Number(number) => format!("{} number {number}\n", self.boot),
            State::Resting(until) => format!("{} resting {until}\n", self.boot),
        };
        Directory::open(&self.state_dir)?.replace(FILE_NEW, FILE, text.as_bytes())
    }
}

/// What the file says; none if that cannot be told.
fn parse(bytes: &[u8], boot: &str) -> Option<State> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let [of, kind, number] = <[&str; 3]>::try_from(text.split(' ').collect::<Vec<_>>()).ok()?;
    match kind {
        // Connections do not outlive a boot.
        _ if of != boot => Some(State::Number(1)),
        "number" => number.parse().ok().filter(|number| *number > 0).map(State::Number),
        "resting" => number.parse().ok().map(State::Resting),
        _ => None,
    }
}

/// Where no number is known to be new, none is used.
fn rest(why: impl std::fmt::Display) -> State {
    log::warn("which connections policies have allowed cannot be remembered for some days, so each packet is judged")
        .with("file", FILE)
        .with("err", why)
        .write_limited();
    State::Resting(boot_clock::now_ms() + REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 0x0003_0000;

    fn scene(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("flock-epoch-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        crate::record::disk::make_private_dir(&dir).expect("made");
        dir
    }

    #[test]
    fn each_revocation_has_a_number_that_no_connection_bears_also_after_a_restart() {
        let dir = scene("next");
        let mut epoch = Epoch::open(&dir, MASK);
        assert_eq!(epoch.value(), Some(0x1_0000));
        assert_eq!(epoch.advance(), Some(0x2_0000));
        assert_eq!(Epoch::open(&dir, MASK).value(), Some(0x2_0000));
        let mut epoch = Epoch::open(&dir, MASK);
        assert_eq!(epoch.advance(), Some(0x3_0000));
        assert_eq!(epoch.advance(), None, "the numbers have run out");
        assert_eq!(epoch.advance(), None);
        assert_eq!(Epoch::open(&dir, MASK).value(), None, "and the next agent knows");
        std::fs::write(dir.join(FILE), format!("{} resting 1\n", boot_clock::id().expect("one"))).expect("written");
        assert_eq!(Epoch::open(&dir, MASK).advance(), Some(0x1_0000), "the rest is over");
        std::fs::write(dir.join(FILE), "another-boot number 3\n").expect("written");
        assert_eq!(Epoch::open(&dir, MASK).value(), Some(0x1_0000));
        std::fs::remove_dir_all(&dir).ok();
    }

    #[test]
    fn what_cannot_be_told_is_never_guessed() {
        let dir = scene("damaged");
        let boot = boot_clock::id().expect("one");
        for text in [
            "",
            "x",
            &format!("{boot} number 0\n"),
            &format!("{boot} number 2"),
            &format!("{boot} number 9\n"),
            "\u{0}\n",
        ] {
            std::fs::write(dir.join(FILE), text).expect("written");
            assert_eq!(Epoch::open(&dir, MASK).value(), None, "{text:?}");
        }
        let mut nowhere = Epoch::open(&dir.join(FILE), MASK);
        assert_eq!((nowhere.value(), nowhere.advance()), (None, None));
        std::fs::remove_dir_all(&dir).ok();
    }

    #[test]
    fn what_a_table_in_the_kernel_says_counts_where_the_file_is_lost() {
        let dir = scene("table");
        let mut epoch = Epoch::open(&dir, MASK);
        epoch.at_least(0x8002_1234);
        assert_eq!(epoch.value(), Some(0x2_0000));
        assert_eq!(epoch.advance(), Some(0x3_0000));
        std::fs::remove_dir_all(&dir).ok();
    }
}
