//! A node under load and under fire for as long as one likes: `SOAK=24h make soak`.
//!
//! One host, the real agent, the real plugin. Callers add, check and delete 100 to 250 pods in good and in bad manners; the
//! agent is killed, its NodeConfig edited, disk and kernel fail, people take things away. Every few seconds all pause, all
//! becomes well, and everything is compared: by the oracle, and with a book of what the plugin promised. A failure that
//! nothing excuses is a finding and ends the soak. At the end there is a plot of what the agent used, and a verdict on it.
//!
//! Every decision comes from one seed, which is printed; `SOAK_SEED` repeats a soak as far as the scheduler allows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs
)]

mod book;
mod caller;
mod judge;
mod keeper;
mod plot;
mod samples;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod walls;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::host::Host;
use caller::{CALLERS, Caller};
use judge::Judge;
use keeper::{Keeper, Log};
use samples::Samples;
use trouble::{Trouble, usual_config};
use world::World;

/// The usual ranges: large enough that no address has to be used again before it has rested.
const CIDRS: [&str; 2] = ["2001:db8:1:f001::/64", "10.25.0.0/16"];

/// The usual MTU of pods.
const MTU: u32 = 1400;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let length = std::env::var("SOAK").unwrap_or_else(|_| "10m".into());
    let Some(length) = duration(&length) else {
        eprintln!("SOAK={length}: a number with s, m or h behind it, such as 10m");
        return ExitCode::from(2);
    };
    let seed = match std::env::var("SOAK_SEED").map(|seed| seed.parse::<u64>()) {
        Ok(Ok(seed)) => seed,
        Ok(Err(_)) => {
            eprintln!("SOAK_SEED is a number");
            return ExitCode::from(2);
        }
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos().into()),
    };
    println!("soak of {length:?}, SOAK_SEED={seed}");
    let host = Host::new();
    let world = World::new(&host);
    // A disk of its own, which can be filled.
    host.run("mkdir -p /run/flock/state");
    host.run("mount -t tmpfs -o size=8m,mode=0700 tmpfs /run/flock/state");
    host.edit_config(&usual_config());
    signal_hook::flag::register(signal_hook::consts::SIGTERM, world.stop.clone()).expect("a signal");

    let mut keeper = Keeper::new(&world, seed, length);
    let log = keeper.log.clone();
    let outcome = guarded(|| run(&world, &mut keeper, seed, length));
    world.over.store(true, Ordering::Relaxed);
    drop(keeper);
    let log = log.lock().expect("unpoisoned");
    let samples = world.samples.lock().expect("unpoisoned");
    let outcome = outcome.and_then(|()| verdict(&world, &samples, length));
    summary(&world, &samples, &log, seed);
    match outcome {
        Ok(()) => {
            println!("verdict: sound and flat");
            ExitCode::SUCCESS
        }
        Err(finding) => {
            println!("\nlast lines of the agent:");
            log.tail().for_each(|line| println!("{line}"));
            println!("\nFINDING (SOAK_SEED={seed}, after {:.0} s): {finding}", samples.age());
            ExitCode::FAILURE
        }
    }
}

/// `90s`, `10m`, `24h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// A panic is a finding, too.
fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|&s| s.into()));
        Err(text.unwrap_or_else(|| "a panic".into()))
    })
}

fn run<'a>(world: &'a World<'a>, keeper: &mut Keeper<'a>, seed: u64, length: Duration) -> Result<(), String> {
    let mut judge = Judge::new(world, seed);
    let mut trouble = Trouble::new(world, seed);
    keeper.revive()?;
    judge.witnesses()?;
    judge.round(keeper, &mut trouble, false)?;
    thread::scope(|scope| {
        scope.spawn(|| samples::keep(world));
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                scope.spawn(move || {
                    let mut caller = Caller::new(world, number, seed);
                    if let Err(finding) = guarded(|| caller.work()) {
                        world.report(finding);
                    }
                    caller
                })
            })
            .collect();
        let outcome = guarded(|| rounds(world, keeper, &mut judge, &mut trouble, length));
        if let Err(finding) = &outcome {
            world.report(finding.clone());
        }
        world.over.store(true, Ordering::Relaxed);
        let mut callers: Vec<Caller<'_>> = callers.into_iter().map(|caller| caller.join().expect("guarded")).collect();
        world.sound()?;
        callers.iter_mut().try_for_each(Caller::leave)
    })?;
    guarded(|| judge.end(keeper, &mut trouble))
}

fn rounds<'a>(
    world: &'a World<'a>,
    keeper: &mut Keeper<'a>,
    judge: &mut Judge<'a>,
    trouble: &mut Trouble<'a>,
    length: Duration,
) -> Result<(), String> {
    let began = Instant::now();
    let mut told = Instant::now();
    // On a slow machine a short soak takes longer until everything has happened that makes it one.
    let is_over = || began.elapsed() >= length && (missing(world).is_none() || began.elapsed() >= 5 * length);
    while !is_over() && !world.stop.load(Ordering::Relaxed) {
        trouble.round(keeper)?;
        judge.round(keeper, trouble, false)?;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            progress(world, keeper.life);
        }
    }
    judge.round(keeper, trouble, true)
}

fn progress(world: &World<'_>, life: u64) {
    let tally = world.tally();
    let count = |what: &str| tally.get(what).copied().unwrap_or_default();
    let samples = world.samples.lock().expect("unpoisoned");
    let Some(rest) = samples.rests.last() else { return };
    println!(
        "{:>6.0} s  round {:<5} agent {life:<5} attachments {:<4} ADD {:<7} DEL {:<7} RSS {:.1} MiB  descriptors {}  threads {}",
        samples.age(),
        count("rounds of the oracle"),
        rest.pods,
        count("ADD"),
        count("DEL"),
        rest.rss,
        rest.descriptors,
        rest.threads,
    );
}

/// The agent did not grow, and the soak was one.
fn verdict(world: &World<'_>, samples: &Samples, length: Duration) -> Result<(), String> {
    let growth = samples.growth();
    if !growth.is_empty() {
        return Err(growth.join("\n"));
    }
    // A shorter one is for somebody who looks at something else.
    if length >= Duration::from_secs(40) && !world.stop.load(Ordering::Relaxed) {
        return missing(world).map_or(Ok(()), |what| Err(format!("only {what}: this was no soak")));
    }
    Ok(())
}

/// What has happened too seldom for a soak: how often, and what.
fn missing(world: &World<'_>) -> Option<String> {
    let tally = world.tally();
    let of = |kind: &str| tally.iter().filter(|(what, _)| what.starts_with(kind)).map(|(_, count)| count).sum::<u64>();
    let expected = [
        ("ADD", 100),
        ("DEL", 50),
        ("CHECK", 1),
        ("STATUS", 1),
        ("GC", 1),
        ("death", 2),
        ("fault", 3),
        ("edit", 1),
        ("rounds", 4),
    ];
    let seldom = expected.into_iter().find(|(kind, least)| of(kind) < *least);
    seldom.map(|(kind, _)| format!("{} of {kind}", of(kind)))
}

fn summary(world: &World<'_>, samples: &Samples, log: &Log, seed: u64) {
    let title = format!(
        "flock-agent in a soak of {} min, seed {seed}, debug build with failpoints: {} starts, {} rounds of the oracle",
        (samples.age() / 60.0).round(),
        samples.starts.len(),
        world.tally().get("rounds of the oracle").copied().unwrap_or_default()
    );
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak");
    let file = dir.join("soak.svg");
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, plot::svg(samples, &title)));
    println!("\nwhat was done:");
    for (what, count) in world.tally() {
        println!("{count:>9}  {what}");
    }
    println!("\nwhat the agents logged:");
    for (what, count) in &log.counts {
        println!("{count:>9}  {what}");
    }
    let times = |what: &str, all: &samples::Durations| {
        println!(
            "{what}: p50 {:.0} ms, p99 {:.0} ms, with the start of the plugin's process",
            all.share(50),
            all.share(99)
        );
    };
    println!();
    times("ADD", &samples.all_adds);
    times("DEL", &samples.all_deletes);
    if let (Some(first), Some(last)) = (samples.rests.first(), samples.rests.last()) {
        let most = |of: fn(&samples::Point) -> f64| samples.points.iter().map(of).fold(0.0, f64::max);
        println!(
            "RSS of the agent (debug build): first {:.1} MiB, last {:.1} MiB at rest, most {:.1} MiB",
            first.rss,
            last.rss,
            most(|p| p.rss)
        );
        println!(
            "descriptors: first {}, last {} at rest, most {}",
            first.descriptors,
            last.descriptors,
            most(|p| p.descriptors)
        );
        println!("threads: first {}, last {} at rest, most {}", first.threads, last.threads, most(|p| p.threads));
    }
    match written {
        Ok(()) => println!("plot: {}", file.display()),
        Err(error) => println!("no plot: {}: {error}", file.display()),
    }
}
