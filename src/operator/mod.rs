//! What an operator runs beside the agent, while it runs and while it is away: each verb a file.
//!
//! A verb reads what others keep, the record, the kernel, the agent's own word, and tells it. What it takes from the command line
//! comes as values. Must not change anything of the host but where the operator says so, nor keep anything itself.

pub mod ask;
pub mod check;
pub mod diag;
#[cfg(test)]
pub(crate) mod golden;
pub mod metrics;
pub mod passage;
pub mod pods;
pub mod record;
pub mod status;
pub mod table;
pub mod tar;
pub mod validate;
pub mod whose;

use crate::process::exit::Exit;

/// What a verb has to say, and how its program ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How it ends.
    pub exit: Exit,
    /// What it was asked for, for standard output.
    pub text: String,
    /// What the operator should know beside that, a line each, for standard error.
    pub asides: Vec<String>,
}

impl Told {
    /// No more than why there is nothing to tell.
    pub fn failed(exit: Exit, why: impl ToString) -> Told {
        Told { exit, text: String::new(), asides: vec![why.to_string()] }
    }
}
