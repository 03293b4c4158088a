//! Echo requests by raw sockets, as the tool `ping` sends them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

/// How long an answer may take. A machine without hardware to help it shares a processor with others.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells the requests of one socket from those of another.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// Sockets in the namespace of the thread that made them.
pub struct Pinger {
    v4: OwnedFd,
    /// None where the kernel has no IPv6.
    v6: Option<OwnedFd>,
    id: u16,
    sequence: u16,
}

impl Pinger {
    pub fn here() -> Pinger {
        Pinger {
            v4: socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).expect("a raw socket"),
            v6: socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).ok(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        }
    }

    /// One packet there and back, without a second try.
    pub fn ping(&mut self, to: IpAddr) -> bool {
        self.ping_within(to, PATIENCE)
    }

    /// One packet there and back in this time, without a second try.
    pub fn ping_within(&mut self, to: IpAddr, limit: Duration) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let (socket, request, reply) = match to {
            IpAddr::V4(_) => (&self.v4, 8, 0),
            IpAddr::V6(_) => (self.v6.as_ref().expect("a kernel with IPv6"), 128, 129),
        };
        let mut packet = vec![request, 0, 0, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(b"flock");
        packet.push(0);
        // The kernel itself adds the checksum of IPv6.
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
        if sendto(socket, &packet, SendFlags::empty(), &SocketAddr::new(to, 0)).is_err() {
            return false;
        }
        let deadline = Instant::now() + limit;
        let mut buffer = [0u8; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("short");
            match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => panic!("poll: {error}"),
            }
            let (length, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT).expect("readable");
            // A raw socket of IPv4 shows the header of IP, too.
            let start = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
            let heard = buffer.get(start..length).unwrap_or_default();
            if heard.first() == Some(&reply) && heard.get(4..) == packet.get(4..) {
                return true;
            }
        }
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
