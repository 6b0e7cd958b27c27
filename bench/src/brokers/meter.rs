//! Rate and processor time of this process.

use std::{fmt, fs, time::Instant};

/// The kernel counts processor time in hundredths of a second.
const TICK: f64 = 0.01;

/// Of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Processor time a message, in microseconds.
    pub(crate) cpu: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.0}/s {:>7.2} µs", self.rate, self.cpu)
    }
}

/// Runs from its making on.
pub(crate) struct Meter {
    start: Instant,
    /// So many were done before.
    done: u64,
    cpu: f64,
}

impl Meter {
    pub(crate) fn start() -> Meter {
        Meter::behind(0)
    }

    /// So many are done already.
    pub(crate) fn behind(done: u64) -> Meter {
        Meter { start: Instant::now(), done, cpu: cpu() }
    }

    /// Of all up to this one, without those that were done before.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn figure(&self, count: u64) -> Figure {
        let (seconds, count) = (self.start.elapsed().as_secs_f64(), (count - self.done) as f64);
        Figure { rate: count / seconds, cpu: (cpu() - self.cpu) * 1e6 / count }
    }
}

/// Seconds of processor time of this process, all threads.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process is in brackets and may have blanks.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK
}

/// Of an odd number of rounds.
pub(crate) fn median(figures: &[Figure]) -> Figure {
    let middle = |value: fn(&Figure) -> f64| middle(figures.iter().map(value).collect());
    Figure { rate: middle(|figure| figure.rate), cpu: middle(|figure| figure.cpu) }
}

/// Round by round, and the median of them.
pub(crate) fn ratios(ours: &[Figure], raw: &[Figure]) -> String {
    let of = |value: fn(&Figure) -> f64| {
        middle(ours.iter().zip(raw).map(|(ours, raw)| value(ours) / value(raw)).collect())
    };
    format!("rate {:.2}, CPU {:.2}", of(|figure| figure.rate), of(|figure| figure.cpu))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
