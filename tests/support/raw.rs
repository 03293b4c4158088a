//! Packets as a pod sends them that may send anything: with any source, and frames of any kind.
//!
//! Perl, which every Debian has, writes the frames: the library of this project's tests has no way to name a link to the kernel
//! that is safe.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use flock::kernel::netns::Netns;

use super::pod::Pod;
use super::programs::succeed;
use super::waiting::PATIENCE;
use crate::support::inside::Inside as _;

/// The port to which [`Pod::speaks_as`] sends.
pub const PORT: u16 = 7070;

/// Opens a packet socket, and has `$eth0` for where to send to. `mac`, `pack` and the like are Perl's.
const OPEN: &str = r#"
socket(my $s, 17, 3, 0) or die "socket: $!";
open(my $f, "<", "/sys/class/net/eth0/ifindex") or die; my $index = <$f>; chomp $index;
open($f, "<", "/sys/class/net/eth0/address") or die; my $own = <$f>; $own =~ s/[:\s]//g; $own = pack("H12", $own);
my $to = pack("S n l S C C a8", 17, 3, $index, 0, 0, 6, "");
sub out { send($s, $_[0], 0, $to) or die "send: $!"; }
sub sum { my $n = 0; $n += $_ for unpack("n*", $_[0] . "\0"); $n = ($n >> 16) + ($n & 0xffff) while $n >> 16; return pack("n", ~$n & 0xffff); }
sub icmp6 { my ($src, $dst, $body) = @_;
    my $sum = sum($src . $dst . pack("N N", length $body, 58) . $body);
    substr($body, 2, 2) = $sum;
    out("\x33\x33\xff\0\0\x01" . $own . "\x86\xdd" . pack("N n C C", 6 << 28, length $body, 58, 255) . $src . $dst . $body); }
"#;

impl Pod<'_> {
    /// Runs Perl in the pod, with a way to send frames by `eth0`.
    fn perl(&self, text: &str) {
        let script = format!("{OPEN}{text}");
        succeed(self.host.command("ip").args(["netns", "exec", &self.name, "perl", "-we", &script]));
    }

    /// Asks by ARP for the gateway, with so many senders from 10.99.0.0 on.
    pub fn floods_arp(&self, gateway: IpAddr, senders: u16) {
        let IpAddr::V4(gateway) = gateway else { panic!("{gateway}") };
        let target = gateway.octets().map(|byte| byte.to_string()).join(",");
        self.perl(&format!(
            r#"for my $n (1..{senders}) {{ out("\xff" x 6 . $own . "\x08\x06" . pack("n n C C n", 1, 0x800, 6, 4, 1) . $own
            . pack("C n C", 10, 99 << 8 | $n >> 8, $n & 255) . "\0" x 6 . pack("C4", {target})); }}"#
        ));
    }

    /// Solicits the gateway fe80::1, with so many sources of fe80::aa:0/112.
    pub fn floods_solicitations(&self, senders: u16) {
        self.perl(&format!(
            r#"my $gw = pack("n8", 0xfe80, 0, 0, 0, 0, 0, 0, 1);
            for my $n (1..{senders}) {{ icmp6(pack("n8", 0xfe80, 0, 0, 0, 0, 0, 0xaa, $n), pack("n8", 0xff02, 0, 0, 0, 0, 1, 0xff00, 1),
            pack("C C n N", 135, 0, 0, 0) . $gw . "\x01\x01" . $own); }}"#
        ));
    }

    /// Sends a router advertisement and a redirect from its own link-local address to the host.
    pub fn advertises_itself_as_a_router(&self) {
        self.perl(
            r#"my ($a, $b, $c, $d, $e, $g) = unpack("C6", $own);
            my $src = pack("n4 C8", 0xfe80, 0, 0, 0, $a ^ 2, $b, $c, 0xff, 0xfe, $d, $e, $g);
            my $all = pack("n8", 0xff02, 0, 0, 0, 0, 0, 0, 1);
            icmp6($src, $all, pack("C C n C C n N N", 134, 0, 0, 64, 0, 1800, 0, 0));
            icmp6($src, $all, pack("C C n N", 137, 0, 0, 0) . $src . $all);"#,
        );
    }

    /// Which of these sources arrive at `listener` when the pod sends one packet from each, which its interface has been given. The
    /// last one has to be one that arrives, as it tells that nothing else will.
    pub fn speaks_as(&self, sources: &[IpAddr], listener: &Listener) -> Vec<IpAddr> {
        let netns = Netns::open(&self.netns()).expect("a namespace");
        for ip in sources {
            let send = || UdpSocket::bind((*ip, 0)).and_then(|socket| socket.send_to(b"x", (listener.ip, PORT)));
            netns.run(send).expect("entered").unwrap_or_else(|error| panic!("{} as {ip}: {error}", self.name));
        }
        let (mut heard, mut packet) = (Vec::new(), [0; 8]);
        let last = sources.last().expect("some");
        while heard.last() != Some(last) {
            let (_, from) = listener.socket.recv_from(&mut packet).expect("the last of them arrives");
            heard.push(from.ip());
        }
        heard
    }
}

/// Hears packets for one address.
pub struct Listener {
    ip: IpAddr,
    socket: UdpSocket,
}

impl Listener {
    /// Hears what comes to `ip`, an address of this namespace.
    pub fn at(netns: &Path, ip: IpAddr) -> Listener {
        let bind = || UdpSocket::bind((ip, PORT)).expect("an own address");
        let socket = Netns::open(netns).expect("a namespace").run(bind).expect("entered");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Listener { ip, socket }
    }
}
