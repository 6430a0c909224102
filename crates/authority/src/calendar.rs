//! Hours of the week in UTC.

use quorate_types::Timestamp;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MILLIS: i64 = 24 * 3600 * 1000;
/// 1 January 1970 was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

/// Hours of some days of the week: `mon-fri 08:00-18:00`, `sat 00:00-24:00`. UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    days: [bool; 7],
    /// Minutes of the day, from the first to before the second.
    from: u16,
    to: u16,
}

impl Hours {
    /// Reads a range such as `mon-fri 08:00-18:00`, in UTC.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let form = || {
            format!("{text:?} is not a weekly time range: write \"mon-fri 08:00-18:00\", in UTC")
        };
        let (days, hours) = text.trim().split_once(' ').ok_or_else(form)?;
        let day = |name: &str| DAYS.iter().position(|day| *day == name);
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let (first, last) = day(first).zip(day(last)).ok_or_else(form)?;
        let mut on = [false; 7];
        let mut at = first;
        loop {
            on[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
        let (from, to) = hours.trim().split_once('-').ok_or_else(form)?;
        let (from, to) = minute(from).zip(minute(to)).ok_or_else(form)?;
        if from >= to {
            return Err(format!("{text:?} ends before it begins: write two, one for each day"));
        }
        Ok(Self { days: on, from, to })
    }

    /// Whether a moment is among them.
    pub fn contain(&self, now: Timestamp) -> bool {
        let day = now.0.div_euclid(DAY_MILLIS);
        let minute = now.0.rem_euclid(DAY_MILLIS) / 60_000;
        let weekday = (day + EPOCH_WEEKDAY).rem_euclid(7);
        let on = usize::try_from(weekday).is_ok_and(|weekday| self.days[weekday]);
        on && (i64::from(self.from)..i64::from(self.to)).contains(&minute)
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hours, minutes) = number(hours).zip(number(minutes))?;
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 24 * 60).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Friday, 27 November 2026, 00:00 UTC.
    const FRIDAY: i64 = 1_795_737_600_000;

    fn at(days: i64, minutes: i64) -> Timestamp {
        Timestamp(FRIDAY + days * DAY_MILLIS + minutes * 60_000)
    }

    #[test]
    fn hours_hold_on_their_days_from_the_first_minute_to_before_the_last() {
        let office = Hours::read("mon-fri 08:00-18:30").unwrap();
        assert!(!office.contain(at(0, 479)) && office.contain(at(0, 480)));
        assert!(office.contain(at(0, 1109)) && !office.contain(at(0, 1110)));
        assert!(!office.contain(at(1, 600)) && !office.contain(at(2, 600)));
        assert!(office.contain(at(3, 600)));
        let weekend = Hours::read("sat-mon 00:00-24:00").unwrap();
        assert!(!weekend.contain(at(0, 1439)) && weekend.contain(at(1, 0)));
        assert!(weekend.contain(at(3, 1439)) && !weekend.contain(at(4, 0)));
        assert!(Hours::read("thu 00:00-01:00").unwrap().contain(Timestamp(0)));
        assert!(Hours::read("wed 23:00-24:00").unwrap().contain(Timestamp(-1)));
    }

    #[test]
    fn what_is_no_time_of_the_week_is_refused() {
        for wrong in [
            "",
            "mon",
            "mon 8:00-9:00",
            "moon 08:00-09:00",
            "mon 08:00",
            "mon 25:00-26:00",
            "mon 09:00-08:00",
            "mon 08:60-09:00",
            "mon 08:00-08:00",
        ] {
            assert!(Hours::read(wrong).is_err(), "{wrong}");
        }
    }
}
