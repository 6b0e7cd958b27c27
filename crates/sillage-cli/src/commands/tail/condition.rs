//! Conditions on payloads: `data.total>100`.

use crate::data::{get, value_of};
use serde_json::Value;
use std::{cmp::Ordering, str::FromStr};

/// What one value of a payload must be. A value that is not there is only `!=`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    /// Below `data`; empty for the whole.
    path: String,
    operator: Operator,
    text: String,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    Unequal,
    More,
    Less,
    AtLeast,
    AtMost,
}

/// The longer ones first.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::Unequal),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equal),
    (">", Operator::More),
    ("<", Operator::Less),
];

impl FromStr for Condition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected `data.PATH OP VALUE` with = != > < >= <=".to_owned();
        let place = text.find(['!', '=', '>', '<']).ok_or_else(expected)?;
        let (path, rest) = text.split_at(place);
        let found = OPERATORS.iter().find_map(|(sign, operator)| {
            rest.strip_prefix(sign).map(|value| (*operator, value.trim()))
        });
        let (operator, value) = found.ok_or_else(expected)?;
        let path = path.trim().strip_prefix("data").ok_or_else(expected)?;
        let path = match path.strip_prefix('.') {
            Some(path) if !path.split('.').any(str::is_empty) => path,
            None if path.is_empty() => path,
            _ => return Err(expected()),
        };
        let (path, text) = (path.to_owned(), value.to_owned());
        Ok(Condition { path, operator, value: value_of(&text), text })
    }
}

impl Condition {
    /// Whether all hold for this payload; one that is no JSON has no values.
    pub(super) fn all_hold(conditions: &[Condition], payload: &[u8]) -> bool {
        if conditions.is_empty() {
            return true;
        }
        let data: Option<Value> = serde_json::from_slice(payload).ok();
        conditions.iter().all(|condition| condition.holds(data.as_ref()))
    }

    fn holds(&self, data: Option<&Value>) -> bool {
        let whole = self.path.is_empty();
        let found = data.and_then(|data| if whole { Some(data) } else { get(data, &self.path) });
        let Some(found) = found else { return self.operator == Operator::Unequal };
        let order = self.compare(found);
        match self.operator {
            Operator::Equal => order == Some(Ordering::Equal) || *found == self.value,
            Operator::Unequal => order != Some(Ordering::Equal) && *found != self.value,
            Operator::More => order == Some(Ordering::Greater),
            Operator::Less => order == Some(Ordering::Less),
            Operator::AtLeast => order.is_some_and(Ordering::is_ge),
            Operator::AtMost => order.is_some_and(Ordering::is_le),
        }
    }

    /// Numbers by size, text by its characters; else there is no order.
    fn compare(&self, found: &Value) -> Option<Ordering> {
        match (found, &self.value) {
            (Value::Number(_), Value::Number(_)) => match (whole(found), whole(&self.value)) {
                (Some(found), Some(wanted)) => Some(found.cmp(&wanted)),
                _ => found.as_f64()?.partial_cmp(&self.value.as_f64()?),
            },
            (Value::String(found), Value::String(wanted)) => Some(found.cmp(wanted)),
            // `data.id=7` also finds the text "7".
            (Value::String(found), _) => Some(found.cmp(&self.text)),
            _ => None,
        }
    }
}

fn whole(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, payload: &str) -> bool {
        let condition: Condition = condition.parse().unwrap();
        Condition::all_hold(&[condition], payload.as_bytes())
    }

    #[test]
    fn values_are_compared_by_what_they_are() {
        let order = r#"{"id":"7","total":{"minor":100},"items":[{"n":2}],"open":true,"big":9007199254740993}"#;
        for condition in [
            "data.total.minor>99",
            "data.total.minor >= 100",
            "data.total.minor<100.5",
            "data.items.0.n=2",
            "data.id=7",
            "data.id=\"7\"",
            "data.id>10",
            "data.open=true",
            "data.none!=1",
            "data.big!=9007199254740992",
            "data.id!=8",
        ] {
            assert!(holds(condition, order), "{condition}");
        }
        for condition in [
            "data.total.minor>100",
            "data.total=100",
            "data.none=1",
            "data.none<1",
            "data.open>false",
            "data.open!=true",
            "data.big=9007199254740992",
        ] {
            assert!(!holds(condition, order), "{condition}");
        }
        assert!(!holds("data.x=1", "not json") && holds("data=1", "1"));
    }

    #[test]
    fn what_is_no_condition() {
        for wrong in ["total>1", "data.total", "data.a..b=1", "datum=1", "data.a!1", ""] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }
}
