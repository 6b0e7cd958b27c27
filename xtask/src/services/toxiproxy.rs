//! Toxiproxy: a test makes a proxy before another server, then breaks what goes through it.

use super::install::{self, Package};
use super::place::Place;
use super::{Server, Variable, probe};
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PLAIN: u16 = 474;
const MODULE: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0";

const VERSION: &[u8] = b"GET /version HTTP/1.0\r\n\r\n";

pub(super) struct Toxiproxy;

impl Server for Toxiproxy {
    fn variables(&self, place: &Place) -> Vec<Variable> {
        let url = format!("http://127.0.0.1:{}", self.port(place));
        vec![Variable::new("SILLAGE_TEST_TOXIPROXY", url)]
    }

    fn port(&self, place: &Place) -> u16 {
        place.port(PLAIN)
    }

    fn install(&self, place: &Place) -> Result<()> {
        if program(place).exists() {
            return Ok(());
        }
        install::packages(&[Package { name: "golang", is_there: install::has("go") }])?;
        let part = place.path("part");
        let mut go = Command::new("go");
        go.args(["install", MODULE]).env("GOBIN", &part);
        install::run(go)?;
        fs::rename(part.join("server"), program(place)).context(MODULE)?;
        fs::remove_dir(&part).with_context(|| process::relative(&part))
    }

    fn prepare(&self, place: &Place) -> Result<Command> {
        let mut command = place.daemon(program(place));
        command.args(["-host", "127.0.0.1", "-port", &self.port(place).to_string()]);
        Ok(command)
    }

    fn answers(&self, place: &Place) -> bool {
        let answer = probe::answer::<12>(self.port(place), VERSION);
        answer.is_ok_and(|answer| answer.ends_with(b" 200"))
    }
}

fn program(place: &Place) -> PathBuf {
    place.path("toxiproxy-server")
}
