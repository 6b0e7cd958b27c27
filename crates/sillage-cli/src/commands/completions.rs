//! `sillage completions`.

use crate::{args::Cli, session::Session};
use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;

#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: sillage completions bash > \
    ~/.local/share/bash-completion/completions/sillage")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

impl Completions {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Cli::command(), "sillage", &mut script);
        let script = String::from_utf8(script)?;
        let script = Script { shell: self.shell.to_string(), script };
        session.out.one(&script, |script| script.script.clone())
    }
}
