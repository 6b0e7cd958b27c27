//! From a URL to connections, each kind with the settings it works under.

use sillage_core::{Error, Result};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::str::FromStr;

/// What a URL may say, for people.
const KNOWN: &str = "schema, create, pooler, connections, application_name, sslmode, sslrootcert, sslcert, \
                     sslkey";

/// The schema of a URL that names none.
const SCHEMA: &str = "sillage";

/// How many connections read at the same time, unless the URL says so.
const CONNECTIONS: u32 = 8;

/// What a URL said.
#[derive(Clone)]
pub(crate) struct Config {
    options: PgConnectOptions,
    /// The schema that holds everything.
    pub(crate) schema: String,
    /// A schema that is not there is made.
    pub(crate) create: bool,
    /// A pooler lends a connection for one transaction only: nothing may outlive it.
    pub(crate) pooler: bool,
    /// How many connections read at the same time.
    pub(crate) connections: u32,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To look at the server as it is.
    Checks,
    /// Batches of commits, which wait for nobody.
    Commits,
    /// Commits whose rows others hold.
    Held,
    /// Leases, which never wait for long.
    Leases,
    /// Reads, and what tells of changes.
    Reads,
    /// Users' own transactions.
    Transactions,
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`: with what is wrong and what is known.
    pub(crate) fn parse(url: &str) -> Result<Config> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut schema, mut create) = (SCHEMA.to_owned(), true);
        let (mut pooler, mut connections) = (false, CONNECTIONS);
        let mut passed = vec![];
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "schema" => schema = identifier(value)?,
                "create" => create = yes(value)?,
                "pooler" => pooler = transaction(value)?,
                "connections" => connections = count(value)?,
                "application_name" | "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {
                    passed.push(parameter);
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "`{name}` is no parameter of a PostgreSQL URL: known are {KNOWN}"
                    )));
                }
            }
        }
        let options = PgConnectOptions::from_str(&format!("{base}?{}", passed.join("&")));
        let options = options.map_err(|error| {
            let expected = "expected `postgres://user:password@host:port/database`";
            Error::invalid(format!("this is no PostgreSQL URL: {expected}")).because(error)
        })?;
        let options = options.disable_statement_logging();
        Ok(Config { options, schema, create, pooler, connections })
    }

    /// Where this is, for people; without the password.
    pub(crate) fn place(&self) -> String {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let database = self.options.get_database().unwrap_or(self.options.get_username());
        format!("{host}:{port}/{database}, schema {}", self.schema)
    }

    /// How to connect for this purpose, on a server whose `synchronous_commit` is this.
    pub(crate) fn options(&self, purpose: Purpose, synchronous: &str) -> PgConnectOptions {
        if self.pooler {
            return self.options.clone().statement_cache_capacity(0);
        }
        let name = self.options.get_application_name().unwrap_or("sillage").to_owned();
        self.options.clone().application_name(&name).options(settings(purpose, synchronous))
    }

    /// The statement that begins a transaction for this purpose.
    pub(crate) fn begin(&self, purpose: Purpose, synchronous: &str) -> String {
        let mut begin = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        if self.pooler {
            for (name, value) in settings(purpose, synchronous) {
                if name != "default_transaction_isolation" {
                    begin.extend(["; SET LOCAL ", name, " = '", value, "'"]);
                }
            }
        }
        begin
    }
}

/// Settings in milliseconds where they are times. Plans are made once and for tables of any size,
/// however empty these were when they were made.
fn settings(purpose: Purpose, synchronous: &str) -> Vec<(&'static str, &str)> {
    let mut all = match purpose {
        Purpose::Checks => return vec![],
        Purpose::Commits => vec![("lock_timeout", "50"), ("statement_timeout", "30000")],
        Purpose::Held => vec![("lock_timeout", "250"), ("statement_timeout", "30000")],
        Purpose::Leases => vec![("lock_timeout", "5000"), ("statement_timeout", "10000")],
        Purpose::Reads => vec![("lock_timeout", "5000"), ("statement_timeout", "60000")],
        Purpose::Transactions => vec![("lock_timeout", "30000")],
    };
    all.push(("default_transaction_isolation", "read committed"));
    all.push(("idle_in_transaction_session_timeout", "60000"));
    all.push(("synchronous_commit", synchronous));
    if purpose != Purpose::Transactions {
        all.extend([("plan_cache_mode", "force_generic_plan"), ("jit", "off")]);
        all.extend([("enable_seqscan", "off"), ("enable_bitmapscan", "off")]);
        all.extend([("enable_hashjoin", "off"), ("enable_mergejoin", "off")]);
    }
    all
}

/// A name that needs no quotes, so that people can write it as it is.
fn identifier(name: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if starts && name.len() <= 63 && name.chars().all(plain) && !name.starts_with("pg_") {
        return Ok(name.to_owned());
    }
    Err(Error::invalid(format!(
        "`{name}` cannot be the schema: expected lower-case letters, digits and underscores, at \
         most 63, a letter first"
    )))
}

fn transaction(value: &str) -> Result<bool> {
    match value {
        "transaction" => Ok(true),
        "none" | "session" => Ok(false),
        _ => Err(Error::invalid(format!(
            "`pooler={value}` is unknown: expected `transaction` (PgBouncer's pool_mode), \
             `session` or `none`"
        ))),
    }
}

fn yes(value: &str) -> Result<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Error::invalid(format!("`create={value}` is unknown: expected `yes` or `no`"))),
    }
}

fn count(value: &str) -> Result<u32> {
    let count = value.parse().ok().filter(|count| (1..=1000).contains(count));
    count
        .ok_or_else(|| Error::invalid(format!("`connections={value}` is no number from 1 to 1000")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let config =
            Config::parse("postgres://me:secret@db:5433/shop?schema=order_1&pooler=transaction")
                .unwrap();
        assert_eq!((&*config.schema, config.pooler), ("order_1", true));
        assert_eq!(config.place(), "db:5433/shop, schema order_1", "no password");
        let begin = config.begin(Purpose::Commits, "on");
        assert!(begin.starts_with("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout"));
        let direct = Config::parse("postgres://me@db/shop").unwrap();
        assert_eq!(direct.begin(Purpose::Commits, "on"), "BEGIN ISOLATION LEVEL READ COMMITTED");
        assert_eq!((&*direct.schema, direct.pooler), ("sillage", false));
    }

    #[test]
    fn a_mistake_in_a_url_is_named() {
        for (url, said) in [
            ("postgres://h/d?schema=Größe", "`Größe` cannot be the schema"),
            ("postgres://h/d?schema=", "cannot be the schema"),
            ("postgres://h/d?schema=pg_catalog", "cannot be the schema"),
            ("postgres://h/d?pooler=statement", "`pooler=statement` is unknown"),
            ("postgres://h/d?connections=0", "no number from 1 to 1000"),
            ("postgres://h/d?shcema=x", "`shcema` is no parameter"),
            ("postgres://h:port/d", "no PostgreSQL URL"),
        ] {
            let error = Config::parse(url).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
