//! A thousand agents in a process of their own, in so far as they talk to the API server: the product's watches, its report, its
//! word to the other nodes and its Events. What the host would say is said here: it is ready, and has what the NodeConfig says.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use flock::agent::board::Board;
use flock::agent::draw::KernelDraw;
use flock::agent::kubernetes::{Following, Kubernetes};
use flock::agent::ledger::Ledger;
use flock::agent::node::source::Published;
use flock::agent::node::state::{Basis, Edit, NodeState, Readiness, Verdict, View, Whereabouts};
use flock::agent::policing::handle::Police;
use flock::agent::policing::state::{Counts, Kept, PolicingState};
use flock::agent::policing::watches::Wish;
use flock::agent::routing::state::Held;
use flock::agent::threads::Threads;
use flock::kube::client::Client;
use flock::kube::kubeconfig::from_file;
use flock::record::disk::Directory;
use flock::record::store::Store;
use model::addr::GATEWAY4;
use model::peers::NextHop;
use model::policing::Mode;
use model::policy::select::{Requirement, Selector};
use model::policy::watching::Selection;

use crate::support::host::Host;
use crate::{name, next_hops};

/// The process, which is killed at its end, as by a power cut.
pub struct Agents {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agents {
    pub fn start(host: &Host, kubeconfig: &str, count: usize) -> Agents {
        let program = std::env::current_exe().expect("known");
        let mut command = host.command(program.to_str().expect("text"));
        command.args(["agents", kubeconfig, &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Agents { child, input, output: BufReader::new(output) }
    }

    pub fn tell(&mut self, words: &str) {
        writeln!(self.input, "{words}").expect("heard");
    }

    /// What one of them has asked.
    pub fn asked(&mut self) -> String {
        self.tell("asked");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("told");
        line.trim().to_owned()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Agent {
    client: Arc<Client>,
    published: Board<Published>,
    state: Board<NodeState>,
    held: Board<Option<Held>>,
    policing: Board<PolicingState>,
    seen: Option<(String, i64)>,
    _wishes: Sender<Wish>,
    _following: Following,
}

pub fn run(kubeconfig: &Path, count: usize) {
    let access = from_file(kubeconfig).expect("readable");
    let root = Path::new("/run/scale");
    std::fs::create_dir_all(root).expect("a directory");
    let ledger = Ledger::start(Store::open(Directory::open(root).expect("a directory"), "boot", 0).0, KernelDraw);
    let ledger = ledger.expect("a thread");
    let (threads, (wake, woken)) = (Threads::default(), channel());
    let (routing, routed) = channel();
    let (police, policed) = channel();
    // Nobody keeps routes and tables here.
    std::thread::spawn(move || routed.iter().for_each(drop));
    std::thread::spawn(move || policed.iter().for_each(drop));
    let police = Police::new(police);
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        let state_dir = root.join(name(n));
        std::fs::create_dir_all(&state_dir).expect("a directory");
        let kubernetes = Kubernetes::new(&access, name(n), false, &state_dir, wake.clone()).expect("usable");
        let (state, client) = (Board::default(), kubernetes.client().clone());
        let (published, held) = (kubernetes.published.clone(), kubernetes.held.clone());
        let policing = kubernetes.policing.clone();
        policing.set(tables(1));
        // As for pods of two namespaces.
        let pods: Selector = [Requirement::equals("tier", "front")].into_iter().collect();
        let namespaces = [n % 10, 10 + n / 10 % 10];
        let selections: BTreeSet<Selection> = namespaces
            .iter()
            .map(|n| Selection { namespace: Some(format!("ns-{n}").into()), pods: pods.clone() })
            .collect();
        let wishes = kubernetes.wishes.clone();
        wishes.send(Some(selections)).expect("heard");
        let following =
            kubernetes.follow(&threads, ledger.clone(), state.clone(), Board::default(), routing.clone(), &police);
        agents.push(Agent {
            client,
            published,
            state,
            held,
            policing,
            seen: None,
            _wishes: wishes,
            _following: following.expect("threads"),
        });
    }
    let boards: Vec<_> = agents.iter().map(|agent| (agent.policing.clone(), agent.client.clone())).collect();
    std::thread::spawn(move || {
        loop {
            while woken.try_recv().is_ok() {}
            agents.iter_mut().enumerate().for_each(|(n, agent)| agent.look(n));
            if woken.recv().is_err() {
                return;
            }
        }
    });
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("policies", policies)) => {
                let policies = policies.parse().expect("a number");
                boards.iter().for_each(|(policing, _)| policing.set(tables(policies)));
            }
            _ => println!("{:?}", boards[0].1.asked()),
        }
    }
    std::process::exit(0);
}

fn tables(policies: usize) -> PolicingState {
    let counts = Counts { policies, isolated: 2, links: 2, ..Counts::default() };
    let kept = Kept { policies: Some(Mode::Enforce), sources: true };
    PolicingState { looked: true, counts, kept, ..PolicingState::default() }
}

impl Agent {
    /// What the thread of the node makes of a NodeConfig, on a host that is ready for everything.
    fn look(&mut self, n: usize) {
        let published = self.published.get();
        let Published::Object(object) = &*published else { return };
        let seen = Some((object.uid.clone(), object.generation));
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let config = object.config.clone().expect("a good NodeConfig");
        self.held.set(Some(Held { cidr6: config.cidr6, cidr4: config.cidr4, claims: Vec::new() }));
        let next_hops = next_hops(n).map(|(address, link_local)| NextHop {
            address: address.parse().expect("an address"),
            link_local: link_local.parse().ok(),
        });
        let edit = Edit { uid: object.uid.clone(), generation: object.generation };
        self.state.set(NodeState {
            view: Some(Arc::new(View { mtu: config.mtu.unwrap_or(1500), config, gateway4: GATEWAY4 })),
            verdict: Verdict { basis: Basis::NodeConfig(edit), ..Verdict::default() },
            whereabouts: Arc::new(Whereabouts { next_hops: next_hops.into(), ..Whereabouts::default() }),
            host: Readiness::default().after(Ok(())),
            ..NodeState::default()
        });
    }
}
