//! Random commands on accounts and on presence against naive models.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use quorate_core::accounts::AccountBook;
use quorate_core::presence::Presence;
use quorate_core::subscriptions::Account;
use quorate_types::*;

fn account_id(n: usize) -> AccountId {
    format!("{n:032x}").parse().unwrap()
}

fn tenant(n: usize) -> Tenant {
    format!("t{n}").parse().unwrap()
}

#[derive(Clone, Debug)]
enum Change {
    Create { tenant: usize, name: usize, email: Option<usize> },
    Update { account: usize, name: Option<usize>, email: Option<usize> },
}

fn change() -> impl Strategy<Value = Change> {
    let word = 0_usize..4;
    let maybe = prop::option::of(word.clone());
    prop_oneof![
        (0_usize..2, word, maybe.clone()).prop_map(|(tenant, name, email)| Change::Create {
            tenant,
            name,
            email
        }),
        (0_usize..20, maybe.clone(), maybe).prop_map(|(account, name, email)| Change::Update {
            account,
            name,
            email
        }),
    ]
}

fn user(n: usize) -> String {
    format!("user{n}")
}

/// The same address with its letter case changed.
fn mail(n: usize, salt: usize) -> String {
    let mail = format!("mail{n}@example.org");
    if salt.is_multiple_of(2) { mail } else { mail.to_uppercase() }
}

#[derive(Clone, PartialEq)]
struct Entry {
    tenant: usize,
    name: usize,
    email: Option<usize>,
}

fn clashes(model: &BTreeMap<usize, Entry>, own: usize, entry: &Entry) -> bool {
    model.iter().any(|(id, other)| {
        *id != own
            && other.tenant == entry.tenant
            && (other.name == entry.name || (entry.email.is_some() && other.email == entry.email))
    })
}

proptest! {
    #[test]
    fn names_and_addresses_are_unique_in_a_tenant_and_free_again_when_left(
        changes in prop::collection::vec(change(), 1..60),
    ) {
        let mut book = AccountBook::default();
        let mut model: BTreeMap<usize, Entry> = BTreeMap::new();
        for (n, change) in changes.into_iter().enumerate() {
            let now = Timestamp(i64::try_from(n).unwrap());
            let (id, entry, done) = match change {
                Change::Create { tenant: of, name, email } => {
                    let new = NewAccount {
                        username: user(name),
                        email: email.map(|email| mail(email, n)),
                        ..NewAccount::default()
                    };
                    let done = book.create(now, account_id(n), tenant(of), new);
                    (n, Entry { tenant: of, name, email }, done)
                }
                Change::Update { account, name, email } => {
                    let change = AccountChange {
                        username: name.map(user),
                        email: email.map(|email| mail(email, n)),
                        ..AccountChange::default()
                    };
                    let done = book.update(now, None, account_id(account), change);
                    let Some(old) = model.get(&account) else {
                        prop_assert_eq!(done.unwrap_err().code, ErrorCode::NotFound);
                        continue;
                    };
                    let name = name.unwrap_or(old.name);
                    (account, Entry { tenant: old.tenant, name, email: email.or(old.email) }, done)
                }
            };
            if clashes(&model, id, &entry) {
                prop_assert_eq!(done.unwrap_err().code, ErrorCode::Conflict);
            } else {
                prop_assert_eq!(done.unwrap().username, user(entry.name));
                model.insert(id, entry);
            }
        }
        for of in [None, Some(0), Some(1)] {
            let of_tenant = of.map(tenant);
            let mut paged = Vec::new();
            while let page = book.list(of_tenant.as_ref(), paged.last().copied(), 3)
                && !page.is_empty()
            {
                paged.extend(page.into_iter().map(|account| account.id));
            }
            let ours = |(_, entry): &(&usize, &Entry)| of.is_none_or(|of| of == entry.tenant);
            let expected: Vec<_> = model.iter().filter(ours).map(|(n, _)| account_id(*n)).collect();
            prop_assert_eq!(paged, expected, "page by page, oldest first, each once");
        }
    }

    #[test]
    fn a_party_is_online_by_its_streams_or_its_last_sign_of_life(
        steps in prop::collection::vec((0_u8..4, 0_usize..3, 0_i64..20_000), 1..80),
    ) {
        const ALIVE: i64 = 30_000;
        let mut presence = Presence::default();
        let account = Account::Tenant(Tenant::default());
        let owner = NameOwner::Tenant(Tenant::default());
        // Per party: open streams, last sign of life, and whether it left.
        let mut model: BTreeMap<usize, (u32, i64, bool)> = BTreeMap::new();
        let mut now = 0;
        for (what, n, pause) in steps {
            now += pause;
            let party: PartyId = format!("p{n}").parse().unwrap();
            let monotonic = Duration::from_millis(now.unsigned_abs());
            let at = Moment { wall: Timestamp(now), monotonic };
            let known = model.get_mut(&n);
            match (what, known) {
                (0, known) => {
                    let registration = Registration {
                        party_id: party,
                        role: PartyRole::Persistent,
                        version: now.to_string(),
                        notification: NotificationChannel::default(),
                        identity: None,
                        delegate_key: None,
                    };
                    presence.register(at, owner.clone(), account.clone(), registration).unwrap();
                    let streams = known.map_or(0, |known| known.0);
                    model.insert(n, (streams, now, false));
                }
                (1, known) => {
                    prop_assert_eq!(presence.heartbeat(at, &owner, &party).is_ok(), known.is_some());
                    if let Some(known) = known {
                        *known = (known.0, now, false);
                    }
                }
                (2, known) => {
                    presence.connected(at, &owner, &party);
                    if let Some(known) = known {
                        *known = (known.0 + 1, now, false);
                    }
                }
                (_, known) => {
                    presence.disconnected(at, &owner, &party);
                    if let Some(known) = known {
                        let streams = known.0.saturating_sub(1);
                        *known = (streams, now, streams == 0);
                    }
                }
            }
            let online = |(streams, seen, left): &(u32, i64, bool)| {
                *streams > 0 || (!left && now - seen < ALIVE)
            };
            let expected: Vec<_> =
                model.iter().map(|(n, known)| (format!("p{n}"), online(known), known.1)).collect();
            let listed: Vec<_> = presence
                .list(at, |_| true, None, false)
                .into_iter()
                .map(|view| {
                    (view.registration.party_id.to_string(), view.online, view.last_seen_at.0)
                })
                .collect();
            prop_assert_eq!(&listed, &expected);
            let online = expected.iter().filter(|(_, online, _)| *online).count();
            prop_assert_eq!(presence.list(at, |_| true, Some(PartyRole::Persistent), true).len(), online);
            prop_assert!(presence.list(at, |_| true, Some(PartyRole::Temporary), false).is_empty());
        }
    }
}
