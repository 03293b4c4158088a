//! The command line of `flock-agent`: finds the program that is asked for, and gives it its flags as values.
//!
//! Stands above the programs: it hands them what they need, and they do not know how it is typed. Must not know what a program
//! does with it.

pub mod completion;
pub mod flags;
pub mod help;
pub mod misuse;
mod orders;
pub mod pages;
pub mod reader;
pub mod table;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::agent;
use crate::agent::routing::bird::Places;
use crate::agent::routing::commands;
use crate::agent::settings::{ConfigSource, Settings};
use crate::cli::misuse::{Misuse, UsageError};
use crate::cli::reader::{Asked, Given};
use crate::cli::table::{Flag, Program};
use crate::install;
use crate::install::order::AgentPlaces;
use crate::operator::passage::{self, Source, Words};
use crate::operator::table::Heads;
use crate::operator::{self, Told, check, diag, status, whose};
use crate::process::exit::Exit;
use crate::process::log;
use model::excerpt::plain;

/// Runs what the command line of this process asks for, to its end.
pub fn run() -> ExitCode {
    let asked = reader::line(std::env::args_os().skip(1).collect());
    let exit = asked.and_then(|asked| {
        let of = |error| Misuse { error, program: asked.program() };
        carry_out(&asked).map_err(of)
    });
    match exit {
        Ok(exit) => exit.into(),
        Err(misuse) => {
            log::last_words(format!("flock-agent: {misuse}\n"));
            Exit::Misused.into()
        }
    }
}

fn carry_out(asked: &Asked) -> Result<Exit, UsageError> {
    Ok(match asked {
        Asked::Overview => print(&help::overview()),
        Asked::Help(program) => print(&help::text(*program)),
        Asked::Usage(program) => print(&help::usage(*program)),
        Asked::Version | Asked::Run(Program::Version, _) => {
            print(concat!("flock-agent ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Asked::Run(Program::Completion, given) => {
            let shell = given.operands().first().and_then(|shell| shell.to_str());
            print(&shell.and_then(completion::script).ok_or(UsageError::NoValue("SHELL"))?)
        }
        Asked::Run(Program::Help, given) => match given.operands() {
            [] => print(&help::overview()),
            words => print(&help::text(reader::named(words)?)),
        },
        Asked::Run(Program::Agent, given) => agent::run(agent_settings(given)?),
        Asked::Run(Program::Install, given) => install::run(&orders::installation(given), agent_places),
        Asked::Run(Program::Uninstall, given) => install::run(&orders::removal(given), agent_places),
        Asked::Run(Program::BirdStop, given) => {
            commands::stop_bird(&given.needed_path(&flags::BIRD_SOCKET)?, &given.needed_path(&flags::AGENT_SOCKET)?)
        }
        Asked::Run(Program::Withdraw, given) => {
            let wait = Duration::from_secs(given.needed(&pages::withdraw::WAIT)?);
            commands::withdraw(&given.needed_path(&flags::AGENT_SOCKET)?, wait)
        }
        Asked::Run(Program::Explain, given) => {
            let told = match question(given)? {
                Question::Whose(order) => whose::run(&order),
                Question::Passage(words, source) => passage::run(&words, &source),
            };
            tell("explain", &told)
        }
        Asked::Run(Program::Validate, given) => {
            let files: Vec<PathBuf> = given.operands().iter().map(PathBuf::from).collect();
            tell("validate", &operator::validate::run(&files))
        }
        Asked::Run(Program::Status, given) if wants_metrics(given) => {
            tell("status", &operator::metrics::run(&given.needed_path(&flags::RECORD_SOCKET)?))
        }
        Asked::Run(Program::Status, given) => tell("status", &status::run(&status_order(given)?)),
        Asked::Run(Program::Pods, given) => tell("pods", &operator::pods::run(&pods_order(given)?)),
        Asked::Run(Program::Check, given) => tell("check", &check::run(&check_order(given)?)),
        Asked::Run(Program::Diag, given) => collect(&diag_order(given)?),
        Asked::Run(Program::Announce, given) => commands::announce(&given.needed_path(&flags::AGENT_SOCKET)?),
    })
}

fn print(text: &str) -> Exit {
    match io::stdout().write_all(plain(text).as_bytes()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}

/// Prints what a verb has to say.
fn tell(verb: &str, told: &Told) -> Exit {
    for line in &told.asides {
        log::last_words(format!("flock-agent: {verb}: {line}\n"));
    }
    match print(&told.text) {
        Exit::Done => told.exit,
        unprinted => unprinted,
    }
}

fn wants_metrics(given: &Given) -> bool {
    given.text(&pages::status::OUTPUT).as_deref() == Some(pages::status::PROMETHEUS)
}

fn status_order(given: &Given) -> Result<status::Order, UsageError> {
    let output = match (given.has(&pages::status::QUIET), given.has(&pages::status::OUTPUT)) {
        (true, _) => status::Output::Quiet,
        (false, true) => status::Output::Json,
        (false, false) => status::Output::Text,
    };
    Ok(status::Order {
        output,
        wait: Duration::from_secs(given.needed(&pages::status::WAIT)?),
        strict: given.has(&pages::status::STRICT),
        socket: given.needed_path(&flags::RECORD_SOCKET)?,
        state_dir: given.needed_path(&flags::RECORD_DIR)?,
    })
}

fn pods_order(given: &Given) -> Result<operator::pods::Order, UsageError> {
    let output = given.text(&pages::pods::OUTPUT);
    Ok(operator::pods::Order {
        namespace: given.text(&pages::pods::NAMESPACE),
        output: output.and_then(|word| operator::pods::Output::named(&word)).unwrap_or(operator::pods::Output::Table),
        heads: if given.has(&pages::pods::NO_HEADERS) { Heads::Hidden } else { Heads::Shown },
        state_dir: given.needed_path(&flags::RECORD_DIR)?,
        socket: given.needed_path(&flags::RECORD_SOCKET)?,
    })
}

fn agent_settings(given: &Given) -> Result<Settings, UsageError> {
    let source = match (given.path(&pages::agent::NODE_CONFIG), given.path(&pages::agent::KUBECONFIG)) {
        (Some(path), _) => ConfigSource::File(path),
        (None, Some(path)) => ConfigSource::Kubeconfig(path),
        (None, None) => ConfigSource::Pod,
    };
    Ok(Settings {
        source,
        pod_cidrs: given.has(&pages::agent::POD_CIDRS),
        node_name: given.text(&pages::agent::NODE_NAME),
        socket: given.needed_path(&pages::agent::SOCKET)?,
        state_dir: given.needed_path(&pages::agent::STATE_DIR)?,
        policy_dir: given.path(&pages::agent::POLICY_DIR),
        cni_conf_dir: given.path(&pages::agent::CNI_CONF_DIR),
        import: given.needed_path(&pages::agent::IMPORT)?,
        bird: Places {
            file: given.needed_path(&pages::agent::BIRD_CONFIG)?,
            socket: given.needed_path(&flags::BIRD_SOCKET)?,
        },
        metrics: given.address(&pages::agent::METRICS),
        log_format: given.needed(&pages::agent::LOG_FORMAT)?,
        log_level: given.needed(&pages::agent::LOG_LEVEL)?,
    })
}

/// What `explain` is asked.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// About one.
    Whose(whose::Order),
    /// About two, and who is to answer.
    Passage(Words, Source),
}

fn question(given: &Given) -> Result<Question, UsageError> {
    let mut operands = given.operands().iter().map(|operand| operand.to_string_lossy().into_owned());
    let from = operands.next().ok_or(UsageError::NoValue("FROM"))?;
    let (config, socket) = (given.path(&pages::explain::NODE_CONFIG), &flags::AGENT_SOCKET);
    let source = match given.path(&pages::explain::POLICY_DIR) {
        Some(_) if given.has(socket) => return Err(UsageError::Both(socket.name, pages::explain::POLICY_DIR.name)),
        Some(policies) => Source::Files { policies, config },
        None if config.is_some() => {
            return Err(UsageError::Alone(pages::explain::NODE_CONFIG.name, pages::explain::POLICY_DIR.name));
        }
        None => Source::Agent(given.needed_path(socket)?),
    };
    match (operands.next(), source) {
        (Some(to), source) => Ok(Question::Passage(Words { from, to, port: operands.next() }, source)),
        // Files do not tell what pods have.
        (None, Source::Files { .. }) => Err(UsageError::NoValue("TO")),
        (None, Source::Agent(socket)) => {
            let state_dir = given.needed_path(&flags::RECORD_DIR)?;
            Ok(Question::Whose(whose::Order { what: from, socket, state_dir }))
        }
    }
}

fn check_order(given: &Given) -> Result<check::Order, UsageError> {
    Ok(check::Order {
        repair: given.has(&pages::check::REPAIR),
        json: given.has(&pages::check::OUTPUT),
        socket: given.needed_path(&flags::RECORD_SOCKET)?,
        state_dir: given.path(&pages::check::STATE_DIR),
        kubeconfig: given.path(&pages::check::KUBECONFIG),
        read_flags: agent_files,
    })
}

fn diag_order(given: &Given) -> Result<diag::Order, UsageError> {
    let into = match given.path(&pages::diag::OUTPUT) {
        None => diag::Place::Here,
        Some(path) if path.as_os_str() == "-" => diag::Place::Stdout,
        Some(path) => diag::Place::File(path),
    };
    if into == diag::Place::Stdout && io::stdout().is_terminal() {
        let rule = "standard output is a terminal, and this is for a file: -o FILE".into();
        return Err(UsageError::Value { flag: pages::diag::OUTPUT.name, value: "-".into(), rule });
    }
    Ok(diag::Order {
        into,
        socket: given.needed_path(&flags::RECORD_SOCKET)?,
        state_dir: given.path(&pages::check::STATE_DIR),
        read_flags: agent_files,
        shown_flags,
    })
}

/// Collects, and writes what is for standard output past everything that makes text fit to print.
fn collect(order: &diag::Order) -> Exit {
    let (told, archive) = diag::run(order);
    match io::stdout().write_all(&archive).and_then(|()| io::stdout().flush()) {
        Ok(()) => tell("diag", &told),
        Err(_) => Exit::Failed,
    }
}

/// The flags of an agent with their values, a line each, with what counts where one is not given; none if it would not start with
/// them. Nothing that is no flag is repeated: it could be anything.
fn shown_flags(words: Vec<OsString>) -> Option<String> {
    let Ok(Asked::Run(Program::Agent, given)) = reader::line(words) else { return None };
    let line = |flag: &&Flag| match (given.has(flag), given.text(flag).filter(|_| flag.value.is_some())) {
        (true, Some(value)) => Some(format!("{} {value}\n", flag.name)),
        (true, None) => Some(format!("{}\n", flag.name)),
        (false, value) => value.map(|value| format!("{} {value} (default)\n", flag.name)),
    };
    Some(Program::Agent.flags().filter_map(|flag| line(&flag)).collect())
}

/// The files of others that an agent with these flags uses; none if it would not start with them.
fn agent_files(words: Vec<OsString>) -> Option<check::AgentFiles> {
    let Ok(Asked::Run(Program::Agent, given)) = reader::line(words) else { return None };
    let Settings { source, socket, state_dir, cni_conf_dir, .. } = agent_settings(&given).ok()?;
    let kubeconfig = match source {
        ConfigSource::Kubeconfig(path) => Some(path),
        ConfigSource::File(_) | ConfigSource::Pod => None,
    };
    Some(check::AgentFiles { socket, state_dir, kubeconfig, cni_conf_dir })
}

/// Where an agent with these flags has its socket and directories; none if it would not start with them.
fn agent_places(flags: Vec<OsString>) -> Option<AgentPlaces> {
    let Ok(Asked::Run(Program::Agent, given)) = reader::read(Program::Agent, flags) else { return None };
    let Settings { socket, state_dir, cni_conf_dir, .. } = agent_settings(&given).ok()?;
    Some(AgentPlaces { socket, state_dir, cni_conf_dir })
}

#[cfg(test)]
mod tests;
