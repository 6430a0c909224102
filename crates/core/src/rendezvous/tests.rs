//! One test for each rule of the rendezvous.

use quorate_types::ClientAddress;

use super::*;

impl Receiver for Arc<Account> {
    fn account(&self) -> &Arc<Account> {
        self
    }
}

const TTL: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(n: u8) -> RelayId {
    RelayId([n; 32])
}

/// One for each number below 256.
fn address(number: u64) -> ClientAddress {
    ClientAddress::of([10, 0, 0, u8::try_from(number).unwrap()].into())
}

struct World {
    ledger: Arc<Ledger>,
    rendezvous: Rendezvous<Arc<Account>>,
    /// Who got which frame.
    got: Vec<(u64, Bytes)>,
    /// Connections that take nothing.
    deaf: Vec<u64>,
}

impl World {
    fn new(limits: RendezvousLimits) -> Self {
        let ledger = Ledger::new(limits);
        Self { ledger, rendezvous: Rendezvous::default(), got: Vec::new(), deaf: Vec::new() }
    }

    /// A connection from an address of its own.
    fn connection(&self, number: u64) -> Arc<Account> {
        Account::new(&self.ledger, number, address(number))
    }

    fn ask(&mut self, now: u64, n: u8, who: &Arc<Account>) -> Asked {
        self.rendezvous.ask(at(now), id(n), TTL, who).unwrap()
    }

    fn publish(
        &mut self,
        now: u64,
        n: u8,
        ttl: u64,
        one_receiver: bool,
        body: &'static [u8],
        who: &Arc<Account>,
    ) -> Result<Published, Rejection> {
        let frame = Bytes::from_static(body);
        let message = Publish { id: id(n), ttl: at(ttl), one_receiver, frame };
        let (got, deaf) = (&mut self.got, &self.deaf);
        self.rendezvous.publish(at(now), message, who, |to, frame| {
            let takes = !deaf.contains(&to.number());
            if takes {
                got.push((to.number(), frame.clone()));
            }
            takes
        })
    }

    fn receivers(&self) -> Vec<u64> {
        self.got.iter().map(|(number, _)| *number).collect()
    }

    fn assert_empty(&self) {
        assert!(self.rendezvous.is_empty());
        assert_eq!(self.rendezvous.next_deadline(), None);
        let ledger = &self.ledger;
        assert_eq!((ledger.held_bytes(), ledger.stored(), ledger.asks()), (0, 0, 0));
    }
}

fn world() -> (World, Arc<Account>, Arc<Account>) {
    let world = World::new(RendezvousLimits::default());
    let (a, b) = (world.connection(1), world.connection(2));
    (world, a, b)
}

#[test]
fn a_stored_message_is_ready_for_every_asker_until_its_ttl() {
    let (mut world, a, b) = world();
    assert_eq!(world.publish(0, 1, 10, false, b"x", &a), Ok(Published::Stored(0)));
    for who in [&a, &b, &b] {
        assert_eq!(world.ask(9, 1, who), Asked::Ready(Bytes::from_static(b"x")));
    }
    assert_eq!(world.ask(10, 1, &b), Asked::Waits, "due, though nothing has expired it");
    assert_eq!(world.ledger.stored(), 0);
}

#[test]
fn every_waiter_gets_the_same_body_and_it_stays() {
    let (mut world, a, b) = world();
    assert_eq!(world.ask(0, 1, &b), Asked::Waits);
    assert_eq!(world.ask(0, 1, &a), Asked::Waits);
    assert_eq!(world.publish(1, 1, 10, false, b"x", &a), Ok(Published::Stored(2)));
    assert_eq!(world.receivers(), [2, 1], "in the order of the questions");
    assert_eq!(world.got[0].1.as_ptr(), world.got[1].1.as_ptr());
    assert_eq!(world.ask(2, 1, &b), Asked::Ready(Bytes::from_static(b"x")));
}

#[test]
fn the_first_message_wins_until_its_ttl() {
    let (mut world, a, b) = world();
    assert_eq!(world.publish(0, 1, 10, false, b"x", &a), Ok(Published::Stored(0)));
    assert_eq!(world.publish(9, 1, 10, false, b"y", &b), Ok(Published::Ignored));
    assert_eq!(world.ask(9, 1, &b), Asked::Ready(Bytes::from_static(b"x")));
    assert_eq!(world.publish(10, 1, 10, false, b"y", &b), Ok(Published::Stored(0)));
    assert_eq!(world.ask(11, 1, &b), Asked::Ready(Bytes::from_static(b"y")));
}

#[test]
fn a_ttl_of_zero_reaches_present_waiters_and_is_not_stored() {
    let (mut world, a, b) = world();
    assert_eq!(world.publish(0, 1, 0, false, b"x", &a), Ok(Published::Delivered(0)));
    assert_eq!(world.ask(0, 1, &b), Asked::Waits);
    assert_eq!(world.publish(1, 1, 0, false, b"y", &a), Ok(Published::Delivered(1)));
    world.assert_empty();
}

#[test]
fn a_question_with_a_ttl_of_zero_does_not_wait() {
    let (mut world, a, b) = world();
    assert_eq!(world.rendezvous.ask(at(0), id(1), at(0), &b), Ok(Asked::Nothing));
    world.assert_empty();
    assert_eq!(world.publish(0, 1, 5, false, b"x", &a), Ok(Published::Stored(0)));
    let ready = Asked::Ready(Bytes::from_static(b"x"));
    assert_eq!(world.rendezvous.ask(at(0), id(1), at(0), &b), Ok(ready));
}

#[test]
fn one_receiver_goes_to_the_first_waiter_that_takes_it() {
    let (mut world, a, b) = world();
    let c = world.connection(3);
    for who in [&a, &b, &c] {
        assert_eq!(world.ask(0, 1, who), Asked::Waits);
    }
    world.deaf.push(1);
    assert_eq!(world.publish(1, 1, 10, true, b"x", &a), Ok(Published::Delivered(1)));
    assert_eq!(world.publish(2, 1, 10, true, b"y", &a), Ok(Published::Delivered(1)));
    assert_eq!(world.receivers(), [2, 3], "one each, the others went on waiting");
    assert_eq!(world.publish(3, 1, 10, true, b"z", &a), Ok(Published::Stored(0)));
    assert_eq!(world.ask(4, 1, &b), Asked::Ready(Bytes::from_static(b"z")));
    assert_eq!(world.ask(4, 1, &c), Asked::Waits, "forgotten once it was asked for");
}

#[test]
fn asking_twice_is_answered_once_and_lasts_as_long_as_the_longer() {
    let (mut world, a, b) = world();
    assert_eq!(world.ask(0, 1, &b), Asked::Waits);
    assert_eq!(world.ask(5, 1, &b), Asked::Waits);
    assert_eq!(world.rendezvous.ask(at(6), id(1), at(1), &b), Ok(Asked::Waits));
    assert_eq!(world.ledger.asks(), 1);
    assert_eq!(world.rendezvous.next_deadline(), Some(at(15)));
    assert_eq!(world.publish(14, 1, 1, false, b"x", &a), Ok(Published::Stored(1)));
}

#[test]
fn a_waiter_has_its_own_ttl() {
    let (mut world, a, b) = world();
    assert_eq!(world.ask(0, 1, &a), Asked::Waits);
    assert_eq!(world.ask(5, 1, &b), Asked::Waits);
    assert_eq!(world.publish(10, 1, 1, false, b"x", &a), Ok(Published::Stored(1)));
    assert_eq!(world.receivers(), [2]);
}

#[test]
fn expiry_goes_by_deadline_and_in_portions() {
    let (mut world, a, b) = world();
    for n in 0..10 {
        let ttl = 1 + u64::from(n);
        assert_eq!(world.publish(0, n, ttl, false, b"x", &a), Ok(Published::Stored(0)));
    }
    assert_eq!(world.ask(0, 100, &b), Asked::Waits);
    assert_eq!(world.rendezvous.next_deadline(), Some(at(1)));
    assert_eq!(world.rendezvous.expire(at(0), 100), Expired::default());
    assert_eq!(world.rendezvous.expire(at(5), 3), Expired { stored: 3, asks: 0 });
    assert_eq!(world.rendezvous.next_deadline(), Some(at(4)));
    assert_eq!(world.rendezvous.expire(at(10), 100), Expired { stored: 7, asks: 1 });
    world.assert_empty();
}

#[test]
fn a_connection_that_leaves_takes_its_questions_and_leaves_its_messages() {
    let (mut world, a, b) = world();
    assert_eq!(world.publish(0, 1, 10, false, b"x", &a), Ok(Published::Stored(0)));
    assert_eq!(world.ask(0, 2, &a), Asked::Waits);
    assert_eq!(world.ask(0, 3, &a), Asked::Waits);
    assert_eq!(world.ask(0, 3, &b), Asked::Waits);
    assert_eq!(world.rendezvous.leave(1), 2);
    assert_eq!(world.ledger.asks(), 1);
    assert_eq!(world.publish(1, 3, 0, false, b"y", &b), Ok(Published::Delivered(1)));
    assert_eq!(world.receivers(), [2]);
    assert_eq!(world.ask(1, 1, &b), Asked::Ready(Bytes::from_static(b"x")));
}

#[test]
fn each_bound_refuses_with_its_code_and_charges_nothing() {
    let limits = RendezvousLimits {
        message_bytes: 10,
        connection_bytes: 20,
        connection_ids: 3,
        total_bytes: 8 * ID_COST + 50,
    };
    let mut world = World::new(limits);
    let (a, b) = (world.connection(1), world.connection(2));
    let body = b"0123456789";
    assert_eq!(world.publish(0, 1, 9, false, b"0123456789+", &a), Err(Rejection::TooLarge));
    assert_eq!(world.ask(0, 9, &b), Asked::Waits);
    for n in [1, 2] {
        assert_eq!(world.publish(0, n, 9, false, body, &a), Ok(Published::Stored(0)));
    }
    let refused = world.publish(0, 9, 9, false, b"0", &a);
    assert_eq!(refused, Err(Rejection::ConnectionBytes));
    assert_eq!(world.receivers(), [0; 0], "what is refused reaches nobody");
    assert_eq!(world.publish(0, 1, 9, false, body, &a), Ok(Published::Ignored));
    assert_eq!(world.ask(0, 10, &a), Asked::Waits);
    assert_eq!(world.rendezvous.ask(at(0), id(11), TTL, &a), Err(Rejection::ConnectionIds));
    assert_eq!(world.ledger.held_bytes(), 4 * ID_COST + 20);
    assert_eq!(world.rendezvous.expire(at(10), 9), Expired { stored: 2, asks: 2 });
    world.assert_empty();
    let codes = [
        Rejection::TooLarge,
        Rejection::ConnectionBytes,
        Rejection::ConnectionIds,
        Rejection::Address,
        Rejection::Full,
    ];
    assert_eq!(codes.map(Rejection::close_code), [1009, 1013, 1013, 1013, 1013]);
}

#[test]
fn an_address_holds_half_however_many_connections_it_has() {
    let limits = RendezvousLimits { total_bytes: 8 * ID_COST + 8, ..RendezvousLimits::default() };
    let mut world = World::new(limits);
    let ledger = world.ledger.clone();
    let of_one = |number| Account::new(&ledger, number, address(1));
    let first = of_one(1);
    assert_eq!(world.publish(0, 1, 9, false, b"x", &first), Ok(Published::Stored(0)));
    world.rendezvous.leave(1);
    drop(first);
    let second = of_one(2);
    assert_eq!(world.ask(0, 2, &second), Asked::Waits);
    for n in [3, 4] {
        assert_eq!(world.publish(0, n, 9, false, b"x", &second), Ok(Published::Stored(0)));
    }
    let third = of_one(3);
    let refused = world.publish(0, 5, 9, false, b"x", &third);
    assert_eq!(refused, Err(Rejection::Address), "also for what one left that is gone");
    assert_eq!(world.rendezvous.ask(at(0), id(6), TTL, &third), Err(Rejection::Address));
    let others = [4, 5].map(|number| world.connection(number));
    for n in 11..15 {
        let taken = world.publish(0, n, 9, false, b"x", &others[usize::from(n == 14)]);
        assert_eq!(taken, Ok(Published::Stored(0)), "half is left to others");
    }
    assert_eq!(world.publish(0, 15, 9, false, b"x", &others[1]), Err(Rejection::Full));
    world.rendezvous.expire(at(10), 99);
    world.assert_empty();
}

#[test]
fn an_address_that_leaves_newcomers_no_room_stores_for_minutes_only() {
    let limits = RendezvousLimits { total_bytes: 10 * ID_COST, ..RendezvousLimits::default() };
    let mut world = World::new(limits);
    let (a, b) = (world.connection(1), world.connection(2));
    for n in 0..4 {
        assert_eq!(world.ask(0, n, &a), Asked::Waits);
        assert_eq!(world.ask(0, n, &b), Asked::Waits);
        let pressed = n == 3;
        assert_eq!(a.longest_ttl() == PRESSED_TTL, pressed, "{n}");
    }
    assert_eq!(world.connection(3).longest_ttl(), Duration::MAX);
    assert_eq!(world.rendezvous.leave(2), 4);
    assert_eq!(a.longest_ttl(), Duration::MAX);
}

#[test]
fn memory_is_given_back_after_a_flood() {
    let (mut world, a, _) = world();
    for n in 0..50_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        let frame = Bytes::from_static(b"x");
        let message = Publish { id: RelayId(bytes), ttl: TTL, one_receiver: false, frame };
        world.rendezvous.publish(at(0), message, &a, |_, _| true).unwrap();
    }
    assert!(world.rendezvous.room() >= 50_000);
    while world.rendezvous.next_deadline().is_some() {
        world.rendezvous.expire(TTL, 1_000);
    }
    world.assert_empty();
    assert!(world.rendezvous.room() <= KEPT_ROOM);
}
