//! What the agent uses and how fast it answers, over time. Bounded however long the soak runs: when there are too many points,
//! neighbours become one.

use std::time::{Duration, Instant};

use crate::world::World;

/// Points that are kept, and samples at rest.
const POINTS: usize = 2000;

/// MiB that the agent may grow by, in one life and over lives: what an allocator of a debug build holds back.
const RSS_BOUND: f64 = 6.0;

/// How long an agent has to live before its growth is judged: at first every process grows.
const WARM: f64 = 20.0;

/// Some seconds of the soak. What was not measured is NaN.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Seconds since the start.
    pub t: f64,
    /// MiB.
    pub rss: f64,
    pub descriptors: f64,
    pub threads: f64,
    pub pods: f64,
    /// Calls per second.
    pub operations: f64,
    /// Milliseconds as the runtime sees them.
    pub add: [f64; 2],
    pub delete: [f64; 2],
}

/// The agent while nobody calls it.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// Which agent it was.
    pub life: u64,
    /// For how many seconds it had lived.
    pub age: f64,
    /// MiB.
    pub rss: f64,
    pub descriptors: usize,
    pub threads: usize,
    pub pods: usize,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// MiB.
    pub rss: f64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Usage {
    /// Of process `pid`, if it lives.
    pub fn of(pid: u32) -> Option<Usage> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<usize>().ok()
        };
        Some(Usage {
            rss: number("VmRSS:")? as f64 / 1024.0,
            threads: number("Threads:")?,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        })
    }
}

/// All samples.
pub struct Samples {
    began: Instant,
    pub points: Vec<Point>,
    /// Samples of a second each that make up one point, and those that wait for it.
    merged: usize,
    waiting: Vec<Point>,
    pub rests: Vec<Rest>,
    /// Starts of agents, in seconds.
    pub starts: Vec<f64>,
    adds: Vec<f64>,
    deletes: Vec<f64>,
    operations: usize,
    /// All calls by their duration, in steps of a tenth.
    pub all_adds: Durations,
    pub all_deletes: Durations,
}

impl Samples {
    pub fn new() -> Samples {
        Samples {
            began: Instant::now(),
            points: Vec::new(),
            merged: 1,
            waiting: Vec::new(),
            rests: Vec::new(),
            starts: Vec::new(),
            adds: Vec::new(),
            deletes: Vec::new(),
            operations: 0,
            all_adds: Durations::default(),
            all_deletes: Durations::default(),
        }
    }

    /// Seconds since the start.
    pub fn age(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// An ADD succeeded.
    pub fn add(&mut self, took: Duration) {
        self.adds.push(took.as_secs_f64() * 1e3);
        self.all_adds.record(took);
    }

    /// A DEL succeeded.
    pub fn delete(&mut self, took: Duration) {
        self.deletes.push(took.as_secs_f64() * 1e3);
        self.all_deletes.record(took);
    }

    /// Any call.
    pub fn operation(&mut self) {
        self.operations += 1;
    }

    /// An agent was started.
    pub fn start(&mut self) {
        let t = self.age();
        self.starts.push(t);
        thin(&mut self.starts);
    }

    pub fn rest(&mut self, rest: Rest) {
        self.rests.push(rest);
        thin(&mut self.rests);
    }

    fn second(&mut self, usage: Option<Usage>, pods: usize) {
        let nan = f64::NAN;
        self.waiting.push(Point {
            t: self.age(),
            rss: usage.map_or(nan, |usage| usage.rss),
            descriptors: usage.map_or(nan, |usage| usage.descriptors as f64),
            threads: usage.map_or(nan, |usage| usage.threads as f64),
            pods: pods as f64,
            operations: std::mem::take(&mut self.operations) as f64,
            add: shares(&mut self.adds),
            delete: shares(&mut self.deletes),
        });
        if self.waiting.len() < self.merged {
            return;
        }
        let point = merge(&std::mem::take(&mut self.waiting));
        self.points.push(point);
        if self.points.len() > POINTS {
            self.points = self.points.chunks(2).map(merge).collect();
            self.merged *= 2;
        }
    }

    /// What grew, one line each.
    pub fn growth(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut judge = |what: String, rests: &[&Rest]| {
            let quarter = rests.len() / 4;
            if quarter == 0 {
                return;
            }
            let of = |part: &[&Rest]| median(part.iter().map(|rest| rest.rss).collect());
            let (first, last) = (of(&rests[..quarter]), of(&rests[rests.len() - quarter..]));
            if last - first > RSS_BOUND {
                found.push(format!("{what}: RSS grew from {first:.1} MiB to {last:.1} MiB"));
            }
        };
        let warm: Vec<&Rest> = self.rests.iter().filter(|rest| rest.age > WARM).collect();
        judge("over all agents".into(), &warm);
        for life in warm.chunk_by(|a, b| a.life == b.life) {
            judge(format!("agent {}", life[0].life), life);
        }
        found
    }
}

/// Looks each second until the soak is over.
pub fn keep(world: &World<'_>) {
    let mut next = Instant::now();
    while !world.is_over() {
        next += Duration::from_secs(1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let pid = world.agent.load(std::sync::atomic::Ordering::Relaxed);
        let usage = (pid != 0).then(|| Usage::of(pid)).flatten();
        let pods = world.book.lock().expect("unpoisoned").standing().count();
        world.samples.lock().expect("unpoisoned").second(usage, pods);
    }
}

/// Keeps every second one of too many.
fn thin<T: Copy>(values: &mut Vec<T>) {
    if values.len() > 2 * POINTS {
        *values = values.iter().copied().step_by(2).collect();
    }
}

/// Means, but the worst where the worst counts.
fn merge(points: &[Point]) -> Point {
    let mean = |of: fn(&Point) -> f64| {
        let known: Vec<f64> = points.iter().map(of).filter(|value| !value.is_nan()).collect();
        if known.is_empty() { f64::NAN } else { known.iter().sum::<f64>() / known.len() as f64 }
    };
    // The other side of a NaN counts.
    let most = |of: fn(&Point) -> f64| points.iter().map(of).fold(f64::NAN, f64::max);
    Point {
        t: mean(|p| p.t),
        rss: most(|p| p.rss),
        descriptors: most(|p| p.descriptors),
        threads: most(|p| p.threads),
        pods: mean(|p| p.pods),
        operations: mean(|p| p.operations),
        add: [mean(|p| p.add[0]), most(|p| p.add[1])],
        delete: [mean(|p| p.delete[0]), most(|p| p.delete[1])],
    }
}

/// The median and the slowest but one in a hundred of what was collected, which is emptied.
fn shares(values: &mut Vec<f64>) -> [f64; 2] {
    let mut values = std::mem::take(values);
    values.sort_by(f64::total_cmp);
    [50, 99].map(|share| match values.len() {
        0 => f64::NAN,
        count => values[(count - 1) * share / 100],
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    shares(&mut values)[0]
}

/// Durations, counted in steps of ten per cent.
pub struct Durations([u64; 120]);

impl Default for Durations {
    fn default() -> Durations {
        Durations([0; 120])
    }
}

impl Durations {
    fn record(&mut self, took: Duration) {
        let step = (took.as_secs_f64() * 1e4).max(1.0).ln() / 1.1f64.ln();
        self.0[(step as usize).min(119)] += 1;
    }

    /// The duration that this many per cent stay below, in milliseconds.
    pub fn share(&self, percent: u64) -> f64 {
        let wanted = self.0.iter().sum::<u64>() * percent / 100;
        let mut seen = 0;
        let step = self.0.iter().position(|count| {
            seen += count;
            seen > wanted
        });
        step.map_or(f64::NAN, |step| 1.1f64.powi(step as i32 + 1) / 10.0)
    }
}
