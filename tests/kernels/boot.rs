//! The host's side: boots each kernel, reads what the machine says, and judges it.
//!
//! All machines run at once, each with one processor and a deadline. A machine that falls silent, dies or leaves a story out has
//! failed, and what it last said is shown.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::initramfs::Archive;
use crate::machine::{BOOTS, Boot, SAYS};
use crate::stories;

/// How long a machine may take in all, and how long it may say nothing. It takes a tenth of that where nobody else is at work.
const LIMIT: Duration = Duration::from_secs(720);
const SILENCE: Duration = Duration::from_secs(240);

/// Lines of a machine that failed.
const LAST_LINES: usize = 200;

/// A kernel, as `tests/kernels/assets` names it.
struct Kernel {
    version: String,
    directory: PathBuf,
    release: String,
}

/// What became of one machine.
struct Verdict {
    passed: usize,
    failed: Vec<String>,
}

/// Boots the kernels below the directories that `arguments` name, each as VERSION=DIRECTORY.
pub fn run(arguments: Vec<String>) -> ExitCode {
    let began = Instant::now();
    let kernels: Vec<Kernel> = arguments.iter().filter_map(|argument| kernel(argument)).collect();
    if kernels.is_empty() || kernels.len() < arguments.len() {
        eprintln!("kernels: VERSION=DIRECTORY for each kernel, as `make test-kernels` does it");
        return ExitCode::from(2);
    }
    let machines = kernels.iter().flat_map(|kernel| BOOTS.iter().map(move |boot| (kernel, boot)));
    let verdicts: Vec<(&Kernel, Verdict)> = thread::scope(|scope| {
        let running: Vec<_> =
            machines.map(|(kernel, boot)| (kernel, scope.spawn(move || watch(kernel, boot)))).collect();
        running.into_iter().map(|(kernel, thread)| (kernel, thread.join().expect("no panic"))).collect()
    });
    let mut totals = (0, 0);
    for kernel in &kernels {
        let mine: Vec<&Verdict> =
            verdicts.iter().filter(|(of, _)| of.release == kernel.release).map(|(_, v)| v).collect();
        let passed: usize = mine.iter().map(|verdict| verdict.passed).sum();
        let failed: Vec<&str> = mine.iter().flat_map(|verdict| &verdict.failed).map(String::as_str).collect();
        match failed.as_slice() {
            [] => println!("kernel {}: all {passed} stories", kernel.release),
            names => println!("kernel {}: {passed} stories, and not: {}", kernel.release, names.join(", ")),
        }
        totals = (totals.0 + passed, totals.1 + failed.len());
    }
    let word = if totals.1 == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        totals.0,
        totals.1,
        began.elapsed().as_secs_f32()
    );
    if totals.1 == 0 && totals.0 > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn kernel(argument: &str) -> Option<Kernel> {
    let (version, directory) = argument.split_once('=')?;
    let directory = PathBuf::from(directory);
    let release = std::fs::read_to_string(directory.join("release")).ok()?.trim().to_owned();
    Some(Kernel { version: version.to_owned(), directory, release })
}

/// The files of the machine: the programs, the modules, and a console to speak to.
fn pack(kernel: &Kernel, into: &Path) {
    let mut archive = Archive::new(BufWriter::new(File::create(into).expect("writable")));
    for directory in ["bin", "dev", "lib", "proc", "run", "sys", "tmp"] {
        archive.directory(directory).expect("written");
    }
    archive.device("dev/console", 5, 1).expect("written");
    let this = std::env::current_exe().expect("a path");
    archive.file("init", &this).expect("written");
    archive.file("bin/flock", Path::new(env!("CARGO_BIN_EXE_flock"))).expect("written");
    archive.file("bin/flock-agent", Path::new(env!("CARGO_BIN_EXE_flock-agent"))).expect("written");
    let mut index = String::new();
    for entry in std::fs::read_dir(kernel.directory.join("modules")).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        index += &format!("{name} {}\n", about(&std::fs::read(&path).expect("readable")));
        archive.file(&format!("lib/{name}.ko"), &path).expect("written");
    }
    archive.text("lib/modules", &index).expect("written");
    archive.finish().expect("written");
}

/// What a module says of itself: the modules that it depends on, separated by commas, and behind a blank each the names by which
/// the kernel asks for it.
fn about(module: &[u8]) -> String {
    let texts = module.split(|byte| *byte == 0).filter_map(|text| str::from_utf8(text).ok());
    let (mut depends, mut aliases) = ("", String::new());
    for text in texts {
        depends = text.strip_prefix("depends=").unwrap_or(depends);
        aliases += &text.strip_prefix("alias=").map(|alias| format!(" {alias}")).unwrap_or_default();
    }
    format!("{depends}{aliases}")
}

fn start(kernel: &Kernel, boot: &Boot, initramfs: &Path) -> Child {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "768", "-nodefaults", "-display", "none"]);
    qemu.args(["-serial", "stdio", "-no-reboot", "-kernel"]).arg(kernel.directory.join("vmlinuz"));
    qemu.arg("-initrd").arg(initramfs);
    // A kernel that panics ends at once, instead of saying nothing more. Its timer is not tried at the start, as the interrupts of
    // a machine on a busy host come late, and the kernel gives up then.
    let parameters = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check";
    qemu.arg("-append").arg(format!("{parameters} {}", boot.parameters));
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    qemu.spawn().expect("qemu-system-x86_64 starts (package qemu-system-x86)")
}

/// Runs one machine to its end.
fn watch(kernel: &Kernel, boot: &Boot) -> Verdict {
    let called = format!("kernel {}{}", kernel.version, boot.called);
    let initramfs = kernel.directory.join(format!("initramfs-{}", boot.parameters.replace(['=', '.'], "-")));
    pack(kernel, &initramfs);
    let mut qemu = start(kernel, boot, &initramfs);
    let (heard, lines) = channel();
    let console = BufReader::new(qemu.stdout.take().expect("piped"));
    thread::spawn(move || {
        for line in console.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if heard.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let mut missing: Vec<&str> = stories::of(boot).iter().map(|(name, _)| *name).collect();
    let mut verdict = Verdict { passed: 0, failed: Vec::new() };
    let mut said = Vec::new();
    let ended = loop {
        let left = SILENCE.min(deadline.saturating_duration_since(Instant::now()));
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break "it ended before it had told all",
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                break "it was cut off, for it took too long";
            }
            Err(RecvTimeoutError::Timeout) => break "it was cut off, for it said nothing for too long",
        };
        match line.split_once(SAYS).map(|(_, words)| words) {
            Some("end") => break "",
            Some(words) => {
                let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
                let name = rest.split(' ').next().unwrap_or_default();
                missing.retain(|missing| *missing != name);
                match word {
                    "ok" => verdict.passed += 1,
                    _ => verdict.failed.push(name.to_owned()),
                }
                println!("{called}: {rest} ... {word}");
                if word != "ok" {
                    said.iter().for_each(|line| println!("  {line}"));
                }
                said.clear();
            }
            None => said.push(line),
        }
    };
    qemu.kill().ok();
    qemu.wait().expect("waitable");
    std::fs::remove_file(&initramfs).ok();
    if !ended.is_empty() || !missing.is_empty() {
        println!("{called}: {ended}; not told: {missing:?}; the last that it said:");
        said.iter().skip(said.len().saturating_sub(LAST_LINES)).for_each(|line| println!("  {line}"));
        verdict.failed.extend(missing.iter().map(|name| (*name).to_owned()));
    }
    verdict
}
