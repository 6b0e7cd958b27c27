//! Payloads on the command line, and paths into JSON.

use crate::{
    failure::Refusal,
    input::{self, Lines},
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::{fs, str::FromStr};

/// A payload, and changes to it.
#[derive(Debug, clap::Args)]
pub(crate) struct Payload {
    /// The payload: JSON, `@FILE` for a file's content, `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Set one value of it: `customer.name=Ada`, `items.0.quantity=3`; JSON, or else text
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<Assignment>,
    /// Edit it in $EDITOR before it is sent
    #[arg(long)]
    edit: bool,
    /// Send the data as it is, also where it is no JSON
    #[arg(long, requires = "data", conflicts_with_all = ["set", "edit"])]
    raw: bool,
}

impl Payload {
    /// Whether the operator said anything about it.
    pub(crate) fn is_given(&self) -> bool {
        self.data.is_some() || !self.set.is_empty() || self.edit
    }

    /// The payload, made from `start` where no data is given.
    pub(crate) async fn make(&self, start: &[u8]) -> Result<Bytes> {
        let mut bytes = match self.data.as_deref() {
            None => start.to_vec(),
            Some("-") => Lines::start().rest().await?,
            Some(data) => match data.strip_prefix('@') {
                Some(file) => fs::read(file).with_context(|| format!("{file} cannot be read"))?,
                None => data.as_bytes().to_vec(),
            },
        };
        if self.raw {
            return Ok(bytes.into());
        }
        if !self.set.is_empty() {
            let mut value: Value =
                serde_json::from_slice(&bytes).map_err(|error| no_json(&error))?;
            for Assignment { path, value: new } in &self.set {
                set(&mut value, path, new.clone())?;
            }
            bytes = serde_json::to_vec(&value)?;
        }
        if self.edit {
            let pretty = serde_json::from_slice::<Value>(&bytes).and_then(|value| {
                let mut pretty = serde_json::to_vec_pretty(&value)?;
                pretty.push(b'\n');
                Ok(pretty)
            });
            bytes = input::edit(pretty.as_deref().unwrap_or(&bytes))?;
        }
        let bytes = bytes.trim_ascii();
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| no_json(&error))?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

fn no_json(error: &serde_json::Error) -> Refusal {
    Refusal::usage(
        format!("the payload is no JSON: {error}"),
        "quote it for the shell, or use `--data @FILE`; `--raw` sends it as it is",
    )
}

/// One `--set`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    path: String,
    value: Value,
}

impl FromStr for Assignment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or("expected PATH=VALUE, as in `a.b=1`")?;
        if path.split('.').any(str::is_empty) {
            return Err(format!("`{path}` is no path: expected names between dots"));
        }
        Ok(Assignment { path: path.to_owned(), value: value_of(value) })
    }
}

/// JSON, or else text.
pub(crate) fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The value at a path: names and, in lists, numbers.
pub(crate) fn get<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

/// Sets the value at a path; objects on the way are made. A list grows by the number behind its
/// last.
fn set(value: &mut Value, path: &str, new: Value) -> Result<(), Refusal> {
    let mut at = value;
    for step in path.split('.') {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        at = match at {
            Value::Object(object) => object.entry(step).or_insert(Value::Null),
            Value::Array(list) => {
                let length = list.len();
                let index = step.parse::<usize>().ok().filter(|index| *index <= length);
                let index = index.ok_or_else(|| {
                    Refusal::usage(
                        format!("`--set {path}`: `{step}` is no place in a list of {length}"),
                        format!("use a number from 0 to {length}"),
                    )
                })?;
                if index == length {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            _ => {
                return Err(Refusal::usage(
                    format!("`--set {path}`: there is no `{step}` within a plain value"),
                    "set the plain value itself, or give the whole payload with `--data`",
                ));
            }
        };
    }
    *at = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(mut value: Value, assignment: &str) -> Result<Value, String> {
        let Assignment { path, value: new } = assignment.parse()?;
        set(&mut value, &path, new).map_err(|refusal| refusal.what)?;
        Ok(value)
    }

    #[test]
    fn setting_values() {
        let order = || json!({ "id": "o", "items": [{ "n": 1 }] });
        assert_eq!(after(json!({}), "a.b=1"), Ok(json!({ "a": { "b": 1 } })));
        assert_eq!(after(order(), "id=x=y").unwrap()["id"], "x=y");
        assert_eq!(after(order(), "id=\"1\"").unwrap()["id"], "1");
        assert_eq!(after(order(), "items.0.n=2").unwrap()["items"], json!([{ "n": 2 }]));
        assert_eq!(after(order(), "items.1.n=2").unwrap()["items"][1], json!({ "n": 2 }));
        assert!(after(order(), "items.5=2").unwrap_err().contains("list of 1"));
        assert!(after(order(), "id.x=2").unwrap_err().contains("plain value"));
        assert!(after(order(), "id").is_err() && after(order(), "a..b=1").is_err());
    }

    #[test]
    fn getting_values() {
        let order = json!({ "items": [{ "n": 1 }], "total": { "amount": 5 } });
        assert_eq!(get(&order, "items.0.n"), Some(&json!(1)));
        assert_eq!(get(&order, "total.amount"), Some(&json!(5)));
        assert_eq!(get(&order, "items.1.n"), None);
        assert_eq!(get(&order, "total.amount.x"), None);
    }
}
