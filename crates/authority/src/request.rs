//! A request: what an initiator asks for, whole.

use quorate_types::{
    Digest, KeyId, KeyLabel, MAX_REQUEST, PartyId, PublicKey, Scheme, SignInput, Threshold,
    Timestamp,
};
use sha2::{Digest as _, Sha256};

use crate::encoding::{Reader, Writer, malformed};
use crate::rule::Denial;

/// Longest purpose, in bytes.
pub const MAX_PURPOSE: usize = 256;

/// Longest time for which a request may be signed ahead, in seconds: a day more than the longest
/// session. Until it has passed its nonce is remembered.
pub const MAX_LIFETIME: u64 = 8 * 24 * 3600;

/// Most parties that a request names.
const MAX_NAMED: usize = 16;

/// What a signature is asked for, without a message's bytes: those who approve read them in the
/// session, and the hash binds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedInput {
    /// The digest that an ECDSA key signs.
    Digest(Digest),
    /// The message that has this SHA-256.
    Message([u8; 32]),
}

impl RequestedInput {
    /// How a request names an input.
    pub fn of(input: &SignInput) -> Self {
        match input {
            SignInput::Digest(digest) => Self::Digest(*digest),
            SignInput::Message(message) => Self::Message(Sha256::digest(message).into()),
        }
    }
}

/// Who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signers {
    /// Any holders of the key.
    Any,
    /// Some of these, and nobody else.
    Named(Vec<PartyId>),
}

/// A holder of a key that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHolder {
    /// The holder's party id.
    pub party_id: PartyId,
    /// The identity that it must show. Without one it may show any.
    pub identity: Option<[u8; 32]>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To make a key.
    Keygen {
        /// The scheme of the new key.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
        /// The holders, in the order of their shares.
        holders: Vec<NamedHolder>,
        /// What it is called.
        label: Option<KeyLabel>,
    },
    /// A signature with one epoch of a key.
    Sign {
        /// With this key.
        key_id: KeyId,
        /// And its shares of this epoch.
        epoch: u32,
        /// The scheme of that key.
        scheme: Scheme,
        /// Its verifying key.
        public_key: PublicKey,
        /// The digest, or the hash of the message, that is to be signed.
        input: RequestedInput,
        /// A path of derivation; empty for the key itself.
        path: Vec<u32>,
        /// The holders that may sign.
        signers: Signers,
    },
    /// To refresh a key's shares.
    Refresh {
        /// The id of the key that is refreshed.
        key_id: KeyId,
        /// The epoch that is refreshed.
        epoch: u32,
        /// The scheme of that key.
        scheme: Scheme,
        /// Its verifying key, which stays.
        public_key: PublicKey,
        /// Its threshold, which stays.
        threshold: Threshold,
        /// Its holders, in the order of their shares.
        holders: Vec<NamedHolder>,
    },
}

/// A request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub action: Action,
    /// Until when, by the parties' clocks.
    pub expires_at: Timestamp,
    /// Random: it serves for one session.
    pub nonce: [u8; 16],
    /// What for, in words; at most [`MAX_PURPOSE`] bytes.
    pub purpose: String,
}

/// The hash that approvals are about.
pub fn hash(request: &[u8]) -> [u8; 32] {
    Sha256::digest(request).into()
}

/// What an approver signs.
pub fn approval_message(request: &[u8]) -> Vec<u8> {
    [b"quorate/approval/v1", &hash(request)[..]].concat()
}

impl Request {
    /// Its one encoding, which is what the initiator signs.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match &self.action {
            Action::Keygen { scheme, threshold, holders, label: _ } => {
                out.field(1, b"keygen");
                out.field(2, scheme.name().as_bytes());
                out.field(6, &threshold_bytes(*threshold));
                out.field(7, &holders_bytes(holders));
            }
            Action::Sign { key_id, epoch, scheme, public_key, input, path, signers } => {
                out.field(1, b"sign");
                out.field(2, scheme.name().as_bytes());
                key(&mut out, *key_id, *epoch, public_key);
                let (tag, bytes) = match input {
                    RequestedInput::Digest(digest) => (1, digest.0),
                    RequestedInput::Message(hash) => (2, *hash),
                };
                out.field(8, &[&[tag], &bytes[..]].concat());
                let path: Vec<u8> = path.iter().flat_map(|index| index.to_be_bytes()).collect();
                out.field(9, &path);
                out.field(10, &signers_bytes(signers));
            }
            Action::Refresh { key_id, epoch, scheme, public_key, threshold, holders } => {
                out.field(1, b"refresh");
                out.field(2, scheme.name().as_bytes());
                key(&mut out, *key_id, *epoch, public_key);
                out.field(6, &threshold_bytes(*threshold));
                out.field(7, &holders_bytes(holders));
            }
        }
        out.field(11, &self.expires_at.0.to_be_bytes());
        out.field(12, &self.nonce);
        out.field(13, self.purpose.as_bytes());
        // Not written where there is none: requests without one are as they were before labels.
        if let Some(label) = self.label() {
            out.field(14, label.as_str().as_bytes());
        }
        out.finish()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// By the rule `malformed`: another version, a field that is missing, too long or out of order.
    pub fn decode(bytes: &[u8]) -> Result<Self, Denial> {
        if bytes.len() > MAX_REQUEST {
            return Err(malformed("it is too long"));
        }
        let mut fields = Reader::new(bytes)?;
        let kind = fields.field(1)?;
        let scheme = fields.text(2)?.parse().map_err(|_| malformed("its scheme is unknown"))?;
        let mut action = match kind {
            b"keygen" => Action::Keygen {
                scheme,
                threshold: read_threshold(fields.array(6)?)?,
                holders: read_holders(fields.field(7)?)?,
                label: None,
            },
            b"sign" => {
                let (key_id, epoch, public_key) = read_key(&mut fields)?;
                Action::Sign {
                    key_id,
                    epoch,
                    scheme,
                    public_key,
                    input: read_input(fields.array(8)?)?,
                    path: read_path(fields.field(9)?)?,
                    signers: read_signers(fields.field(10)?)?,
                }
            }
            b"refresh" => {
                let (key_id, epoch, public_key) = read_key(&mut fields)?;
                Action::Refresh {
                    key_id,
                    epoch,
                    scheme,
                    public_key,
                    threshold: read_threshold(fields.array(6)?)?,
                    holders: read_holders(fields.field(7)?)?,
                }
            }
            _ => return Err(malformed("it asks for nothing that this version knows")),
        };
        let expires_at = Timestamp(i64::from_be_bytes(fields.array(11)?));
        let nonce = fields.array(12)?;
        let purpose = fields.text(13)?.to_owned();
        if let (Action::Keygen { label, .. }, false) = (&mut action, fields.is_empty()) {
            let text = fields.text(14)?;
            *label = Some(text.parse().map_err(|_| malformed("its label is none"))?);
        }
        fields.end()?;
        if purpose.len() > MAX_PURPOSE || purpose.contains(char::is_control) {
            return Err(malformed("its purpose is not a line of 256 bytes at most"));
        }
        Ok(Self { action, expires_at, nonce, purpose })
    }

    /// The key that is used, if one is.
    pub fn key_id(&self) -> Option<KeyId> {
        match &self.action {
            Action::Keygen { .. } => None,
            Action::Sign { key_id, .. } | Action::Refresh { key_id, .. } => Some(*key_id),
        }
    }

    /// What the key is called that is to be made, if it is given a name.
    pub fn label(&self) -> Option<&KeyLabel> {
        match &self.action {
            Action::Keygen { label, .. } => label.as_ref(),
            Action::Sign { .. } | Action::Refresh { .. } => None,
        }
    }

    /// The scheme of the key.
    pub fn scheme(&self) -> Scheme {
        match &self.action {
            Action::Keygen { scheme, .. }
            | Action::Sign { scheme, .. }
            | Action::Refresh { scheme, .. } => *scheme,
        }
    }

    /// The word for what is asked for.
    pub fn kind(&self) -> &'static str {
        match &self.action {
            Action::Keygen { .. } => "keygen",
            Action::Sign { .. } => "sign",
            Action::Refresh { .. } => "refresh",
        }
    }
}

fn key(out: &mut Writer, key_id: KeyId, epoch: u32, public_key: &PublicKey) {
    out.field(3, key_id.0.as_bytes());
    out.field(4, &epoch.to_be_bytes());
    out.field(5, &public_key.0);
}

fn read_key(fields: &mut Reader<'_>) -> Result<(KeyId, u32, PublicKey), Denial> {
    let id = u128::from_be_bytes(fields.array(3)?);
    let id = format!("{id:032x}").parse().map_err(|_| malformed("its key id is none"))?;
    let epoch = u32::from_be_bytes(fields.array(4)?);
    Ok((id, epoch, PublicKey(fields.field(5)?.to_vec())))
}

fn threshold_bytes(threshold: Threshold) -> [u8; 4] {
    let [a, b] = threshold.signers().to_be_bytes();
    let [c, d] = threshold.parties().to_be_bytes();
    [a, b, c, d]
}

fn read_threshold([a, b, c, d]: [u8; 4]) -> Result<Threshold, Denial> {
    let (t, n) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Threshold::new(t.into(), n.into()).map_err(|_| malformed("its threshold is none"))
}

fn name_bytes(out: &mut Vec<u8>, name: &PartyId) {
    let name = name.as_str().as_bytes();
    out.push(u8::try_from(name.len()).expect("a name is at most 128 bytes"));
    out.extend_from_slice(name);
}

fn read_name(bytes: &mut &[u8]) -> Result<PartyId, Denial> {
    let wrong = || malformed("a party's name is none");
    let (length, rest) = bytes.split_first().ok_or_else(wrong)?;
    let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(wrong)?;
    *bytes = rest;
    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or_else(wrong)
}

fn holders_bytes(holders: &[NamedHolder]) -> Vec<u8> {
    let mut out = Vec::new();
    for NamedHolder { party_id, identity } in holders {
        name_bytes(&mut out, party_id);
        out.push(u8::from(identity.is_some()));
        out.extend(identity.iter().flatten());
    }
    out
}

fn read_holders(mut bytes: &[u8]) -> Result<Vec<NamedHolder>, Denial> {
    let cut_off = || malformed("a holder's identity is cut off");
    let mut holders = Vec::new();
    while !bytes.is_empty() {
        if holders.len() == MAX_NAMED {
            return Err(malformed("it names more parties than a key can have"));
        }
        let party_id = read_name(&mut bytes)?;
        let (known, rest) = bytes.split_first().ok_or_else(cut_off)?;
        bytes = rest;
        let identity = match known {
            0 => None,
            1 => {
                let (identity, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
                bytes = rest;
                Some(*identity)
            }
            _ => return Err(malformed("a holder is neither with nor without an identity")),
        };
        holders.push(NamedHolder { party_id, identity });
    }
    Ok(holders)
}

fn signers_bytes(signers: &Signers) -> Vec<u8> {
    match signers {
        Signers::Any => vec![0],
        Signers::Named(names) => {
            let mut out = vec![1];
            names.iter().for_each(|name| name_bytes(&mut out, name));
            out
        }
    }
}

fn read_signers(bytes: &[u8]) -> Result<Signers, Denial> {
    match bytes.split_first() {
        Some((0, [])) => Ok(Signers::Any),
        Some((1, mut rest)) => {
            let mut names = Vec::new();
            while !rest.is_empty() {
                if names.len() == MAX_NAMED {
                    return Err(malformed("it names more parties than a key can have"));
                }
                names.push(read_name(&mut rest)?);
            }
            Ok(Signers::Named(names))
        }
        _ => Err(malformed("its signers are neither named nor any")),
    }
}

fn read_input([tag, bytes @ ..]: [u8; 33]) -> Result<RequestedInput, Denial> {
    match tag {
        1 => Ok(RequestedInput::Digest(Digest(bytes))),
        2 => Ok(RequestedInput::Message(bytes)),
        _ => Err(malformed("its input is neither a digest nor a message")),
    }
}

fn read_path(bytes: &[u8]) -> Result<Vec<u32>, Denial> {
    let (indices, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(malformed("its path is cut off"));
    }
    Ok(indices.iter().map(|index| u32::from_be_bytes(*index)).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request to sign that is good for a minute.
    pub(crate) fn sign() -> Request {
        Request {
            action: Action::Sign {
                key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
                epoch: 3,
                scheme: Scheme::EcdsaSecp256k1,
                public_key: PublicKey(vec![4; 65]),
                input: RequestedInput::Digest(Digest([7; 32])),
                path: Vec::new(),
                signers: Signers::Named(vec!["a".parse().unwrap(), "b".parse().unwrap()]),
            },
            expires_at: Timestamp(60_000),
            nonce: [9; 16],
            purpose: "pay alice".to_owned(),
        }
    }

    fn name() -> impl Strategy<Value = PartyId> {
        "[a-z0-9.@+_-]{1,20}".prop_map(|name| name.parse().unwrap())
    }

    fn label() -> impl Strategy<Value = KeyLabel> {
        "[a-z0-9.-]{1,64}".prop_map(|label| label.parse().unwrap())
    }

    fn holders() -> impl Strategy<Value = Vec<NamedHolder>> {
        let holder = (name(), any::<Option<[u8; 32]>>())
            .prop_map(|(party_id, identity)| NamedHolder { party_id, identity });
        proptest::collection::vec(holder, 0..=MAX_NAMED)
    }

    fn action() -> impl Strategy<Value = Action> {
        let scheme = || proptest::sample::select(Scheme::ALL);
        let threshold = || (2_i64..=16).prop_flat_map(|n| (2..=n, Just(n)));
        let threshold = move || threshold().prop_map(|(t, n)| Threshold::new(t, n).unwrap());
        let key = || {
            let public_key = proptest::collection::vec(any::<u8>(), 0..70);
            (any::<u128>(), any::<u32>(), public_key).prop_map(|(id, epoch, bytes)| {
                let id: KeyId = format!("{id:032x}").parse().unwrap();
                (id, epoch, PublicKey(bytes))
            })
        };
        let input = prop_oneof![
            any::<[u8; 32]>().prop_map(|bytes| RequestedInput::Digest(Digest(bytes))),
            any::<[u8; 32]>().prop_map(RequestedInput::Message),
        ];
        let signers = prop_oneof![
            Just(Signers::Any),
            proptest::collection::vec(name(), 0..=MAX_NAMED).prop_map(Signers::Named),
        ];
        let path = proptest::collection::vec(any::<u32>(), 0..5);
        prop_oneof![
            (scheme(), threshold(), holders(), proptest::option::of(label())).prop_map(
                |(scheme, threshold, holders, label)| {
                    Action::Keygen { scheme, threshold, holders, label }
                }
            ),
            (scheme(), key(), input, path, signers).prop_map(
                |(scheme, (key_id, epoch, public_key), input, path, signers)| Action::Sign {
                    key_id,
                    epoch,
                    scheme,
                    public_key,
                    input,
                    path,
                    signers
                }
            ),
            (scheme(), key(), threshold(), holders()).prop_map(
                |(scheme, (key_id, epoch, public_key), threshold, holders)| Action::Refresh {
                    key_id,
                    epoch,
                    scheme,
                    public_key,
                    threshold,
                    holders
                }
            ),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        (action(), any::<i64>(), any::<[u8; 16]>(), "[ -~]{0,80}").prop_map(
            |(action, expires_at, nonce, purpose)| Request {
                action,
                expires_at: Timestamp(expires_at),
                nonce,
                purpose,
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(request in request()) {
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn a_changed_encoding_is_another_request_or_none(
            request in request(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let mut bytes = request.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Request::decode(&bytes) {
                prop_assert_ne!(&other, &request);
                prop_assert_eq!(other.encode(), bytes, "there is one encoding of each");
            }
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let framed = [b"quorate/request/v1".as_slice(), &bytes].concat();
            for bytes in [bytes, framed] {
                if let Ok(request) = Request::decode(&bytes) {
                    prop_assert_eq!(request.encode(), bytes);
                }
            }
        }
    }

    /// Signatures over these bytes exist: another encoding needs another version.
    #[test]
    fn the_encoding_of_version_1_is_fixed() {
        assert_eq!(hex::encode(hash(&sign().encode())), GOLDEN);
        assert!(Request::decode(b"quorate/request/v2").unwrap_err().why.contains("version"));
        let mut longer = sign().encode();
        longer.push(0);
        assert!(Request::decode(&longer).is_err());
        assert!(Request::decode(&vec![0; MAX_REQUEST + 1]).is_err());
    }

    const GOLDEN: &str = "2eaeae4ec22708e906c0532add15a15724b82b23711dfb5b8776a59a15a77f12";
}
