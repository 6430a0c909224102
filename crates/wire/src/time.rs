//! Times as text: RFC 3339 for accounts and the spelled-out uptime.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate_types::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a service runs, as `24h30m15s`; hours are not folded into days.
pub fn uptime(since_start: Duration) -> String {
    let seconds = since_start.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// A moment as `2024-01-15T10:30:00Z`, in whole seconds of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = DateTime)]
pub struct Rfc3339(pub Timestamp);

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year; 400 of them have
/// 146 097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * march_month + 2) / 5 + 1)
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0.div_euclid(1000);
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let clock = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Rfc3339 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::invalid(format!("{text:?} is no time like 2024-01-15T10:30:00Z"));
        let bytes = text.as_bytes();
        let shape = b"dddd-dd-ddTdd:dd:ddZ";
        let fits = bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                _ => byte == wanted,
            });
        if !fits {
            return Err(refused());
        }
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))
        };
        let date = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
        let days = days_from_civil(date.0, date.1, date.2);
        if civil_from_days(days) != date || hour > 23 || minute > 59 || second > 59 {
            return Err(refused());
        }
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
        Ok(Self(Timestamp(seconds * 1000)))
    }
}

impl TryFrom<String> for Rfc3339 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: Error| error.message)
    }
}

impl From<Rfc3339> for String {
    fn from(moment: Rfc3339) -> Self {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_703_145_600, "2023-12-21T08:00:00Z"),
            (1_705_314_600, "2024-01-15T10:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Rfc3339(Timestamp(seconds * 1000)).to_string(), text);
            assert_eq!(text.parse::<Rfc3339>().unwrap().0, Timestamp(seconds * 1000));
        }
    }

    #[test]
    fn every_day_of_800_years_follows_the_one_before() {
        let mut expected = (1970, 1, 1);
        for day in 0..292_194 {
            let (year, month, date) = civil_from_days(day);
            assert_eq!((year, month, date), expected);
            assert_eq!(days_from_civil(year, month, date), day);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, date == last) {
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
                _ => (year, month, date + 1),
            };
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for bad in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-10T00:00:00Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15 10:30:00Z",
            "2024-01-15T10:30:00",
            "2024-01-15T10:30:0éZ",
            "",
        ] {
            assert!(bad.parse::<Rfc3339>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn moments_survive_their_text(seconds in -62_167_219_200_i64..=253_402_300_799) {
            let moment = Rfc3339(Timestamp(seconds * 1000));
            prop_assert_eq!(moment.to_string().parse::<Rfc3339>().unwrap(), moment);
        }
    }

    #[test]
    fn uptime_spells_hours_minutes_seconds() {
        let after = |seconds| uptime(Duration::from_secs(seconds));
        assert_eq!(after(24 * 3600 + 30 * 60 + 15), "24h30m15s");
        assert_eq!(after(0), "0s");
        assert_eq!(after(61), "1m1s");
        assert_eq!(after(3600), "1h0m0s");
        assert_eq!(after(100 * 3600), "100h0m0s");
    }
}
