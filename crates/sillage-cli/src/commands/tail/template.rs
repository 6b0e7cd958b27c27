//! Lines of the operator's own.

use super::Place;
use crate::{
    data::get,
    text::{millis, payload, printable},
};
use serde_json::Value;
use sillage::{Key, Message, MessageId};
use std::str::FromStr;

/// Text with places for parts of a message: `{time} {name}\t{data.total}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Field(Field),
    Data(Option<String>),
}

type Field = &'static str;

const FIELDS: [Field; 12] = [
    "position",
    "partition",
    "offset",
    "time",
    "name",
    "version",
    "topic",
    "key",
    "source",
    "id",
    "correlationid",
    "causationid",
];

impl FromStr for Template {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (vec![], String::new(), text);
        while let Some(c) = rest.chars().next() {
            let escape = ["{{", "}}", "\\n", "\\t", "\\\\"].iter().zip("{}\n\t\\".chars());
            if let Some((sign, meant)) = escape.clone().find(|(sign, _)| rest.starts_with(**sign)) {
                plain.push(meant);
                rest = &rest[sign.len()..];
            } else if c == '{' {
                let end = rest.find('}').ok_or("a `{` is not closed; `{{` for itself")?;
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(part(&rest[1..end])?);
                rest = &rest[end + 1..];
            } else {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template(parts))
    }
}

fn part(name: &str) -> Result<Part, String> {
    if name == "data" {
        return Ok(Part::Data(None));
    }
    if let Some(path) = name.strip_prefix("data.") {
        return Ok(Part::Data(Some(path.to_owned())));
    }
    let known = FIELDS.iter().find(|field| **field == name);
    known.map(|field| Part::Field(field)).ok_or_else(|| {
        format!("`{{{name}}}` is not known; there are {}, data and data.PATH", FIELDS.join(", "))
    })
}

impl Template {
    /// The line of a message. What the message holds is made safe; what the operator wrote is not.
    pub(super) fn fill(&self, place: &Place, message: &Message, hide: bool) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(name) => {
                    line.push_str(&printable(&field(place, message, name)));
                }
                Part::Data(None) => line.push_str(&payload(&message.payload, hide)),
                Part::Data(Some(path)) => line.push_str(&value(&message.payload, path, hide)),
            }
        }
        line
    }
}

fn field(place: &Place, message: &Message, name: &str) -> String {
    match name {
        "position" => place.to_string(),
        "partition" => place.partition().map(|number| number.to_string()).unwrap_or_default(),
        "offset" => place.offset().map(|number| number.to_string()).unwrap_or_default(),
        "time" => millis(message.time),
        "name" => message.name.to_string(),
        "version" => message.version.to_string(),
        "topic" => message.topic.as_deref().unwrap_or_default().to_owned(),
        "key" => message.key.as_ref().map(Key::label).unwrap_or_default().into_owned(),
        "source" => message.source.to_string(),
        "id" => message.id.to_string(),
        "correlationid" => message.correlation_id.to_string(),
        _ => message.causation_id.as_ref().map(MessageId::as_str).unwrap_or_default().to_owned(),
    }
}

fn value(bytes: &[u8], path: &str, hide: bool) -> String {
    let data: Option<Value> = serde_json::from_slice(bytes).ok();
    let text = match data.as_ref().and_then(|data| get(data, path)) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => return String::new(),
    };
    payload(text.as_bytes(), hide).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        let parsed: Template = "{{{name}}}\\t{data.a.b} {data}".parse().unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        let (path, whole) = (Part::Data(Some("a.b".to_owned())), Part::Data(None));
        let expected = [text("{"), Part::Field("name"), text("}\t"), path, text(" "), whole];
        assert_eq!(parsed.0, expected);
        assert!("{nam}".parse::<Template>().unwrap_err().contains("correlationid"));
        assert!("{name".parse::<Template>().unwrap_err().contains("not closed"));
    }
}
