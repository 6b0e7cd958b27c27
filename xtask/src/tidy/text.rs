//! Text that has no place in the repository: reminders, skipped tests, waits of a fixed time, paths
//! of somebody's machine.

use super::{Finding, Source};
use crate::process;
use std::env;
use std::path::PathBuf;

/// This folder names what it forbids.
const EXEMPT: &str = "xtask/src/tidy";

/// `(text, what it is, what to do)`, found as a whole word.
const IN_CODE: [(&str, &str, &str); 7] = [
    ("TODO", "a reminder", "do it, or open an issue"),
    ("FIXME", "a reminder", "mend it, or open an issue"),
    ("XXX", "a reminder", "say what is meant"),
    ("HACK", "a reminder", "say why it has to be so"),
    ("todo!", "unfinished code", "finish it"),
    ("unimplemented!", "unfinished code", "finish it"),
    ("dbg!", "a debugging aid", "remove it"),
];

/// Paths that exist on one machine only: homes, and where this repository happens to be.
pub(super) fn machine_paths() -> Vec<String> {
    let mut paths: Vec<String> =
        ["/home/", "/root/", "/Users/", "C:\\Users\\"].map(String::from).into();
    let here = [Some(process::root().to_owned()), env::var_os("HOME").map(PathBuf::from)];
    // A path of one part, such as `/app`, also occurs where no machine is meant.
    let specific = here.into_iter().flatten().filter(|path| path.components().count() > 2);
    paths.extend(specific.map(|path| path.to_string_lossy().into_owned()));
    paths
}

pub(super) fn check(source: &Source, machine_paths: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.path.starts_with(EXEMPT) {
        return findings;
    }
    let code = matches!(source.extension(), "rs" | "sql" | "toml" | "sh" | "");
    for (number, line) in source.lines() {
        let mut found = |what: String, remedy: &str| {
            findings.push(source.finding(number, what, remedy));
        };
        for path in machine_paths.iter().filter(|path| has_word(line, path)) {
            found(format!("`{path}`, a path of one machine"), "use a relative path");
        }
        if code {
            for (text, what, remedy) in IN_CODE.iter().filter(|(text, ..)| has_word(line, text)) {
                found(format!("`{text}`, {what}"), remedy);
            }
        }
        if let Some((what, remedy)) = untested(source, line) {
            found(what.into(), remedy);
        }
    }
    findings
}

fn untested(source: &Source, line: &str) -> Option<(&'static str, &'static str)> {
    if source.extension() != "rs" {
        return None;
    }
    if line.trim_start().starts_with("#[ignore") {
        return Some(("a test that never runs", "run it, or remove it"));
    }
    if line.trim_start().starts_with("//") && line.trim_end().ends_with("```ignore") {
        return Some(("an example that is never compiled", "use `no_run` or `text`"));
    }
    let in_tests = source.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let sleeps = has_word(line, "time::sleep(") || has_word(line, "thread::sleep(");
    if in_tests && sleeps {
        return Some(("a test that waits", "await the condition, or wait on the test's `Clock`"));
    }
    None
}

/// Whether `word` occurs in `line` with nothing before or after it that would make it part of
/// another word or path.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let begins_path = word.starts_with('/');
        let joined_before = before.is_some_and(|c| part(c) || (begins_path && "-.}/".contains(c)));
        let joined_after = word.ends_with(part) && after.is_some_and(part);
        !joined_before && !joined_after
    })
}

#[cfg(test)]
mod tests {
    use super::{check, has_word};
    use crate::tidy::tests::source;

    fn found(path: &str, text: &str) -> Vec<String> {
        let machine = ["/home/".to_owned(), "/srv/sillage".to_owned()];
        check(&source(path, text), &machine).iter().map(|finding| finding.what.clone()).collect()
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("// TODO: later", "TODO") && has_word("TODO", "TODO"));
        assert!(!has_word("TODOS", "TODO") && !has_word("mktemp XXXXXX", "XXX"));
        assert!(has_word("dbg!(x)", "dbg!") && !has_word("my_dbg!(x)", "dbg!"));
        assert!(has_word("clock.sleep(x)", "sleep(") && !has_word("oversleep(x)", "sleep("));
        assert!(has_word("\"/home/jo\"", "/home/") && has_word("/srv/sillage", "/srv/sillage"));
        assert!(!has_word("https://example.org/home/", "/home/"));
        assert!(!has_word("{base}/home/", "/home/") && !has_word("/srv/sillages", "/srv/sillage"));
    }

    #[test]
    fn reminders_are_found_in_code_only() {
        assert_eq!(found("a.rs", "x\n// FIXME"), ["`FIXME`, a reminder"]);
        assert_eq!(found(".ci/run", "# HACK"), ["`HACK`, a reminder"]);
        assert_eq!(found("a.md", "TODO"), [""; 0]);
        assert_eq!(found("xtask/src/tidy/text.rs", "TODO /home/"), [""; 0]);
        let finding = &check(&source("a.rs", "fn f() {\n    todo!()\n}"), &[])[0];
        assert_eq!(finding.to_string(), "a.rs:2: `todo!`, unfinished code: finish it");
    }

    #[test]
    fn tests_run_and_do_not_wait() {
        assert_eq!(found("a.rs", "    #[ignore = \"slow\"]"), ["a test that never runs"]);
        assert_eq!(found("a.rs", "/// ```ignore"), ["an example that is never compiled"]);
        assert_eq!(found("crates/a/tests/b.rs", "thread::sleep(x)"), ["a test that waits"]);
        assert_eq!(found("crates/a/src/b/tests.rs", "time::sleep(x)"), ["a test that waits"]);
        assert_eq!(found("crates/a/tests/b.rs", "clock.sleep(ms(5)).await"), [""; 0]);
        assert_eq!(found("crates/a/src/b.rs", "time::sleep(x)"), [""; 0]);
    }

    #[test]
    fn machine_paths_are_found_everywhere() {
        assert_eq!(found("a.md", "see /home/jo/x"), ["`/home/`, a path of one machine"]);
        assert_eq!(found("a.out", "/srv/sillage/a"), ["`/srv/sillage`, a path of one machine"]);
    }
}
