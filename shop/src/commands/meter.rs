//! How far a long command is: a bar, where somebody looks.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
};

/// How many characters the bar has.
const WIDTH: u64 = 30;

/// A bar on stderr, if that is a terminal.
pub(super) struct Meter {
    of: u64,
    visible: bool,
}

impl Meter {
    pub(super) fn new(of: u64) -> Self {
        Meter { of, visible: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, what: &str, count: u64) {
        if self.visible {
            let full = (count * WIDTH / self.of.max(1)).min(WIDTH);
            let bar: String = (0..WIDTH).map(|n| if n < full { '█' } else { '░' }).collect();
            let _ = write!(std::io::stderr(), "\r{bar} {count} of {} {what} ", self.of);
        }
    }

    pub(super) fn end(&self) {
        if self.visible {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// What is not the result goes to stderr.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
