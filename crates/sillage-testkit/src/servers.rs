//! Where the real servers are that some tests need: in variables that `cargo xtask test` sets.
//!
//! ```
//! # fn test() {
//! use sillage_testkit::servers;
//!
//! let Some(broker) = servers::url("SILLAGE_TEST_KAFKA") else { return };
//! assert!(broker.starts_with("kafka://"));
//! # }
//! # test();
//! ```
//!
//! *Guarantees.* No test is skipped in silence: each says so on standard error, and adds a line to
//! the file that `SILLAGE_TEST_SKIPPED` names, if it is set.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::{env, thread};

/// Names the file that skipped tests are added to.
const SKIPPED: &str = "SILLAGE_TEST_SKIPPED";

/// The address in the variable; `None`: the calling test has to be skipped, and that is noted.
pub fn url(variable: &str) -> Option<String> {
    let url = env::var(variable).ok();
    if url.is_none() {
        skip(&format!("{}: {variable} is not set", test()));
    }
    url
}

/// The crate, then what the test is called in it.
fn test() -> String {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    format!("{package} {test}").trim_start().to_owned()
}

fn skip(line: &str) {
    eprintln!("skipped: {line}");
    let Some(file) = env::var_os(SKIPPED) else { return };
    if let Err(error) = add(Path::new(&file), line) {
        eprintln!("{}: {error}", file.display());
    }
}

/// In one write: tests run at the same time.
fn add(file: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{add, test, url};
    use std::{env, fs, process};

    #[test]
    fn what_is_set_is_the_address() {
        assert_eq!(url("PATH"), env::var("PATH").ok());
    }

    #[test]
    fn skipped_tests_are_named_one_a_line() {
        let file = env::temp_dir().join(format!("sillage-skipped-{}", process::id()));
        let line = format!("{}: X is not set", test());
        add(&file, &line).unwrap();
        add(&file, "another").unwrap();
        let name = "sillage-testkit servers::tests::skipped_tests_are_named_one_a_line";
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{name}: X is not set\nanother\n"));
        fs::remove_file(file).unwrap();
    }
}
