//! Lists in pages: newest first, or by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::ids::PartyId;
use crate::party::PartyView;
use crate::time::Timestamp;

/// A place in a list that is ordered by time and, within a millisecond, by id. Callers get it as
/// text and give it back unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    /// When the last item of the page was created.
    pub at: Timestamp,
    /// The id of the item that ends the page.
    pub id: Uuid,
}

impl From<Timestamp> for Cursor {
    /// Before everything that was created at or after `at`.
    fn from(at: Timestamp) -> Self {
        Self { at, id: Uuid::nil() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.at.0, self.id.simple())
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// Reads what [`Cursor`] displays, or a moment in milliseconds since 1970.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (at, id) = match text.split_once('_') {
            Some((at, id)) => (at, Uuid::try_parse(id).ok()),
            None => (text, Some(Uuid::nil())),
        };
        match (at.parse(), id) {
            (Ok(at), Some(id)) => Ok(Self { at: Timestamp(at), id }),
            _ => Err(Error::invalid_field(
                "before",
                "before is the `next` of the page before, or milliseconds since 1970",
            )),
        }
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for; fewer do not mean that the list ends.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Cursor>,
}

/// Parties in one answer, but for more of one name.
pub const PARTIES_PAGE: usize = 1_000;

/// The page of a list of parties, in the order of their names, that comes after a name. Answers
/// also with the name that the next page comes after.
pub fn parties_page(
    mut parties: Vec<PartyView>,
    after: Option<&PartyId>,
) -> (Vec<PartyView>, Option<PartyId>) {
    fn name(view: &PartyView) -> &PartyId {
        &view.registration.party_id
    }
    parties.sort_by(|a, b| name(a).cmp(name(b)));
    parties.retain(|view| after.is_none_or(|after| name(view) > after));
    let Some(last) = parties.get(PARTIES_PAGE - 1).map(|view| name(view).clone()) else {
        return (parties, None);
    };
    // Of one name, which several tenants may have, all are on one page.
    let end = parties.partition_point(|view| *name(view) <= last);
    let more = parties.len() > end;
    parties.truncate(end);
    (parties, more.then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::party::{NotificationChannel, PartyRole, Registration};

    fn party(name: &str) -> PartyView {
        let registration = Registration {
            party_id: name.parse().unwrap(),
            role: PartyRole::Persistent,
            version: String::new(),
            notification: NotificationChannel::default(),
            identity: None,
            delegate_key: None,
        };
        let (registered_at, last_seen_at) = (Timestamp(0), Timestamp(0));
        PartyView { registration, online: true, offline: false, registered_at, last_seen_at }
    }

    #[test]
    fn the_pages_of_a_list_of_parties_are_the_list() {
        for count in [0, 1, PARTIES_PAGE - 1, PARTIES_PAGE, PARTIES_PAGE + 1, 2 * PARTIES_PAGE + 7]
        {
            let mut all: Vec<_> = (0..count).rev().map(|n| party(&format!("p{n:05}"))).collect();
            // At the edge of the first page several of one name.
            all.extend((0..3).map(|_| party("p00999")));
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let (page, next) = parties_page(all.clone(), after.as_ref());
                assert!(page.len() < PARTIES_PAGE + 4);
                pages.extend(page);
                after = next;
                if after.is_none() {
                    break;
                }
            }
            all.sort_by(|a, b| a.registration.party_id.cmp(&b.registration.party_id));
            assert_eq!(pages, all, "{count}");
        }
    }

    #[test]
    fn a_cursor_survives_its_text_and_a_moment_is_one() {
        let cursor = Cursor { at: Timestamp(-5), id: Uuid::from_u128(7) };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        let moment = "1703145300000".parse::<Cursor>().unwrap();
        assert_eq!(moment, Cursor::from(Timestamp(1_703_145_300_000)));
        for bad in ["", "x", "5_", "_5", "5_7", "99999999999999999999"] {
            let error = bad.parse::<Cursor>().unwrap_err();
            assert!(error.details.fields.contains_key("before"), "{bad}");
        }
    }
}
