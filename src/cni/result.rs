//! The CNI result: made by the agent in one shape, printed by the plugin in the version that was asked for.
//!
//! One set of types serves the agent's answer, the plugin's output and the runtime's `prevResult`: the five versions
//! differ in four keys only. Reading is tolerant, because others wrote the text; [`WireResult::to_json`] is strict,
//! because some results crash a runtime. Nothing here knows how an interface is made.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Display;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Code, Error};
use crate::version::Version;
use model::addr::{GATEWAY6, IfName, Mac};
use model::excerpt::Excerpt;

/// What the agent has made for one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddResult {
    /// The host end.
    pub host_link: IfName,
    /// Its hardware address.
    pub host_mac: Mac,
    /// The pod end.
    pub ifname: IfName,
    /// Its hardware address.
    pub pod_mac: Mac,
    /// `CNI_NETNS`, byte for byte.
    pub netns: String,
    /// Of both ends.
    pub mtu: u32,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The next hop of its IPv4 default route.
    pub gateway4: Ipv4Addr,
}

impl AddResult {
    /// The result in the newest shape, which is what travels from the agent to the plugin.
    ///
    /// IPv6 comes first. containerd takes the first IPv4 as the primary address in whatever order they come, kubelet
    /// sorts by the node's family, and where the order does count (CRI-O without kubelet) IPv6 is what this project is
    /// for.
    pub fn to_wire(&self) -> WireResult {
        let end = |name: &IfName, mac: Mac, sandbox: &str| Interface {
            name: name.to_string(),
            mac: mac.to_string(),
            mtu: Some(self.mtu),
            sandbox: sandbox.to_string(),
        };
        // The pod's end stands second in `interfaces`.
        let ip =
            |address: IpNet, gateway: IpAddr| Ip { version: None, address, interface: Some(1), gateway: Some(gateway) };
        let route = |dst: IpNet, gw: IpAddr| Route { dst, gw: Some(gw) };
        let (gateway6, gateway4) = (IpAddr::V6(GATEWAY6), IpAddr::V4(self.gateway4));
        let mut result = WireResult {
            cni_version: Version::NEWEST.to_string(),
            interfaces: vec![end(&self.host_link, self.host_mac, ""), end(&self.ifname, self.pod_mac, &self.netns)],
            ..WireResult::default()
        };
        if let Some(ipv6) = self.ipv6 {
            result.ips.push(ip(Ipv6Net::from(ipv6).into(), gateway6));
            result.routes.push(route(Ipv6Net::default().into(), gateway6));
        }
        if let Some(ipv4) = self.ipv4 {
            result.ips.push(ip(Ipv4Net::from(ipv4).into(), gateway4));
            result.routes.push(route(Ipv4Net::default().into(), gateway4));
        }
        result
    }
}

/// A result as text has it. Unknown keys are dropped; a list that is `null` or absent is empty.
///
/// Read from outside, it may be anything: an index may point nowhere ([`WireResult::interface_of`] is the safe
/// look-up).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireResult {
    /// The version that the text claims. Not to be relied on; printing sets it.
    #[serde(rename = "cniVersion", default)]
    pub cni_version: String,
    /// Every interface, also those on the host.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Every address.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// Every route.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name servers; flock gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// One of `interfaces[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its hardware address; empty when not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU (1.1.0 and newer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of its namespace; empty for one on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// One of `ips[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// `4` or `6`, as text, in versions up to 0.4.0. Printing sets it, reading ignores it: the address says the same.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// Address and prefix length.
    #[serde(with = "as_text")]
    pub address: IpNet,
    /// Index into `interfaces`; others may write -1 for none (0.3.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// One of `routes[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    #[serde(with = "as_text")]
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// `dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl WireResult {
    /// Reads a result of any of the five versions, also one that another implementation of the agent made.
    ///
    /// # Errors
    /// [`Code::Internal`]: the text is not a result. Whether it may be printed is found out by printing it.
    pub fn from_json(text: &str) -> Result<WireResult, Error> {
        let broken = |e: serde_json::Error| {
            Error::new(Code::Internal, "the agent's answer is not a CNI result").with_details(e.to_string())
        };
        WireResult::read(text).map_err(broken)
    }

    /// Reads a result for somebody who has an error of his own.
    pub(super) fn read(text: &str) -> Result<WireResult, serde_json::Error> {
        // Serde takes a list for a struct, member by member, and an empty list for one that is all defaults.
        if text.trim_ascii_start().starts_with('[') {
            return Err(de::Error::custom("a list where an object is due"));
        }
        serde_json::from_str(text)
    }

    /// The interface that an address of this result belongs to, if its index points to one.
    pub fn interface_of(&self, ip: &Ip) -> Option<&Interface> {
        self.interfaces.get(usize::try_from(ip.interface?).ok()?)
    }

    /// The text for stdout, one line without its end: exactly the keys of `version`, and its `cniVersion`.
    ///
    /// # Errors
    /// [`Code::Internal`] for a result that would harm a runtime: without an address (taken for success without a
    /// network), with an interface index that points nowhere (containerd's CNI library reads out of bounds), with an
    /// IPv4-mapped IPv6 address (Go programs take it for IPv4).
    pub fn to_json(&self, version: Version) -> Result<String, Error> {
        self.check()?;
        let up_to_0_4 = version <= Version::V0_4_0;
        let mut result = self.clone();
        result.cni_version = version.to_string();
        for interface in &mut result.interfaces {
            interface.mtu = interface.mtu.filter(|mtu| version >= Version::V1_1_0 && *mtu > 0);
        }
        for ip in &mut result.ips {
            let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
            ip.version = up_to_0_4.then_some(family);
        }
        // The older ones always had the key.
        let dns = result.dns.take().unwrap_or_default();
        result.dns = (up_to_0_4 || dns != Dns::default()).then_some(dns);
        serde_json::to_string(&result).map_err(|e| unfit(e.to_string()))
    }

    fn check(&self) -> Result<(), Error> {
        if self.ips.is_empty() {
            return Err(unfit("it has no address"));
        }
        for ip in &self.ips {
            if ip.interface.is_some() && self.interface_of(ip).is_none() {
                let (index, count) = (ip.interface.unwrap_or_default(), self.interfaces.len());
                return Err(unfit(format!("{} is on interface {index} of {count}", ip.address)));
            }
            if is_mapped(ip.address.addr()) || ip.gateway.is_some_and(is_mapped) {
                return Err(unfit(format!("{} or its gateway is an IPv4-mapped IPv6 address", ip.address)));
            }
        }
        if let Some(nameless) = self.interfaces.iter().find(|interface| interface.name.is_empty()) {
            return Err(unfit(format!("an interface with sandbox {} has no name", Excerpt::of(&nameless.sandbox))));
        }
        Ok(())
    }
}

fn unfit(why: impl AsRef<str>) -> Error {
    Error::new(Code::Internal, "the agent's result cannot be given to a runtime").with_details(why)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Go programs print a list without members as `null` where nobody told them otherwise.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Serde by way of `Display` and `FromStr`.
mod as_text {
    use super::*;

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dual() -> AddResult {
        AddResult {
            host_link: "flock1a2b3c4d".parse().expect("literal"),
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            ifname: "eth0".parse().expect("literal"),
            pod_mac: Mac([2, 0, 0, 0, 0, 0xab]),
            netns: "/run/netns/a b".into(),
            mtu: 1500,
            ipv6: Some("2001:db8::5".parse().expect("literal")),
            ipv4: Some("10.0.0.5".parse().expect("literal")),
            gateway4: model::addr::GATEWAY4,
        }
    }

    fn print(result: &AddResult, version: Version) -> String {
        result.to_wire().to_json(version).expect("a printable result")
    }

    // covers: R-01 R-03 R-04 R-08 R-09 R-11 R-13 R-14 R-15 E-19
    #[test]
    fn a_dual_stack_result_in_every_version() {
        let routes = r#""routes":[{"dst":"::/0","gw":"fe80::1"},{"dst":"0.0.0.0/0","gw":"169.254.1.1"}]"#;
        for version in ["0.3.0", "0.3.1", "0.4.0"] {
            let golden = [
                &format!(r#"{{"cniVersion":"{version}","#),
                r#""interfaces":[{"name":"flock1a2b3c4d","mac":"02:00:00:00:00:01"},"#,
                r#"{"name":"eth0","mac":"02:00:00:00:00:ab","sandbox":"/run/netns/a b"}],"#,
                r#""ips":[{"version":"6","address":"2001:db8::5/128","interface":1,"gateway":"fe80::1"},"#,
                r#"{"version":"4","address":"10.0.0.5/32","interface":1,"gateway":"169.254.1.1"}],"#,
                routes,
                r#","dns":{}}"#,
            ];
            assert_eq!(print(&dual(), Version::from_text(version).expect("a version")), golden.concat());
        }
        let golden = [
            r#"{"cniVersion":"1.0.0","#,
            r#""interfaces":[{"name":"flock1a2b3c4d","mac":"02:00:00:00:00:01"},"#,
            r#"{"name":"eth0","mac":"02:00:00:00:00:ab","sandbox":"/run/netns/a b"}],"#,
            r#""ips":[{"address":"2001:db8::5/128","interface":1,"gateway":"fe80::1"},"#,
            r#"{"address":"10.0.0.5/32","interface":1,"gateway":"169.254.1.1"}],"#,
            routes,
            "}",
        ];
        assert_eq!(print(&dual(), Version::V1_0_0), golden.concat());
        let golden = [
            r#"{"cniVersion":"1.1.0","#,
            r#""interfaces":[{"name":"flock1a2b3c4d","mac":"02:00:00:00:00:01","mtu":1500},"#,
            r#"{"name":"eth0","mac":"02:00:00:00:00:ab","mtu":1500,"sandbox":"/run/netns/a b"}],"#,
            r#""ips":[{"address":"2001:db8::5/128","interface":1,"gateway":"fe80::1"},"#,
            r#"{"address":"10.0.0.5/32","interface":1,"gateway":"169.254.1.1"}],"#,
            routes,
            "}",
        ];
        assert_eq!(print(&dual(), Version::V1_1_0), golden.concat());
    }

    // covers: R-04 R-14
    #[test]
    fn one_family_has_one_address_and_one_route() {
        let v6 = print(&AddResult { ipv4: None, ..dual() }, Version::V1_0_0);
        let golden = concat!(
            r#""ips":[{"address":"2001:db8::5/128","interface":1,"gateway":"fe80::1"}],"#,
            r#""routes":[{"dst":"::/0","gw":"fe80::1"}]}"#
        );
        assert!(v6.ends_with(golden), "{v6}");
        let v4 = print(&AddResult { ipv6: None, ..dual() }, Version::V1_0_0);
        let golden = concat!(
            r#""ips":[{"address":"10.0.0.5/32","interface":1,"gateway":"169.254.1.1"}],"#,
            r#""routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}]}"#
        );
        assert!(v4.ends_with(golden), "{v4}");
    }

    // covers: R-18
    #[test]
    fn a_result_survives_the_way_through_any_two_versions() {
        let wire = dual().to_wire();
        for first in Version::ALL {
            let once = WireResult::from_json(&wire.to_json(first).expect("printable")).expect("readable");
            assert_eq!(once.ips.len(), 2);
            for second in Version::ALL.into_iter().filter(|v| first >= Version::V1_1_0 || *v < Version::V1_1_0) {
                assert_eq!(once.to_json(second), wire.to_json(second), "{first} to {second}");
            }
        }
        let line = serde_json::to_string(&wire).expect("serialises");
        assert_eq!(WireResult::from_json(&line), Ok(wire));
    }

    // covers: R-02 R-09
    #[test]
    fn a_result_of_another_agent_is_understood() {
        let text = r#"{"interfaces":[{"name":"eth0","mac":"aa:bb:cc:dd:ee:ff","sandbox":"/n","pciID":"x"}],
            "ips":[{"interface":0,"address":"10.0.0.3/32","gateway":"169.254.1.1"},{"address":"2001:db8::3/128"}],
            "routes":null,"dns":{"nameservers":null,"search":["a"]},"extra":{"a":[]}}"#;
        let result = WireResult::from_json(text).expect("a result");
        let golden = [
            r#"{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","mac":"aa:bb:cc:dd:ee:ff","sandbox":"/n"}],"#,
            r#""ips":[{"version":"4","address":"10.0.0.3/32","interface":0,"gateway":"169.254.1.1"},"#,
            r#"{"version":"6","address":"2001:db8::3/128"}],"dns":{"search":["a"]}}"#,
        ];
        assert_eq!(result.to_json(Version::V0_4_0), Ok(golden.concat()));
        let names: Vec<_> = result.ips.iter().map(|ip| result.interface_of(ip).map(|i| i.name.as_str())).collect();
        assert_eq!(names, [Some("eth0"), None]);
    }

    // covers: A-14 R-05 R-10 R-17
    #[test]
    fn what_would_harm_a_runtime_is_never_printed() {
        let with_ip = |ip: &str| format!(r#"{{"interfaces":[{{"name":"eth0"}}],"ips":[{ip}]}}"#);
        for (text, why) in [
            ("{}".to_string(), "no address"),
            (r#"{"interfaces":[{"name":"eth0"}],"ips":[]}"#.into(), "no address"),
            (with_ip(r#"{"address":"10.0.0.3/32","interface":1}"#), "interface 1 of 1"),
            (with_ip(r#"{"address":"10.0.0.3/32","interface":-1}"#), "interface -1 of 1"),
            (with_ip(r#"{"address":"10.0.0.3/32","interface":9223372036854775807}"#), "of 1"),
            (with_ip(r#"{"address":"::ffff:10.0.0.3/128","interface":0}"#), "IPv4-mapped"),
            (with_ip(r#"{"address":"2001:db8::3/128","gateway":"::ffff:10.0.0.1"}"#), "IPv4-mapped"),
            (r#"{"interfaces":[{}],"ips":[{"address":"10.0.0.3/32"}]}"#.into(), "no name"),
        ] {
            for version in Version::ALL {
                let error = WireResult::from_json(&text).and_then(|r| r.to_json(version)).expect_err(&text);
                assert_eq!(error.code(), Code::Internal);
                assert!(error.details().contains(why), "{error}");
            }
        }
        let none = AddResult { ipv6: None, ipv4: None, ..dual() };
        assert!(none.to_wire().to_json(Version::V1_1_0).is_err());
    }

    // covers: R-15
    #[test]
    fn what_is_no_result_is_refused() {
        for bad in [
            "",
            "null",
            "[]",
            "{",
            r#"{"ips":{}}"#,
            r#"{"ips":[{"address":"10.0.0.3"}]}"#,
            r#"{"ips":[{"address":"10.0.0.3/33"}]}"#,
            r#"{"ips":[{"address":"10.0.0.3/32","interface":1.5}]}"#,
            r#"{"ips":[{"address":"10.0.0.3/32","interface":"0"}]}"#,
            r#"{"ips":[{"interface":0}]}"#,
            r#"{"routes":[{"gw":"fe80::1"}]}"#,
        ] {
            assert_eq!(WireResult::from_json(bad).expect_err(bad).code(), Code::Internal);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // covers: R-04 R-05 R-09 R-10 R-17
        #[test]
        fn every_printed_index_points_to_an_interface(
            interfaces in 0usize..4,
            ips in prop::collection::vec((any::<IpAddr>(), prop::option::of(-3i64..6)), 0..4),
            version in prop::sample::select(Version::ALL.to_vec()),
        ) {
            let interface = Interface { name: "eth0".into(), mtu: Some(1400), ..Interface::default() };
            let ip = |(address, interface): (IpAddr, Option<i64>)| {
                Ip { version: None, address: address.into(), interface, gateway: None }
            };
            let result = WireResult {
                interfaces: vec![interface; interfaces],
                ips: ips.into_iter().map(ip).collect(),
                ..WireResult::default()
            };
            if let Ok(text) = result.to_json(version) {
                let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
                prop_assert_eq!(json["cniVersion"].as_str(), Some(version.as_str()));
                for ip in json["ips"].as_array().expect("ips") {
                    let index = ip.get("interface").map(|i| i.as_u64().expect("not negative"));
                    prop_assert!(index.is_none_or(|i| (i as usize) < interfaces));
                    let address: IpNet = ip["address"].as_str().expect("text").parse().expect("CIDR");
                    prop_assert!(!is_mapped(address.addr()));
                    let family = if address.addr().is_ipv4() { "4" } else { "6" };
                    let expected = (version <= Version::V0_4_0).then_some(family);
                    prop_assert_eq!(ip.get("version").and_then(|v| v.as_str()), expected);
                }
                prop_assert_eq!(text.contains("mtu"), version == Version::V1_1_0 && interfaces > 0);
            }
        }
    }

    #[test]
    fn the_gateway_is_the_one_that_the_pod_has() {
        let gateway4 = Ipv4Addr::new(169, 254, 9, 9);
        let wire = AddResult { gateway4, ..dual() }.to_wire();
        let [six, four] = [true, false].map(|v6| wire.ips.iter().find(|ip| ip.address.addr().is_ipv6() == v6));
        assert_eq!(six.and_then(|ip| ip.gateway), Some(GATEWAY6.into()));
        assert_eq!(four.and_then(|ip| ip.gateway), Some(gateway4.into()));
        assert!(wire.routes.iter().any(|route| route.gw == Some(gateway4.into())), "{:?}", wire.routes);
    }
}
