//! Addresses and prefixes as people write them: what they mean, and where they mean nothing, which slip it was and what to write.
//!
//! What other programs read in two ways is refused: a leading zero is octal for some and nothing for others, and an IPv4-mapped
//! address is of either family. Must not judge which addresses are good for what.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Why a text is no address or no prefix. Reads on from the text, and says what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slip {
    /// A number with a zero before it; the text without.
    LeadingZero(String),
    /// An IPv4-mapped IPv6 prefix.
    Mapped(Ipv4Net),
    /// A prefix without its length; one of usual length.
    NoLength(IpNet),
    /// A netmask in the place of the length.
    Netmask(IpNet),
    /// A length that is no number up to this one.
    Length(u8),
    /// A length where one address is meant; the address.
    HasLength(IpAddr),
    /// Not four numbers but so many.
    Parts(usize),
    /// A number above 255.
    Over255,
    /// The link of a link-local address.
    Zone,
    /// More than one.
    Several,
    /// A quotation mark, which is the text's own here.
    Quote(char),
    /// Nothing that one could name.
    Other,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slip::LeadingZero(plain) => {
                write!(f, "has a number with a leading zero, which some programs take for octal: write {plain}")
            }
            Slip::Mapped(net) if net.prefix_len() == 32 => {
                write!(f, "is IPv4 written as IPv6: write {}", net.addr())
            }
            Slip::Mapped(net) => write!(f, "is IPv4 written as IPv6: write {net}"),
            Slip::NoLength(net) => write!(f, "has no prefix length, such as the /{} of {net}", net.prefix_len()),
            Slip::Netmask(net) => write!(f, "has a netmask: write {net}"),
            Slip::Length(max) => write!(f, "has a prefix length that is no number from 0 to {max}"),
            Slip::HasLength(ip) => write!(f, "has a prefix length, and one address is meant: write {ip}"),
            Slip::Parts(count) => write!(f, "has {count} numbers, and an IPv4 address has 4"),
            Slip::Over255 => f.write_str("has a number above 255, which no part of an IPv4 address can be"),
            Slip::Zone => f.write_str("names a link behind a %: write the address alone"),
            Slip::Several => f.write_str("is more than one: write one"),
            Slip::Quote(mark) => write!(f, "has the quotation mark {mark} in it: use ' or \", or none"),
            Slip::Other => f.write_str("is no address such as 192.0.2.5 or 2001:db8::5, alone or with a prefix length"),
        }
    }
}

/// One address.
///
/// # Errors
/// [`Slip`].
pub fn address(text: &str) -> Result<IpAddr, Slip> {
    let ip = match text.parse() {
        Ok(ip) => ip,
        Err(_) => match prefix(text) {
            Ok(net) => return Err(Slip::HasLength(net.addr())),
            Err(Slip::NoLength(_)) => return Err(Slip::Other),
            Err(slip) => return Err(slip),
        },
    };
    match mapped(IpNet::from(ip)) {
        Some(net) => Err(Slip::Mapped(net)),
        None => Ok(ip),
    }
}

/// An address and a prefix length. Bits may be set behind the length.
///
/// # Errors
/// [`Slip`].
pub fn prefix(text: &str) -> Result<IpNet, Slip> {
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    if let Some(slip) = slip_of_characters(text) {
        return Err(slip);
    }
    if let Some(plain) = without_leading_zeros(ip, length) {
        return Err(Slip::LeadingZero(plain));
    }
    let ip: IpAddr = ip.parse().map_err(|_| slip_of_address(ip))?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let usual = if ip.is_ipv4() { 24 } else { 64 };
    let of = |length| IpNet::new(ip, length).map_err(|_| Slip::Length(max));
    let net = match length {
        None => return Err(Slip::NoLength(of(usual)?.trunc())),
        Some(length) if is_number(length) => of(length.parse().map_err(|_| Slip::Length(max))?)?,
        Some(mask) => {
            let net = mask.parse().ok().and_then(|mask| IpNet::with_netmask(ip, mask).ok());
            return Err(net.map_or(Slip::Length(max), Slip::Netmask));
        }
    };
    mapped(net).map_or(Ok(net), |net| Err(Slip::Mapped(net)))
}

/// The IPv4 prefix of one that lies in ::ffff:0:0/96.
fn mapped(net: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else { return None };
    let ip = net.addr().to_ipv4_mapped()?;
    Ipv4Net::new(ip, net.prefix_len().checked_sub(96)?).ok()
}

fn slip_of_characters(text: &str) -> Option<Slip> {
    let marks = ['"', '\'', '`', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201c}', '\u{201d}', '\u{201e}'];
    if let Some(mark) = text.chars().find(|c| marks.contains(c)) {
        return Some(Slip::Quote(mark));
    }
    if text.contains('%') {
        return Some(Slip::Zone);
    }
    let parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '-'));
    let parts = parts.filter(|part| !part.is_empty()).map(|part| part.split('/').next().unwrap_or_default());
    let parts: Vec<bool> = parts.map(|part| part.parse::<IpAddr>().is_ok()).collect();
    (parts.len() > 1 && parts.iter().all(|is_address| *is_address)).then_some(Slip::Several)
}

/// What `ip` and `length` would be without the zeros before their numbers, if they have any and are well-formed without.
fn without_leading_zeros(ip: &str, length: Option<&str>) -> Option<String> {
    let plain = |number: &str| match number.trim_start_matches('0') {
        "" if !number.is_empty() => String::from("0"),
        rest => rest.to_string(),
    };
    let parts: Vec<String> = ip.split('.').map(plain).collect();
    let plain_ip = match ip.contains(':') {
        // Zeros before the hexadecimal numbers of IPv6 mean nothing to anybody.
        true => ip.to_string(),
        false => parts.join("."),
    };
    let plain_length = length.filter(|length| is_number(length)).map(plain);
    let changed = plain_ip != ip || plain_length.as_deref().is_some_and(|plain| Some(plain) != length);
    let is_address = plain_ip.parse::<IpAddr>().is_ok();
    let length = plain_length.as_deref().or(length);
    (changed && is_address).then(|| length.map_or(plain_ip.clone(), |length| format!("{plain_ip}/{length}")))
}

fn slip_of_address(text: &str) -> Slip {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() < 2 || !parts.iter().all(|part| is_number(part)) {
        return Slip::Other;
    }
    if parts.len() == 4 { Slip::Over255 } else { Slip::Parts(parts.len()) }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_formed_is_read() {
        for good in
            ["10.0.0.0/8", "10.0.0.1/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:0db8::1/128", "fe80::1/64"]
        {
            let net = prefix(good).expect(good);
            assert_eq!(good.replace("0db8", "db8"), net.to_string());
        }
        for good in ["10.0.0.1", "0.0.0.0", "::", "fe80::1", "2001:0db8::0001"] {
            assert_eq!(address(good), good.parse().map_err(|_| Slip::Other), "{good}");
        }
    }

    #[test]
    fn a_slip_is_named_with_what_to_write() {
        for (text, says) in [
            ("10.025.214.0/24", "leading zero, which some programs take for octal: write 10.25.214.0/24"),
            ("010.0.0.0/8", "write 10.0.0.0/8"),
            ("10.0.0.00/8", "write 10.0.0.0/8"),
            ("10.0.0.0/08", "write 10.0.0.0/8"),
            ("2001:db8::/064", "write 2001:db8::/64"),
            ("::ffff:10.25.214.0/120", "is IPv4 written as IPv6: write 10.25.214.0/24"),
            ("::ffff:a19:d600/120", "write 10.25.214.0/24"),
            ("10.25.214.0", "has no prefix length, such as the /24 of 10.25.214.0/24"),
            ("2001:db8::1", "has no prefix length, such as the /64 of 2001:db8::/64"),
            ("10.25.214.0/255.255.255.0", "has a netmask: write 10.25.214.0/24"),
            ("10.25.214.0/255.0.255.0", "no number from 0 to 32"),
            ("2001:db8::/ffff::", "has a netmask: write 2001:db8::/16"),
            ("10.25.214.0/33", "no number from 0 to 32"),
            ("10.25.214.0/", "no number from 0 to 32"),
            ("10.25.214.0/999999999999", "no number from 0 to 32"),
            ("10.25.214.0/-1", "no number from 0 to 32"),
            ("10.25.214.0/+8", "no number from 0 to 32"),
            ("2001:db8::/129", "no number from 0 to 128"),
            ("10.25.214/24", "has 3 numbers, and an IPv4 address has 4"),
            ("10.25.214.0.0/24", "has 5 numbers"),
            ("10.25.256.0/24", "has a number above 255"),
            ("fe80::1%eth0/64", "names a link behind a %"),
            ("10.0.0.0/24, 10.0.1.0/24", "is more than one"),
            ("10.0.0.2-10.0.0.9", "is more than one"),
            ("10.0.0.0/24 2001:db8::/64", "is more than one"),
            ("\u{201c}10.0.0.0/24\u{201d}", "has the quotation mark \u{201c} in it"),
            ("'10.0.0.0/24'", "has the quotation mark '"),
            ("zebra", "is no address such as"),
            ("", "is no address such as"),
            ("fd00:::/64", "is no address such as"),
            ("example.com/24", "is no address such as"),
        ] {
            let slip = prefix(text).expect_err(text).to_string();
            assert!(slip.contains(says), "{text}: {slip}");
        }
        for (text, says) in [
            ("203.0.113.5/32", "has a prefix length, and one address is meant: write 203.0.113.5"),
            ("203.0.113.005", "write 203.0.113.5"),
            ("::ffff:203.0.113.5", "is IPv4 written as IPv6: write 203.0.113.5"),
            ("fe80::1%eth0", "write the address alone"),
            ("203.0.113", "has 3 numbers"),
            ("localhost", "is no address such as"),
            ("", "is no address such as"),
        ] {
            let slip = address(text).expect_err(text).to_string();
            assert!(slip.contains(says), "{text}: {slip}");
        }
    }
}
