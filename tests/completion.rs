//! The scripts of `flock-agent completion`, tried by typing: bash, zsh and fish run on a terminal of their own, and what they make of
//! a line with a tab in it is what counts. A shell that is missing is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
// What it takes of the support of others.
#![allow(dead_code, unreachable_pub)]

#[path = "support/temp.rs"]
mod temp;
#[path = "support/waiting.rs"]
mod waiting;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use flock::cli::pages::PAGES;
use flock::cli::table::Group;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use temp::TempDir;
use waiting::PATIENCE;

const FLOCK_AGENT: &str = env!("CARGO_BIN_EXE_flock-agent");

/// How a shell is started, and what it reads first: the script, and a `flock-agent` that only says how it was called.
struct Kind {
    name: &'static str,
    start: &'static [&'static str],
    file: &'static str,
    text: &'static str,
}

const BASH: Kind = Kind {
    name: "bash",
    start: &["--noprofile", "--rcfile", "bashrc", "-i"],
    file: "bashrc",
    text: "source <(\"$AGENT\" completion bash)\n\
           flock-agent() { { printf '%s\\n' \"$@\"; echo; } >answers; }\n\
           PROMPT_COMMAND='((++count))'; PS1='<$count>'; bind 'set bell-style none'\n",
};

const ZSH: Kind = Kind {
    name: "zsh",
    start: &["-d", "-i"],
    file: ".zshrc",
    text: "autoload -Uz compinit; compinit -u -D\n\
           source <(\"$AGENT\" completion zsh)\n\
           flock-agent() { { printf '%s\\n' \"$@\"; echo; } >answers; }\n\
           setopt prompt_subst; unsetopt beep prompt_sp; precmd() { ((++count)); }; PS1='<$count>'\n",
};

const FISH: Kind = Kind {
    name: "fish",
    start: &["--no-config", "--private", "-i", "--init-command", "source init.fish"],
    file: "init.fish",
    text: "\"$AGENT\" completion fish | source\n\
           function flock-agent; begin; printf '%s\\n' $argv; echo; end >answers; end\n\
           function fish_greeting; end\n\
           function counted --on-event fish_prompt; set -g count (math $count + 1); end\n\
           set -g count 0; function fish_prompt; echo -n \"<$count>\"; end\n",
};

/// A shell at its prompt.
struct Shell {
    kind: &'static Kind,
    child: Child,
    terminal: fs::File,
    /// What it has printed so far, piece by piece.
    shown: Receiver<Vec<u8>>,
    screen: String,
    answers: Receiver<Vec<String>>,
    prompts: usize,
    _home: TempDir,
}

impl Shell {
    /// In a directory with a file `some file`, a directory `there` and a file `these`.
    fn new(kind: &'static Kind) -> Shell {
        let home = TempDir::new(&format!("completion-{}", kind.name));
        let path = |name: &str| home.path().join(name);
        fs::write(path(kind.file), kind.text).unwrap();
        fs::write(path("some file"), "").unwrap();
        fs::write(path("these"), "").unwrap();
        fs::create_dir(path("there")).unwrap();
        assert!(Command::new("mkfifo").arg(path("answers")).status().expect("mkfifo").success());

        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let line = || Stdio::from(fs::OpenOptions::new().read(true).write(true).open(&name).unwrap());
        assert!(
            Command::new("stty").args(["rows", "50", "cols", "200"]).stdin(line()).status().expect("stty").success()
        );
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(kind.name).args(kind.start).current_dir(home.path());
        command.env("AGENT", FLOCK_AGENT).env("HOME", home.path()).env("ZDOTDIR", home.path()).env("TERM", "xterm");
        command.env("LC_ALL", "C.UTF-8").env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        let child = command.stdin(line()).stdout(line()).stderr(line()).spawn().expect("setsid starts");

        let terminal = fs::File::from(terminal);
        let (mut reader, (sender, shown)) = (terminal.try_clone().unwrap(), channel());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // Ends with an error when the shell is gone.
            while let Ok(length) = reader.read(&mut piece) {
                sender.send(piece[..length].to_vec()).ok();
            }
        });
        let (fifo, (sender, answers)) = (path("answers"), channel());
        thread::spawn(move || {
            // Open for writing as well, so that it does not end when the shell closes it.
            let fifo = fs::OpenOptions::new().read(true).write(true).open(fifo).unwrap();
            let mut words = Vec::new();
            for line in BufReader::new(fifo).lines().map_while(Result::ok) {
                if line.is_empty() {
                    if sender.send(std::mem::take(&mut words)).is_err() {
                        return;
                    }
                } else {
                    words.push(line);
                }
            }
        });
        let mut shell = Shell { kind, child, terminal, shown, screen: String::new(), answers, prompts: 0, _home: home };
        shell.wait_for_prompt();
        shell
    }

    fn wait_for_prompt(&mut self) {
        self.prompts += 1;
        let prompt = format!("<{}>", self.prompts);
        while !self.screen.contains(&prompt) {
            let more = self.shown.recv_timeout(PATIENCE);
            let more =
                more.unwrap_or_else(|_| panic!("no prompt of {} (is it installed?): {}", self.kind.name, self.screen));
            self.screen += &String::from_utf8_lossy(&more);
        }
        self.screen.clear();
    }

    /// Types a line in which `⇥` stands for a tab, and returns the words that `flock-agent` is called with.
    fn types(&mut self, line: &str) -> Vec<String> {
        let keys = format!("flock-agent {}\r", line.replace('⇥', "\t"));
        self.terminal.write_all(keys.as_bytes()).unwrap();
        let words = self.answers.recv_timeout(PATIENCE);
        let words = words.unwrap_or_else(|_| panic!("{} does nothing with {line}", self.kind.name));
        self.wait_for_prompt();
        words
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn try_everything(kind: &'static Kind) {
    let mut shell = Shell::new(kind);
    let mut check = |line: &str, words: &[&str]| {
        // Some shells end a directory with a slash, and a flag that needs a value with its sign.
        let typed = shell.types(line);
        let typed: Vec<&str> = typed.iter().map(|word| word.trim_end_matches(['/', '='])).collect();
        assert_eq!(typed, words, "{}: {line}", kind.name);
    };
    for (line, words) in [
        ("ins⇥", &["install"][..]),
        ("bi⇥st⇥", &["bird", "stop"]),
        ("help bi⇥⇥", &["help", "bird", "stop"]),
        ("help wi⇥", &["help", "withdraw"]),
        ("completion f⇥", &["completion", "fish"]),
        // The daemon's flags with its word and without.
        ("--node-n⇥", &["--node-name"]),
        ("run --node-n⇥", &["run", "--node-name"]),
        ("--log-format js⇥", &["--log-format", "json"]),
        ("--log-level=d⇥", &["--log-level=debug"]),
        ("--socket /x --log-level d⇥", &["--socket", "/x", "--log-level", "debug"]),
        // Files, with what a shell makes of a space, and directories where only these are.
        ("--kubeconfig so⇥", &["--kubeconfig", "some file"]),
        ("--kubeconfig=so⇥", &["--kubeconfig=some file"]),
        ("run --state-dir the⇥", &["run", "--state-dir", "there"]),
        ("--state-dir=the⇥", &["--state-dir=there"]),
        ("install --root the⇥ --dry⇥", &["install", "--root", "there", "--dry-run"]),
        // What belongs to nobody or to another command stays as it is typed.
        ("nons⇥", &["nons"]),
        ("install --kubec⇥", &["install", "--kubec"]),
        ("withdraw --wait so⇥", &["withdraw", "--wait", "so"]),
        ("explain so⇥", &["explain", "so"]),
        ("install so⇥", &["install", "so"]),
    ] {
        check(line, words);
    }
    for page in PAGES {
        for flag in page.program.flags() {
            // All but the last letter, which is enough where no other flag begins like that.
            let begun = &flag.name[..flag.name.len() - 1];
            if page.program.flags().filter(|other| other.name.starts_with(begun)).count() > 1 {
                continue;
            }
            let words: Vec<&str> = page.word.split(' ').chain([flag.name]).collect();
            check(&format!("{} {begun}⇥", page.word), &words);
            if page.group == Group::Daemon {
                check(&format!("{begun}⇥"), &[flag.name]);
            }
        }
    }
}

#[test]
fn bash_completes_what_is_typed() {
    try_everything(&BASH);
}

#[test]
fn zsh_completes_what_is_typed() {
    try_everything(&ZSH);
}

#[test]
fn fish_completes_what_is_typed() {
    try_everything(&FISH);
}

/// As a package installs it.
#[test]
fn zsh_finds_the_script_in_a_directory_of_functions() {
    let home = TempDir::new("completion-function");
    let output = Command::new(FLOCK_AGENT).args(["completion", "zsh"]).output().expect("it starts");
    fs::write(home.path().join("_flock-agent"), output.stdout).unwrap();
    let script = "fpath=($HERE $fpath); autoload -Uz compinit; compinit -u -D; print -r -- $_comps[flock-agent]";
    let zsh = Command::new("zsh").args(["-f", "-c", script]).env("HERE", home.path()).output();
    let zsh = zsh.expect("zsh starts");
    assert_eq!(String::from_utf8_lossy(&zsh.stdout), "_flock-agent\n", "{}", String::from_utf8_lossy(&zsh.stderr));
}
