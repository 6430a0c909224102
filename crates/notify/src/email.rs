//! Mail over SMTP. The delivery id is the message id, by which servers and readers know a mail that
//! comes twice.

use std::time::Duration;

use lettre::message::header::{self, Header as _};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message as Mail, Tokio1Executor};
use quorate_ports::{Delivery, Undelivered};
use quorate_types::Secret;

use crate::text::Message;

/// A server answers each command in this time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// By STARTTLS, without which nothing is sent.
    StartTls,
    /// From its first byte.
    Implicit,
    /// Not at all: a server on this machine.
    None,
}

impl Encryption {
    fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }
}

/// A mail server, and whose mail it takes.
pub(crate) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: header::From,
    /// Behind the @ of the sender.
    domain: String,
}

/// What an [`Email`] is made of.
pub(crate) struct EmailParts<'a> {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) encryption: Encryption,
    /// The sender: `Name <address>`, or the address alone.
    pub(crate) from: &'a str,
    pub(crate) login: Option<(String, Secret<String>)>,
    /// Authorities beside the system's, PEM.
    pub(crate) authorities: Option<Vec<u8>>,
}

impl Email {
    /// # Errors
    /// What is wrong with the sender, the server's name or the authorities, in words.
    pub(crate) fn new(parts: EmailParts<'_>) -> Result<Self, String> {
        let words = |error: lettre::transport::smtp::Error| error.to_string();
        let EmailParts { host, port, encryption, from, login, authorities } = parts;
        let parameters = || {
            let mut parameters = TlsParameters::builder(host.clone());
            if let Some(pem) = &authorities {
                parameters = parameters.add_root_certificate(Certificate::from_pem(pem)?);
            }
            parameters.build()
        };
        let tls = match encryption {
            Encryption::StartTls => Tls::Required(parameters().map_err(words)?),
            Encryption::Implicit => Tls::Wrapper(parameters().map_err(words)?),
            Encryption::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port.unwrap_or(encryption.port()))
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let Some((user, password)) = login {
            transport = transport.credentials(Credentials::new(user, password.expose().clone()));
        }
        let domain = from.rsplit('@').next().unwrap_or_default().trim_end_matches('>').to_owned();
        let from = header::From::parse(from).map_err(|_| "from is no mail address".to_owned())?;
        Ok(Self { transport: transport.build(), from, domain })
    }

    pub(crate) async fn send(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Undelivered> {
        let notification = &delivery.notification;
        let never = |problem: &str| Undelivered::Never(problem.to_owned());
        let to = notification.recipient.address.parse();
        let mail = Mail::builder()
            .header(self.from.clone())
            .to(to.map_err(|_| never("its recipient's address is none"))?)
            .message_id(Some(format!("<{}@{}>", notification.id, self.domain)))
            .subject(message.subject.clone())
            .body(message.body.clone())
            .map_err(|_| never("it cannot be written as a mail"))?;
        self.transport.send(mail).await.map(drop).map_err(|error| outcome(&error))
    }
}

/// A server that refuses for good means this mail, unless it wants other credentials.
fn outcome(error: &lettre::transport::smtp::Error) -> Undelivered {
    let status = error.status().map(u16::from);
    match status {
        // What a server says may repeat the address.
        Some(status @ (530 | 534 | 535 | 538)) => {
            Undelivered::Later(format!("the mail server refuses the credentials: {status}"))
        }
        Some(status) if error.is_permanent() => {
            Undelivered::Never(format!("the mail server refuses it: {status}"))
        }
        Some(status) => Undelivered::Later(format!("the mail server answered {status}")),
        None if error.is_timeout() => Undelivered::Later("the mail server does not answer".into()),
        None if error.is_tls() => Undelivered::Later(format!("the mail server's TLS: {error}")),
        None => Undelivered::Later("the mail server cannot be reached".into()),
    }
}
