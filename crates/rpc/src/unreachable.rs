//! Why a service could not be asked, in words: the address, the cause and the way out.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use quorate_types::{Error, ErrorCode};
use rustls::CertificateError;

/// A service and the gRPC port that it has by default.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
}

pub(crate) const COORDINATOR: Expected = Expected { name: "coordinator", port: 50051 };
/// Any role, for its operator: the coordinator's port unless another address is given.
pub(crate) const SERVER: Expected = Expected { name: "server", port: 50051 };
pub(crate) const ROUTER: Expected = Expected { name: "router", port: 50052 };

/// A service as an error names it.
#[derive(Clone)]
pub(crate) struct Place {
    /// The address that was called, for the error.
    pub(crate) url: Arc<str>,
    /// What is expected there.
    pub(crate) service: Expected,
    /// What to do when it is not there; empty, or a clause.
    pub(crate) advice: Arc<str>,
}

impl Place {
    /// Why a call did not reach the service.
    pub(crate) fn unreachable(&self, error: &(dyn StdError + 'static)) -> Error {
        let Self { url, service: Expected { name: service, .. }, .. } = self;
        let gone = |why: &str| {
            let advice = self.advice();
            format!("no {service} answers at {url} ({why}){advice}")
        };
        let message = match Cause::of(error) {
            Cause::Refused => gone("connection refused"),
            Cause::TimedOut => gone("no answer in time"),
            Cause::NoRoute => gone("no route to this host"),
            Cause::UnknownHost => {
                format!("the host name of {url} is not known: check its spelling and the DNS")
            }
            Cause::NoTls => {
                format!("{url} does not speak TLS: use http://, or the port that serves TLS")
            }
            Cause::NoClearText => format!(
                "{url} does not speak gRPC in plaintext: use https:// where the {service} serves \
                 TLS, and its gRPC port"
            ),
            Cause::Certificate(why) => format!("the certificate of {url} {why}"),
            // A server with TLS may have closed the connection before its answer was read.
            Cause::Other(why) if url.starts_with("http://") => format!(
                "the connection to the {service} at {url} failed ({why}): it is stopping, or it \
                 serves TLS and needs https://"
            ),
            Cause::Other(why) => format!("the connection to the {service} at {url} failed: {why}"),
        };
        Error::unavailable(message)
    }

    /// Something else answers at this address.
    pub(crate) fn wrong_service(&self) -> Error {
        let Self { url, service: Expected { name, port }, .. } = self;
        let message = format!(
            "the service at {url} is not a {name}: give the {name}'s gRPC address, whose port is \
             {port} by default"
        );
        Error::new(ErrorCode::Unimplemented, message)
    }

    fn advice(&self) -> String {
        if self.advice.is_empty() { String::new() } else { format!("; {}", self.advice) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Refused,
    TimedOut,
    NoRoute,
    UnknownHost,
    /// TLS was asked for and the answer is none.
    NoTls,
    /// The other side speaks TLS, or another protocol.
    NoClearText,
    /// What is wrong with the certificate.
    Certificate(String),
    Other(String),
}

impl Cause {
    /// The first known cause in a chain of errors.
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        let mut last = String::new();
        while let Some(error) = next {
            last = error.to_string();
            let known = match error.downcast_ref::<io::Error>() {
                Some(error) => Self::of_io(error),
                None => {
                    error.downcast_ref::<rustls::Error>().and_then(Self::of_tls).or_else(|| {
                        // A TLS record or an HTTP/1 answer, read as the head of an HTTP/2 frame.
                        let h2 = error.downcast_ref::<h2::Error>()?;
                        let garbled = h2.reason() == Some(h2::Reason::FRAME_SIZE_ERROR);
                        garbled.then_some(Self::NoClearText)
                    })
                }
            };
            if let Some(cause) = known {
                return cause;
            }
            next = error.source();
        }
        Self::Other(last)
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::TimedOut),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Some(Self::NoRoute)
            }
            // The resolver's errors have no kind of their own.
            _ if error.to_string().starts_with("failed to lookup address") => {
                Some(Self::UnknownHost)
            }
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
        };
        let why = match error {
            rustls::Error::InvalidMessage(_) => return Some(Self::NoTls),
            rustls::Error::InvalidCertificate(UnknownIssuer) => {
                "is signed by no authority that this machine trusts: give the authority's PEM \
                 file as --tls-ca"
                    .to_owned()
            }
            rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
                "is for another host name: use a name that it holds".to_owned()
            }
            rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
                "has expired: renew it at the server".to_owned()
            }
            rustls::Error::InvalidCertificate(other) => {
                let other = format!("{other:?}");
                if other.contains("CaUsedAsEndEntity") {
                    "is an authority's own: issue one without `CA:TRUE` for the server".to_owned()
                } else {
                    format!("is not valid: {other}")
                }
            }
            _ => return None,
        };
        Some(Self::Certificate(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(advice: &str) -> Place {
        Place { url: "http://h:1".into(), service: ROUTER, advice: advice.into() }
    }

    #[test]
    fn an_error_names_address_cause_and_way_out() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = place("start it").unreachable(&refused);
        assert_eq!(error.message, "no router answers at http://h:1 (connection refused); start it");
        assert_eq!(error.code, ErrorCode::Unavailable);
        let wrong = place("").wrong_service().message;
        assert!(wrong.contains("http://h:1 is not a router") && wrong.contains("50052"), "{wrong}");
        let error = place("").unreachable(&io::Error::other("odd"));
        assert!(error.message.contains("http://h:1 failed (odd)"), "{error}");
        assert!(error.message.contains("https://"), "{error}");
    }

    #[test]
    fn tls_problems_are_told_apart() {
        let wrapped = |error: rustls::Error| Cause::of(&io::Error::other(error));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let other = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
        assert!(matches!(wrapped(unknown), Cause::Certificate(why) if why.contains("--tls-ca")));
        assert!(matches!(wrapped(other), Cause::Certificate(why) if why.contains("host name")));
        let garbage = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(wrapped(garbage), Cause::NoTls);
    }
}
