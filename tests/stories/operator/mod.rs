//! What an operator runs beside the agent, with the real programs: while it runs, while it is away, and when it is another one.

mod diag;
mod explain;
mod pods;
mod status;
