//! One request of one caller, over REST, WebSocket or gRPC, and how it ended.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use quorate_client::{Call, Credentials, NONCE, PartyCredentials};
use quorate_rpc::streams_calls;
use reqwest::header::AUTHORIZATION;
use reqwest::{Response, Url};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// How long a stream that has nothing to show is listened to.
const SILENCE: Duration = Duration::from_millis(200);

/// What a caller shows.
pub(crate) enum Credential<'a> {
    Nothing,
    Key(&'a str),
    Proof(&'a PartyCredentials),
}

impl Credential<'_> {
    fn header(&self, call: &Call<'_>) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Key(key) => Some(format!("Bearer {key}")),
            Self::Proof(credentials) => Some(credentials.authorization(call)),
        }
    }

    /// Takes a nonce; says whether there was one.
    fn take(&self, audience: &str, nonce: Option<&str>) -> bool {
        match (self, nonce) {
            (Self::Proof(credentials), Some(nonce)) => credentials.take_nonce(audience, nonce),
            _ => false,
        }
    }
}

/// How a request ended: `ok`, or the HTTP status that its error has; and what came back.
pub(crate) struct Outcome {
    pub(crate) code: String,
    pub(crate) text: String,
}

fn outcome(code: impl ToString, text: impl Into<String>) -> Outcome {
    Outcome { code: code.to_string(), text: text.into() }
}

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(quorate_rpc::DESCRIPTORS).expect("descriptors"));

/// Every RPC of the protos: `SERVICE/NAME` with the service's full name.
pub(crate) fn rpcs() -> impl Iterator<Item = (String, String)> {
    POOL.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().map(|m| m.name().to_owned()).collect();
        methods.into_iter().map(move |method| (service.full_name().to_owned(), method))
    })
}

/// Sends a request, again where the server asks for a proof under another nonce.
async fn send(
    method: &str,
    url: &Url,
    credential: &Credential<'_>,
    content: Option<(&str, Vec<u8>)>,
    token: Option<&str>,
) -> Response {
    let audience = format!("127.0.0.1:{}", url.port().expect("a port"));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}{query}", url.path());
    let mut again = true;
    loop {
        let body = content.as_ref().map(|(_, body)| body.as_slice()).unwrap_or_default();
        let signed = (!streams_calls(url.path())).then_some(body);
        let call = Call { audience: &audience, method, target: &target, body: signed };
        let mut request =
            reqwest::Client::new().request(method.parse().expect("a method"), url.clone());
        if let Some(value) = credential.header(&call) {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(token) = token {
            request = request.header("fetch-token", token);
        }
        if let Some((kind, body)) = &content {
            request = request.header("content-type", *kind).body(body.clone());
        }
        let answer = request.send().await.expect("an answer");
        let nonce = answer.headers().get(NONCE).and_then(|value| value.to_str().ok());
        if !(credential.take(&audience, nonce) && std::mem::take(&mut again)) {
            return answer;
        }
    }
}

/// A REST call.
pub(crate) async fn rest(
    method: &str,
    url: &Url,
    credential: &Credential<'_>,
    body: &str,
) -> Outcome {
    // A token instead of a body goes into its header.
    let token = body.strip_prefix("fetch-token: ");
    let content = (!body.is_empty() && token.is_none())
        .then(|| ("application/json", body.as_bytes().to_vec()));
    let answer = send(method, url, credential, content, token).await;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if status.is_success() { outcome("ok", text) } else { outcome(status.as_u16(), text) }
}

/// A WebSocket: whether it opens, and what it shows first.
pub(crate) async fn socket(url: &Url, credential: &Credential<'_>) -> Outcome {
    let audience = format!("127.0.0.1:{}", url.port().expect("a port"));
    let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let mut again = true;
    let mut socket = loop {
        let call = Call { audience: &audience, method: "GET", target: &target, body: Some(b"") };
        let address = url.as_str().replacen("http", "ws", 1);
        let mut request = address.into_client_request().expect("an address");
        if let Some(value) = credential.header(&call) {
            request.headers_mut().insert(AUTHORIZATION, value.parse().expect("header text"));
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => break socket,
            Err(SocketError::Http(response)) => {
                let nonce = response.headers().get(NONCE).and_then(|value| value.to_str().ok());
                if !(credential.take(&audience, nonce) && std::mem::take(&mut again)) {
                    return outcome(response.status().as_u16(), "");
                }
            }
            Err(error) => panic!("{url}: {error}"),
        }
    };
    // A socket that is refused closes before it answers a ping.
    socket.send(Message::Ping("there?".into())).await.expect("it is open");
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return outcome("ok", text.as_str()),
            Some(Ok(Message::Pong(_))) => {
                // It is open; what it has to show may come behind.
                let first = tokio::time::timeout(SILENCE, socket.next()).await;
                let text = match first {
                    Ok(Some(Ok(Message::Text(text)))) => text.to_string(),
                    _ => String::new(),
                };
                return outcome("ok", text);
            }
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                let error: serde_json::Value = serde_json::from_str(&reason).expect("an error");
                let name = error["error"].as_str().expect("a code").to_owned();
                let known = quorate_types::ErrorCode::ALL.iter().find(|code| code.name() == name);
                return outcome(known.expect("in the table").row().http, reason);
            }
            Some(Ok(_)) => {}
            other => panic!("{url}: {other:?}"),
        }
    }
}

/// A gRPC call in its HTTP/1.1 form: whether it is answered or refused.
pub(crate) async fn rpc(
    base: &str,
    path: &str,
    credential: &Credential<'_>,
    body: &str,
) -> Outcome {
    let (service, name) = path.rsplit_once('/').expect("a service and a name");
    let service = POOL.get_service_by_name(&service[1..]).expect("in the protos");
    let method = service.methods().find(|m| m.name() == name).expect("in the protos");
    let content = Some(("application/grpc-web+proto", framed(method.input(), body)));
    let url = Url::parse(&format!("{base}{path}")).expect("an address");
    let mut answer = send("POST", &url, credential, content, None).await;
    let status = answer.headers().get("grpc-status").and_then(|value| value.to_str().ok());
    match status.map(|status| status.parse().expect("a number")) {
        Some(code) if code != 0 => {
            let message = answer.headers().get("grpc-message").cloned();
            let message = message.map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned());
            return outcome(http_of(code), message.unwrap_or_default());
        }
        _ => {}
    }
    if method.is_server_streaming() && !method.is_client_streaming() {
        // The first message of a stream that has one; those without stay silent.
        let first = tokio::time::timeout(SILENCE, answer.chunk()).await;
        let first = first.ok().and_then(Result::ok).flatten().unwrap_or_default();
        return outcome("ok", String::from_utf8_lossy(&first));
    }
    let bytes = answer.bytes().await.expect("a body");
    if method.is_client_streaming() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().expect("a frame")) as usize;
        let message = DynamicMessage::decode(method.output(), &bytes[5..5 + length]);
        let message = message.expect("an answer");
        if message.has_field_by_name("refusal") {
            let refusal = message.get_field_by_name("refusal").expect("it has one");
            let refusal = refusal.as_message().expect("a message");
            let code = refusal.get_field_by_name("code").and_then(|code| code.as_i32());
            return outcome(http_of(code.expect("a code")), format!("{message:?}"));
        }
    }
    outcome("ok", String::from_utf8_lossy(&bytes))
}

fn framed(kind: MessageDescriptor, body: &str) -> Vec<u8> {
    let mut json = serde_json::Deserializer::from_str(if body.is_empty() { "{}" } else { body });
    let message = DynamicMessage::deserialize(kind, &mut json).expect("the message's JSON form");
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(bytes.len()).expect("small").to_be_bytes());
    frame.extend_from_slice(&bytes);
    frame
}

/// The HTTP status of the error table's row with this gRPC code, where the callers differ.
fn http_of(code: i32) -> String {
    match code {
        5 => "404".into(),
        7 => "403".into(),
        16 => "401".into(),
        other => format!("grpc-{other}"),
    }
}
