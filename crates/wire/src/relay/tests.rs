//! Golden bytes, known answers and round trips of the binary relay's frames.

use proptest::prelude::*;

use super::*;

const ID: RelayId = RelayId([0xab; 32]);

fn golden(tail: &str) -> Vec<u8> {
    hex::decode("ab".repeat(32) + tail).unwrap()
}

#[test]
fn frames_have_their_golden_bytes() {
    let rows: &[(Bytes, &str)] = &[
        (ask(ID, Ttl(0)), "00000000"),
        (ask(ID, Ttl(10)), "0a000000"),
        (ask(ID, Ttl::from_secs(260)), "00010000"),
        (ask(ID, Ttl::MAX), "ffff0000"),
        (publish(ID, Ttl(255), 0, b"body"), "ff000000626f6479"),
        (publish(ID, Ttl(1), ONE_RECEIVER, &[0]), "0100008000"),
        (publish(ID, Ttl(1), 0x1234, &[7, 8]), "010034120708"),
    ];
    for (frame, tail) in rows {
        assert_eq!(frame[..], golden(tail)[..], "{tail}");
    }
}

#[test]
fn the_length_says_what_a_frame_wants() {
    assert_eq!(Header::parse(&[]), None);
    assert_eq!(Header::parse(&golden("000000")), None);
    let (header, kind) = Header::parse(&golden("05000080")).unwrap();
    assert_eq!((header.id, header.ttl, kind), (ID, Ttl(5), Kind::Ask));
    assert!(header.one_receiver());
    let (header, kind) = Header::parse(&golden("05000100ff")).unwrap();
    assert_eq!((header.flags, kind), (1, Kind::Publish));
    assert!(!header.one_receiver());
}

#[test]
fn a_ttl_counts_seconds_below_256_and_tens_from_there() {
    let rows = [(0, 0), (1, 1), (255, 255), (256, 260), (257, 270), (65_535, 653_050)];
    for (value, seconds) in rows {
        assert_eq!(Ttl(value).duration(), Duration::from_secs(seconds), "{value}");
        assert_eq!(Ttl::from_secs(seconds), Ttl(value), "{seconds}");
    }
    assert_eq!(Ttl::from_secs(256), Ttl(256));
    assert_eq!(Ttl::from_secs(261), Ttl(257));
    assert_eq!(Ttl::from_secs(u64::MAX), Ttl::MAX);
}

#[test]
fn message_ids_are_those_that_device_clients_use() {
    let key = [1; 32];
    let check = |tag, sender: &[u8], receiver, instance, expected| {
        assert_eq!(message_id(tag, sender, receiver, &[instance; 32]).to_string(), expected);
    };
    let (other, abort) = ([3; 32], ABORT_TAG);
    check(0, &[0x64], None, 0, "787671051346e2b9e4c42a7d2ef9f09685943151285404a4240f5c9d075a2ee4");
    check(1, &key, None, 2, "9b20b90126bf0bb4819d4fcbe4d57777f61953a78b4d8753ccec94ea2b676828");
    let to_other = "35d7b34b668e9fd3fa33c2a6f94873b6e7a7bb74f5c785b738da8890d650ebb5";
    check(3, &key, Some(&other[..]), 2, to_other);
    check(abort, &key, None, 2, "97e30bf87e3be8b6d2f9657f89dbde997738be11b04e1d8e5ba212b704cac360");
}

proptest! {
    #[test]
    fn a_built_frame_is_read_back(
        id: [u8; 32], ttl: u16, flags: u16, body in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let header = Header { id: RelayId(id), ttl: Ttl(ttl), flags };
        let frame = publish(header.id, header.ttl, flags, &body);
        prop_assert_eq!(Header::parse(&frame), Some((header, Kind::Publish)));
        prop_assert_eq!(&frame[HEADER..], &body[..]);
        let asked = Header { flags: 0, ..header };
        prop_assert_eq!(Header::parse(&ask(header.id, header.ttl)), Some((asked, Kind::Ask)));
    }

    #[test]
    fn a_ttl_lasts_at_least_as_long_as_asked(seconds in 0_u64..653_050) {
        let ttl = Ttl::from_secs(seconds);
        prop_assert!(ttl.duration() >= Duration::from_secs(seconds));
        prop_assert!(ttl.0 == 0 || Ttl(ttl.0 - 1).duration() < Duration::from_secs(seconds));
    }

    #[test]
    fn any_bytes_are_read_or_refused(frame in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(Header::parse(&frame).is_some(), frame.len() >= HEADER);
    }
}
