# The two commands of a newcomer are `make demo` and `make test`. Everything else is for those who work on flock.

RELEASE := target/built/$(shell uname -m)
# What Cargo builds without dist/build.
BUILT := target/$(shell rustc --print host-tuple 2>/dev/null)/release
# The reference plugins that `make bench` builds from their module.
REFERENCE := main/ptp main/bridge main/macvlan ipam/host-local

export FLOCK_TEST_SHARE FLOCK_TEST_SEED N BUSY STORY

.PHONY: demo test flaky test-kube test-systemd bench bench-kube lint build tools sizes fuzz soak

demo: announced build tools ## Two nodes and a router on private hosts, with real agents, plugins and BIRD: pods of both talk, and nothing is lost
	@command -v bird >/dev/null || test -x /usr/sbin/bird || demo/need dpkg-deb:dpkg
	@demo/run $(RELEASE)

# Stories that try each member of a long list try an eighth of it, which a new seed chooses and the last line names. To repeat a run:
# `make test FLOCK_TEST_SHARE=1/8 FLOCK_TEST_SEED=7`; to try everything: `make test FLOCK_TEST_SHARE=1`.
test: tools ## Every test that needs nothing but this machine, in a few minutes (FLOCK_TEST_SHARE=1 for every kill and every fault)
	@demo/need bash:bash zsh:zsh fish:fish
	@cargo test --workspace --no-run --quiet --features failpoints
	@tests/sandbox tests/all

flaky: tools ## Those tests N times in a row beside BUSY busy loops, up to the first red one (N=20 BUSY=4 STORY=recovery::)
	@demo/need bash:bash zsh:zsh fish:fish
	@cargo test --workspace --no-run --quiet --features failpoints
	@tests/sandbox tests/flaky

.PHONY: announced
announced: rust
	@test -x $(RELEASE)/flock-agent || echo "building both binaries, about two minutes"

build: rust ## Both static binaries
	@dist/build >/dev/null

.PHONY: dist test-dist
dist: rust ## What a release consists of, for x86_64 and aarch64, into target/dist: tarballs, Debian packages, images, SBOM, sums
	@demo/need cc:gcc git:git jq:jq dpkg-deb:dpkg gzip:gzip
	@dist/all

test-dist: tools dist ## Those files as who gets them looks at them: installed under pods, imported, emulated, and built twice with FLOCK_DIST_TWICE=1 (needs root, and Go)
	@demo/need readelf:binutils lintian:lintian mandoc:mandoc man:man-db debootstrap:debootstrap minisign:minisign qemu-aarch64-static:qemu-user-static
	@tests/dist/assets >/dev/null
	@tests/runtimes/assets >/dev/null
	@cargo test --no-run --quiet --test dist
	@cargo test --quiet --test dist -- $(if $(FLOCK_DIST_TWICE),,--skip twice::)

fuzz: tools ## Everything that reads what others wrote, for a minute in all (FUZZ_SECONDS=900 for long)
	@fuzz/run

soak: tools ## A node under load and under fire, ten minutes long, with an oracle and a plot (SOAK=24h, SOAK_SEED=1)
	@cargo test --no-run --quiet --features failpoints --test soak
	@tests/sandbox cargo test --quiet --features failpoints --test soak

.PHONY: mutants
mutants: tools ## Some two hundred small wrong changes, one at a time, each of which a test has to notice (ONLY="ipam notes" for some)
	@cargo test --no-run --quiet --features failpoints --test mutants
	@tests/sandbox cargo test --quiet --features failpoints --test mutants -- $(ONLY)

bench: tools ## ADD and DEL beside their floors and beside other plugins, in one run of some minutes (needs Go; ONLY="calls bursts", LONG=1)
	@command -v go >/dev/null || { echo "Go 1.25 or newer is needed for the reference plugins: https://go.dev" >&2; exit 1; }
	@demo/need strace:strace /usr/lib/cni/bridge:containernetworking-plugins
	@cd benches/reference && CGO_ENABLED=0 go build -o ../../target/reference/ $(REFERENCE:%=github.com/containernetworking/plugins/plugins/%)
	@binaries=$$(benches/add_del/binaries) && benches/add_del/run bench "$$binaries" "$(CURDIR)/target/reference" /usr/lib/cni "$(CURDIR)/target/bench" $(ONLY)

.PHONY: bench-page
bench-page: rust ## The tables of docs/performance.md, of the last three runs of make bench
	@benches/add_del/run page $$(ls -t target/bench/bench-*.json | head -3 | tac)

.PHONY: bench-compare
bench-compare: tools ## This tree beside an earlier commit, both as released, call by call in one run, with the floors beside them (REF=COMMIT)
	@test -n "$(REF)" || { echo "which commit? make bench-compare REF=HEAD~1" >&2; exit 2; }
	@demo/need git:git
	@earlier=$$(benches/add_del/binaries "$(REF)") && present=$$(benches/add_del/binaries) && \
		benches/add_del/run compare "$$earlier" "$$(git rev-parse --short "$(REF)")" "$$present" present

.PHONY: bench-micro count
bench-micro: rust ## Nanoseconds of allocation, record, annotations, parsing and planning, each by itself
	@cargo build --release --quiet --package flock-micro
	@$(BUILT)/flock-micro

count: build ## Instructions of the hot paths, which are the same on a busy machine: plugin, agent per call, and those parts
	@demo/need valgrind:valgrind ip:iproute2 unshare:util-linux
	@cargo build --release --quiet --package flock-micro
	@benches/micro/count $(CURDIR)/$(RELEASE) $(CURDIR)/$(BUILT)

test-kube: tools ## Stories with a real API server, which is built from its published modules the first time (needs Go)
	@demo/need setpriv:util-linux openssl:openssl
	@tests/kube/assets >/dev/null
	@cargo test --no-run --quiet --test kube
	@tests/sandbox cargo test --quiet --test kube -- --test-threads 2

.PHONY: test-policy
test-policy: tools ## Who may talk to whom, answered by packets, by the documentation and by cyclonus, which is built once (needs Go)
	@demo/need /usr/lib/cni/portmap:containernetworking-plugins iptables-legacy-restore:iptables
	@tests/policy/assets >/dev/null
	@cargo test --no-run --quiet --features failpoints --test policy
	@tests/sandbox cargo test --quiet --features failpoints --test policy -- --test-threads 2

.PHONY: test-metrics
test-metrics: tools ## Metrics, alerts and dashboard, judged by Debian's promtool, which is fetched the first time
	@demo/need dpkg-deb:dpkg python3:python3
	@tests/metrics/assets >/dev/null
	@cargo test --no-run --quiet --features failpoints --test metrics
	@tests/sandbox cargo test --quiet --features failpoints --test metrics

.PHONY: test-libcni test-runtimes
test-libcni: tools ## Stories with six releases of libcni and with the reference plugins, built the first time (needs Go)
	@demo/need /usr/lib/cni/portmap:containernetworking-plugins iptables:iptables tc:iproute2 sysctl:procps
	@tests/libcni/assets >/dev/null
	@cargo test --no-run --quiet --test libcni
	@tests/sandbox cargo test --quiet --test libcni -- --test-threads 2

test-runtimes: tools test-libcni ## Those, and stories with containerd 1 and 2 and podman on private hosts (needs root)
	@tests/runtimes/assets >/dev/null
	@cargo test --no-run --quiet --test runtimes
	@cargo test --quiet --test runtimes -- --test-threads 2

.PHONY: test-cluster test-e2e soak-cluster
test-cluster: tools ## Stories of two nodes with kubelet, containerd, kube-proxy and DNS, flock by DaemonSet and under systemd (needs root, and Go; STORY=policy)
	@demo/need setpriv:util-linux openssl:openssl jq:jq strip:binutils dpkg-deb:dpkg
	@for suite in kube runtimes routes cluster; do tests/$$suite/assets >/dev/null || exit; done
	@tests/kube/assets nodes >/dev/null
	@cargo test --no-run --quiet --test cluster
	@tests/cluster/run $(STORY)

soak-cluster: tools ## Such a cluster under load and under fire for an hour, with the oracle on both nodes and a prober (SOAK_MINUTES=60, SOAK_SEED=1)
	@demo/need setpriv:util-linux openssl:openssl jq:jq strip:binutils dpkg-deb:dpkg
	@for suite in kube runtimes routes cluster; do tests/$$suite/assets >/dev/null || exit; done
	@tests/kube/assets nodes >/dev/null
	@cargo test --no-run --quiet --test cluster
	@tests/cluster/run soak

test-e2e: tools ## Kubernetes' own tests of the network on such a cluster, half an hour long, and their list for docs/e2e.md (needs root, and Go)
	@demo/need setpriv:util-linux openssl:openssl jq:jq strip:binutils dpkg-deb:dpkg
	@demo/need conntrack:conntrack curl:curl wget:wget dig:bind9-dnsutils host:bind9-host nc.openbsd:netcat-openbsd busybox:busybox-static
	@for suite in kube runtimes routes cluster; do tests/$$suite/assets >/dev/null || exit; done
	@for set in nodes e2e; do tests/kube/assets $$set >/dev/null || exit; done
	@tests/cluster/assets e2e >/dev/null
	@cargo test --no-run --quiet --test cluster
	@tests/cluster/run e2e $(FOCUS)

test-systemd: tools ## Stories under the real systemd, which is booted on private hosts (needs root); BIRD is fetched the first time
	@demo/need python3:python3 /lib/systemd/systemd:systemd dpkg-deb:dpkg
	@tests/routes/assets >/dev/null
	@cargo test --no-run --quiet --features failpoints --test systemd
	@cargo test --quiet --features failpoints --test systemd -- --test-threads 2

.PHONY: test-routes bench-routes
test-routes: tools ## Stories of two nodes, a router and a client, with BIRD, FRR and a real API server; fetched and built the first time
	@demo/need dpkg-deb:dpkg setpriv:util-linux openssl:openssl
	@tests/routes/assets >/dev/null
	@tests/kube/assets >/dev/null
	@cargo test --no-run --quiet --test routes
	@tests/sandbox cargo test --quiet --test routes -- --test-threads 2

bench-routes: tools ## How fast routes are announced, withdrawn and learned with release binaries, and what is lost meanwhile (ONLY="peers")
	@demo/need dpkg-deb:dpkg setpriv:util-linux openssl:openssl
	@tests/routes/assets >/dev/null
	@tests/kube/assets >/dev/null
	@cargo bench --no-run --quiet --bench routes
	@tests/sandbox cargo bench --quiet --bench routes -- $(ONLY)

.PHONY: bench-policy
bench-policy: tools ## What policies and checks cost each packet, change and ADD, with release binaries, and what a revocation lets by (ONLY="add")
	@cargo bench --no-run --quiet --bench policy
	@tests/sandbox cargo bench --quiet --bench policy -- $(ONLY)

.PHONY: bench-operator
bench-operator: tools ## What it costs to look at a node of 250 pods: check, status, pods, explain, a scrape
	@cargo bench --no-run --quiet --bench operator
	@tests/sandbox cargo bench --quiet --bench operator

.PHONY: bench-watch
bench-watch: tools ## What it costs to know the pods that policies are about, of ten thousand on a thousand nodes, with a real API server
	@demo/need setpriv:util-linux openssl:openssl
	@tests/kube/assets >/dev/null
	@cargo bench --no-run --quiet --bench watch
	@tests/sandbox cargo bench --quiet --bench watch

.PHONY: bench-memory
bench-memory: tools ## What the agent's memory is for: at its start, with 110 pods and watches of a real API server, after a burst
	@demo/need setpriv:util-linux openssl:openssl
	@tests/kube/assets >/dev/null
	@cargo bench --no-run --quiet --bench memory
	@tests/sandbox cargo bench --quiet --bench memory

.PHONY: bench-scale
bench-scale: tools ## What a thousand agents cost a real API server: at a start of all, at rest, for each pod, edit and policy (ONLY="200 kill")
	@demo/need setpriv:util-linux openssl:openssl
	@tests/kube/assets >/dev/null
	@cargo bench --no-run --quiet --bench scale
	@tests/sandbox cargo bench --quiet --bench scale -- $(ONLY)

.PHONY: test-kernels
test-kernels: tools ## Stories on real kernels from the oldest on (5.10, 6.1, 6.12), booted by qemu without KVM; they are fetched once
	@demo/need qemu-system-x86_64:qemu-system-x86 dpkg-deb:dpkg xz:xz-utils
	@tests/kernels/assets >/dev/null
	@cargo test --no-run --quiet --features failpoints --test kernels
	@cargo test --quiet --features failpoints --test kernels -- $$(tests/kernels/assets | tr ' ' '=')

bench-kube: tools ## Memory of a release agent with two watches and 110 pods, and times to converge
	@tests/kube/assets >/dev/null
	@tests/sandbox cargo test --quiet --release --test kube -- --nocapture --test-threads 1 pods_and_configs a_node_config pods_come

lint: rust ## Format, clippy and documentation, with warnings denied
	cargo fmt --all --check
	cargo clippy --quiet --workspace -- -D warnings
	cargo clippy --quiet --workspace --all-targets --features failpoints -- -D warnings
	cargo clippy --quiet --features failpoints --test cluster --test dist --test kube --test kernels --test libcni --test metrics --test policy --test routes --test runtimes --test systemd --test soak --test mutants -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --quiet --no-deps --document-private-items

sizes: build ## What the binaries weigh, and how many crates the agent is made of
	@stat -c '%n %s bytes' $(RELEASE)/flock $(RELEASE)/flock-agent
	@echo "crates $$(cargo tree --edges normal --prefix none | sort -u | wc -l)"

tools: rust
	@demo/need cc:gcc ip:iproute2 unshare:util-linux column:bsdextrautils ping:iputils-ping nft:nftables iptables-legacy:iptables systemd-analyze:systemd

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "Rust 1.91 or newer is needed: https://rustup.rs" >&2; exit 1; }
