//! Whether a node can take pods, as kubelet hears it every few seconds: `NetworkReady` of the runtime's status.
//!
//! containerd 2 asks flock by STATUS. Without that verb, a configuration is all that containerd 1 looks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::containerd::{CONF_DIR, Containerd, ContainerdRelease};
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::waiting::wait_for;
use crate::with_each;

/// A hung answer would hang kubelet's loop, and crictl gives up after a minute.
const SOON: Duration = Duration::from_secs(10);

/// Whether flock is asked at all, and what is said in its place when it is not.
fn asks(containerd: &Containerd<'_>) -> bool {
    containerd.release == ContainerdRelease::Two
}

// covers: N-12 Q-02 FM-C01
#[test]
fn a_node_is_ready_when_a_pod_could_be_made() {
    with_each(|containerd| {
        let host = containerd.host;
        let text = containerd.info().network().expect_err("there is no configuration yet");
        assert!(text.contains("cni plugin not initialized"), "{text}");
        let text = containerd.pod("first").try_run().err().expect("no network, no pod");
        assert!(text.contains("cni plugin not initialized"), "{text}");

        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let running = containerd.pod("running").run();

        let judge = |state: &str, says: &str| {
            let info = containerd.info();
            assert!(info.elapsed < SOON, "{state}: {:?}", info.elapsed);
            match info.network() {
                Ok(()) => assert!(!asks(containerd), "ready, and the agent is {state}"),
                Err(text) => assert!(asks(containerd) && text.contains(says), "{state}: {text}"),
            }
        };
        agent.signal("STOP");
        judge("hung", "flock-agent does not answer");
        agent.signal("CONT");
        containerd.wait_until_ready();
        agent.kill();
        judge("down", "flock-agent does not answer");
        let agent = host.cni_agent().config(None).start();
        judge("not configured", "no valid NodeConfig yet");
        agent.edit_config(&node_config(CIDR6, CIDR4));
        containerd.wait_until_ready();
        running.pod().assert_pings(host_addresses());
        running.end();
        host.assert_empty();
    });
}

// covers: T-04 FM-C10
#[test]
fn a_full_node_is_ready_all_the_same() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().config(Some(&node_config(CIDR6, "10.25.214.0/30"))).start();
        containerd.wait_until_ready();
        let only = containerd.pod("only").run();
        let text = containerd.pod("more").try_run().err().expect("there is one address");
        assert!(text.contains("no free address"), "{text}");
        assert_eq!(containerd.info().network(), Ok(()));
        only.end();
        containerd.pod("next").run().end();
        host.assert_empty();
    });
}

// covers: T-05 FM-C10
#[test]
fn a_node_stays_ready_while_its_agent_restarts() {
    with_each(|containerd| {
        let host = containerd.host;
        let mut agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let answers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let ask = |_| {
                    let against = containerd.info().network().err();
                    answers.fetch_add(1, Ordering::Relaxed);
                    against
                };
                (0..25).filter_map(ask).collect::<Vec<String>>()
            });
            // In the middle of a question more often than not, and never twice in the same one.
            let mut restarts = 0;
            while !watch.is_finished() {
                let before = answers.load(Ordering::Relaxed);
                agent.signal(if restarts % 2 == 0 { "TERM" } else { "KILL" });
                agent.wait();
                agent = host.cni_agent().start();
                restarts += 1;
                wait_for("an answer", || {
                    (answers.load(Ordering::Relaxed) > before || watch.is_finished()).then_some(())
                });
            }
            assert_eq!(watch.join().expect("no panic"), Vec::<String>::new());
            assert!(restarts >= 5, "{restarts}");
        });
    });
}

// covers: T-06 FM-C09
#[test]
fn a_hung_agent_hangs_no_one_else() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        agent.signal("STOP");
        // The answer is asked for under a lock that loading a configuration wants, too.
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| containerd.info().elapsed)).collect();
            host.write(&format!("{CONF_DIR}/kick.tmp"), "is written, which is looked at, and not only made");
            for info in asking {
                let elapsed = info.join().expect("no panic");
                assert!(elapsed < SOON, "{elapsed:?}");
            }
        });
        let (began, pods) = (Instant::now(), containerd.crictl(&["pods", "--quiet"]));
        assert!(began.elapsed() < SOON && pods.is_empty(), "{:?} {pods}", began.elapsed());
        agent.signal("CONT");
        containerd.wait_until_ready();
    });
}

#[test]
fn an_old_portmap_behind_flock_fails_no_pod() {
    let host = Host::with_runtimes();
    // Debian's plugins know the protocol up to 1.0.0, and so nothing of STATUS.
    let containerd = Containerd::start_with(&host, ContainerdRelease::Two, "/usr/lib/cni");
    let _agent = host.cni_agent().start();
    containerd.wait_until_ready();
    let web = containerd.pod("web").host_port(18080, 8080).run();
    web.serve(8080);
    for ip in host_addresses() {
        wait_for("the container to serve", || (host.connects_to(ip, 18080) == "web").then_some(()));
    }
    web.end();
    host.assert_empty();
}

#[test]
fn a_portmap_where_the_runtime_does_not_look_fails_no_pod() {
    let host = Host::with_runtimes();
    let containerd = Containerd::start(&host, ContainerdRelease::Two);
    host.run("install -m 0755 -D /opt/cni/bin/portmap /usr/lib/cni/portmap");
    host.run("rm /opt/cni/bin/portmap");
    let _agent = host.cni_agent().start();
    containerd.wait_until_ready();
    containerd.pod("web").host_port(18080, 8080).run().end();
    host.assert_empty();
}
