//! `flock-agent install` and `flock-agent uninstall`: what an operator or an image build does once per node and version.
//!
//! Looks at everything first, decides (`plan`), and only then changes anything, each file by itself and whole (`tree`). Must
//! not run a program: the last line that is printed says which commands of systemd the operator runs, who may be a
//! configuration tool or an image build. Must not write the CNI configuration: the agent does it once it can serve.

pub mod defaults;
pub mod error;
pub mod host;
mod installation;
pub mod managers;
pub mod order;
pub mod package;
pub mod plan;
mod removal;
pub mod runtime;
pub mod site;
pub mod toml;
pub mod tree;
pub mod unit;
pub mod work;

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;

use crate::install::error::InstallError;
use crate::install::order::{Common, Order, ReadFlags};
use crate::install::plan::Step;
use crate::install::tree::Tree;
use crate::process::exit::Exit;
use model::excerpt::plain;

/// Carries out an order, and says on standard output what was done and on standard error why it was not. `read_flags` reads the
/// agent's flags that the operator's file has.
pub fn run(order: &Order, read_flags: ReadFlags) -> Exit {
    // The modes below are meant as they are written.
    rustix::process::umask(Mode::from(0o022));
    match carry_out(order, read_flags) {
        Ok(()) => Exit::Done,
        Err(error) => {
            writeln!(io::stderr(), "flock-agent: {}", plain(&error.to_string())).ok();
            Exit::Failed
        }
    }
}

/// Prints a line of the report. If nobody reads it to its end, the work goes on all the same.
fn say(line: &str) {
    writeln!(io::stdout(), "{}", plain(line)).ok();
}

/// The tree and the right to change it.
fn tree(common: &Common) -> Result<(Tree, OwnedFd), InstallError> {
    // On the machine itself another directory than `/` is locked, since containers and chroots may share that.
    let (root, to_lock) = match &common.root {
        Some(root) => (root.as_path(), "/"),
        None => (Path::new("/"), "/etc"),
    };
    let tree = Tree::open(root)?;
    let lock = tree.lock(Path::new(to_lock))?.ok_or_else(|| InstallError::Locked(root.into()))?;
    Ok((tree, lock))
}

fn carry_out(order: &Order, read_flags: ReadFlags) -> Result<(), InstallError> {
    let common = order.common();
    let (tree, _lock) = tree(common)?;
    let work = match order {
        Order::Install(install, _) => installation::work(&tree, install, common, read_flags)?,
        Order::Uninstall(uninstall, _) => removal::work(&tree, uninstall, common, read_flags)?,
    };
    for step in &work.steps {
        if !common.dry_run {
            take(&tree, step)?;
        }
        say(&step.told(common.dry_run, |path| tree.shown(path)));
    }
    // Until here no agent could start.
    drop(work.lock);
    work.notes.iter().for_each(|note| say(note));
    Ok(())
}

fn take(tree: &Tree, step: &Step) -> Result<(), InstallError> {
    match step {
        Step::MakeDirectory(path) => tree.make_directory(path)?,
        Step::Put { path, content, mode, .. } => tree.put(path, content, *mode)?,
        Step::Remove(path) => tree.remove(path)?,
        Step::RemoveDirectory(path) => tree.remove_directory(path)?,
        Step::RemoveAll(path) => tree.remove_all(path)?,
        Step::RemoveLink { index, .. } => host::remove_link(*index)?,
        Step::Route(step) => host::change_route(step)?,
        Step::RemoveUnreachable(prefix) => host::remove_unreachable(*prefix)?,
        Step::RemoveTable(key) => host::remove_table(*key)?,
    }
    Ok(())
}
