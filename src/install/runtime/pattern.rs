//! Paths with `*` and `?` in them, as configurations name drop-ins. Must not follow them out of the tree.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::install::tree::Tree;
use crate::record::disk::DiskError;

/// Most paths that a pattern stands for, 256. Usual are none to five.
const PATHS_MAX: usize = 256;

/// The paths that a pattern stands for, sorted; a path without `*` stands for itself.
pub(super) fn matching(tree: &Tree, pattern: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        if !name.as_bytes().contains(&b'*') {
            paths.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let mut further = Vec::new();
        for path in paths {
            let fits = |candidate: &OsString| fits(name.as_bytes(), candidate.as_bytes());
            further.extend(tree.names(&path)?.into_iter().filter(fits).map(|name| path.join(name)));
        }
        further.truncate(PATHS_MAX);
        paths = further;
    }
    Ok(paths)
}

/// Whether a name is what a pattern with `*` and `?` means.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Where to go on if it does not fit from here: the last `*` may stand for one character more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, name));
                pattern = rest;
            }
            (Some((wanted, pattern_rest)), Some((byte, name_rest))) if *wanted == b'?' || wanted == byte => {
                (pattern, name) = (pattern_rest, name_rest);
            }
            (None, None) => return true,
            _ => match retry.and_then(|(rest, from)| Some((rest, from.split_first()?.1))) {
                Some((rest, from)) => {
                    retry = Some((rest, from));
                    (pattern, name) = (rest, from);
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_a_shell_would_list() {
        for (pattern, name, expected) in [
            ("*.toml", "10-x.toml", true),
            ("*.toml", "10-x.toml.bak", false),
            ("*", "anything", true),
            ("1?-*.t*l", "10-a.toml", true),
            ("1?-*.t*l", "1-a.toml", false),
            ("a*b*c", "abbcbc", true),
            ("a*b*c", "abbcb", false),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(!fits("*a".repeat(2000).as_bytes(), "a".repeat(1999).as_bytes()), "and not for ever");
    }
}
