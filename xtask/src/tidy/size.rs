//! Files short enough to be read in one sitting; examples on one screen or two.

use super::{Finding, Source};

const LIMIT: usize = 500;
const EXAMPLE_LIMIT: usize = 80;

pub(super) fn check(source: &Source) -> Option<Finding> {
    let code = matches!(source.extension(), "rs" | "sql" | "toml" | "sh" | "md");
    // A change log only grows, and nobody reads it from end to end.
    if !code || source.path.ends_with("CHANGELOG.md") {
        return None;
    }
    let example = source.path.contains("examples/") && source.extension() == "rs";
    let limit = if example { EXAMPLE_LIMIT } else { LIMIT };
    let lines = source.text.lines().count();
    (lines > limit).then(|| {
        let remedy = if example { "show one thing only" } else { "move one idea to its own file" };
        source.finding(limit + 1, format!("{lines} lines, more than {limit}"), remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::tests::source;

    #[test]
    fn long_files_are_found() {
        let lines = |count| "x\n".repeat(count);
        assert_eq!(check(&source("a.rs", &lines(500))), None);
        assert_eq!(check(&source("CHANGELOG.md", &lines(501))), None);
        assert_eq!(check(&source("crates/sillage/examples/a.rs", &lines(80))), None);
        let found = |path, count| check(&source(path, &lines(count))).unwrap().to_string();
        assert_eq!(
            found("a.sql", 501),
            "a.sql:501: 501 lines, more than 500: move one idea to its own file"
        );
        assert!(found("crates/sillage/examples/a.rs", 81).contains("more than 80"));
    }
}
