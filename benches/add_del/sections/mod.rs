//! The parts of `make bench`, each of which measures one promise and stands alone: `ONLY="calls bursts" make bench`.

mod bursts;
mod calls;
mod disk;
mod full;
mod inside;
mod many;
mod memory;
mod restart;

use std::path::PathBuf;

use crate::contestant::Contestant;
use crate::flock::{Features, Flock, WIDE};
use crate::floor::{Kernel, Program};
use crate::peers::{Families, Peer};
use crate::report::Report;

/// A part and its name.
pub type Part = (&'static str, fn(&mut Scene));

/// All of them, in their order.
pub const ALL: [Part; 8] = [
    ("calls", calls::measure),
    ("bursts", bursts::measure),
    ("full", full::measure),
    ("many", many::measure),
    ("memory", memory::measure),
    ("restart", restart::measure),
    ("disk", disk::measure),
    ("inside", inside::measure),
];

/// What the parts measure with, and where they write what they find.
pub struct Scene {
    /// flock's binaries.
    pub binaries: PathBuf,
    /// The program of the floor.
    pub floor: PathBuf,
    /// Other plugins, of this project's own build.
    pub newest: PathBuf,
    /// The same as the distribution has them.
    pub debian: PathBuf,
    /// A directory of a disk.
    pub disk: PathBuf,
    pub report: Report,
}

impl Scene {
    fn floors(&self) -> (Program, Kernel, Program) {
        (Program::alone("exec", &self.floor), Kernel::new("kernel"), Program::with_kernel("both", &self.floor))
    }

    fn flock(&self, name: &str, features: Features) -> Flock {
        Flock::start(name, &self.binaries, features, WIDE)
    }

    /// Those of these plugins that are there. The report says of the others that they are not.
    fn peers(&mut self, wanted: &[(&'static str, Whose, Families)]) -> Vec<Peer> {
        let mut found = Vec::new();
        for (kind, whose, families) in wanted {
            let (directory, whose) = match whose {
                Whose::Newest => (&self.newest, "newest"),
                Whose::Debian => (&self.debian, "Debian's"),
            };
            match Peer::new(kind, directory, whose, *families) {
                Ok(peer) => found.push(peer),
                Err(why) => self.report.leave_out(why),
            }
        }
        found
    }
}

/// Whose build of a plugin.
#[derive(Clone, Copy)]
enum Whose {
    Newest,
    Debian,
}

/// As somebody who takes part.
fn all<'a, C: Contestant + 'a>(contestants: &'a [C]) -> impl Iterator<Item = &'a dyn Contestant> {
    contestants.iter().map(|contestant| contestant as &dyn Contestant)
}
