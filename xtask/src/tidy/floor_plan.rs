//! Which crate may depend on which, read from `cargo metadata`.

use super::{Finding, Source};
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;

/// A crate and the crates of this workspace that it may use.
struct Place {
    name: &'static str,
    on: &'static [&'static str],
}

/// The whole plan. Besides, tests of every crate may use [`TESTKIT`].
const PLAN: [Place; 13] = [
    Place { name: CORE, on: &[] },
    Place { name: "sillage-macros", on: &[] },
    Place { name: "sillage-sqlite", on: &[CORE] },
    Place { name: "sillage-postgres", on: &[CORE] },
    Place { name: "sillage-kafka", on: &[CORE] },
    Place { name: "sillage-rabbitmq", on: &[CORE] },
    Place {
        name: FACADE,
        on: &[
            CORE,
            "sillage-macros",
            "sillage-sqlite",
            "sillage-postgres",
            "sillage-kafka",
            "sillage-rabbitmq",
        ],
    },
    Place { name: TESTKIT, on: &[CORE, FACADE] },
    Place { name: "sillage-console", on: &[FACADE] },
    Place { name: "sillage-cli", on: &[FACADE, "sillage-console"] },
    Place { name: "shop", on: &[FACADE, "sillage-console"] },
    Place { name: "bench", on: &[FACADE, "sillage-sqlite"] },
    Place { name: "xtask", on: &[] },
];
const CORE: &str = "sillage-core";
const FACADE: &str = "sillage";
const TESTKIT: &str = "sillage-testkit";

/// Optional in the facade, so that nobody builds a client that is not used.
const BACKENDS: [&str; 4] =
    ["sillage-sqlite", "sillage-postgres", "sillage-kafka", "sillage-rabbitmq"];

/// What the author of a backend reads has no runtime, no HTTP and no driver.
const NEVER_IN_CORE: [&str; 11] = [
    "async-std",
    "axum",
    "hyper",
    "lapin",
    "rdkafka",
    "reqwest",
    "rusqlite",
    "smol",
    "sqlx",
    "tokio",
    "tokio-util",
];

pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let metadata = process::output(process::cargo("metadata --no-deps --format-version 1"))?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    Ok(findings(&members(&metadata).context("cargo metadata has another form")?, sources))
}

struct Member {
    name: String,
    /// Its manifest, from the root of the repository.
    manifest: String,
    uses: Vec<Use>,
}

struct Use {
    name: String,
    in_tests_only: bool,
    optional: bool,
}

fn members(metadata: &Value) -> Option<Vec<Member>> {
    let root = metadata["workspace_root"].as_str()?;
    let packages = metadata["packages"].as_array()?;
    packages
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str()?.strip_prefix(root)?;
            Some(Member {
                name: package["name"].as_str()?.to_owned(),
                manifest: manifest.replace('\\', "/").trim_start_matches('/').to_owned(),
                uses: package["dependencies"]
                    .as_array()?
                    .iter()
                    .map(used)
                    .collect::<Option<_>>()?,
            })
        })
        .collect()
}

fn used(dependency: &Value) -> Option<Use> {
    Some(Use {
        name: dependency["name"].as_str()?.to_owned(),
        in_tests_only: dependency["kind"] == "dev",
        optional: dependency["optional"].as_bool()?,
    })
}

fn findings(members: &[Member], sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let Some(place) = PLAN.iter().find(|place| place.name == member.name) else {
            let what = format!("`{}` is not in the floor plan", member.name);
            let remedy =
                "make it a module of a crate that is, or add it in xtask/src/tidy/floor_plan.rs";
            findings.push(finding(member, "name", sources, (&what, remedy)));
            continue;
        };
        let is_member = |used: &&Use| members.iter().any(|other| other.name == used.name);
        let inside = member.uses.iter().filter(is_member);
        let outside = member.uses.iter().filter(|used| !is_member(used));
        for used in inside {
            if let Some((what, remedy)) = misplaced(place, used) {
                findings.push(finding(member, &used.name, sources, (&what, remedy)));
            }
        }
        for used in outside.filter(|used| place.name == CORE && !used.in_tests_only) {
            if NEVER_IN_CORE.contains(&used.name.as_str()) {
                let what = format!("{CORE} uses `{}`", used.name);
                let remedy = "move what needs it to `sillage` or a backend";
                findings.push(finding(member, &used.name, sources, (&what, remedy)));
            }
        }
    }
    findings
}

/// What is wrong with a crate of the workspace using another one, and what to do.
fn misplaced(place: &Place, used: &Use) -> Option<(String, &'static str)> {
    let (name, on) = (place.name, used.name.as_str());
    if on == TESTKIT {
        let what = format!("`{name}` uses {TESTKIT} outside of tests");
        return (!used.in_tests_only).then_some((what, "make it a dev-dependency"));
    }
    if !place.on.contains(&on) {
        let what = format!("`{name}` uses `{on}`, against the floor plan");
        return Some((what, "depend on what is below it only: see ARCHITECTURE.md"));
    }
    let needs_option = name == FACADE && BACKENDS.contains(&on) && !used.in_tests_only;
    (needs_option && !used.optional)
        .then(|| (format!("`{name}` always builds `{on}`"), "make it optional, behind a feature"))
}

/// A finding at the line of the manifest that begins with `key`.
fn finding(
    member: &Member,
    key: &str,
    sources: &[Source],
    (what, remedy): (&str, &str),
) -> Finding {
    let begins =
        |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
    let manifest = sources.iter().find(|source| source.path == member.manifest);
    let line = manifest.and_then(|source| source.lines().find(|(_, line)| begins(line)));
    Finding {
        path: member.manifest.clone(),
        line: line.map_or(1, |(number, _)| number),
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{findings, members};
    use crate::tidy::tests::source;
    use serde_json::{Value, json};

    /// Findings when crate `name` has the dependency, among all crates of the plan.
    fn found(name: &str, dependency: Value) -> Vec<String> {
        let package = |name: &str, dependencies: Vec<Value>| {
            let manifest_path = format!("/w/crates/{name}/Cargo.toml");
            json!({ "name": name, "manifest_path": manifest_path, "dependencies": dependencies })
        };
        let others = super::PLAN.iter().map(|place| place.name).filter(|other| *other != name);
        let mut packages: Vec<Value> = others.map(|other| package(other, vec![])).collect();
        packages.push(package(name, vec![dependency]));
        let metadata = json!({ "workspace_root": "/w", "packages": packages });
        let manifest = source(
            &format!("crates/{name}/Cargo.toml"),
            "[package]\nname = \"a\"\n[dependencies]\nsillage-core.workspace = true\n\
             sillage = { workspace = true }\ntokio = \"1\"\n",
        );
        let findings = findings(&members(&metadata).unwrap(), &[manifest]);
        findings.iter().map(ToString::to_string).collect()
    }

    fn on(name: &str) -> Value {
        json!({ "name": name, "kind": null, "optional": false })
    }

    fn in_tests(name: &str) -> Value {
        json!({ "name": name, "kind": "dev", "optional": false })
    }

    #[test]
    fn what_the_plan_allows_is_not_found() {
        for (name, dependency) in [
            ("sillage-sqlite", on("sillage-core")),
            ("sillage-sqlite", in_tests("sillage-testkit")),
            ("sillage-testkit", on("sillage")),
            ("sillage-core", in_tests("tokio")),
            ("sillage", json!({ "name": "sillage-sqlite", "kind": null, "optional": true })),
            ("shop", on("sillage")),
            ("shop", on("tokio")),
        ] {
            assert_eq!(found(name, dependency), [""; 0], "{name}");
        }
    }

    #[test]
    fn a_wrong_edge_is_found_at_its_line() {
        assert_eq!(
            found("sillage-core", on("sillage")),
            [
                "crates/sillage-core/Cargo.toml:5: `sillage-core` uses `sillage`, against the floor plan: \
              depend on what is below it only: see ARCHITECTURE.md"
            ]
        );
        for (name, dependency, line, what) in [
            ("sillage-macros", on("sillage-core"), 4, "against the floor plan"),
            ("sillage-sqlite", on("sillage"), 5, "against the floor plan"),
            ("sillage-sqlite", in_tests("sillage-postgres"), 1, "against the floor plan"),
            ("shop", on("sillage-core"), 4, "against the floor plan"),
            ("shop", on("sillage-testkit"), 1, "outside of tests: make it a dev-dependency"),
            ("sillage", on("sillage-sqlite"), 1, "make it optional"),
            ("sillage-core", on("tokio"), 6, "sillage-core uses `tokio`"),
            ("sillage-extra", on("serde"), 2, "is not in the floor plan"),
        ] {
            let found = found(name, dependency);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(
                found[0].starts_with(&format!("crates/{name}/Cargo.toml:{line}: ")),
                "{found:?}"
            );
            assert!(found[0].contains(what), "{found:?}");
        }
    }

    #[test]
    fn metadata_of_another_form_is_refused() {
        assert!(members(&json!({ "packages": [] })).is_none());
    }
}
