//! A definition as a picture: Mermaid for documents, SVG for pages; with what each step of an
//! instance is at, where that is given.

use super::{
    machine::{Kind, Progress},
    shape::{SagaShape, StepShape},
};
use std::fmt::Write as _;

/// Boxes and the room between them, in pixels.
const WIDTH: usize = 168;
const HEIGHT: usize = 56;
const GAP: usize = 56;
const ROW: usize = 132;
const MARGIN: usize = 24;

impl SagaShape {
    /// The definition as a Mermaid flowchart. `progress` says what each step is at; it may be empty.
    pub fn mermaid(&self, progress: &[Progress]) -> String {
        let mut out = "flowchart LR\n".to_owned();
        let _ = writeln!(out, "  start([\"{}\"])", self.start);
        for (n, step) in self.steps.iter().enumerate() {
            let label = format!("{}<br/>{}", step.name, step.asks.command);
            let _ = match step.kind {
                Kind::Pivot => writeln!(out, "  s{n}{{{{\"{label}\"}}}}"),
                _ => writeln!(out, "  s{n}[\"{label}\"]"),
            };
            if let Some(undo) = &step.undo {
                let _ = writeln!(out, "  u{n}[\"undo {}<br/>{}\"]", step.name, undo.command);
            }
        }
        out.push_str("  completed([\"completed\"])\n  compensated([\"compensated\"])\n");
        self.forward_edges(&mut out);
        self.backward_edges(&mut out);
        for (n, progress) in progress.iter().enumerate().take(self.steps.len()) {
            let _ = writeln!(out, "  class s{n} {}", class(*progress));
        }
        if !progress.is_empty() {
            out.push_str("  classDef done fill:#d4edda,stroke:#28a745\n");
            out.push_str("  classDef now fill:#fff3cd,stroke:#d39e00\n");
            out.push_str("  classDef undone fill:#e2e3e5,stroke:#6c757d\n");
            out.push_str("  classDef stuck fill:#f8d7da,stroke:#dc3545\n");
            out.push_str("  classDef open stroke-dasharray:4\n");
        }
        out
    }

    fn forward_edges(&self, out: &mut String) {
        for n in self.stage(0) {
            let _ = writeln!(out, "  start --> s{n}");
        }
        for (n, step) in self.steps.iter().enumerate() {
            let next: Vec<_> = self.stage(step.stage + 1).collect();
            for to in &next {
                let _ = writeln!(out, "  s{n} -->|{}| s{to}", step.asks.done);
            }
            if next.is_empty() {
                let _ = writeln!(out, "  s{n} -->|{}| completed", step.asks.done);
            }
        }
    }

    /// What is refused, or not answered in time, undoes what was done before it, in reverse.
    fn backward_edges(&self, out: &mut String) {
        for (n, step) in self.steps.iter().enumerate() {
            if step.kind == Kind::Forward {
                continue;
            }
            let refused = step.asks.failed.as_deref().unwrap_or("not in time");
            if step.undo.is_some() && step.asks.failed.is_none() {
                let _ = writeln!(out, "  s{n} -. {refused} .-> u{n}");
            } else if step.asks.failed.is_some() {
                for to in self.undone_before(step.stage) {
                    let _ = writeln!(out, "  s{n} -. {refused} .-> {to}");
                }
            }
            if let Some(undo) = &step.undo {
                for to in self.undone_before(step.stage) {
                    let _ = writeln!(out, "  u{n} -. {} .-> {to}", undo.done);
                }
            }
        }
    }

    fn stage(&self, stage: usize) -> impl Iterator<Item = usize> {
        let of_it = self.steps.iter().enumerate().filter(move |(_, step)| step.stage == stage);
        of_it.map(|(n, _)| n)
    }

    /// What is undone before a stage was begun: the stage before it that has an undo.
    fn undone_before(&self, stage: usize) -> Vec<String> {
        let undoable = |step: &&StepShape| step.stage < stage && step.undo.is_some();
        let Some(last) = self.steps.iter().filter(undoable).map(|step| step.stage).max() else {
            return vec!["compensated".to_owned()];
        };
        let of_it = self.stage(last).filter(|n| self.steps[*n].undo.is_some());
        of_it.map(|n| format!("u{n}")).collect()
    }

    /// The definition as an SVG picture with a title: steps in their order, undos below them.
    /// `progress` says what each step is at; it may be empty.
    pub fn svg(&self, progress: &[Progress]) -> String {
        let stages = self.steps.last().map_or(0, |last| last.stage + 1);
        let rows = (0..stages).map(|stage| self.stage(stage).count()).max().unwrap_or(1);
        let width = 2 * MARGIN + (stages + 2) * (WIDTH + GAP) - GAP;
        let height = 2 * MARGIN + rows * ROW;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" font-family=\"sans-serif\" font-size=\"13\" fill=\"none\" \
             stroke=\"currentColor\">\n<title>{} version {}</title>\n",
            text(&self.name),
            self.version
        );
        out.push_str(
            "<defs><marker id=\"to\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
             markerHeight=\"8\" orient=\"auto-start-reverse\"><path d=\"M0 0 8 4 0 8\"/></marker>\
             </defs>\n",
        );
        box_at(&mut out, place(0, 0), (&self.start, "begins it"), "rx=\"28\"");
        for stage in 0..stages {
            for (row, n) in self.stage(stage).enumerate() {
                self.step_at(&mut out, n, (stage + 1, row), progress.get(n).copied());
            }
        }
        box_at(&mut out, place(stages + 1, 0), ("completed", ""), "rx=\"28\"");
        for stage in 0..=stages {
            let (x, y) = place(stage, 0);
            arrow(&mut out, (x + WIDTH, y + HEIGHT / 2), (x + WIDTH + GAP, y + HEIGHT / 2));
        }
        out.push_str("</svg>\n");
        out
    }

    fn step_at(&self, out: &mut String, n: usize, at: (usize, usize), progress: Option<Progress>) {
        let (step, (x, y)) = (&self.steps[n], place(at.0, at.1));
        let style = match (progress.map(class), step.kind) {
            (Some("done"), _) => "fill=\"#28a745\" fill-opacity=\".2\"",
            (Some("now"), _) => "fill=\"#d39e00\" fill-opacity=\".3\"",
            (Some("undone"), _) => "fill=\"#6c757d\" fill-opacity=\".2\"",
            (Some("stuck"), _) => "fill=\"#dc3545\" fill-opacity=\".3\"",
            (_, Kind::Pivot) => "stroke-width=\"2.5\"",
            _ => "",
        };
        let word = progress.map_or(String::new(), |progress| format!(" ({})", progress.word()));
        let title = format!("{}{word}", step.name);
        box_at(out, (x, y), (&title, &step.asks.command), style);
        if let Some(undo) = &step.undo {
            let below = y + HEIGHT + 20;
            let (middle, bottom) = (x + WIDTH / 2, y + HEIGHT);
            arrow(out, (middle, bottom), (middle, below));
            let label = format!("undo: {}", undo.command);
            words(out, (middle, below + 16), &label);
        }
    }
}

impl Progress {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Progress::Waiting => "waiting",
            Progress::Sent => "sent",
            Progress::Done => "done",
            Progress::Refused => "refused",
            Progress::Unknown => "unknown",
            Progress::Undoing => "undoing",
            Progress::Undone => "undone",
            Progress::Stuck => "stuck",
            Progress::UndoStuck => "undo stuck",
        }
    }
}

fn class(progress: Progress) -> &'static str {
    match progress {
        Progress::Waiting => "open",
        Progress::Sent | Progress::Unknown | Progress::Undoing => "now",
        Progress::Done => "done",
        Progress::Refused | Progress::Undone => "undone",
        Progress::Stuck | Progress::UndoStuck => "stuck",
    }
}

fn place(column: usize, row: usize) -> (usize, usize) {
    (MARGIN + column * (WIDTH + GAP), MARGIN + row * ROW)
}

fn box_at(out: &mut String, (x, y): (usize, usize), (title, below): (&str, &str), style: &str) {
    let _ =
        writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" {style}/>");
    let middle = x + WIDTH / 2;
    words(out, (middle, y + if below.is_empty() { 33 } else { 24 }), title);
    if !below.is_empty() {
        words(out, (middle, y + 42), below);
    }
}

fn words(out: &mut String, (x, y): (usize, usize), words: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"currentColor\" stroke=\"none\">{}\
         </text>",
        text(words)
    );
}

fn arrow(out: &mut String, (x, y): (usize, usize), (to_x, to_y): (usize, usize)) {
    let _ = writeln!(out, "<path d=\"M{x} {y} L{to_x} {to_y}\" marker-end=\"url(#to)\"/>");
}

/// Text as it stands in XML.
fn text(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
