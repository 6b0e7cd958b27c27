//! Other programs, run from the root of the repository.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Whether nobody watches: what people may overlook fails there.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// A path of the repository as people write it: from its root, with `/`.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// The cargo that runs this task, with `arguments` separated by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// The compiler that goes with it.
pub(crate) fn rustc(arguments: &str) -> Command {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// A file of the repository. What is in `target` is where cargo builds it.
pub(crate) fn built(path: &str) -> PathBuf {
    let elsewhere = path.strip_prefix("target/").zip(std::env::var_os("CARGO_TARGET_DIR"));
    let path = elsewhere.map_or(path.into(), |(inside, target)| Path::new(&target).join(inside));
    root().join(path)
}

/// A program of the repository, with `arguments` separated by spaces.
pub(crate) fn program(path: &str, arguments: &str) -> Command {
    let mut command = Command::new(built(path));
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// Runs to the end with output as it comes; fails if the program does.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = shown(&command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("`{shown}` did not start"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; fails if the program does.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let shown = shown(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{shown}` did not start"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed no UTF-8"))
}

/// What a program said on standard output, and whether it succeeded.
pub(crate) struct Said {
    pub(crate) said: String,
    pub(crate) success: bool,
}

/// Runs to the end with output as it comes, and returns standard output, whatever the program makes
/// of it.
pub(crate) fn shown_result(mut command: Command) -> Result<Said> {
    let shown = shown(&command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{shown}` did not start"))?;
    let mut said = String::new();
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line.with_context(|| format!("`{shown}` printed no UTF-8"))?;
        println!("{line}");
        said.extend([&line, "\n"]);
    }
    Ok(Said { said, success: child.wait()?.success() })
}

/// What it would be in a shell.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
