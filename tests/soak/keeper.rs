//! The service manager: starts the agent, sees it die, starts it again, and hears its log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::{Agent, LogAudience};
use crate::support::dice::Dice;
use crate::walls::DIRECTORY;
use crate::weather::{Promise, Storm};
use crate::world::World;

/// What the absence of an agent suspends. Not DEL: it is noted.
pub const AWAY: &[Promise] = &[Promise::Add, Promise::Check, Promise::Status, Promise::Gc];

/// Lines that are shown with a finding.
const TAIL: usize = 200;

/// Kinds of lines that are counted; the messages of the agent are fixed words.
const KINDS: usize = 500;

/// In how long a start must end when nothing is wrong, and an orderly end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The log of all agents: the last lines, and how often each message came.
#[derive(Default)]
pub struct Log {
    tail: VecDeque<String>,
    pub counts: BTreeMap<String, u64>,
}

impl Log {
    /// Takes in a line of an agent. True if it says that this agent listens.
    fn hear(&mut self, line: &str) -> bool {
        // Time, level, message, then key=value.
        let words = line.split(' ').skip(1).filter(|word| !word.is_empty()).take_while(|word| !word.contains('='));
        let kind = words.collect::<Vec<_>>().join(" ");
        let listens = kind == "info flock-agent listens";
        if self.counts.len() < KINDS || self.counts.contains_key(&kind) {
            *self.counts.entry(kind).or_default() += 1;
        }
        self.note(line);
        listens
    }

    /// A line among those of the agents.
    pub fn note(&mut self, line: &str) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.into());
    }

    pub fn tail(&self) -> impl Iterator<Item = &String> {
        self.tail.iter()
    }
}

/// The service manager.
pub struct Keeper<'a> {
    world: &'a World<'a>,
    dice: Dice,
    pub log: Arc<Mutex<Log>>,
    agent: Option<Agent<'a>>,
    /// The agent has said that it listens.
    listens: Arc<AtomicBool>,
    /// Which agent this is.
    pub life: u64,
    born: Instant,
    /// However short the soak, it has several lives: none is spared longer than this.
    spared_most: Duration,
    /// It is not killed before this age. Some live long, since what leaks slowly is only seen in them.
    spared: Duration,
    /// The storm of its absence.
    away: Option<Storm<'a>>,
    /// It is expected to die by itself.
    pub doomed: bool,
}

impl<'a> Keeper<'a> {
    pub fn new(world: &'a World<'a>, seed: u64, length: Duration) -> Keeper<'a> {
        Keeper {
            world,
            spared_most: length / 4,
            dice: Dice::new(seed, 1),
            log: Arc::default(),
            agent: None,
            listens: Arc::default(),
            life: 0,
            born: Instant::now(),
            spared: Duration::ZERO,
            away: None,
            doomed: false,
        }
    }

    /// The agent that runs.
    pub fn agent(&self) -> Option<&Agent<'a>> {
        self.agent.as_ref()
    }

    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// It has lived long enough to be killed.
    pub fn may_die(&self) -> bool {
        self.agent.is_some() && self.age() > self.spared
    }

    fn note(&self, line: &str) {
        self.log.lock().expect("unpoisoned").note(&format!("---- {line}"));
    }

    /// Starts an agent and waits until it listens, ends, or `patience` is over.
    pub fn launch(&mut self, patience: Duration) -> Result<(), String> {
        self.away.get_or_insert_with(|| self.world.weather.storm(AWAY));
        self.life += 1;
        self.note(&format!("agent {} is started", self.life));
        let (log, listens) = (self.log.clone(), Arc::new(AtomicBool::new(false)));
        self.listens = listens.clone();
        let audience: LogAudience = Arc::new(move |line| {
            if log.lock().expect("unpoisoned").hear(line) {
                listens.store(true, Ordering::Relaxed);
            }
        });
        let agent = self.world.host.agent().keep_config().args(&["--policy-dir", DIRECTORY]).log_to(audience).start();
        self.world.count("agents started");
        self.world.samples.lock().expect("unpoisoned").start();
        self.world.agent.store(agent.pid(), Ordering::Relaxed);
        self.agent = Some(agent);
        self.born = Instant::now();
        self.spared = match self.dice.below(10) {
            0..6 => self.dice.millis(1_000, 10_000),
            6..9 => self.dice.millis(20_000, 60_000),
            _ => self.dice.millis(120_000, 600_000),
        };
        self.spared = self.spared.min(self.spared_most);
        while self.agent.is_some() && self.away.is_some() && self.born.elapsed() < patience {
            thread::sleep(Duration::from_millis(2));
            self.watch()?;
        }
        Ok(())
    }

    /// Sees to it that one serves. Nothing is in its way any more.
    pub fn revive(&mut self) -> Result<(), String> {
        self.watch()?;
        if self.agent.is_none() {
            self.launch(PATIENCE)?;
        }
        // One whose start was held up, or broken off, by what is over now.
        let deadline = Instant::now() + PATIENCE;
        let mut again = true;
        while self.away.is_some() {
            self.watch()?;
            if self.agent.is_none() && std::mem::take(&mut again) {
                self.launch(PATIENCE)?;
            } else if self.agent.is_none() || Instant::now() > deadline {
                return Err("an agent does not start though nothing is in its way".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Notices an agent that listens now, or has ended. One that was not to end is a finding.
    pub fn watch(&mut self) -> Result<(), String> {
        let listens = self.listens.load(Ordering::Relaxed);
        let Some(status) = self.agent.as_mut().and_then(Agent::ended) else {
            if self.agent.is_some() && listens {
                self.away = None;
            }
            return Ok(());
        };
        self.away.get_or_insert_with(|| self.world.weather.storm(AWAY));
        self.agent = None;
        self.world.agent.store(0, Ordering::Relaxed);
        self.note(&format!("agent {} has ended: {status}", self.life));
        if std::mem::take(&mut self.doomed) {
            return Ok(());
        }
        if listens {
            return Err(format!("the agent has ended though nobody killed it: {status}"));
        }
        self.world.count("agents that refused to start, with faults armed");
        Ok(())
    }

    /// Kills it, or asks it to end.
    pub fn end(&mut self, signal: &str) -> Result<(), String> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        self.away.get_or_insert_with(|| self.world.weather.storm(AWAY));
        self.note(&format!("agent {} gets SIG{signal}", self.life));
        agent.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = agent.ended() {
                break status;
            }
            if Instant::now() > deadline {
                return Err(format!("the agent does not end by SIG{signal}"));
            }
            thread::sleep(Duration::from_millis(1));
        };
        self.doomed = false;
        self.world.agent.store(0, Ordering::Relaxed);
        if signal == "TERM" && !status.success() && self.listens.load(Ordering::Relaxed) {
            return Err(format!("SIGTERM ended the agent with {status}"));
        }
        Ok(())
    }
}
