//! What a run of the plugin left, read as a runtime reads it: a result, or an error object. Starts nothing.

use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

/// What a run of the plugin left.
pub struct Outcome {
    pub output: Output,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("UTF-8 on standard output")
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output of a success.
    pub fn succeeded(&self) -> String {
        assert!(self.output.status.success(), "{}{}", self.stdout(), self.stderr());
        assert_eq!(self.stderr(), "", "a success says nothing on standard error");
        self.stdout()
    }

    /// The error object of a failure.
    pub fn failed(&self) -> CniError {
        let stdout = self.stdout();
        assert_eq!(self.output.status.code(), Some(1), "{stdout}{}", self.stderr());
        let object: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}"));
        let text = |key: &str| object[key].as_str().unwrap_or_else(|| panic!("{key}: {stdout}")).to_owned();
        let code = object["code"].as_u64().unwrap_or_else(|| panic!("code: {stdout}"));
        CniError { version: text("cniVersion"), code, msg: text("msg"), details: text("details") }
    }
}

/// An error object.
#[derive(Debug, PartialEq, Eq)]
pub struct CniError {
    pub version: String,
    pub code: u64,
    pub msg: String,
    pub details: String,
}

impl CniError {
    /// Message and details in one.
    pub fn text(&self) -> String {
        format!("{}; {}", self.msg, self.details)
    }
}

/// A result of ADD.
#[derive(Debug, Clone)]
pub struct Attached {
    pub result: Value,
}

impl Attached {
    fn address(&self, v6: bool) -> Option<IpAddr> {
        let texts = self.result["ips"].as_array()?.iter().filter_map(|ip| ip["address"].as_str());
        let ips = texts.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        ips.into_iter().find(|ip| ip.is_ipv6() == v6)
    }

    pub fn ipv6(&self) -> Option<IpAddr> {
        self.address(true)
    }

    pub fn ipv4(&self) -> Option<IpAddr> {
        self.address(false)
    }

    /// All addresses.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.ipv6().into_iter().chain(self.ipv4()).collect()
    }

    /// The name of the host end.
    pub fn host_link(&self) -> String {
        self.result["interfaces"][0]["name"].as_str().expect("a name").to_owned()
    }
}
