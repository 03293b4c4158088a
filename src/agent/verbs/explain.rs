//! The answer to `flock-agent explain`: what the thread of the tables says, beside what the kernel shows and counts.
//!
//! The kernel is read here, on the thread of the question, so that no ADD waits for it. Must not change anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::agent::policing::handle::{Explained, Police, Unexplained};
use crate::kernel::nftables::socket::Nftables;
use crate::kernel::nftables::{Count, NftError};
use crate::rpc::message::{Explanation, Passage, Response};
use cni::error::Code;
use model::asked::{Asked, Counted, Counter};
use model::guard::{ARP, FILTER, LINKS};
use model::ruleset::{Element, Ruleset, Table, TableKey};

/// Most questions that are answered at once: for each, what is wanted is in memory once more.
const AT_ONCE: usize = 2;

/// Whether the kernel shows what is wanted.
#[derive(Debug)]
enum Agreement {
    Same,
    /// The first difference.
    Differs(String),
    /// It is not known in full what is wanted.
    Unknown,
    /// The kernel did not say.
    Unasked(NftError),
}

/// The answer to `query`, of which `busy` counts how many are at work.
pub(super) fn answer(police: &Police, busy: &AtomicUsize, query: &Passage, deadline: Instant) -> Response {
    let failed = |code: Code, why: String| Response::failed(code.number(), why, "");
    let asked = match Asked::read(&query.from, &query.to, query.port.as_deref()) {
        Ok(asked) => asked,
        Err(why) => return failed(Code::InvalidEnvironment, why.to_string()),
    };
    let others = busy.fetch_add(1, Ordering::Relaxed);
    let explained = match others < AT_ONCE {
        true => explained(police, &asked, deadline),
        false => Err(Unexplained::NotYet("others are asking; ask again")),
    };
    busy.fetch_sub(1, Ordering::Relaxed);
    let encoded = match explained {
        Ok(explanation) => Response::told(&explanation),
        Err(Unexplained::Unanswerable(why)) => return failed(Code::InvalidEnvironment, why.to_string()),
        Err(Unexplained::NotYet(why)) => return failed(Code::TryAgainLater, why.into()),
    };
    encoded.unwrap_or_else(|error| failed(Code::Internal, error.to_string()))
}

/// Lays the kernel beside what the thread says. What differs may have been changed in between, so the thread is asked again, until
/// it says the same before and behind the look at the kernel.
fn explained(police: &Police, asked: &Asked, deadline: Instant) -> Result<Explanation, Unexplained> {
    let mut said = police.explain(asked, deadline)?;
    let agreement = loop {
        let Some(wanted) = &said.wanted else { break Agreement::Unknown };
        let agreement = match difference(wanted, deadline) {
            Ok(None) => break Agreement::Same,
            Ok(Some(what)) => Agreement::Differs(what),
            Err(error) => Agreement::Unasked(error),
        };
        let again = police.explain(asked, deadline)?;
        if again.wanted == said.wanted || Instant::now() >= deadline {
            break agreement;
        }
        said = again;
    };
    let Explained { answer, notes, .. } = said;
    let mut lines = Vec::new();
    match Nftables::open() {
        Ok(mut nft) => {
            let counters = answer.counters.iter();
            lines.extend(counters.map(|counter| counted(&mut nft, counter, deadline)));
        }
        Err(error) => lines.push(format!("counters: {error}")),
    }
    lines.push(match agreement {
        Agreement::Same => "kernel: shows what flock-agent wants".into(),
        Agreement::Differs(what) => format!("kernel: differs from what flock-agent wants, which it puts back: {what}"),
        Agreement::Unknown => {
            "kernel: not compared, as flock-agent does not know yet all that is to stand there".into()
        }
        Agreement::Unasked(error) => format!("kernel: cannot be asked: {error}"),
    });
    lines.extend(notes.into_iter().map(|note| format!("note: {note}")));
    let text = lines.into_iter().fold(answer.text, |text, line| text + &line + "\n");
    Ok(Explanation { passes: answer.passes, text })
}

/// The first difference between what the kernel shows and what is wanted.
fn difference(wanted: &Ruleset, deadline: Instant) -> Result<Option<String>, NftError> {
    let mut nft = Nftables::open()?;
    for key in [FILTER, ARP] {
        let wanted = wanted.get(&key);
        if let Some(what) = table_differs(&mut nft, key, wanted, deadline)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn table_differs(
    nft: &mut Nftables,
    key: TableKey,
    wanted: Option<&Table>,
    deadline: Instant,
) -> Result<Option<String>, NftError> {
    let shown = match (nft.read(key, deadline), wanted) {
        // Where nothing is wanted, the kernel need not have any of it.
        (Err(error), None) if error.is_absent() => return Ok(None),
        (shown, _) => shown?,
    };
    Ok(match (shown, wanted) {
        (None, None) => None,
        (None, Some(_)) => Some(format!("{key} is gone")),
        (Some(_), None) => Some(format!("{key} is there")),
        (Some(shown), Some(wanted)) => shown.differs(wanted),
    })
}

/// What the kernel has counted, as a line.
fn counted(nft: &mut Nftables, counter: &Counter, deadline: Instant) -> String {
    let Counter { place, whose, audit } = counter;
    let (count, of) = match place {
        Counted::Chain(chain) => {
            let counts = nft.rule_counts(FILTER, chain, deadline);
            (counts.map(|counts| counts.last().copied().flatten()), format!("chain {chain}"))
        }
        Counted::Link(link) => {
            let tables = [FILTER, ARP].map(|key| nft.element_counts(key, LINKS, deadline));
            let is_own = |(element, _): &(Element, Count)| *element == Element::Link(link.clone());
            let count = tables.into_iter().try_fold(None, |sum: Option<Count>, counts| {
                let more = counts?.into_iter().find(is_own).map(|(_, count)| count);
                Ok(sum
                    .into_iter()
                    .chain(more)
                    .reduce(|a, b| Count { packets: a.packets + b.packets, bytes: a.bytes + b.bytes }))
            });
            (count, format!("sets {LINKS}"))
        }
    };
    let what = if *audit { "would have been dropped" } else { "dropped" };
    match count {
        Ok(Some(Count { packets, bytes })) => format!("{what}: {whose}: {packets} packets, {bytes} bytes ({of})"),
        Ok(None) => format!("{what}: {whose}: not counted ({of})"),
        Err(error) => format!("{what}: {whose}: {error}"),
    }
}
