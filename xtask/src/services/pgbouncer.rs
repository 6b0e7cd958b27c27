//! pgbouncer before our PostgreSQL, which lends a connection for one transaction only.

use super::install::{self, Package};
use super::place::Place;
use super::{Server, Service, Variable, postgres};
use anyhow::Result;
use std::process::Command;

const PLAIN: u16 = 33;
/// Debian's package has it there, which is on the path of root only.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

pub(super) struct Pgbouncer;

impl Server for Pgbouncer {
    fn variables(&self, place: &Place) -> Vec<Variable> {
        let url = format!("{}?pooler=transaction", postgres::url(self.port(place)));
        vec![Variable::new("SILLAGE_TEST_PGBOUNCER", url)]
    }

    fn port(&self, place: &Place) -> u16 {
        place.port(PLAIN)
    }

    fn needs(&self) -> Option<Service> {
        Some(Service::Postgres)
    }

    fn install(&self, _place: &Place) -> Result<()> {
        let is_there = std::path::Path::new(PROGRAM).exists();
        install::packages(&[Package { name: "pgbouncer", is_there }])
    }

    fn prepare(&self, place: &Place) -> Result<Command> {
        let users = format!("\"{}\" \"{}\"\n", postgres::USER, postgres::PASSWORD);
        let users = place.write("users.txt", &users)?;
        let settings = format!(
            include_str!("pgbouncer/pgbouncer.ini"),
            server = postgres::port(place),
            port = self.port(place),
            users = users.display(),
            admin = postgres::USER,
        );
        let settings = place.write("pgbouncer.ini", &settings)?;
        let mut command = place.daemon(PROGRAM);
        command.arg(settings);
        Ok(command)
    }

    fn answers(&self, place: &Place) -> bool {
        postgres::accepts(place, self.port(place))
    }
}
