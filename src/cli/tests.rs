//! What is typed, and what comes of it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::*;
use crate::cli::pages::{PAGES, every_flag};
use crate::cli::table::{self, Default, Group, Operand, Times};
use crate::install::order::{Common, Install, Named, Order, Uninstall};
use crate::install::runtime::places::Kind;
use crate::process::log::line::{Format, Level};

fn read(line: &str) -> Result<Asked, Misuse> {
    reader::line(line.split_whitespace().map(OsString::from).collect())
}

fn given(line: &str) -> Given {
    let Ok(Asked::Run(_, given)) = read(line) else { panic!("not understood: {line}") };
    given
}

fn settings(line: &str) -> Settings {
    agent_settings(&given(line)).expect("settings")
}

#[test]
fn an_agent_with_one_flag_has_the_defaults_of_the_table() {
    let settings = settings("--node-config /etc/flock/node.yaml");
    let expected = Settings {
        source: ConfigSource::File("/etc/flock/node.yaml".into()),
        node_name: None,
        socket: "/run/flock/flock.sock".into(),
        state_dir: "/run/flock/state".into(),
        pod_cidrs: false,
        policy_dir: None,
        cni_conf_dir: None,
        import: "/var/lib/flock/allocations.json".into(),
        bird: Places { file: "/etc/flock/bird/bird.conf".into(), socket: "/run/flock/bird.ctl".into() },
        metrics: None,
        log_format: Format::Text,
        log_level: Level::Info,
    };
    assert_eq!(settings, expected);
}

#[test]
fn every_flag_reaches_what_it_is_for() {
    let line = "--kubeconfig=/k --pod-cidrs --node-name n --socket /s --state-dir d --cni-conf-dir c --import i --bird-config /b \
                --bird-socket=/c --metrics [::1]:9469 --log-format json \
                --log-level=debug";
    let expected = Settings {
        source: ConfigSource::Kubeconfig("/k".into()),
        node_name: Some("n".into()),
        socket: "/s".into(),
        state_dir: "d".into(),
        pod_cidrs: true,
        policy_dir: None,
        cni_conf_dir: Some("c".into()),
        import: "i".into(),
        bird: Places { file: "/b".into(), socket: "/c".into() },
        metrics: Some(([0, 0, 0, 0, 0, 0, 0, 1], 9469).into()),
        log_format: Format::Json,
        log_level: Level::Debug,
    };
    assert_eq!(settings(line), expected);
    let standalone = settings("--node-config n --policy-dir p");
    assert_eq!(standalone.policy_dir, Some("p".into()));
    assert_eq!(settings("").source, ConfigSource::Pod);
    let Order::Uninstall(of_uninstall, both) = orders::removal(&given(
        "uninstall --root=a=b --dry-run --force --cni-bin-dir /x --cni-conf-dir=/c --bin-dir /b",
    )) else {
        panic!("another order")
    };
    let named = |runtime, bin_dir: &str| Named {
        runtime,
        bin_dir: Some(bin_dir.into()),
        cni_bin_dir: Some("/x".into()),
        cni_conf_dir: Some("/c".into()),
    };
    assert_eq!(both, Common { named: named(None, "/b"), root: Some("a=b".into()), dry_run: true });
    assert_eq!(of_uninstall, Uninstall { force: true, purge: false, by_package: false });
    let Order::Install(of_install, both) = orders::installation(&given(
        "install --cni-conf --plugin p --runtime crio --bin-dir /opt/bin --cni-bin-dir /x --cni-conf-dir /c",
    )) else {
        panic!("another order")
    };
    assert_eq!(both, Common { named: named(Some(Kind::Crio), "/opt/bin"), root: None, dry_run: false });
    assert_eq!(of_install, Install { plugin: Some("p".into()), plugin_only: false, cni_conf: true, bird: false });
    for name in Kind::NAMES {
        assert!(name.parse::<Kind>().is_ok_and(|kind| kind.name() == name), "{name}");
    }
}

// covers: FM-Q16
#[test]
fn a_path_is_taken_byte_by_byte_in_either_form() {
    let odd = OsStr::from_bytes(b"/srv/\xff=\xfe/state");
    let mut inline = OsString::from("--state-dir=");
    inline.push(odd);
    for arguments in [vec![inline], vec!["--state-dir".into(), odd.to_owned()]] {
        let Ok(Asked::Run(_, given)) = reader::read(Program::Agent, arguments) else { panic!("not understood") };
        assert_eq!(given.path(&pages::agent::STATE_DIR).as_deref().map(Path::as_os_str), Some(odd));
    }
    let mut no_flag = OsString::from("--\u{e9}");
    no_flag.push(odd);
    assert!(matches!(reader::read(Program::Agent, [no_flag]), Err(UsageError::Flag { .. })));
    // What has to be text is refused where it is not.
    for flag in ["--socket=", "--node-name=", "--log-level="] {
        let mut argument = OsString::from(flag);
        argument.push(odd);
        let error = reader::read(Program::Agent, [argument]).expect_err(flag).to_string();
        assert!(error.contains("must be UTF-8") && error.contains(flag.trim_end_matches('=')), "{error}");
    }
}

#[test]
fn a_wrong_command_line_is_named() {
    for (line, why) in [
        (
            "--node-config a --nod b",
            "unknown flag \"--nod\" (did you mean --node-config or --node-name?); flock-agent run --help lists",
        ),
        ("--node-confg a", "unknown flag \"--node-confg\" (did you mean --node-config?)"),
        ("--sokcet a", "unknown flag \"--sokcet\" (did you mean --socket?)"),
        ("--nonsense", "unknown flag \"--nonsense\"; flock-agent run --help lists the flags"),
        ("- a", "unknown argument \"-\""),
        ("--node-config", "--node-config needs a value"),
        ("--node-config=", "--node-config needs a value"),
        ("--node-config a --node-config b", "twice"),
        ("--node-config a --kubeconfig b", "exclude each other"),
        ("--kubeconfig a --node-config b", "exclude each other"),
        ("--node-config a --log-level loud", "error, warn, info or debug"),
        ("--node-config a --log-format loud", "text or json"),
        ("--node-config a --socket x.sock", "absolute"),
        ("run run", "run is a command, and a command comes before its flags"),
        ("run now", "unknown argument \"now\""),
        ("--log-level info install", "install is a command, and a command comes before its flags"),
        ("install --force", "--force is of uninstall, not of install; flock-agent install --help lists the flags"),
        ("install --version", "--version is of run, not of install"),
        ("install -V", "--version is of run, not of install"),
        ("--dry-run", "--dry-run is of install and uninstall, not of run"),
        ("uninstall --plugin x", "--plugin is of install, not of uninstall"),
        ("uninstall --plugin=x", "--plugin is of install, not of uninstall"),
        ("staus", "unknown command \"staus\" (did you mean status?); flock-agent help lists the commands"),
        ("nonsense", "unknown command \"nonsense\"; flock-agent help lists the commands"),
        ("expalin a b", "unknown command \"expalin\" (did you mean explain?); flock-agent help lists the commands"),
        ("inst", "unknown command \"inst\" (did you mean install?)"),
        ("Install", "unknown command \"Install\" (did you mean install?)"),
        ("install --root", "--root needs a value"),
        ("install --root=", "--root needs a value"),
        ("install --root a --root=b", "twice"),
        ("uninstall --purge --purge", "twice"),
        ("uninstall --package --purge", "exclude each other"),
        ("uninstall --purge=yes", "--purge takes no value"),
        ("install --help=yes", "--help takes no value"),
        ("install now", "\"now\""),
        ("install --runtime docker", "--runtime \"docker\": containerd, crio, k3s, rke2, k0s, microk8s or podman"),
        ("install --plugin-only --cni-conf", "exclude each other"),
        ("install --bin-dir opt", "--bin-dir \"opt\": must be an absolute path"),
        ("uninstall --runtime k3s", "--runtime is of install, not of uninstall"),
        ("install --cni-bin-dir usr/lib/cni", "--cni-bin-dir \"usr/lib/cni\": must be an absolute path"),
        ("uninstall --root /a --cni-bin-dir=./x", "\"./x\": must be an absolute path"),
        ("bird", "unknown command \"bird\" (did you mean bird stop?)"),
        ("bird start", "unknown command \"bird\" (did you mean bird stop?)"),
        ("bird stop now", "\"now\""),
        ("bird stop --bird-socket x", "must be an absolute path"),
        ("--bird-config bird.conf", "must be an absolute path"),
        ("withdraw --wait 61", "--wait \"61\": must be 0 to 60"),
        ("withdraw --wait -1", "must be 0 to 60"),
        ("withdraw --wait soon", "must be 0 to 60"),
        ("announce --wait 1", "--wait is of status and withdraw, not of announce"),
        ("version now", "unknown argument \"now\""),
        ("explain", "FROM needs a value"),
        ("explain a/b node TCP/80 more", "\"more\""),
    ] {
        let error = read(line).expect_err(line).to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn help_and_version_are_given_whatever_else_is_asked_for() {
    for line in ["--help", "-h", "--socket /x -h --nonsense"] {
        assert!(matches!(read(line), Ok(Asked::Overview)), "{line}");
    }
    for (line, program) in [
        ("run --help", Program::Agent),
        ("run --socket /x --help --nonsense", Program::Agent),
        ("help --help", Program::Help),
        ("install --root=x --help", Program::Install),
        ("uninstall --force --help", Program::Uninstall),
        ("bird stop --help", Program::BirdStop),
        ("withdraw --wait 5 --help", Program::Withdraw),
    ] {
        assert!(matches!(read(line), Ok(Asked::Help(of)) if of == program), "{line}");
        let short = line.replace("--help", "-h");
        assert!(matches!(read(&short), Ok(Asked::Usage(of)) if of == program), "{short}");
    }
    for line in ["--version", "-V", "run --version"] {
        assert!(matches!(read(line), Ok(Asked::Version)), "{line}");
    }
}

#[test]
fn the_daemon_runs_with_and_without_its_word() {
    assert_eq!(settings("run --node-config n --socket=/s"), settings("--node-config n --socket=/s"));
    assert!(matches!(read(""), Ok(Asked::Run(Program::Agent, _))));
    assert!(matches!(read("version"), Ok(Asked::Run(Program::Version, _))));
}

#[test]
fn help_is_about_the_words_behind_it() {
    let named = |line: &str| reader::named(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    for page in PAGES {
        assert_eq!(named(page.word), Ok(page.program));
    }
    for (line, why) in [
        ("bird", "unknown command \"bird\" (did you mean bird stop?)"),
        ("expain", "unknown command \"expain\" (did you mean explain?)"),
        ("install now", "unknown argument \"now\""),
        ("install uninstall", "unknown argument \"uninstall\""),
        ("--root", "unknown argument \"--root\""),
    ] {
        assert_eq!(named(line).expect_err(line).to_string(), why);
    }
}

#[test]
fn operands_stand_anywhere_and_each_of_them_is_needed() {
    const POD: Operand = Operand { name: "POD", times: Times::Once, kind: table::Kind::Text, help: "a pod" };
    const FILE: Operand = Operand { name: "FILE", times: Times::Once, kind: table::Kind::File, help: "a file" };
    let read_by = |operands: &'static [Operand], line: &str| {
        let flags = [&flags::ROOT, &flags::DRY_RUN];
        reader::read_by(Program::Install, &flags, operands, line.split_whitespace().map(OsString::from))
    };
    let read = |line: &str| read_by(&[POD, FILE], line);
    for line in ["a/b --root /x c", "--root=/x a/b c", "a/b c --root /x --dry-run"] {
        let Ok(Asked::Run(_, given)) = read(line) else { panic!("not understood: {line}") };
        assert_eq!(given.operands(), ["a/b", "c"], "{line}");
        assert_eq!(given.path(&flags::ROOT), Some("/x".into()), "{line}");
    }
    for (line, why) in [("", "POD needs a value"), ("a", "FILE needs a value"), ("a b c", "\"c\""), ("a -b", "\"-b\"")]
    {
        let error = read(line).expect_err(line).to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
    let taken = |operands: &'static [Operand], line: &str| -> Vec<String> {
        let Ok(Asked::Run(_, given)) = read_by(operands, line) else { panic!("not understood: {line}") };
        given.operands().iter().map(|word| word.to_string_lossy().into_owned()).collect()
    };
    // A dash alone is standard input, and behind two of them nothing is a flag.
    assert_eq!(taken(&[POD, FILE], "a --root /x -"), ["a", "-"]);
    assert_eq!(taken(&[POD, FILE], "--root /x -- --root --"), ["--root", "--"]);
    const FILES: &[Operand] = &[Operand { times: Times::AtLeastOnce, ..FILE }];
    assert_eq!(taken(FILES, "a b --root /x c"), ["a", "b", "c"]);
    assert_eq!(read_by(FILES, "").expect_err("none").to_string(), "FILE needs a value");
    assert_eq!(taken(&[Operand { times: Times::Any, ..FILE }], ""), Vec::<String>::new());
    const WORD: &[Operand] = &[Operand { name: "WORD", kind: table::Kind::OneOf(&["x", "y"]), ..POD }];
    assert_eq!(taken(WORD, "y"), ["y"]);
    assert_eq!(read_by(WORD, "z").expect_err("another").to_string(), "WORD \"z\": x or y");
}

#[test]
fn an_operand_that_repeats_takes_all_that_is_left_and_a_dash_is_a_file() {
    let Ok(Asked::Run(Program::Validate, given)) = read("validate a - b") else { panic!("not understood") };
    assert_eq!(given.operands(), ["a", "-", "b"]);
    for (line, why) in
        [("validate", "FILE needs a value"), ("validate -x", "\"-x\""), ("validate a --all", "\"--all\"")]
    {
        assert!(read(line).expect_err(line).to_string().contains(why), "{line}");
    }
    assert!(help::text(Program::Validate).contains("Usage: flock-agent validate [flags] FILE...\n"));
}

#[test]
fn the_path_of_a_socket_is_as_short_as_the_kernel_wants_it() {
    let read = |length: usize| {
        let path = format!("/{}", "s".repeat(length - 1));
        reader::read(Program::Agent, ["--socket".into(), OsString::from(path)])
    };
    assert!(read(107).is_ok());
    let error = read(108).expect_err("too long").to_string();
    assert!(error.ends_with(": is longer than the 107 bytes that the path of a socket can have"), "{error}");
}

#[test]
fn a_question_is_for_the_agent_or_for_files() {
    let asked = |line: &str| question(&given(line));
    let words = |from: &str, to: &str, port: Option<&str>| Words {
        from: from.into(),
        to: to.into(),
        port: port.map(Into::into),
    };
    let agent = Source::Agent("/run/flock/flock.sock".into());
    assert_eq!(asked("explain a/b node"), Ok(Question::Passage(words("a/b", "node", None), agent)));
    let whose = |socket: &str, state_dir: &str| {
        Question::Whose(whose::Order { what: "a/b".into(), socket: socket.into(), state_dir: state_dir.into() })
    };
    assert_eq!(asked("explain a/b"), Ok(whose("/run/flock/flock.sock", "/run/flock/state")));
    assert_eq!(asked("explain a/b --socket /s --state-dir d"), Ok(whose("/s", "d")));
    let files = Source::Files { policies: "p".into(), config: Some("n".into()) };
    let line = "explain a/b --policy-dir=p 10.0.0.1 tcp/80 --node-config n";
    assert_eq!(asked(line), Ok(Question::Passage(words("a/b", "10.0.0.1", Some("tcp/80")), files)));
    for (line, why) in [
        ("explain a/b node --socket /s --policy-dir p", "--socket and --policy-dir exclude each other"),
        ("explain a/b --policy-dir p", "TO needs a value"),
        ("explain a/b node --node-config n", "--node-config needs --policy-dir beside it"),
    ] {
        assert_eq!(asked(line).expect_err(line).to_string(), why);
    }
}

#[test]
fn the_operators_flags_are_read_as_the_agent_reads_them() {
    let places = |line: &str| agent_places(line.split_whitespace().map(OsString::from).collect());
    let expected =
        AgentPlaces { socket: "/s".into(), state_dir: "/run/flock/state".into(), cni_conf_dir: Some("/c".into()) };
    assert_eq!(places("--socket /s --cni-conf-dir=/c --log-level debug"), Some(expected));
    for refused in ["--nonsense", "--socket x", "install", "--help"] {
        assert_eq!(places(refused), None, "{refused}");
    }
}

#[test]
fn the_tables_say_everything_once_and_agree_with_each_other() {
    for page in PAGES {
        let mut names = BTreeSet::new();
        for flag in page.program.flags() {
            assert!(names.insert(flag.name.to_owned()), "{} has {} twice", page.command(), flag.name);
            assert!(flag.letter.is_none_or(|letter| names.insert(format!("-{letter}"))), "{}", flag.name);
            for other in flag.excludes {
                let other = page.program.flags().find(|known| known.name == *other).expect("a flag");
                assert!(other.excludes.contains(&flag.name), "{} excludes one that does not know of it", flag.name);
            }
        }
        assert!(page.program.flags().any(|flag| flag.name == flags::HELP.name), "{} has no help", page.command());
        assert_eq!(page.program.page().map(|found| found.word), Some(page.word), "{} has one page", page.command());
        assert!(page.operands.is_empty() || page.group != Group::Daemon, "a word would be taken for an operand");
        assert!(page.operands.is_sorted_by_key(|operand| !operand.times.needed()), "{}", page.command());
        let repeated = page.operands.iter().position(|operand| operand.times.repeated());
        assert!(repeated.is_none_or(|at| at + 1 == page.operands.len()), "{}", page.command());
    }
    for flag in every_flag() {
        assert!(flag.name.starts_with("--"), "{}", flag.name);
        for text in [flag.help, flag.value.as_ref().map_or("", |value| value.name)] {
            assert!(!text.ends_with('.') && text.is_ascii(), "{}: {text}", flag.name);
        }
        let Some(value) = &flag.value else { continue };
        if let table::Kind::OneOf(words) = value.kind {
            assert!(value.default.value().is_none_or(|default| words.contains(&default)), "{}", flag.name);
        }
        if matches!(value.kind, table::Kind::Socket | table::Kind::AbsoluteFile | table::Kind::AbsoluteDirectory) {
            assert!(value.default.value().is_none_or(|default| default.starts_with('/')), "{}", flag.name);
        }
        assert!(!matches!(value.default, Default::Unset("")), "{}", flag.name);
    }
    for word in Level::NAMES {
        assert!(word.parse::<Level>().is_ok_and(|level| level.name() == word), "{word}");
    }
    for word in Format::NAMES {
        assert!(word.parse::<Format>().is_ok(), "{word}");
    }
}

#[test]
fn the_help_of_a_program_has_all_its_flags_and_fits_a_terminal() {
    for page in PAGES {
        let text = help::text(page.program);
        assert!(text.contains(&help::usage(page.program)), "{text}");
        assert!(help::usage(page.program).starts_with("Usage: flock-agent "), "{text}");
        for flag in every_flag() {
            // What is longer than its column has a line of its own.
            let named = format!("  {}", help::typed(flag));
            let listed = text.lines().any(|line| line == named || line.starts_with(&format!("{named} ")));
            let has = page.program.flags().any(|own| help::named(own) == help::named(flag));
            assert_eq!(listed, has, "{}: {}", page.command(), flag.name);
        }
        assert!(text.ends_with('\n') && !text.contains("\n\n\n"), "{text}");
        for line in text.lines() {
            assert!(line.len() <= 80 && line == line.trim_end(), "{line:?}");
        }
        for (line, _) in page.examples {
            // What stands before it or behind it is of other programs.
            let own =
                line.split(['|', '>']).find_map(|part| part.trim().strip_prefix("flock-agent ")).expect("the program");
            let asked = read(own);
            assert!(matches!(asked, Ok(Asked::Run(program, _)) if program == page.program), "{line}");
        }
    }
    let agent = help::text(Program::Agent);
    assert!(agent.contains("\nUsage: flock-agent [run] [flags]\n"), "{agent}");
    let overview = help::overview();
    let mut lines = overview.lines();
    for group in Group::ALL {
        assert!(lines.any(|line| line.strip_suffix(':') == Some(group.title())), "{overview}");
        for page in PAGES.iter().filter(|page| page.group == group) {
            let row = format!("  {:22}{}", page.word, page.summary);
            assert_eq!(lines.next(), Some(row.as_str()), "one line says enough of it");
        }
    }
    assert!(overview.lines().all(|line| line.len() <= 80), "{overview}");
    for line in [
        "  --socket PATH         listen here for the plugin (default:\n                        /run/flock/flock.sock)\n",
        "  --state-dir DIR       keep the allocations here, with mode 0700 (default:\n                        /run/flock/state)\n",
        "  --log-format FORMAT   what a line of the log looks like: text or json\n",
    ] {
        assert!(agent.contains(line), "{agent}");
    }
}
