//! Where settings come from: flag, environment, `./sillage.toml`, the user's file, a default; in
//! this order.

use crate::{
    args::{Globals, duration},
    failure::Refusal,
    output::Format,
};
use anyhow::{Context as _, Result};
use clap::{ArgMatches, ValueEnum as _, parser::ValueSource};
use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const HERE: &str = "./sillage.toml";
/// Where `shop dev` keeps its database.
const SHOP: &str = "shop-data/shop.db";
const KNOWN: [&str; 4] = ["database", "broker", "output", "timeout"];

/// Who said what a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting and who said so.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// All settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) database: Setting<Option<String>>,
    /// `None`: the database's log.
    pub(crate) broker: Setting<Option<String>>,
    pub(crate) output: Setting<Format>,
    pub(crate) timeout: Setting<Option<Duration>>,
    pub(crate) colour: Setting<bool>,
    /// What in the files nobody knows.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    pub(crate) fn resolve(globals: &Globals, matches: &ArgMatches) -> Result<Self> {
        let mut warnings = vec![];
        let mut files = vec![];
        for path in [Some(PathBuf::from(HERE)), users_file()].into_iter().flatten() {
            files.extend(read(&path, &mut warnings)?);
        }
        let said = Said { matches, files: &files };
        Ok(Settings {
            database: said.database(globals.database.clone())?,
            broker: said.broker(globals.broker.clone())?,
            output: said.or_file(
                ("output", "-o", "SILLAGE_OUTPUT"),
                globals.output,
                |text| Format::from_str(text, true),
                Format::Table,
            )?,
            timeout: said.or_file(
                ("timeout", "--timeout", "SILLAGE_TIMEOUT"),
                globals.timeout.map(Some),
                |text| duration(text).map(Some),
                None,
            )?,
            colour: colour(globals.no_color),
            warnings,
        })
    }

    /// The URL of the database, or how to say it.
    pub(crate) fn url(&self) -> Result<&str, Refusal> {
        self.database.value.as_deref().ok_or_else(|| {
            Refusal::usage(
                "no database is named",
                "say `--database sqlite:FILE`, set SILLAGE_DATABASE, or put \
                 `database = \"sqlite:FILE\"` into ./sillage.toml or \
                 ~/.config/sillage/config.toml",
            )
        })
    }
}

struct Said<'a> {
    matches: &'a ArgMatches,
    files: &'a [(PathBuf, toml::Table)],
}

impl Said<'_> {
    fn database(&self, said: Option<String>) -> Result<Setting<Option<String>>> {
        let text = |text: &str| Ok(Some(text.to_owned()));
        let said = said.filter(|url| !url.is_empty()).map(Some);
        let names = ("database", "--database", "SILLAGE_DATABASE");
        let shop = Path::new(SHOP).is_file().then(|| format!("sqlite:{SHOP}"));
        self.or_file(names, said, text, shop)
    }

    fn broker(&self, said: Option<String>) -> Result<Setting<Option<String>>> {
        let text = |text: &str| Ok(Some(text.to_owned()));
        let said = said.filter(|url| !url.is_empty()).map(Some);
        let mut broker =
            self.or_file(("broker", "--broker", "SILLAGE_BROKER"), said, text, None)?;
        broker.value = broker.value.filter(|url| url != "embedded");
        Ok(broker)
    }

    /// What a flag or the environment said, else the first file that says it, else the default.
    fn or_file<T>(
        &self,
        (name, flag, variable): (&str, &'static str, &'static str),
        said: Option<T>,
        parse: impl Fn(&str) -> Result<T, String>,
        default: T,
    ) -> Result<Setting<T>> {
        if let Some(value) = said {
            let origin = match self.matches.value_source(name) {
                Some(ValueSource::EnvVariable) => Origin::Environment(variable),
                _ => Origin::Flag(flag),
            };
            return Ok(Setting { value, origin });
        }
        for (path, table) in self.files {
            let Some(value) = table.get(name) else { continue };
            let wrong = |why: &str| {
                Refusal::usage(
                    format!("`{name}` in {}: {why}", path.display()),
                    "mend that line, or take it out",
                )
            };
            let text = value.as_str().ok_or_else(|| wrong("expected text in quotes"))?;
            let value = parse(text).map_err(|why| wrong(&why))?;
            return Ok(Setting { value, origin: Origin::File(path.clone()) });
        }
        Ok(Setting { value: default, origin: Origin::Default })
    }
}

fn colour(flag: bool) -> Setting<bool> {
    let variable = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let origin = match (flag, variable) {
        (true, _) => Origin::Flag("--no-color"),
        (false, true) => Origin::Environment("NO_COLOR"),
        (false, false) => Origin::Default,
    };
    Setting { value: !flag && !variable, origin }
}

fn users_file() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("sillage/config.toml"))
}

fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Option<(PathBuf, toml::Table)>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    let table: toml::Table = text.parse().map_err(|error| {
        Refusal::usage(format!("{} is no TOML: {error}", path.display()), "mend it, or move it")
    })?;
    for name in table.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        let known = KNOWN.join(", ");
        let path = path.display();
        warnings.push(format!("{path}: `{name}` is not known here; known are {known}"));
    }
    Ok(Some((path.to_owned(), table)))
}
