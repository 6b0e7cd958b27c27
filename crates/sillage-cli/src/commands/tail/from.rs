//! Where a tail begins.

use crate::args::Moment;
use sillage::{Position, Timestamp};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    End,
    Last(usize),
    At(Position),
    Time(Moment, Option<Moment>),
}

impl From {
    /// The times it is bounded by: from, and before.
    pub(super) fn times(self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        match self {
            From::Time(since, before) => (Some(since.at(now)), before.map(|before| before.at(now))),
            _ => (None, None),
        }
    }
}

impl FromStr for From {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let expected = "expected `start`, `end`, `-N`, a position, `@-10m` or `@TIME:TIME`";
            digits.parse::<u64>().map_err(|_| expected.to_owned())
        };
        match text {
            "start" => Ok(From::Start),
            "end" => Ok(From::End),
            _ => match (text.strip_prefix('@'), text.strip_prefix('-')) {
                (Some(times), _) => range(times),
                (None, Some(digits)) => {
                    let count = usize::try_from(number(digits)?).unwrap_or(usize::MAX);
                    Ok(From::Last(count))
                }
                (None, None) => Ok(From::At(Position(number(text)?))),
            },
        }
    }
}

/// One time, or two with a colon between; times have colons themselves.
fn range(text: &str) -> Result<From, String> {
    let alone = text.parse::<Moment>();
    let pair = || {
        text.match_indices(':').find_map(|(colon, _)| {
            let since = text[..colon].parse().ok()?;
            let before = text[colon + 1..].parse().ok()?;
            Some(From::Time(since, Some(before)))
        })
    };
    match alone {
        Ok(since) => Ok(From::Time(since, None)),
        Err(error) => pair().ok_or(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_grammar() {
        let parse = |text: &str| text.parse::<From>();
        let ago = |minutes: u64| Moment::Ago(Duration::from_secs(minutes * 60));
        let at = |text: &str| Moment::At(text.parse().unwrap());
        assert_eq!(parse("start"), Ok(From::Start));
        assert_eq!(parse("-20"), Ok(From::Last(20)));
        assert_eq!(parse("42"), Ok(From::At(Position(42))));
        assert_eq!(parse("@-10m"), Ok(From::Time(ago(10), None)));
        assert_eq!(parse("@-10m:-5m"), Ok(From::Time(ago(10), Some(ago(5)))));
        let (one, two) = ("2026-01-31T10:00:00Z", "2026-01-31T11:30:00.5Z");
        assert_eq!(parse(&format!("@{one}")), Ok(From::Time(at(one), None)));
        assert_eq!(parse(&format!("@{one}:{two}")), Ok(From::Time(at(one), Some(at(two)))));
        let day = at("2026-01-31T00:00:00Z");
        assert_eq!(parse("@2026-01-31:-1m"), Ok(From::Time(day, Some(ago(1)))));
        for wrong in ["", "middle", "@", "@x", "@-10m:x", "-x", "1.5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
