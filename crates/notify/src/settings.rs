//! The operator's file: which provider carries what, with errors that name the line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use quorate_ports::Delivery;
use quorate_types::*;
use serde::Deserialize;
use toml::Spanned;

use crate::email::{Email, EmailParts, Encryption};
use crate::http::{Reach, Target, Trust};
use crate::push::{Access, Push};
use crate::sms::Sms;
use crate::text::{Message, Writer};
use crate::webhook::Webhook;

/// The version of the format.
const VERSION: u32 = 1;
/// Webhooks in all.
const MAX_WEBHOOKS: usize = 10_000;
/// Shortest secret of a webhook, in bytes.
const MIN_SECRET: usize = 16;
/// An access token is used for so long unless the file says otherwise, in seconds.
const TOKEN_SECONDS: u64 = 1_800;

/// Reads a secret from its file.
pub type ReadSecret<'a> = &'a dyn Fn(&Path, &str) -> Result<Secret<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    link: Spanned<String>,
    tls_ca: Option<Spanned<PathBuf>>,
    templates: Option<Spanned<PathBuf>>,
    #[serde(default)]
    names: BTreeMap<Spanned<String>, String>,
    email: Option<EmailFile>,
    sms: Option<SmsFile>,
    push: Option<PushFile>,
    #[serde(default)]
    webhooks: BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, WebhookFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmailFile {
    server: Spanned<String>,
    tls: Option<Spanned<String>>,
    from: Spanned<String>,
    username: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    password_env: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SmsFile {
    url: Spanned<String>,
    from: String,
    username: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    password_env: Option<Spanned<String>>,
    fields: Option<FieldsFile>,
    idempotency_header: Option<Spanned<String>>,
    #[serde(default)]
    allow_private: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldsFile {
    to: String,
    from: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushFile {
    url: Spanned<String>,
    token_command: Spanned<Vec<String>>,
    token_seconds: Option<u64>,
    #[serde(default)]
    allow_private: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFile {
    url: Spanned<String>,
    secret_file: Option<Spanned<PathBuf>>,
    secret_env: Option<Spanned<String>>,
    #[serde(default)]
    allow_private: bool,
}

/// What carries what.
pub struct Settings {
    pub(crate) email: Option<Email>,
    pub(crate) sms: Option<Sms>,
    pub(crate) push: Option<Push>,
    webhooks: BTreeMap<Tenant, BTreeMap<String, Webhook>>,
    writer: Writer,
}

/// The text that is read, for the lines of errors, and what it refers to.
struct Source<'a> {
    text: &'a str,
    folder: &'a Path,
    secret: ReadSecret<'a>,
}

/// A secret's file or variable, as a table names it.
type SecretAt<'a> = (&'a str, Option<&'a Spanned<PathBuf>>, Option<&'a Spanned<String>>);

impl Source<'_> {
    fn wrong<T>(&self, span: Range<usize>, problem: impl std::fmt::Display) -> Result<T> {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let problem = format!("line {line} of the notifications: {problem}");
        Err(Error::invalid_field("notifications", problem))
    }

    fn path(&self, path: &Spanned<PathBuf>) -> PathBuf {
        self.folder.join(path.as_ref())
    }

    fn bytes(&self, path: &Spanned<PathBuf>) -> Result<Vec<u8>> {
        let at = self.path(path);
        let read = std::fs::read(&at);
        read.or_else(|error| self.wrong(path.span(), format!("{}: {error}", at.display())))
    }

    /// A secret, if the table has one.
    fn secret(&self, (what, file, variable): SecretAt<'_>) -> Result<Option<Secret<String>>> {
        match (file, variable) {
            (Some(file), None) => {
                let read = (self.secret)(&self.path(file), what);
                read.map(Some).or_else(|error| self.wrong(file.span(), error.message))
            }
            (None, Some(variable)) => match std::env::var(variable.as_ref()) {
                Ok(value) if !value.is_empty() => Ok(Some(Secret::new(value))),
                _ => {
                    let problem = format!("{} is not set in the environment", variable.as_ref());
                    self.wrong(variable.span(), problem)
                }
            },
            (None, None) => Ok(None),
            (Some(_), Some(variable)) => {
                let problem = format!("give {what}_file or {what}_env, not both");
                self.wrong(variable.span(), problem)
            }
        }
    }

    /// Where requests go: over TLS, or without where private addresses are allowed.
    fn target(&self, url: &Spanned<String>, allow_private: bool) -> Result<(Target, Reach)> {
        let target =
            Target::parse(url.as_ref()).or_else(|problem| self.wrong(url.span(), problem))?;
        if !target.is_tls() && !allow_private {
            let problem = "it is called over https, or over http where allow_private = true";
            return self.wrong(url.span(), problem);
        }
        Ok((target, if allow_private { Reach::Anywhere } else { Reach::Public }))
    }

    fn email(&self, file: &EmailFile, authorities: Option<Vec<u8>>) -> Result<Email> {
        let encryption = match file.tls.as_ref().map(|tls| (tls.as_ref().as_str(), tls.span())) {
            None | Some(("starttls", _)) => Encryption::StartTls,
            Some(("implicit", _)) => Encryption::Implicit,
            Some(("none", _)) => Encryption::None,
            Some((_, span)) => {
                return self.wrong(span, "tls is \"starttls\", \"implicit\" or \"none\"");
            }
        };
        let server = file.server.as_ref();
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => return self.wrong(file.server.span(), "the server's port is no number"),
            },
            _ => (server.as_str(), None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let local = ["127.0.0.1", "::1", "localhost"].contains(&host.as_str());
        if encryption == Encryption::None && !local {
            let problem = "tls = \"none\" is for a mail server on this machine";
            return self.wrong(file.server.span(), problem);
        }
        let from = file.from.as_ref();
        let secret = ("password", file.password_file.as_ref(), file.password_env.as_ref());
        let login = self.login(file.username.as_ref(), secret)?;
        let parts = EmailParts { host, port, encryption, from, login, authorities };
        Email::new(parts).or_else(|problem| self.wrong(file.from.span(), problem))
    }

    fn login(
        &self,
        user: Option<&Spanned<String>>,
        secret: SecretAt<'_>,
    ) -> Result<Option<(String, Secret<String>)>> {
        match (user, self.secret(secret)?) {
            (Some(user), Some(password)) => Ok(Some((user.as_ref().clone(), password))),
            (None, None) => Ok(None),
            (Some(user), None) => {
                self.wrong(user.span(), "username needs password_file or password_env")
            }
            (None, Some(_)) => self.wrong(0..0, "a password needs a username"),
        }
    }

    fn sms(&self, file: SmsFile, trust: &Trust) -> Result<Sms> {
        let (target, reach) = self.target(&file.url, file.allow_private)?;
        let secret = ("password", file.password_file.as_ref(), file.password_env.as_ref());
        let basic = |(user, password): (String, Secret<String>)| {
            let credentials = Secret::new(format!("{user}:{}", password.expose()));
            let header = format!("Basic {}", STANDARD.encode(credentials.expose()));
            let mut header = HeaderValue::try_from(header).expect("base64 fits a header");
            header.set_sensitive(true);
            header
        };
        let authorization = self.login(file.username.as_ref(), secret)?.map(basic);
        let idempotency = match &file.idempotency_header {
            None => HeaderName::from_static("idempotency-key"),
            Some(name) => match HeaderName::try_from(name.as_ref()) {
                Ok(name) => name,
                Err(_) => return self.wrong(name.span(), "it is no name of a header"),
            },
        };
        let fields = match file.fields {
            Some(FieldsFile { to, from, text }) => [to, from, text],
            None => ["To", "From", "Body"].map(str::to_owned),
        };
        let (from, trust) = (file.from, trust.clone());
        Ok(Sms { target, reach, trust, authorization, idempotency, from, fields })
    }

    fn push(&self, file: PushFile, trust: &Trust) -> Result<Push> {
        let (target, reach) = self.target(&file.url, file.allow_private)?;
        if file.token_command.as_ref().is_empty() {
            return self.wrong(file.token_command.span(), "token_command names no program");
        }
        let lasts = Duration::from_secs(file.token_seconds.unwrap_or(TOKEN_SECONDS));
        let access = Access::new(file.token_command.into_inner(), lasts);
        Ok(Push { target, reach, trust: trust.clone(), access })
    }

    fn webhook(
        &self,
        name: &Spanned<String>,
        file: &WebhookFile,
        trust: &Trust,
    ) -> Result<Webhook> {
        webhook_name(name.as_ref()).or_else(|error| self.wrong(name.span(), error.message))?;
        let (target, reach) = self.target(&file.url, file.allow_private)?;
        let secret =
            self.secret(("secret", file.secret_file.as_ref(), file.secret_env.as_ref()))?;
        match secret {
            Some(secret) if secret.expose().len() >= MIN_SECRET => {
                Ok(Webhook { target, reach, trust: trust.clone(), secret })
            }
            Some(_) => {
                let problem = format!("its secret is shorter than {MIN_SECRET} bytes");
                self.wrong(file.url.span(), problem)
            }
            None => self.wrong(name.span(), "a webhook needs secret_file or secret_env"),
        }
    }

    fn writer(&self, file: &File) -> Result<Writer> {
        let link = Target::parse(file.link.as_ref());
        link.or_else(|problem| self.wrong(file.link.span(), problem))?;
        if file.link.as_ref().contains(['#', '?']) {
            return self.wrong(file.link.span(), "a link has a session and a token behind it");
        }
        let mut names = BTreeMap::new();
        for (tenant, name) in &file.names {
            let parsed = tenant.as_ref().parse();
            let parsed = parsed.or_else(|error: Error| self.wrong(tenant.span(), error.message))?;
            if name.chars().any(char::is_control) {
                return self.wrong(tenant.span(), "a name is one line");
            }
            names.insert(parsed, name.clone());
        }
        let folder = file.templates.as_ref();
        let span = folder.map(Spanned::span).unwrap_or_default();
        let folder = folder.map(|path| self.path(path));
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
            return self.wrong(span, format!("{} is no folder", folder.display()));
        }
        let read = |name: &str| {
            let Some(path) = folder.as_ref().map(|folder| folder.join(name)) else {
                return Ok(None);
            };
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        let writer = Writer::open(file.link.as_ref(), names, read);
        writer.or_else(|problem| self.wrong(span, problem))
    }
}

impl Settings {
    /// Reads a file, and what it names beside itself. `secret` reads secrets.
    ///
    /// # Errors
    /// `invalid_request` with the file, the line and what is wrong there.
    pub fn open(path: &Path, secret: ReadSecret<'_>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Error::invalid(format!("the notifications file {path} cannot be read: {error}"))
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::read(&text, folder, secret)
            .map_err(|error| Error::invalid(format!("{}: {}", path.display(), error.message)))
    }

    fn read(text: &str, folder: &Path, secret: ReadSecret<'_>) -> Result<Self> {
        let source = Source { text, folder, secret };
        let mut file: File = toml::from_str(text).or_else(|error: toml::de::Error| {
            let span = error.span().unwrap_or_default();
            source.wrong(span, error.message())
        })?;
        if *file.version.as_ref() != VERSION {
            let problem = format!("this program reads version {VERSION} of notifications");
            return source.wrong(file.version.span(), problem);
        }
        let authorities = file.tls_ca.as_ref().map(|path| source.bytes(path)).transpose()?;
        let span = file.tls_ca.as_ref().map(Spanned::span).unwrap_or_default();
        let trust = Trust::open(authorities.as_deref());
        let trust = trust.or_else(|problem| source.wrong(span, problem))?;
        let writer = source.writer(&file)?;
        let count: usize = file.webhooks.values().map(BTreeMap::len).sum();
        if count > MAX_WEBHOOKS {
            return source.wrong(0..0, format!("there are at most {MAX_WEBHOOKS} webhooks"));
        }
        let mut webhooks: BTreeMap<Tenant, BTreeMap<String, Webhook>> = BTreeMap::new();
        for (tenant, named) in &file.webhooks {
            let parsed = tenant.as_ref().parse();
            let parsed =
                parsed.or_else(|error: Error| source.wrong(tenant.span(), error.message))?;
            let of_tenant = webhooks.entry(parsed).or_default();
            for (name, webhook) in named {
                let webhook = source.webhook(name, webhook, &trust)?;
                of_tenant.insert(name.as_ref().clone(), webhook);
            }
        }
        let email = file.email.take();
        let email = email.map(|email| source.email(&email, authorities)).transpose()?;
        let sms = file.sms.take().map(|sms| source.sms(sms, &trust)).transpose()?;
        let push = file.push.take().map(|push| source.push(push, &trust)).transpose()?;
        Ok(Self { email, sms, push, webhooks, writer })
    }

    pub(crate) fn webhook(&self, tenant: &Tenant, name: &str) -> Option<&Webhook> {
        self.webhooks.get(tenant)?.get(name)
    }

    pub(crate) fn message(&self, delivery: &Delivery) -> Message {
        self.writer.message(delivery)
    }

    /// What is configured, in words.
    pub fn summary(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, there) in [
            ("email", self.email.is_some()),
            ("sms", self.sms.is_some()),
            ("push", self.push.is_some()),
        ] {
            all.extend(there.then(|| name.to_owned()));
        }
        for (tenant, named) in &self.webhooks {
            all.extend(named.keys().map(|name| format!("webhook {name} of {}", tenant.as_str())));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(path: &Path, what: &str) -> Result<Secret<String>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::invalid(format!("the {what} file: {error}")))?;
        Ok(Secret::new(text))
    }

    fn read(text: &str) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "0123456789abcdef").unwrap();
        std::fs::write(folder.path().join("short"), "0123").unwrap();
        Settings::read(text, folder.path(), &secret)
    }

    const WHOLE: &str = r#"
version = 1
link = "https://sign.example"
[names]
acme = "Acme Treasury"
[email]
server = "smtp.example:2525"
from = "Quorate <quorate@sign.example>"
username = "quorate"
password_file = "secret"
[sms]
url = "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json"
username = "AC1"
password_file = "secret"
from = "+15550100"
idempotency_header = "I-Twilio-Idempotency-Token"
[push]
url = "https://fcm.googleapis.com/v1/projects/p/messages:send"
token_command = ["gcloud", "auth", "print-access-token"]
[webhooks.acme.settlement]
url = "https://acme.example/hook"
secret_file = "secret"
[webhooks."default".local]
url = "http://127.0.0.1:1/hook"
secret_file = "secret"
allow_private = true
"#;

    #[test]
    fn a_whole_file_configures_everything() {
        let settings = read(WHOLE).unwrap();
        let expected =
            ["email", "sms", "push", "webhook settlement of acme", "webhook local of default"];
        assert_eq!(settings.summary(), expected);
        let of = |tenant: &str, name| settings.webhook(&tenant.parse().unwrap(), name).is_some();
        assert!(of("acme", "settlement") && !of("other", "settlement") && !of("acme", "local"));
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        for (from, to, problem) in [
            ("version = 1", "version = 2", "line 2 of the notifications: this program reads"),
            ("link = \"https", "link = \"ftp", "line 3 of the notifications: it begins with"),
            ("sign.example\"\n", "sign.example#x\"\n", "line 3"),
            ("[names]", "[nams]", "nams"),
            ("acme = \"Acme", "\"a b\" = \"Acme", "line 5"),
            ("smtp.example:2525", "smtp.example:mail", "line 7 of the notifications: the server's"),
            ("from = \"Q", "tls = \"ssl\"\nfrom = \"Q", "line 8 of the notifications: tls is"),
            ("from = \"Q", "tls = \"none\"\nfrom = \"Q", "on this machine"),
            ("<quorate@sign.example>", "nobody", "from is no mail address"),
            ("password_file = \"secret\"\n[sms]", "[sms]", "username needs password_file"),
            (
                "password_file = \"secret\"\n[sms]",
                "password_file = \"none\"\n[sms]",
                "password file",
            ),
            (
                "password_file = \"secret\"\n[sms]",
                "password_env = \"QUORATE_UNSET\"\n[sms]",
                "not set",
            ),
            ("https://api", "http://api", "it is called over https"),
            ("I-Twilio-Idempotency-Token", "a b", "no name of a header"),
            ("[\"gcloud\", \"auth\", \"print-access-token\"]", "[]", "names no program"),
            ("https://acme", "http://acme", "it is called over https"),
            (
                "hook\"\nsecret_file = \"secret\"\n[",
                "hook\"\nsecret_file = \"short\"\n[",
                "shorter",
            ),
            ("hook\"\nsecret_file = \"secret\"\n[", "hook\"\n[", "needs secret_file or secret_env"),
            ("acme.settlement", "acme.\"a b\"", "a webhook's name is"),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let error = read(&WHOLE.replacen(from, to, 1)).err();
            let error = error.unwrap_or_else(|| panic!("{to} is taken")).message;
            assert!(error.contains(problem), "{problem} in {error}");
        }
    }
}
