//! A policy from TOML, with errors that name the line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use quorate_types::{AuthorityKey, Error, KeyId, KeyLabel, Result, Scheme};
use serde::Deserialize;
use toml::Spanned;

use super::{Approvals, Callback, Entry, MAX_RATE, Otherwise, Period, Policy, Rate};
use crate::calendar::Hours;
use crate::key::read_public_key;

/// The version of the format.
const VERSION: u32 = 1;
/// Deadline of a callback unless one is given, in seconds.
const CALLBACK_SECONDS: u64 = 10;
/// Longest deadline of a callback, in seconds.
const MAX_CALLBACK_SECONDS: u64 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    #[serde(default)]
    otherwise: Option<Spanned<String>>,
    #[serde(default)]
    initiators: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    approvers: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    keygen: Option<EntryFile>,
    #[serde(default)]
    default: Option<EntryFile>,
    #[serde(default)]
    keys: BTreeMap<Spanned<String>, EntryFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    #[serde(default)]
    ids: Vec<Spanned<String>>,
    #[serde(default)]
    labels: Vec<Spanned<String>>,
    #[serde(default)]
    deny: bool,
    #[serde(default)]
    initiators: Option<Vec<String>>,
    #[serde(default)]
    schemes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    hours: Vec<Spanned<String>>,
    #[serde(default)]
    rate: Vec<Spanned<String>>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default = "yes")]
    digests: bool,
    #[serde(default)]
    unidentified_holders: bool,
    #[serde(default)]
    approvals: Option<ApprovalsFile>,
    #[serde(default)]
    callback: Option<CallbackFile>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalsFile {
    needed: Spanned<usize>,
    of: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackFile {
    url: Spanned<String>,
    #[serde(default)]
    deadline_seconds: Option<Spanned<u64>>,
}

/// The text that is read, for the lines of errors.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn wrong<T>(&self, span: Range<usize>, problem: impl std::fmt::Display) -> Result<T> {
        let before = self.0.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Err(Error::invalid_field("policy", format!("line {line} of the policy: {problem}")))
    }

    fn parse<T: FromStr<Err = Error>>(&self, text: &Spanned<String>) -> Result<T> {
        text.as_ref().parse().or_else(|error: Error| self.wrong(text.span(), error.message))
    }

    fn keys(
        &self,
        named: &BTreeMap<String, Spanned<String>>,
    ) -> Result<Vec<(String, AuthorityKey)>> {
        let read = |(name, text): (&String, &Spanned<String>)| {
            let key = read_public_key(text.as_ref());
            let key =
                key.or_else(|error| self.wrong(text.span(), format!("{name}: {}", error.message)))?;
            Ok((name.clone(), key))
        };
        named.iter().map(read).collect()
    }

    fn entry(
        &self,
        name: String,
        file: EntryFile,
        approvers: &[(String, AuthorityKey)],
    ) -> Result<Entry> {
        let schemes =
            file.schemes.map(|all| all.iter().map(|text| self.parse::<Scheme>(text)).collect());
        let hours = |text: &Spanned<String>| {
            Hours::read(text.as_ref()).or_else(|problem| self.wrong(text.span(), problem))
        };
        let rate = |text: &Spanned<String>| {
            rate(text.as_ref()).or_else(|problem| self.wrong(text.span(), problem))
        };
        Ok(Entry {
            ids: file.ids.iter().map(|id| self.parse::<KeyId>(id)).collect::<Result<_>>()?,
            labels: file
                .labels
                .iter()
                .map(|label| self.parse::<KeyLabel>(label))
                .collect::<Result<_>>()?,
            deny: file.deny,
            initiators: file.initiators,
            schemes: schemes.transpose()?,
            hours: file.hours.iter().map(hours).collect::<Result<_>>()?,
            rates: file.rate.iter().map(rate).collect::<Result<_>>()?,
            count: file.count,
            digests: file.digests,
            unidentified_holders: file.unidentified_holders,
            approvals: file.approvals.map(|file| self.approvals(&file, approvers)).transpose()?,
            callback: file.callback.map(|file| self.callback(file)).transpose()?,
            name,
        })
    }

    fn approvals(
        &self,
        file: &ApprovalsFile,
        approvers: &[(String, AuthorityKey)],
    ) -> Result<Approvals> {
        let mut of: Vec<(String, AuthorityKey)> = Vec::new();
        for text in &file.of {
            let Some(known) = approvers.iter().find(|(name, _)| name == text.as_ref()) else {
                let problem = format!("{} is none of [approvers]", text.as_ref());
                return self.wrong(text.span(), problem);
            };
            if of.iter().any(|(_, key)| *key == known.1) {
                return self.wrong(text.span(), format!("{} is named twice", text.as_ref()));
            }
            of.push(known.clone());
        }
        let needed = *file.needed.as_ref();
        if needed == 0 || needed > of.len() {
            let problem = format!("needed is 1 to {}, the number of approvers", of.len());
            return self.wrong(file.needed.span(), problem);
        }
        Ok(Approvals { needed, of })
    }

    fn callback(&self, file: CallbackFile) -> Result<Callback> {
        let url = file.url.as_ref();
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        let on_this_machine = local.iter().filter_map(|start| url.strip_prefix(start));
        let mut rests = on_this_machine.map(|rest| rest.chars().next());
        let local = rests.any(|next| matches!(next, None | Some(':' | '/')));
        if !local && !url.starts_with("https://") {
            let problem = "a callback is asked over https, or over http on this machine";
            return self.wrong(file.url.span(), problem);
        }
        let seconds = match &file.deadline_seconds {
            None => CALLBACK_SECONDS,
            Some(given) if (1..=MAX_CALLBACK_SECONDS).contains(given.as_ref()) => *given.as_ref(),
            Some(given) => {
                let problem = format!("deadline_seconds is 1 to {MAX_CALLBACK_SECONDS}");
                return self.wrong(given.span(), problem);
            }
        };
        Ok(Callback { url: file.url.into_inner(), deadline: Duration::from_secs(seconds) })
    }
}

fn rate(text: &str) -> std::result::Result<Rate, String> {
    let form = || format!("{text:?} is not a rate: write \"10/hour\"; or second, minute, day");
    let (count, per) = text.split_once('/').ok_or_else(form)?;
    let count = count.trim().parse::<u32>().map_err(|_| form())?;
    let per = Period::of(per.trim()).ok_or_else(form)?;
    if count == 0 || count > MAX_RATE {
        return Err(format!("a rate counts 1 to {MAX_RATE}; for none at all write deny = true"));
    }
    Ok(Rate { count, per })
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// `invalid_request` with the line and what is wrong there.
    pub fn read(text: &str) -> Result<Self> {
        let source = Source(text);
        let file: File = toml::from_str(text).or_else(|error: toml::de::Error| {
            let span = error.span().unwrap_or_default();
            source.wrong(span, error.message())
        })?;
        if *file.version.as_ref() != VERSION {
            let problem = format!("this program reads version {VERSION} of policies");
            return source.wrong(file.version.span(), problem);
        }
        let otherwise =
            match file.otherwise.as_ref().map(|text| (text.as_ref().as_str(), text.span())) {
                None | Some(("deny", _)) => Otherwise::Deny,
                Some(("allow", _)) => Otherwise::Allow,
                Some((_, span)) => return source.wrong(span, "otherwise is \"deny\" or \"allow\""),
            };
        let approvers = source.keys(&file.approvers)?;
        let entry = |name: &str, file| source.entry(name.to_owned(), file, &approvers);
        let keygen = file.keygen.map(|file| entry("keygen", file)).transpose()?;
        let default = file.default.map(|file| entry("default", file)).transpose()?;
        for (name, entry) in [("keygen", &keygen), ("default", &default)] {
            let named = |entry: &Entry| !entry.ids.is_empty() || !entry.labels.is_empty();
            if entry.as_ref().is_some_and(named) {
                let problem =
                    format!("[{name}] is about no key of its own: leave ids and labels out");
                return source.wrong(0..0, problem);
            }
        }
        let mut keys: Vec<Entry> = Vec::new();
        for (name, file) in file.keys {
            let span = name.span();
            let mut entry = entry(name.as_ref(), file)?;
            // A table may be named by its key's id.
            if let Ok(id) = name.as_ref().parse() {
                entry.ids.push(id);
            }
            if entry.ids.is_empty() && entry.labels.is_empty() {
                let problem =
                    format!("[keys.{}] is about no key: give ids or labels", name.as_ref());
                return source.wrong(span, problem);
            }
            let known = |label: &&KeyLabel| keys.iter().any(|known| known.labels.contains(label));
            if let Some(label) = entry.labels.iter().find(known) {
                return source.wrong(span, format!("label {label} has two rules"));
            }
            let twice = entry.ids.iter().find(|id| keys.iter().any(|known| known.ids.contains(id)));
            if let Some(id) = twice {
                return source.wrong(span, format!("key {id} has two rules"));
            }
            keys.push(entry);
        }
        Ok(Self { initiators: source.keys(&file.initiators)?, keys, keygen, default, otherwise })
    }
}
