//! What runs: state machines without I/O and thin tasks that drive them.

pub(crate) mod assemble;
pub(crate) mod breaker;
pub(crate) mod chain;
pub(crate) mod committer;
pub(crate) mod dependency;
pub(crate) mod health;
mod kill_switch;
mod lane;
pub(crate) mod leased;
pub(crate) mod member;
pub(crate) mod operation;
pub(crate) mod outlet;
pub(crate) mod parking;
pub(crate) mod pruning;
pub(crate) mod rate;
pub(crate) mod relay;
pub(crate) mod retry;
pub(crate) mod shares;
mod slots;
pub(crate) mod timers;
pub(crate) mod watermark;

pub(crate) use member::Mark;
