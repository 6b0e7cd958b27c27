//! Time: a wall-clock instant with microseconds, and the clock that everything asks.

use crate::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, ops, str::FromStr, time::Duration};

/// A moment in UTC, in microseconds since 1970-01-01T00:00:00Z.
///
/// Written as RFC 3339 with exactly six decimals, so that the text sorts as the time does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch, held within the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Self {
        Timestamp(micros.clamp(-62_135_596_800_000_000, 253_402_207_200_000_000 - 1))
    }

    /// Microseconds since the epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// As it is written, without an allocation.
    pub(crate) fn to_text(self) -> TimeText {
        TimeText::of(self)
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl ops::Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, delay: Duration) -> Timestamp {
        let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.0.saturating_add(micros))
    }
}

impl ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, delay: Duration) -> Timestamp {
        let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.0.saturating_sub(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_text().as_str())
    }
}

/// A moment as `2026-01-02T03:04:05.000006Z`.
pub(crate) struct TimeText([u8; 27]);

const DAY: i64 = 86_400_000_000;

impl TimeText {
    /// The calendar is Howard Hinnant's `civil_from_days`: years that begin in March, in eras of
    /// 400 of them.
    fn of(time: Timestamp) -> TimeText {
        let (days, micros) = (time.0.div_euclid(DAY), time.0.rem_euclid(DAY));
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let seconds = micros / 1_000_000;
        let (minutes, hours) = (seconds / 60, seconds / 3_600);
        for (from, to, number) in [
            (0, 4, year),
            (5, 7, month),
            (8, 10, day),
            (11, 13, hours),
            (14, 16, minutes % 60),
            (17, 19, seconds % 60),
            (20, 26, micros % 1_000_000),
        ] {
            let mut rest = number;
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
        }
        TimeText(text)
    }

    /// The moment of a text in exactly this form; of any other, `None`.
    pub(crate) fn read(text: &[u8]) -> Option<Timestamp> {
        let text: &[u8; 27] = text.try_into().ok()?;
        if [4, 7, 10, 13, 16, 19, 26].map(|place| text[place]) != *b"--T::.Z" {
            return None;
        }
        let mut is_number = true;
        let mut number = |from: usize, to: usize| {
            text[from..to].iter().fold(0u32, |number, byte| {
                let digit = byte.wrapping_sub(b'0');
                is_number &= digit < 10;
                number.wrapping_mul(10).wrapping_add(u32::from(digit))
            })
        };
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hours, minutes, seconds) = (number(11, 13), number(14, 16), number(17, 19));
        let micros = i64::from(number(20, 26));
        if !is_number {
            return None;
        }
        // What is beyond a calendar's bounds is for the careful parser, which also says why.
        let is_plain = (1..=12).contains(&month) && (1..=28).contains(&day) && year > 0;
        if !is_plain || hours > 23 || minutes > 59 || seconds > 59 {
            return None;
        }
        let year = year - u32::from(month <= 2);
        let (era, of_era) = (year / 400, year % 400);
        let month = if month > 2 { month - 3 } else { month + 9 };
        let of_year = (153 * month + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let seconds = i64::from((hours * 60 + minutes) * 60 + seconds);
        Some(Timestamp((i64::from(days) - 719_468) * DAY + seconds * 1_000_000 + micros))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Timestamp {
    type Err = crate::Error;
    fn from_str(text: &str) -> crate::Result<Self> {
        if let Some(time) = TimeText::read(text.as_bytes()) {
            return Ok(time);
        }
        text.parse::<jiff::Timestamp>().map(|time| Timestamp(time.as_microsecond())).map_err(
            |error| crate::Error::invalid(format!("`{text}` is no RFC 3339 time")).because(error),
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The only way to the time of day, to elapsed time and to waiting.
///
/// Safety never rests on [`Clock::now`]: it stamps messages and feeds the embedded database's own
/// time. Delays are measured with [`Clock::elapsed`], which never goes back.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment in this process; never goes back.
    fn elapsed(&self) -> Duration;
    /// Completes after `delay`; at once where that is zero.
    fn sleep(&self, delay: Duration) -> BoxFuture<'static, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_sorts_as_time_and_reads_back() {
        let early = Timestamp::from_micros(1_700_000_000_000_000);
        let late = early + Duration::from_micros(1);
        assert_eq!(early.to_string(), "2023-11-14T22:13:20.000000Z");
        assert!(early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse::<Timestamp>().unwrap(), late);
        assert_eq!(late.since(early), Duration::from_micros(1));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    proptest! {
        /// What we write and read by ourselves is what jiff says.
        #[test]
        fn texts_are_those_of_the_calendar(micros in -62_135_596_800_000_000i64..253_402_207_200_000_000) {
            let time = Timestamp::from_micros(micros);
            let known = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(time.to_string(), format!("{known:.6}"));
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }

        #[test]
        fn what_looks_like_a_time_is_read_as_the_calendar_has_it(
            text in "[0-9]{3}[1-9]-(0[0-9]|1[0-3])-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{6}Z"
        ) {
            let known = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
            prop_assert_eq!(text.parse::<Timestamp>().ok().map(Timestamp::as_micros), known);
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let end = Timestamp::from_micros(i64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert!(end.to_string().starts_with("9999-"));
        let start = Timestamp::from_micros(i64::MIN);
        assert!(start.to_string().starts_with("0001-"), "{start}");
    }
}
