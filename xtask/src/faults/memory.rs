//! How much memory processes take: what `/proc` says.

use super::stage::Stage;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

/// The most that each process had, in KiB, over all looks.
#[derive(Default)]
pub(super) struct Memory(BTreeMap<String, u64>);

impl Memory {
    pub(super) fn of(stage: &Stage) -> Result<Self> {
        let mut memory = Memory::default();
        memory.look(stage)?;
        Ok(memory)
    }

    /// Looks again.
    pub(super) fn look(&mut self, stage: &Stage) -> Result<()> {
        for (name, pid) in stage.pids() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context(name.clone())?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = resident.and_then(|rest| rest.split_whitespace().next());
            let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
            let most = self.0.entry(name).or_default();
            *most = (*most).max(number);
        }
        Ok(())
    }

    /// By how much a process has more here than there, at most, in MiB.
    pub(super) fn more_than(&self, before: &Memory) -> u64 {
        let more = |(name, most): (&String, &u64)| most.saturating_sub(before.kib(name));
        self.0.iter().map(more).max().unwrap_or(0) / 1024
    }

    fn kib(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// A line a process: MiB before, during and after.
pub(super) fn table(before: &Memory, during: &Memory, after: &Memory) -> String {
    let mut text =
        format!("    {:<12}{:>8}{:>8}{:>8}  MiB resident\n", "", "before", "during", "after");
    for name in during.0.keys() {
        let [before, during, after] =
            [before, during, after].map(|memory| memory.kib(name).div_ceil(1024));
        let _ = writeln!(text, "    {name:<12}{before:>8}{during:>8}{after:>8}");
    }
    text
}
