//! Whether the number in a file is that of a living process of ours: numbers are used again, and
//! who kills must not meet a stranger.

use super::wait;
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The process whose number is in the file's first line, if it lives and was started with a path
/// in the folder.
pub(super) fn ours(file: &Path, folder: &Path) -> Option<Pid> {
    let number = fs::read_to_string(file).ok()?;
    let pid = Pid::from_raw(number.lines().next()?.trim().parse().ok()?)?;
    let process = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let command = fs::read(process.join("cmdline")).ok()?;
    (lives(&stat) && mentions(&command, folder)).then_some(pid)
}

/// Sends the signal; a process that has just ended needs none.
pub(super) fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal to process {pid}")),
    }
}

/// Waits until the process is gone.
pub(super) fn gone(file: &Path, folder: &Path, limit: Duration) -> Result<()> {
    let gone = wait::until(limit, || Ok(ours(file, folder).is_none()))?;
    ensure!(gone, "it still lives after {} s", limit.as_secs());
    Ok(())
}

/// One that has ended keeps its number until its parent takes note of it, which may be late.
fn lives(stat: &str) -> bool {
    let state = stat.rsplit_once(") ").and_then(|(_, state)| state.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn mentions(command: &[u8], folder: &Path) -> bool {
    String::from_utf8_lossy(command).contains(&format!("{}/", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::{lives, mentions, ours};
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn what_has_ended_does_not_live() {
        assert!(lives("7 (java) S 1 7 7 0"));
        assert!(lives("7 (a) Z (b)) R 1 7 7 0"));
        assert!(!lives("7 (java) Z 1 7 7 0") && !lives(""));
    }

    #[test]
    fn only_the_whole_folder_counts() {
        let command = b"java\0-cp\0/s/kafka/lib/*\0kafka.Kafka";
        assert!(mentions(command, Path::new("/s/kafka")));
        assert!(!mentions(command, Path::new("/s/kaf")) && !mentions(b"", Path::new("/s")));
    }

    #[test]
    fn a_stranger_and_a_process_not_waited_for_are_not_ours() {
        let folder = std::env::temp_dir().join(format!("sillage-pid-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pid");
        assert_eq!(ours(&file, &folder), None);
        // `tail` needs it when it starts, which may be before its number is known.
        std::fs::write(&file, "").unwrap();
        let mut command = Command::new("tail");
        command.arg("-f").arg(&file).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::fs::write(&file, format!("{}\nmore\n", child.id())).unwrap();
        assert_eq!(ours(&file, Path::new("/elsewhere")), None);
        while ours(&file, &folder).is_none() {
            assert!(child.try_wait().unwrap().is_none(), "`tail` has ended");
        }
        child.kill().unwrap();
        while ours(&file, &folder).is_some() {} // it is not waited for
        child.wait().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
