//! Flock's own tables in the packet filter while no agent looks after them.
//!
//! What they have to hold only an agent knows; that they are there is seen. Must not look while one runs, which judges them itself.

use std::time::Instant;

use crate::kernel::nftables::NftError;
use crate::kernel::nftables::socket::Nftables;
use crate::operator::check::finding::{Area, Finding};
use model::guard::{ARP, FILTER, LINKS};
use model::masquerade::{MASQUERADE4, MASQUERADE6};
use model::ruleset::{Form, TableKey};

/// What is to be said of the tables of a node that has pods or not.
pub fn look(has_pods: bool, deadline: Instant) -> Vec<Finding> {
    match seen(has_pods, deadline) {
        Ok(found) => found,
        Err(error) if error.is_absent() => Vec::new(),
        Err(error) => vec![Finding::warn(Area::Policy, format!("flock's tables were not looked at: {error}"))],
    }
}

fn seen(has_pods: bool, deadline: Instant) -> Result<Vec<Finding>, NftError> {
    let mut nft = Nftables::open()?;
    let mut found = Vec::new();
    let mut is_there = |key: TableKey| {
        let shown = nft.read(key, deadline)?;
        if shown.as_ref().is_some_and(|shown| shown.is_dormant()) {
            let what = format!("nftables {key} is dormant, so nothing of it is in force");
            found.push(Finding::fail(Area::Policy, what).repairable());
        }
        // A filter that checks no sources has nothing to do with ARP.
        let checks = |form| shown.as_ref().is_some_and(|shown| shown.elements(LINKS, form).is_some());
        let checks = [true, false].into_iter().any(|counted| checks(Form::Links { counted }));
        Ok::<_, NftError>((shown.is_some(), checks))
    };
    let ((filter, checks), (arp, _)) = (is_there(FILTER)?, is_there(ARP)?);
    is_there(MASQUERADE4)?;
    is_there(MASQUERADE6)?;
    let missing = |key: TableKey| {
        let what = format!("nftables {key} is missing, so pods send with whatever addresses they like");
        Finding::fail(Area::Policy, what).repairable()
    };
    match (filter, arp) {
        _ if !has_pods => {}
        (false, true) => found.push(missing(FILTER)),
        (true, false) if checks => found.push(missing(ARP)),
        (false, false) => {
            let what = format!(
                "nftables {FILTER} is missing: unless spec.sourceCheck is off, pods send with whatever addresses they like, and no \
                 NetworkPolicy is in force"
            );
            found.push(Finding::warn(Area::Policy, what).repairable());
        }
        (true, _) => {}
    }
    Ok(found)
}
