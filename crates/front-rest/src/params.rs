//! Query parameters: each is asked for by name, and what nobody asked for is refused.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use quorate_types::{Error, Result, WaitFor};

use crate::answer::ApiError;

/// The query's parameters that nobody has asked for yet.
pub(crate) struct Params {
    /// What has not been taken out.
    left: Vec<(String, String)>,
    /// The names that were asked for.
    known: Vec<&'static str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Error::invalid("the query is malformed; percent-encode its values"))?;
        Ok(Self { left: pairs, known: Vec::new() })
    }
}

impl Params {
    /// Takes the parameter out as text.
    fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.known.push(name);
        let Some(at) = self.left.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.left.swap_remove(at);
        if self.left.iter().any(|(key, _)| key == name) {
            return Err(Error::invalid_field(name, format!("{name} is given twice in the query")));
        }
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    /// Takes a parameter out; an empty one counts as absent.
    pub(crate) fn optional<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error: T::Err| {
            let problem = error.to_string();
            let problem = problem.strip_prefix("invalid_request: ").unwrap_or(&problem);
            Error::invalid_field(name, format!("{name} in the query: {problem}"))
        })
    }

    /// Takes a parameter out that has two names: its own and that of the gRPC field.
    pub(crate) fn either<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        field: &'static str,
    ) -> Result<Option<T>> {
        match (self.optional(name)?, self.optional(field)?) {
            (Some(_), Some(_)) => {
                let problem = format!("{field} is another name of {name}; give one of them");
                Err(Error::invalid_field(field, problem))
            }
            (one, other) => Ok(one.or(other)),
        }
    }

    /// Takes a parameter out that must be there.
    pub(crate) fn required<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<T> {
        self.optional(name)?.ok_or_else(|| {
            Error::invalid_field(name, format!("{name} is missing in the query; add ?{name}=…"))
        })
    }

    /// Takes `limit` out: 1 to `most`, 50 or `most` when absent.
    pub(crate) fn limit(&mut self, most: u32) -> Result<u32> {
        match self.optional("limit")? {
            None => Ok(most.min(50)),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(limit) => Err(Error::invalid_field(
                "limit",
                format!("limit is {limit}; ask for 1 to {most} at once"),
            )),
        }
    }

    /// Takes `wait` and `wait_seconds` out.
    pub(crate) fn wait(&mut self) -> Result<Option<(WaitFor, Duration)>> {
        let goal = match self.text("wait")?.as_deref() {
            None => None,
            Some("start") => Some(WaitFor::Start),
            Some("end") => Some(WaitFor::End),
            Some(_) => return Err(Error::invalid_field("wait", "wait is start or end")),
        };
        let seconds: Option<u64> = self.optional("wait_seconds")?;
        match (goal, seconds) {
            (_, Some(seconds)) if seconds > MAX_WAIT => Err(Error::invalid_field(
                "wait_seconds",
                format!("wait_seconds is at most {MAX_WAIT}; ask again to wait longer"),
            )),
            (None, Some(_)) => {
                Err(Error::invalid_field("wait", "wait_seconds needs wait=start or wait=end"))
            }
            (None, None) => Ok(None),
            (Some(goal), seconds) => {
                Ok(Some((goal, Duration::from_secs(seconds.unwrap_or(DEFAULT_WAIT)))))
            }
        }
    }

    /// Refuses what is left.
    pub(crate) fn done(self) -> Result<()> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let name: String = name.chars().take(100).collect();
        let known = match self.known.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has {}", self.known.join(", ")),
        };
        let problem = format!("{name} is not a query parameter of this path; {known}");
        Err(Error::invalid_field(&name, problem))
    }
}

/// Longest wait of a status question, in seconds: below what proxies commonly cut.
const MAX_WAIT: u64 = 60;

/// Wait of a status question that names none, in seconds.
const DEFAULT_WAIT: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let left = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Params { left, known: Vec::new() }
    }

    fn field(error: Error) -> String {
        error.details.fields.into_keys().next().unwrap_or_default()
    }

    #[test]
    fn left_over_and_repeated_parameters_are_named() {
        assert_eq!(field(params(&[("colour", "1")]).done().unwrap_err()), "colour");
        let mut some = params(&[("colour", "1"), ("after", "2")]);
        assert_eq!(some.optional::<i64>("after").unwrap(), Some(2));
        assert_eq!(some.optional::<i64>("limit").unwrap(), None);
        assert!(some.done().unwrap_err().message.contains("it has after, limit"));
        let mut twice = params(&[("after", "1"), ("after", "2")]);
        assert_eq!(field(twice.optional::<i64>("after").unwrap_err()), "after");
    }

    #[test]
    fn the_name_of_the_grpc_field_serves_too() {
        let asked = |pairs| params(pairs).either::<i64>("after", "after_timestamp");
        assert_eq!(asked(&[("after", "1")]).unwrap(), Some(1));
        assert_eq!(asked(&[("after_timestamp", "1")]).unwrap(), Some(1));
        assert_eq!(asked(&[]).unwrap(), None);
        let both = asked(&[("after_timestamp", "1"), ("after", "1")]);
        assert_eq!(field(both.unwrap_err()), "after_timestamp");
    }

    #[test]
    fn limit_has_a_default_and_bounds() {
        assert_eq!(params(&[]).limit(200).unwrap(), 50);
        assert_eq!(params(&[("limit", "200")]).limit(200).unwrap(), 200);
        for bad in ["0", "201", "-1", "x"] {
            assert_eq!(field(params(&[("limit", bad)]).limit(200).unwrap_err()), "limit");
        }
    }

    #[test]
    fn wait_takes_a_goal_and_at_most_a_minute() {
        assert!(params(&[]).wait().unwrap().is_none());
        let (goal, limit) = params(&[("wait", "end")]).wait().unwrap().unwrap();
        assert_eq!((goal, limit), (WaitFor::End, Duration::from_secs(DEFAULT_WAIT)));
        let minute = params(&[("wait", "start"), ("wait_seconds", "60")]).wait().unwrap().unwrap();
        assert_eq!(minute, (WaitFor::Start, Duration::from_secs(60)));
        for (expected, pairs) in [
            ("wait_seconds", &[("wait", "end"), ("wait_seconds", "61")][..]),
            ("wait", &[("wait_seconds", "5")]),
            ("wait", &[("wait", "forever")]),
        ] {
            assert_eq!(field(params(pairs).wait().unwrap_err()), expected);
        }
    }
}
