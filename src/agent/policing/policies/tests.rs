//! What holds for a link while not everything is known.

use super::*;
use crate::record::examples::lease;
use model::lease::PodName;
use model::policy::select::{Labels, Requirement, Selector};
use model::policy::{Namespaces, Peer, Policy, Rule};
use std::path::PathBuf;
use std::sync::mpsc::channel;

const MASK: u32 = 0x7fff_0000;

struct Scene {
    dir: PathBuf,
    policies: Policies,
    leases: BTreeMap<Attachment, Lease>,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let dir = std::env::temp_dir().join(format!("flock-policies-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        crate::record::disk::make_private_dir(&dir).expect("made");
        let (ask, _asked) = channel();
        Scene { policies: Policies::new(Origin::Api(ask), &dir, MASK), dir, leases: BTreeMap::new() }
    }

    fn lease(&mut self, of: &str, audit: bool) -> Lease {
        let pod = Some(PodName { namespace: "web".into(), name: of.into(), uid: None });
        let lease = Lease { pod, audit, ..lease(&format!("{of}/eth0")) };
        self.leases.insert(lease.attachment.clone(), lease.clone());
        lease
    }

    /// All lists but those of peers: of the pods `front`, for whom another one is named as a peer, and `alone`.
    fn basics(&mut self, wishes: &Wishes) {
        let own = ["front", "alone"].map(|app| News {
            key: PodKey { namespace: "web".into(), name: app.into() },
            known: false,
            now: Some(OwnPod { pod: pod(app), uid: None }),
        });
        let policies = [("p", "front", vec![rule("back")]), ("q", "alone", Vec::new())];
        let policies = policies.map(|(name, subjects, ingress)| News {
            key: ("web".to_owned(), name.to_owned()),
            known: false,
            now: Some(Policy { subjects: selector(subjects), ingress: Some(ingress), egress: None }.into()),
        });
        let news = vec![
            ClusterNews::Namespaces(0, Told { each: Vec::new(), complete: true }),
            ClusterNews::Own(Told { each: own.into(), complete: true }),
            ClusterNews::Policies(0, Told { each: policies.into(), complete: true }),
        ];
        self.policies.hear(news, &self.leases, Some(wishes));
    }

    fn peers(&mut self, wishes: &Wishes) {
        let watch = Watch { selection: Selection { namespace: Some("web".into()), pods: selector("back") }, number: 0 };
        let peers = ClusterNews::Peers(watch, Told { each: Vec::new(), complete: true });
        self.policies.hear(vec![peers], &self.leases, Some(wishes));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn selector(app: &str) -> Selector {
    [Requirement::equals("app", app)].into_iter().collect()
}

fn rule(peers: &str) -> Rule {
    Rule { peers: vec![Peer::Pods { namespaces: Namespaces::Same, pods: selector(peers) }], ports: Vec::new() }
}

fn pod(app: &str) -> Arc<Pod> {
    Pod { labels: Labels::from([("app", app)]), ..Pod::default() }.into()
}

#[test]
fn a_new_pod_is_closed_until_everything_is_known_even_if_all_is_known_that_its_own_policies_are_about() {
    let wishes = Wishes { mode: Mode::Enforce, ..Wishes::default() };
    let mut scene = Scene::new("basics");
    let [front, alone] = ["front", "alone"].map(|of| scene.lease(of, false));
    assert!(scene.policies.is_quarantined(&alone, &wishes), "nothing is known");
    scene.basics(&wishes);
    assert!(scene.policies.is_quarantined(&front, &wishes), "its peers are not known");
    assert!(scene.policies.is_quarantined(&alone, &wishes), "there is no part that could isolate it");
    assert!(!scene.policies.is_quarantined(&alone, &Wishes { unknown_open: true, ..wishes.clone() }));
    scene.peers(&wishes);
    assert!(scene.policies.is_quarantined(&alone, &wishes), "there is none yet");
    scene.policies.compile(scene.leases.values(), &wishes);
    for lease in [&front, &alone] {
        assert!(!scene.policies.is_quarantined(lease, &wishes));
        let maps = &scene.policies.part().expect("known").maps;
        assert!(maps.values().any(|map| map.contains_key(&lease.host_link)), "it is isolated");
    }
}

#[test]
fn audit_closes_no_pod_that_nobody_knows() {
    let audit = Wishes { mode: Mode::Audit, ..Wishes::default() };
    let listed = Wishes { mode: Mode::Enforce, audit: ["web".into()].into(), ..Wishes::default() };
    let unlisted = Wishes { audit: Default::default(), ..listed.clone() };
    let mut scene = Scene::new("audit");
    let [plain, audited] = [("a", false), ("b", true)].map(|(of, audit)| scene.lease(of, audit));
    let mut closed = |when: &str| {
        let of = |lease: &Lease, wishes: &Wishes| scene.policies.is_quarantined(lease, wishes);
        assert_eq!([of(&plain, &audit), of(&audited, &audit)], [false; 2], "{when}");
        assert_eq!(
            [of(&plain, &listed), of(&audited, &listed), of(&audited, &unlisted)],
            [true, false, true],
            "{when}"
        );
        scene.basics(&listed);
    };
    closed("nothing is known");
    closed("and of these pods nothing is ever told");
}
