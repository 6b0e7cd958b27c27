//! Text for people: times, short forms, and nothing that could drive a terminal.

use sillage::Timestamp;
use std::{borrow::Cow, fmt::Write as _, time::Duration};

/// Characters that move the cursor, colour, hide or turn round what stands beside them.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with every such character as `\u{1b}`, or `\n`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// JSON that says the same, with those of such characters escaped that JSON itself lets pass.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    let passes = |c: char| c >= '\u{7f}' && is_hostile(c);
    if !json.contains(passes) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if passes(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// A payload for people: as it is where it is text, else its size.
pub(crate) fn payload(bytes: &[u8], hide: bool) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !hide => printable(text),
        _ => Cow::Owned(format!("{} bytes", bytes.len())),
    }
}

/// The first `max` characters.
pub(crate) fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// RFC 3339, UTC, with milliseconds.
pub(crate) fn millis(time: Timestamp) -> String {
    let mut text = time.to_string();
    if let Some(micros) = text.len().checked_sub(4) {
        text.replace_range(micros.., "Z");
    }
    text
}

/// The time of day of that: `10:02:11.004`.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    let text = millis(time);
    text.split_once('T').map_or(text.clone(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

/// When, and how long ago: `2026-01-02T10:02:11.004Z (5m ago)`.
pub(crate) fn when(time: Timestamp, now: Timestamp) -> String {
    if time > now {
        return format!("{} (in {})", millis(time), brief(time.since(now)));
    }
    format!("{} ({} ago)", millis(time), brief(now.since(time)))
}

/// A length of time in one unit: `250ms`, `5s`, `3m`, `2h`, `4d`.
pub(crate) fn brief(length: Duration) -> String {
    match length.as_secs() {
        0 => format!("{}ms", length.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A URL that may be shown: `amqp://user:…@host`.
pub(crate) fn without_password(url: &str) -> String {
    let (start, place) = url.split_once("://").unwrap_or(("", url));
    let (access, rest) = place.rsplit_once('@').unwrap_or(("", place));
    match access.split_once(':') {
        Some((user, _)) if !start.is_empty() => format!("{start}://{user}:…@{rest}"),
        _ => url.to_owned(),
    }
}

/// `1 key`, `2 keys`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\rd\ne\u{202e}f\u{7f}";
        let safe = "a\\u{1b}[2Jb\\u{9b}31mc\\rd\\ne\\u{202e}f\\u{7f}";
        assert_eq!(printable(hostile), safe);
        assert_eq!(printable("naïve 日本 ✓"), "naïve 日本 ✓");
        let json = serde_json::to_string(hostile).unwrap();
        let safe = printable_json(&json);
        assert!(!safe.contains(is_hostile), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), hostile);
        assert_eq!(printable_json("\"\u{e0001}\""), "\"\\udb40\\udc01\"");
    }

    #[test]
    fn times_have_milliseconds() {
        let time = Timestamp::from_micros(1_700_000_000_123_999);
        assert_eq!(millis(time), "2023-11-14T22:13:20.123Z");
        assert_eq!(time_of_day(time), "22:13:20.123");
        let later = time + Duration::from_secs(300);
        assert_eq!(when(time, later), "2023-11-14T22:13:20.123Z (5m ago)");
        assert_eq!(when(later, time), "2023-11-14T22:18:20.123Z (in 5m)");
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("amqp://me:p@ss:w@host/v"), "amqp://me:…@host/v");
        for url in ["kafka://me@host:9092", "kafka://a:1,b:2", "sqlite:a@b:c.db", "x"] {
            assert_eq!(without_password(url), url);
        }
    }

    #[test]
    fn short_forms() {
        assert_eq!(shorten("añb", 2), "añ…");
        assert_eq!(shorten("añ", 2), "añ");
        assert_eq!(payload(b"{}", false), "{}");
        assert_eq!(payload(b"{}", true), "2 bytes");
        assert_eq!(payload(&[0xff, 0], false), "2 bytes");
        assert_eq!(count(1, "key"), "1 key");
    }
}
