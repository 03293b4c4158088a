//! Everything of a host that a CNI could touch, as one text, for tests that nothing may change. Judges nothing.

use super::host::Host;
use super::programs::succeed;

impl Host {
    /// Everything of the host that a CNI could touch, as text. Two of them are equal if nothing was.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for line in [
            "ip -d -j link",
            "ip -j addr",
            "ip -j -4 route show table all",
            "ip -j -6 route show table all",
            "ip -j -4 rule",
            "ip -j -6 rule",
            "ip -j neigh",
            "nft list ruleset",
        ] {
            text.push_str(&format!("## {line}\n{}\n", self.run(line)));
        }
        let sysctls = succeed(self.command("sh").args([
            "-c",
            "cd /proc/sys/net && find . -type f -perm -400 | sort | grep -v -e nf_conntrack_count -e random -e secret | \
             while read -r f; do printf '%s=' \"$f\"; cat \"$f\" 2>/dev/null || echo; done",
        ]));
        text.push_str("## sysctl\n");
        text.push_str(&sysctls);
        text.push_str("## mounts\n");
        // Namespaces of pods are mounts, too, which come and go with the runtime.
        text.push_str(&self.run("grep -v /run/netns /proc/self/mountinfo"));
        text.push_str("## CNI configurations\n");
        text.push_str(&succeed(self.command("sh").args([
            "-c",
            "find /etc/cni /run/net.d -exec stat -c '%n %F %a %s %y' {} + -type f -exec cat {} + 2>/dev/null | sort",
        ])));
        text
    }
}
