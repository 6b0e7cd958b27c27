//! `sillage config`.

use crate::{
    output::Column,
    session::Session,
    text::{brief, without_password},
};
use anyhow::Result;
use clap::ValueEnum as _;
use serde::Serialize;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Config {
    /// What is set
    Show(Show),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Who said so: a flag, the environment, a file, or nobody
    #[arg(long)]
    origin: bool,
}

#[derive(Serialize)]
struct Line {
    setting: &'static str,
    value: Option<String>,
    origin: String,
}

const COLUMNS: [Column<Line>; 3] = [
    ("SETTING", |line| line.setting.to_owned()),
    ("VALUE", |line| line.value.clone().unwrap_or_else(|| "-".to_owned())),
    ("ORIGIN", |line| line.origin.clone()),
];

impl Config {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        let Config::Show(Show { origin }) = self;
        let settings = &session.settings;
        let (database, broker) = (&settings.database, &settings.broker);
        let (output, timeout, colour) = (&settings.output, &settings.timeout, &settings.colour);
        let format = output.value.to_possible_value().map(|value| value.get_name().to_owned());
        let line =
            |setting, value, origin: &_| Line { setting, value, origin: format!("{origin}") };
        let lines = [
            line("database", database.value.clone(), &database.origin),
            line("broker", broker.value.as_deref().map(without_password), &broker.origin),
            line("output", format, &output.origin),
            line("timeout", timeout.value.map(brief), &timeout.origin),
            line("colour", Some(colour.value.to_string()), &colour.origin),
        ];
        session.out.rows(&lines, if origin { &COLUMNS } else { &COLUMNS[..2] })
    }
}
