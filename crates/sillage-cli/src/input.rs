//! Standard input and the operator's editor.

use crate::failure::Refusal;
use anyhow::{Context as _, Result};
use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
    process::Command,
    thread,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// The longest line, and the most for what is read whole, in bytes.
const MOST: u64 = 64 << 20;

pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The lines of standard input. They are read on a thread of their own, so that an interruption
/// need not wait for one.
pub(crate) struct Lines(mpsc::Receiver<io::Result<Vec<u8>>>);

impl Lines {
    pub(crate) fn start() -> Self {
        let (sender, receiver) = mpsc::channel(256);
        thread::spawn(move || {
            while let Some(line) = line().transpose() {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    return;
                }
            }
        });
        Lines(receiver)
    }

    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.0.recv().await
    }

    /// The next line, if it has come already.
    pub(crate) fn ready(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.0.try_recv().ok()
    }

    /// All that is left.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>> {
        let mut all = vec![];
        while let Some(line) = self.next().await {
            all.extend(line?);
            if all.len() as u64 > MOST {
                return Err(too_long().into());
            }
        }
        Ok(all)
    }
}

fn line() -> io::Result<Option<Vec<u8>>> {
    let mut line = vec![];
    io::stdin().lock().take(MOST).read_until(b'\n', &mut line)?;
    match line.len() as u64 {
        0 => Ok(None),
        MOST.. => Err(too_long()),
        _ => Ok(Some(line)),
    }
}

fn too_long() -> io::Error {
    let why = format!("standard input has more than {MOST} bytes in one piece");
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

/// Lets the operator edit a text in `$VISUAL` or `$EDITOR`.
pub(crate) fn edit(text: &[u8]) -> Result<Vec<u8>> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| env::var(name).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty()).ok_or_else(|| {
        Refusal::usage("no editor is named", "set EDITOR, or use `--data` and `--set`")
    })?;
    let path = env::temp_dir().join(format!("sillage-{}.json", Uuid::new_v4()));
    let edited = edit_file(&editor, &path, text);
    // Payloads are nobody else's business.
    let _ = fs::remove_file(&path);
    edited
}

fn edit_file(editor: &str, path: &Path, text: &[u8]) -> Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let shown = || path.display();
    let mut file = options.open(path).with_context(|| format!("{} cannot be made", shown()))?;
    file.write_all(text)?;
    drop(file);
    let mut words = editor.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    let ended = command.args(words).arg(path).status();
    let ended = ended.with_context(|| format!("the editor `{editor}` cannot be started"))?;
    if !ended.success() {
        return Err(Refusal::usage(
            format!("the editor `{editor}` ended with {ended}: nothing was done"),
            "try again, or use `--data` and `--set`",
        )
        .into());
    }
    fs::read(path).with_context(|| format!("{} cannot be read", shown()))
}
