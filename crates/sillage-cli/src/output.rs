//! The only place that writes: data on standard output, everything else on standard error.
//!
//! A reader that goes away (`| head`) ends a command quietly.

use crate::text::{printable, printable_json};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Jsonl,
}

/// A column of a table: its head, and the cell of an item.
pub(crate) type Column<T> = (&'static str, fn(&T) -> String);

/// What a table says where nothing is known.
pub(crate) const UNKNOWN: &str = "?";

/// What text is coloured for.
#[derive(Clone, Copy)]
pub(crate) enum Paint {
    Bad,
    Undone,
    Faint,
}

/// Where a command writes to.
pub(crate) struct Out {
    pub(crate) format: Format,
    pub(crate) colour: bool,
    pub(crate) quiet: bool,
    terminal: bool,
    stdout: BufWriter<Stdout>,
    /// Elements written to a JSON list that is still open.
    list: Option<usize>,
}

impl Out {
    pub(crate) fn new(format: Format, colour: bool, quiet: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let stdout = BufWriter::new(stdout);
        Out { format, colour: colour && terminal, quiet, terminal, stdout, list: None }
    }

    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// A line of text that is safe already.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.stdout, "{}", text.as_ref())
    }

    /// Items: a table, a JSON list, or a line of JSON each.
    pub(crate) fn rows<T: Serialize>(
        &mut self,
        items: &[T],
        columns: &[Column<T>],
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.table(items, columns)?,
            Format::Json => self.json(&serde_json::to_string_pretty(items)?)?,
            Format::Jsonl => {
                for item in items {
                    self.json(&serde_json::to_string(item)?)?;
                }
            }
        }
        Ok(())
    }

    fn table<T>(&mut self, items: &[T], columns: &[Column<T>]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|(head, _)| *head));
        for item in items {
            table.add_row(columns.iter().map(|(_, cell)| printable(&cell(item)).into_owned()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// One thing: text for people, or a JSON object.
    pub(crate) fn one<T: Serialize>(
        &mut self,
        item: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.line(text(item).trim_end())?,
            Format::Json => self.json(&serde_json::to_string_pretty(item)?)?,
            Format::Jsonl => self.json(&serde_json::to_string(item)?)?,
        }
        Ok(())
    }

    /// JSON exactly as it is; on a terminal, what could drive it is escaped.
    fn json(&mut self, json: &str) -> io::Result<()> {
        let json = if self.terminal { printable_json(json) } else { json.into() };
        writeln!(self.stdout, "{json}")
    }

    /// One of many JSON values whose end is not known yet: an element of a list, or a line.
    pub(crate) fn element(&mut self, json: &str) -> io::Result<()> {
        if self.format == Format::Json {
            let before = if self.list.is_none_or(|written| written == 0) { "[\n" } else { ",\n" };
            // The line ends when the next element comes, or the list.
            self.list = Some(self.list.unwrap_or(0) + 1);
            let json = if self.terminal { printable_json(json) } else { json.into() };
            return write!(self.stdout, "{before}{json}");
        }
        self.json(json)
    }

    /// From here on elements may come.
    pub(crate) fn begin(&mut self) {
        self.list = (self.format == Format::Json).then_some(0);
    }

    /// Ends what was begun, also when the command was interrupted.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        match self.list.take() {
            Some(0) => writeln!(self.stdout, "[]")?,
            Some(_) => writeln!(self.stdout, "\n]")?,
            None => {}
        }
        self.stdout.flush()
    }

    /// Sends out what was written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// A sentence beside the data; nothing with `--quiet`.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            say(text);
        }
    }

    /// How far something is, on a terminal.
    pub(crate) fn progress(&self, done: usize, all: usize) {
        if !self.quiet && io::stderr().is_terminal() {
            let end = if done == all { "\n" } else { "" };
            let _ = write!(io::stderr(), "\r{done}/{all}{end}");
        }
    }

    /// How something stands that goes on, on a terminal, in place of what stood there.
    pub(crate) fn status(&self, text: &str) {
        if !self.quiet && io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\u{1b}[K{}", printable(text));
            let _ = io::stderr().flush();
        }
    }

    /// Coloured where colours are wanted.
    pub(crate) fn paint(&self, text: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Bad => 31,
            Paint::Undone => 33,
            Paint::Faint => 2,
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Lines on standard error, made safe.
pub(crate) fn say(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        let _ = writeln!(io::stderr(), "{}", printable(line));
    }
}

/// A question on standard error; the answer stands on the same line.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{} [y/N] ", printable(question));
    let _ = io::stderr().flush();
}
