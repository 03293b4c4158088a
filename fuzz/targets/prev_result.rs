//! A CNI result that somebody else made: `prevResult`, and the answer of another agent.

use cni::error::Code;
use cni::result::WireResult;
use cni::version::Version;
use ipnet::IpNet;
use serde_json::Value;

use super::assert_fit_for_a_runtime;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let result = match WireResult::from_json(text) {
        Ok(result) => result,
        Err(error) => {
            assert_eq!(error.code(), Code::Internal);
            return assert_fit_for_a_runtime(&error);
        }
    };
    let whole = serde_json::to_string(&result).expect("what was read can be written");
    assert_eq!(WireResult::from_json(&whole).as_ref(), Ok(&result));
    for ip in &result.ips {
        let found = result.interface_of(ip).is_some();
        let expected =
            ip.interface.is_some_and(|index| usize::try_from(index).is_ok_and(|i| i < result.interfaces.len()));
        assert_eq!(found, expected);
    }
    for version in Version::ALL {
        match result.to_json(version) {
            Ok(printed) => assert_harmless(&printed, version, text),
            Err(error) => {
                assert_eq!(error.code(), Code::Internal);
                assert_fit_for_a_runtime(&error);
            }
        }
    }
}

/// What goes to a runtime keeps the rules that runtimes crash without.
fn assert_harmless(printed: &str, version: Version, text: &str) {
    assert!(!printed.contains('\n'), "one line");
    // Each address may get its family, and one of the older versions its `dns`.
    assert!(printed.len() <= 4 * text.len() + 200, "{} bytes became {}", text.len(), printed.len());
    let json: Value = serde_json::from_str(printed).expect("a result is JSON");
    assert_eq!(json["cniVersion"], version.as_str());
    let interfaces = json["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ips = json["ips"].as_array().expect("a result has addresses");
    assert!(!ips.is_empty());
    for ip in ips {
        if let Some(index) = ip.get("interface") {
            assert!((index.as_u64().expect("not negative") as usize) < interfaces.len());
        }
        assert_eq!(ip.get("version").is_some(), version <= Version::V0_4_0);
        let address: IpNet = ip["address"].as_str().expect("text").parse().expect("an address with its length");
        assert_eq!(address.addr().to_canonical(), address.addr(), "Go programs take it for IPv4");
    }
    for interface in interfaces {
        assert_ne!(interface["name"], "");
        assert!(interface.get("mtu").is_none_or(|mtu| version >= Version::V1_1_0 && mtu.as_u64() != Some(0)));
    }
    let again = WireResult::from_json(printed).expect("what was printed can be read");
    assert_eq!(again.to_json(version).as_deref(), Ok(printed));
}
