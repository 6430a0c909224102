//! The scopes that the documents name are those that the servers ask for, as the matrix of the
//! end-to-end tests has it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_front_rest::{Service, service_document};
use serde_json::Value;

const MATRIX: &str = include_str!("../../e2e/tests/matrix/matrix.txt");

/// Keys with one scope, in the order of the matrix's columns behind `none` and `wrong`.
const SCOPES: [&str; 4] = ["sessions", "read", "accounts", "party"];

/// Which of the keys get in by a row of the matrix, for each operation of a service.
fn admitted(service: &str) -> BTreeMap<(String, String), BTreeSet<&'static str>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in MATRIX.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(service).and_then(|rest| rest.strip_prefix(' ')) else {
            continue;
        };
        let cells: Vec<_> = rest.split(" | ").collect();
        let Some((verb, target)) = cells[0].split_once(' ') else { continue };
        let Some(path) = target.split(['?', '#']).next().filter(|path| path.starts_with('/'))
        else {
            continue;
        };
        let outcomes = cells.last().expect("outcomes").split_whitespace().skip(2);
        let scopes = SCOPES.into_iter().zip(outcomes);
        let admitted = scopes.filter(|(_, outcome)| ["ok", "has"].contains(outcome));
        let at = (verb.to_lowercase(), path.to_owned());
        found.entry(at).or_default().extend(admitted.map(|(scope, _)| scope));
    }
    found
}

/// What an operation's document says: the keys with one scope that get in.
fn documented(operation: &Value) -> BTreeSet<&'static str> {
    let alternatives = operation["security"].as_array().expect("requirements").iter();
    let sets: Vec<Vec<_>> = alternatives
        .filter_map(|one| one["api_key"].as_array())
        .map(|scopes| scopes.iter().map(|scope| scope.as_str().expect("text")).collect())
        .collect();
    // Any key may read.
    let enough = |scope: &&str| {
        sets.is_empty() || sets.contains(&vec![*scope]) || sets.contains(&vec!["read"])
    };
    SCOPES.into_iter().filter(enough).collect()
}

#[test]
fn operations_name_the_scopes_that_the_servers_ask_for() {
    let mut seen = 0;
    for (service, name) in [
        (Service::Coordinator, "coordinator"),
        (Service::Router, "router"),
        (Service::Accounts, "accounts"),
        (Service::Party, "party"),
    ] {
        let document = serde_json::to_value(service_document(&[service])).unwrap();
        for ((verb, path), admitted) in admitted(name) {
            let operation = &document["paths"][&path][&verb];
            if operation.is_null() {
                continue;
            }
            assert_eq!(documented(operation), admitted, "{name} {verb} {path}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} operations have a row");
}
