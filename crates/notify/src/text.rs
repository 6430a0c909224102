//! What a notification says: who asks, for what, until when, and where. Templates are files; those of
//! the program are used where the operator has none.
//!
//! A template gets no more than what stands in [`Field`]: no digest, no key, no share.

use std::collections::BTreeMap;

use quorate_ports::Delivery;
use quorate_types::*;
use quorate_wire::Rfc3339;

/// A notification in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// One line.
    pub(crate) subject: String,
    /// Lines.
    pub(crate) body: String,
    /// All of it in one line, for SMS and push.
    pub(crate) short: String,
    /// Where the recipient takes part, where it is asked to. Holds its join token.
    pub(crate) link: Option<String>,
}

/// What a template may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Asker,
    Kind,
    Link,
    Party,
    Session,
    Until,
}

impl Field {
    const ALL: [(&'static str, Self); 6] = [
        ("asker", Self::Asker),
        ("kind", Self::Kind),
        ("link", Self::Link),
        ("party", Self::Party),
        ("session", Self::Session),
        ("until", Self::Until),
    ];
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Field(Field),
}

/// A template that has been read.
#[derive(Clone, Debug)]
struct Template(Vec<Piece>);

impl Template {
    /// Reads a text with fields in braces.
    fn read(text: &str, with_link: bool) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) =
                after.split_once('}').ok_or("a { has no }: fields are written {asker}")?;
            let field = Field::ALL.iter().find(|(known, _)| *known == name);
            let Some((_, field)) = field else {
                let known: Vec<_> = Field::ALL.iter().map(|(known, _)| *known).collect();
                return Err(format!("{{{name}}} is none of the fields {}", known.join(", ")));
            };
            if *field == Field::Link && !with_link {
                return Err("it has no {link}: the session has ended".to_owned());
            }
            pieces.extend([Piece::Text(before.to_owned()), Piece::Field(*field)]);
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    fn fill(&self, values: &BTreeMap<Field, String>) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => values.get(field).cloned().unwrap_or_default(),
        };
        self.0.iter().map(piece).collect()
    }
}

#[derive(Clone, Debug)]
struct Texts {
    subject: Template,
    body: Template,
    short: Template,
}

impl Texts {
    /// Reads a mail, whose first line is `Subject: …` with an empty line behind it, and a line for SMS
    /// and push.
    fn read(mail: &str, short: &str, with_link: bool) -> Result<Self, String> {
        let form = "it begins with a line Subject: … and an empty line";
        let (subject, body) = mail.split_once("\n\n").ok_or(form)?;
        let subject = subject.strip_prefix("Subject: ").ok_or(form)?;
        if subject.contains('\n') {
            return Err(form.to_owned());
        }
        Ok(Self {
            subject: Template::read(subject, with_link)?,
            body: Template::read(body, with_link)?,
            short: Template::read(short.trim_end(), with_link)?,
        })
    }
}

/// The names of the templates' files, without `.txt`, and what stands in them unless the operator has
/// others.
const BUILT_IN: [(&str, &str, &str); 5] = [
    (
        "requested",
        include_str!("templates/requested.txt"),
        include_str!("templates/requested.short.txt"),
    ),
    (
        "reminder",
        include_str!("templates/reminder.txt"),
        include_str!("templates/reminder.short.txt"),
    ),
    (
        "completed",
        include_str!("templates/completed.txt"),
        include_str!("templates/completed.short.txt"),
    ),
    ("failed", include_str!("templates/failed.txt"), include_str!("templates/failed.short.txt")),
    ("expired", include_str!("templates/expired.txt"), include_str!("templates/expired.short.txt")),
];

fn template(step: NotificationStep) -> &'static str {
    match step {
        NotificationStep::SessionCreated => "requested",
        NotificationStep::FirstReminder
        | NotificationStep::SecondReminder
        | NotificationStep::LastReminder => "reminder",
        NotificationStep::SessionCompleted => "completed",
        NotificationStep::SessionExpired => "expired",
        NotificationStep::SessionEnded | NotificationStep::SessionFailed => "failed",
    }
}

fn kind(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::Keygen => "a new key",
        SessionKind::Sign => "a signature",
        SessionKind::Refresh => "a key refresh",
    }
}

/// All templates, and what goes into them beside the session.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    texts: BTreeMap<&'static str, Texts>,
    /// Where links begin.
    base: String,
    /// How tenants are called.
    names: BTreeMap<Tenant, String>,
}

impl Writer {
    /// Templates, the operator's where `read` finds a file of this name.
    ///
    /// # Errors
    /// The file with a mistake, and which one.
    pub(crate) fn open(
        base: &str,
        names: BTreeMap<Tenant, String>,
        mut read: impl FnMut(&str) -> Result<Option<String>, String>,
    ) -> Result<Self, String> {
        let mut texts = BTreeMap::new();
        for (name, mail, short) in BUILT_IN {
            let own = read(&format!("{name}.txt"))?;
            let own_short = read(&format!("{name}.short.txt"))?;
            let with_link = matches!(name, "requested" | "reminder");
            let mail = own.as_deref().unwrap_or(mail);
            let short = own_short.as_deref().unwrap_or(short);
            let read = Texts::read(mail, short, with_link);
            texts.insert(name, read.map_err(|problem| format!("template {name}: {problem}"))?);
        }
        Ok(Self { texts, base: base.trim_end_matches('/').to_owned(), names })
    }

    /// A delivery in words.
    pub(crate) fn message(&self, delivery: &Delivery) -> Message {
        let Delivery { notification, session, join_token, .. } = delivery;
        let id = session.session_id;
        // The token is in the fragment, which a browser sends to nobody.
        let link =
            join_token.as_ref().map(|token| format!("{}/s/{id}#{}", self.base, token.expose()));
        let tenant = &session.tenant;
        let asker = self.names.get(tenant).cloned().unwrap_or_else(|| tenant.as_str().to_owned());
        let party = notification.recipient.party.as_ref();
        let values = BTreeMap::from([
            (Field::Asker, asker),
            (Field::Kind, kind(session.ceremony.kind()).to_owned()),
            (Field::Link, link.clone().unwrap_or_default()),
            (Field::Party, party.map(PartyId::to_string).unwrap_or_default()),
            (Field::Session, id.to_string()),
            (Field::Until, Rfc3339(session.expires_at).to_string()),
        ]);
        let texts = &self.texts[template(notification.step)];
        Message {
            subject: texts.subject.fill(&values),
            body: texts.body.fill(&values),
            short: texts.short.fill(&values),
            link,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;

    /// A request to `phone` for a signature, with a join token where it is asked to take part.
    pub(crate) fn delivery(step: NotificationStep, channel: Medium, address: &str) -> Delivery {
        let key = KeyEpoch {
            key_id: KeyId(Uuid::from_u128(7)),
            epoch: 0,
            scheme: Scheme::EcdsaSecp256k1,
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: vec!["phone".parse().unwrap(), "b".parse().unwrap()],
        };
        let ceremony = Ceremony::Sign {
            key: std::sync::Arc::new(key),
            input: SignInput::Digest(Digest([0xd1; 32])),
        };
        let (session_id, tenant) = (SessionId(Uuid::from_u128(1)), "acme".parse().unwrap());
        Delivery {
            notification: Notification {
                id: NotificationId(Uuid::from_u128(2)),
                session_id,
                tenant: "acme".parse().unwrap(),
                recipient: Recipient {
                    party: (channel != Medium::Webhook).then(|| "phone".parse().unwrap()),
                    channel,
                    address: address.to_owned(),
                },
                step,
                state: NotificationState::Waiting,
                due_at: Some(Timestamp(0)),
                until: Timestamp(1_000),
                attempts: 0,
                last_error: None,
                created_at: Timestamp(0),
                settled_at: None,
            },
            attempt: 1,
            session: SessionView {
                session_id,
                tenant,
                ceremony,
                status: SessionStatus::Created,
                attempt: 0,
                participants: Vec::new(),
                replaced: Vec::new(),
                authorization: None,
                outcome: None,
                failure: None,
                created_at: Timestamp(0),
                expires_at: Timestamp(1_703_145_600_000),
            },
            join_token: step.asks().then(|| Secret::new("the-join-token".to_owned())),
            at: Timestamp(1_703_000_000_000),
        }
    }

    fn writer() -> Writer {
        let names = BTreeMap::from([("acme".parse().unwrap(), "Acme Treasury".to_owned())]);
        Writer::open("https://sign.example/", names, |_| Ok(None)).unwrap()
    }

    #[test]
    fn a_request_says_who_asks_for_what_until_when_and_where() {
        let delivery = delivery(NotificationStep::SessionCreated, Medium::Email, "a@b.example");
        let message = writer().message(&delivery);
        let link = "https://sign.example/s/00000000-0000-0000-0000-000000000001#the-join-token";
        for text in [&message.body, &message.short] {
            for part in ["Acme Treasury", "a signature", "2023-12-21T08:00:00Z", link] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        assert_eq!(message.link.as_deref(), Some(link));
        assert!(!message.subject.contains("the-join-token") && !message.short.contains('\n'));
    }

    #[test]
    fn no_text_has_a_digest_or_a_key_and_none_of_an_end_a_token() {
        for step in NotificationStep::ALL {
            let message = writer().message(&delivery(*step, Medium::Sms, "+1"));
            let all = format!("{message:?}");
            for secret in ["d1d1", "0404", &KeyId(Uuid::from_u128(7)).to_string()] {
                assert!(!all.contains(secret), "{secret} in {all}");
            }
            assert_eq!(all.contains("the-join-token"), step.asks());
            assert!(!all.contains('{') || all.starts_with("Message {"), "{all}");
        }
    }

    #[test]
    fn an_operators_template_is_used_and_a_mistake_is_named() {
        let own = |text: &'static str| {
            let read = move |name: &str| Ok((name == "failed.txt").then(|| text.to_owned()));
            Writer::open("https://x.example", BTreeMap::new(), read)
        };
        let writer = own("Subject: no {kind}\n\n{party}: {session}").unwrap();
        let message =
            writer.message(&delivery(NotificationStep::SessionFailed, Medium::Email, "a@b"));
        assert_eq!(message.subject, "no a signature");
        assert!(message.body.starts_with("phone: 0000"));
        for (text, problem) in [
            ("no subject", "Subject: …"),
            ("Subject: a\nb\n\nc", "Subject: …"),
            ("Subject: {digest}\n\n", "{digest} is none of the fields"),
            ("Subject: a\n\n{asker", "a { has no }"),
            ("Subject: a\n\n{link}", "it has no {link}"),
        ] {
            let error = own(text).unwrap_err();
            assert!(error.contains("template failed") && error.contains(problem), "{error}");
        }
    }
}
