//! What every command takes, and how times and lengths of time are said.

use crate::{commands::Command, output::Format};
use clap::Parser;
use sillage::Timestamp;
use std::{str::FromStr, time::Duration};

/// Operates event-driven systems built with Sillage: follow the log, trace what caused what, mend
/// and redrive dead letters.
///
/// It needs the database's URL, and the broker's where the app has one: never the code of the app,
/// nor that it runs.
#[derive(Debug, Parser)]
#[command(name = "sillage", version)]
#[command(after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 forbidden, \
    5 conflict, 6 unreachable or timed out, 7 some of many failed, 8 check failed, \
    130 interrupted.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
#[allow(clippy::struct_excessive_bools)] // flags are what they are
pub(crate) struct Globals {
    /// The database: `sqlite:FILE` or `postgres://…`. Else from ./sillage.toml, ~/.config/sillage/config.toml, or
    /// `sqlite:shop-data/shop.db` if that is there
    #[arg(long, global = true, value_name = "URL", env = "SILLAGE_DATABASE")]
    pub(crate) database: Option<String>,
    /// The broker that apps read from, where it is not the database's log: `kafka://HOST:PORT`,
    /// `amqp://USER:PASSWORD@HOST`; `embedded`: it is the log. Else from the same files. One with
    /// a password is better said by the environment
    #[arg(long, global = true, value_name = "URL", env = "SILLAGE_BROKER")]
    #[arg(hide_env_values = true)]
    pub(crate) broker: Option<String>,
    /// How data is written
    #[arg(short, long, global = true, value_name = "FORMAT", env = "SILLAGE_OUTPUT")]
    pub(crate) output: Option<Format>,
    /// Give up after this long, with exit code 6: `10s`, `5m`
    #[arg(long, global = true, value_name = "TIME", env = "SILLAGE_TIMEOUT")]
    #[arg(value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// No colours; `NO_COLOR` says the same
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Only data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Never ask: what would need an answer is an error
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
}

/// Reads `250ms`, `30s`, `10m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a number and ms, s, m, h or d, as in `10m`".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a whole number first".to_owned())?;
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

/// A moment: a time, or so long before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(time) => time,
            Moment::Ago(length) => now - length,
        }
    }
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(length) = text.strip_prefix('-') {
            return duration(length).map(Moment::Ago);
        }
        let time = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse());
        let expected =
            || format!("`{text}`: expected `-10m`, `2026-01-31` or `2026-01-31T10:00:00Z`");
        time.map(Moment::At).map_err(|_| expected())
    }
}

/// Something a second: `50`, `50/s`, `10/m`. Held as the time between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Duration);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let second = Duration::from_secs(1);
        let number: u32 = number.parse().unwrap_or(0);
        match (number, unit) {
            (1.., "s") => Ok(Rate(second / number)),
            (1.., "m") => Ok(Rate(second * 60 / number)),
            _ => Err("expected a rate above zero, as in `50/s` or `10/m`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("10").is_err() && duration("m").is_err() && duration("-1s").is_err());
        assert!(duration("99999999999999999999s").is_err());
    }

    #[test]
    fn moments() {
        let now: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Moment>().unwrap().at(now).to_string();
        assert_eq!(at("-10m"), "2026-01-31T09:50:00.000000Z");
        assert_eq!(at("2026-01-01"), "2026-01-01T00:00:00.000000Z");
        assert_eq!(at("2026-01-01T02:00:00+01:00"), "2026-01-01T01:00:00.000000Z");
        assert!("yesterday".parse::<Moment>().is_err());
    }

    #[test]
    fn rates() {
        let between = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        assert_eq!(between("50/s"), Ok(Duration::from_millis(20)));
        assert_eq!(between("50"), between("50/s"));
        assert_eq!(between("10/m"), Ok(Duration::from_secs(6)));
        assert!(between("0").is_err() && between("5/h").is_err() && between("x").is_err());
    }
}
