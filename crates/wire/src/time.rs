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

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0.div_euclid(1000);
        match jiff::Timestamp::from_second(seconds) {
            Ok(moment) => moment.fmt(f),
            // Beyond the year 9999: a signed document may say so.
            Err(_) => write!(f, "{seconds} s after 1970-01-01T00:00:00Z"),
        }
    }
}

impl FromStr for Rfc3339 {
    type Err = Error;

    /// Reads any offset and fraction of RFC 3339, and keeps whole seconds.
    fn from_str(text: &str) -> Result<Self> {
        let moment = jiff::Timestamp::from_str(text).map_err(|_| {
            Error::invalid(format!("{text:?} is not a time such as 2024-01-15T10:30:00Z"))
        })?;
        Ok(Self(Timestamp(moment.as_second() * 1000)))
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
            (253_402_207_200, "9999-12-30T22:00:00Z"),
        ] {
            assert_eq!(Rfc3339(Timestamp(seconds * 1000)).to_string(), text);
            assert_eq!(text.parse::<Rfc3339>().unwrap().0, Timestamp(seconds * 1000));
        }
    }

    #[test]
    fn other_forms_of_a_moment_are_read() {
        let moment = Rfc3339(Timestamp(1_705_314_600_000));
        for text in
            ["2024-01-15T11:30:00+01:00", "2024-01-15T10:30:00.999Z", "2024-01-15t10:30:00z"]
        {
            assert_eq!(text.parse::<Rfc3339>().unwrap(), moment, "{text}");
        }
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_still_written() {
        for extreme in [i64::MIN, i64::MAX] {
            assert!(Rfc3339(Timestamp(extreme)).to_string().ends_with("1970-01-01T00:00:00Z"));
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for bad in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-10T00:00:00Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15T10:30:00",
            "2024-01-15T10:30:0éZ",
            "",
        ] {
            assert!(bad.parse::<Rfc3339>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn moments_survive_their_text(seconds in -62_167_219_200_i64..=253_402_207_200) {
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
