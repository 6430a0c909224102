//! Who may do what: every caller at every route and RPC, in one process and with roles apart, on a
//! session of the owner's and on one that is not there. `matrix.txt` has the answers.

mod ask;
mod table;
mod world;

use std::collections::BTreeSet;

use reqwest::Url;
use serde_json::Value;

use ask::{Outcome, rest, rpc, rpcs, socket};
use table::{CALLERS, Row, check_cover, rows};
use world::{Facts, SERVICES, World};

const TABLE: &str = include_str!("matrix.txt");

/// In whose name a caller acts.
fn acting(caller: &str) -> &'static str {
    match caller {
        "dev-1" | "key-as-1" => "dev-1",
        "dev-3" => "dev-3",
        _ => "dev-2",
    }
}

/// A text of the table with the facts in it.
fn filled(text: &str, facts: &Facts) -> String {
    let names = [
        ("{session_id}", "$SESSION"),
        ("{party_id}", "$PARTY"),
        ("{message_id}", "$MESSAGE"),
        ("{account_id}", "$ACCOUNT"),
        ("{key_id}", "$KEY"),
        ("{id}", "$APIKEY"),
    ];
    let text = names.iter().fold(text.to_owned(), |text, (hole, name)| text.replace(hole, name));
    facts.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

async fn request(world: &World, row: &Row, caller: &str, facts: &Facts) -> Outcome {
    let Row { service, method, target, body, .. } = row;
    let mut facts = facts.clone();
    if service == "party" {
        let held = facts["$HELD"].clone();
        facts.insert("$KEY", held);
    }
    let facts = &facts;
    let credential = world.credential(caller, service);
    let body = filled(body, facts);
    if method == "rpc" {
        let name = target.split('#').next().unwrap_or_default();
        let full = match service.as_str() {
            _ if name.ends_with("ApiKey") || name.ends_with("ApiKeys") => {
                "quorate.operator.v1.ApiKeys"
            }
            "coordinator" => "mpc.coordinator.v1.SessionCoordinator",
            _ => "mpc.router.v1.MessageRouter",
        };
        return rpc(world.base(service, true), &format!("/{full}/{name}"), &credential, &body)
            .await;
    }
    let path = target.split('#').next().unwrap_or_default();
    let url = format!("{}{}", world.base(service, false), filled(path, facts));
    let url = Url::parse(&url).expect("a URL");
    if target.contains("/subscribe") {
        return socket(&url, &credential).await;
    }
    rest(method, &url, &credential, &body).await
}

/// What came of it, as a cell of the table: of answers that list things, whether the owner's are
/// among them.
fn cell(row: &Row, facts: &Facts, outcome: &Outcome) -> String {
    let lists = row.expected.iter().any(|cell| cell == "has");
    if outcome.code != "ok" || !lists {
        return outcome.code.clone();
    }
    if row.target.contains("ubscribe") {
        // A stream begins with what is oldest: any message at all is the owner's.
        return if outcome.text.is_empty() { "-".into() } else { "has".into() };
    }
    let owners = ["$SESSION", "$KEY", "$HELD", "$ACCOUNT", "$MESSAGE"];
    let shown = owners.iter().filter_map(|name| facts.get(name));
    let has = shown.filter(|id| !id.is_empty()).any(|id| outcome.text.contains(id.as_str()));
    if has { "has".into() } else { "-".into() }
}

/// All routes and RPCs that the installation serves.
async fn served(world: &World) -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for service in SERVICES {
        let url = format!("{}/openapi.json", world.base(service, false));
        let document = reqwest::get(url).await.expect("an answer").json::<Value>().await;
        let document = document.expect("JSON");
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                routes.insert(format!("{service} {} {path}", method.to_uppercase()));
            }
        }
    }
    for (service, name) in rpcs() {
        let at: &[&str] = match service.rsplit('.').next() {
            Some("SessionCoordinator") => &["coordinator"],
            Some("ApiKeys") => &SERVICES,
            _ => &["router"],
        };
        routes.extend(at.iter().map(|at| format!("{at} rpc {name}")));
    }
    routes
}

async fn everybody_tries_everything(world: World) {
    let rows = rows(TABLE);
    check_cover(&rows, &served(&world).await);
    let mut wrong = Vec::new();
    for row in &rows {
        let mut cells = Vec::new();
        for caller in CALLERS {
            let mut facts = world.fresh(&row.state, acting(caller)).await;
            if row.state == "api-key" {
                facts.insert("$APIKEY", world.api_key(&row.service).await);
            }
            let outcome = request(&world, row, caller, &facts).await;
            cells.push(cell(row, &facts, &outcome));
            let mut elsewhere = facts.clone();
            if elsewhere.insert("$SESSION", uuid::Uuid::new_v4().to_string()).is_some()
                && (row.target.contains("session_id") || row.body.contains("$SESSION"))
            {
                let outcome = request(&world, row, caller, &elsewhere).await;
                assert_ne!(outcome.code, "ok", "{} of no session by {caller}", row.route());
            }
        }
        if cells != row.expected {
            wrong.push(row.line(&cells));
        }
    }
    assert!(wrong.is_empty(), "{} get\n{}", CALLERS.join(" "), wrong.join("\n"));
}

#[tokio::test]
async fn everybody_gets_what_the_table_says_in_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    everybody_tries_everything(World::in_one_process(folder.path()).await).await;
}

#[tokio::test]
async fn everybody_gets_what_the_table_says_with_roles_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    everybody_tries_everything(World::with_roles_apart(folder.path()).await).await;
}
