//! Golden bytes, and that no text does harm.

use proptest::prelude::*;
use quorate_types::GroupKind;
use serde_json::{Value, json};

use super::*;

const GROUP: &str = "d570142a-84e7-4c85-ac52-f2aa228106a7";
const SESSION: &str = "f460e2ce-73cc-4cf9-88fd-581f7d4b8b9f";

fn call(method: &str, params: Value) -> Result<RpcCall, RpcError> {
    let frame = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    RpcRequest::parse(&frame.to_string()).call
}

fn code(method: &str, params: Value) -> i32 {
    call(method, params).expect_err(method).code
}

#[test]
fn answers_are_these_bytes() {
    let ask = |id: &str| RpcRequest::parse(&format!(r#"{{"id":{id},"method":"x"}}"#));
    let error = RpcError { code: -32603, message: "a \"b\"".into(), data: Some("c".into()) };
    let plain = RpcError::new(-32601, "d");
    let table = [
        (ask("1").answer(Some(&number(7))), r#"{"jsonrpc":"2.0","id":1,"result":7}"#),
        (ask("14").answer(None), r#"{"jsonrpc":"2.0","id":14}"#),
        (ask(r#""s""#).answer(None), r#"{"jsonrpc":"2.0","id":"s"}"#),
        (ask(r#"{"b":1,"a":[]}"#).answer(None), r#"{"jsonrpc":"2.0","id":{"a":[],"b":1}}"#),
        (
            Some(ask("2").refuse(&error)),
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"a \"b\"","data":"c"}}"#,
        ),
        (
            Some(ask("null").refuse(&plain)),
            r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"d"}}"#,
        ),
    ];
    for (frame, golden) in table {
        assert_eq!(frame.as_deref(), Some(golden));
    }
    assert_eq!(ask("null").answer(Some(&number(7))), None);
    assert_eq!(RpcRequest::parse(r#"{"method":"x"}"#).answer(None), None);
}

#[test]
fn results_and_events_are_these_bytes() {
    let (group_id, session_id) = (GROUP.parse().unwrap(), SESSION.parse().unwrap());
    let keygen = session(session_id, GroupKind::Keygen, "null");
    let table = [
        (
            group(group_id, "test \"g\"", 3, 1).into_string(),
            format!(
                r#"{{"label":"test \"g\"","params":{{"parties":3,"threshold":1}},"uuid":"{GROUP}"}}"#
            ),
        ),
        (
            event("sessionCreate", &keygen),
            format!(
                r#"{{"jsonrpc":"2.0","id":0,"result":["sessionCreate",{{"kind":"keygen","uuid":"{SESSION}","value":null}}]}}"#
            ),
        ),
        (
            event("sessionSignup", &super::session_id(session_id)),
            format!(r#"{{"jsonrpc":"2.0","id":0,"result":["sessionSignup","{SESSION}"]}}"#),
        ),
        (
            event("sessionClosed", &Json::of([1, 2, 3])),
            r#"{"jsonrpc":"2.0","id":0,"result":["sessionClosed",[1,2,3]]}"#.to_owned(),
        ),
    ];
    for (frame, golden) in table {
        assert_eq!(frame, golden);
    }
}

#[test]
fn events_that_a_call_brings_with_it_are_these_bytes() {
    let message =
        json!({"round": 1, "sender": 2, "uuid": "u", "body": {"z": 1, "a": {"y": 1, "b": 2}}});
    let params = json!([GROUP, SESSION, "keygen", message]);
    let Ok(RpcCall::SessionMessage { event, receiver, .. }) = call("Session.message", params)
    else {
        panic!();
    };
    let golden = r#"{"jsonrpc":"2.0","id":0,"result":["sessionMessage",{"body":{"a":{"b":2,"y":1},"z":1},"receiver":null,"round":1,"sender":2,"uuid":"u"}]}"#;
    assert_eq!((event.as_str(), receiver), (golden, None));
    let params = json!([GROUP, SESSION, "prop-1", "message to sign"]);
    let Ok(RpcCall::NotifyProposal(_, _, event)) = call("Notify.proposal", params) else {
        panic!();
    };
    let golden = format!(
        r#"{{"jsonrpc":"2.0","id":0,"result":["notifyProposal",{{"message":"message to sign","proposalId":"prop-1","sessionId":"{SESSION}"}}]}}"#
    );
    assert_eq!(event, golden);
}

#[test]
fn what_is_no_request_has_a_code_and_no_id() {
    let table = [
        ("{oops", PARSE_ERROR),
        ("", PARSE_ERROR),
        ("[]", INVALID_REQUEST),
        ("7", INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":77}"#, INVALID_REQUEST),
        (r#"{"id":77,"method":5}"#, INVALID_REQUEST),
        (r#"[{"jsonrpc":"2.0","id":79,"method":"Group.join"}]"#, INVALID_REQUEST),
    ];
    for (text, code) in table {
        let request = RpcRequest::parse(text);
        let error = request.call.expect_err(text);
        assert_eq!((request.id, error.code, error.is_no_request()), (None, code, true), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(RpcRequest::parse(&deep).call.unwrap_err().code, PARSE_ERROR);
}

#[test]
fn parameters_that_do_not_fit_are_32602() {
    let message = json!({"round": 2});
    let table = [
        ("Group.create", json!({"label": "x", "parameters": {"parties": 3, "threshold": 1}})),
        ("Group.create", json!(["x"])),
        ("Group.create", json!(["x", {"parties": 70000, "threshold": 1}])),
        ("Group.create", Value::Null),
        ("Group.join", json!([GROUP])),
        ("Group.join", json!("not-a-uuid")),
        ("Session.create", json!([GROUP, "keygen"])),
        ("Session.create", json!([GROUP, "bogus", null])),
        ("Session.load", json!([GROUP, SESSION, "keygen", -1])),
        ("Session.message", json!([GROUP, SESSION, "keygen", message])),
        ("Session.finish", json!([GROUP, SESSION, 1, 2])),
        ("Notify.proposal", json!([GROUP, SESSION, "p", 7])),
        ("Connection.token", json!(["x"])),
        ("Connection.resume", json!([])),
        ("Connection.resume", json!(["t", 1, 2])),
    ];
    for (method, params) in table {
        assert_eq!(code(method, params.clone()), INVALID_PARAMS, "{method} {params}");
    }
    assert_eq!(code("Nope.nope", json!([])), METHOD_NOT_FOUND);
}

#[test]
fn lax_spellings_are_understood() {
    let plain = GROUP.replace('-', "");
    assert_eq!(call("Group.join", json!(plain)), Ok(RpcCall::GroupJoin(GROUP.parse().unwrap())));
    let upper = GROUP.to_uppercase();
    assert_eq!(call("Group.join", json!(upper)), Ok(RpcCall::GroupJoin(GROUP.parse().unwrap())));
    assert!(call("Group.create", json!(["x", {"parties": 3, "threshold": 1, "extra": 1}])).is_ok());
    assert_eq!(call("Connection.token", json!([])), Ok(RpcCall::ConnectionToken));
    let Ok(resume) = call("Connection.resume", json!(["secret", 3])) else {
        panic!();
    };
    assert!(!format!("{resume:?}").contains("secret"));
    let RpcCall::ConnectionResume { token, seen } = resume else {
        panic!();
    };
    assert_eq!((token.expose(), seen), ("secret", Some(3)));
}

#[test]
fn a_number_comes_back_as_the_number_it_was() {
    for number in ["118446744073709551616", "-0.3", "5e-324", "1.7976931348623157e308", "1e23"] {
        let text = format!(r#"{{"id":{number},"method":"Connection.token"}}"#);
        let id = RpcRequest::parse(&text).id.unwrap();
        assert_eq!(id.parse::<f64>(), number.parse(), "{id}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from(GROUP)),
        Just(Value::from("keygen")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const METHODS: [&str; 13] = [
    "Group.create",
    "Group.join",
    "Session.create",
    "Session.join",
    "Session.signup",
    "Session.load",
    "Session.participant",
    "Session.message",
    "Session.finish",
    "Notify.proposal",
    "Notify.signed",
    "Connection.token",
    "Connection.resume",
];

proptest! {
    #[test]
    fn no_text_panics_and_every_refusal_is_json(text in ".{0,200}") {
        let request = RpcRequest::parse(&text);
        if let Err(error) = &request.call {
            let frame: Value = serde_json::from_str(&request.refuse(error)).unwrap();
            prop_assert_eq!(&frame["error"]["code"], &json!(error.code));
        }
    }

    #[test]
    fn no_parameters_panic_and_the_id_comes_back(
        method in prop::sample::select(METHODS.to_vec()),
        params in json_value(),
        id in json_value(),
    ) {
        let frame = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = RpcRequest::parse(&frame.to_string());
        match (&request.call, id.is_null()) {
            (Ok(call), false) => {
                prop_assert_eq!(call.method(), method);
                let frame: Value = serde_json::from_str(&request.answer(None).unwrap()).unwrap();
                prop_assert_eq!(&frame["id"], &id);
            }
            (Ok(_), true) => prop_assert!(request.answer(None).is_none()),
            (Err(error), _) => {
                let frame: Value = serde_json::from_str(&request.refuse(error)).unwrap();
                prop_assert_eq!(frame.get("id").is_none(), id.is_null());
            }
        }
    }

    #[test]
    fn a_body_arrives_as_it_was_sent(body in json_value(), round: u16, sender: u16, receiver: Option<u16>) {
        let message = json!({"round": round, "sender": sender, "receiver": receiver, "uuid": "u", "body": body});
        let params = json!([GROUP, SESSION, "sign", message]);
        let Ok(RpcCall::SessionMessage { event, .. }) = call("Session.message", params) else {
            return Err(TestCaseError::fail("refused"));
        };
        let frame: Value = serde_json::from_str(&event).unwrap();
        prop_assert_eq!(frame, json!({"jsonrpc": "2.0", "id": 0, "result": ["sessionMessage", message]}));
    }
}
