//! What an operator runs beside the agent, while it runs and while it is away: each verb a file.
//!
//! A verb reads what others keep, the record, the kernel, the agent's own word, and tells it. What it takes from the command line
//! comes as values. Must not change anything of the host but where the operator says so, nor keep anything itself.

pub mod record;
pub mod table;
