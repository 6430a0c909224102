//! The table of expectations: a row per route and RPC, a column per caller.

use std::collections::BTreeSet;

/// Who asks, in the order of the table's columns.
pub(crate) const CALLERS: [&str; 12] = [
    "none", "wrong", "sessions", "read", "accounts", "party", "evil", "dev-1", "dev-3", "1-as-2",
    "key-as-1", "system",
];

/// One route or RPC.
#[derive(Clone)]
pub(crate) struct Row {
    /// `coordinator`, `router`, `accounts` or `party`.
    pub(crate) service: String,
    /// An HTTP method, or `rpc`.
    pub(crate) method: String,
    /// A path with its query, or an RPC's name. A part behind `#` tells rows of one RPC apart.
    pub(crate) target: String,
    /// What the request needs to be there before.
    pub(crate) state: String,
    /// The body as JSON, or nothing.
    pub(crate) body: String,
    /// What each caller gets.
    pub(crate) expected: Vec<String>,
}

impl Row {
    /// The route as the documents name it.
    pub(crate) fn route(&self) -> String {
        let target = self.target.split(['?', '#']).next().unwrap_or_default();
        format!("{} {} {target}", self.service, self.method)
    }

    /// The row as a line of the table, with these outcomes.
    pub(crate) fn line(&self, outcomes: &[String]) -> String {
        let Self { service, method, target, state, body, .. } = self;
        format!("{service} {method} {target} | {state} | {body} | {}", outcomes.join(" "))
    }
}

/// Reads the table.
pub(crate) fn rows(text: &str) -> Vec<Row> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
    let [route, state, body, expected] = cells.as_slice() else { panic!("four cells: {line}") };
    let words: Vec<_> = route.split(' ').collect();
    let [service, method, target] = words.as_slice() else { panic!("three words: {route}") };
    let expected: Vec<_> = expected.split_whitespace().map(str::to_owned).collect();
    assert_eq!(expected.len(), CALLERS.len(), "a column per caller: {line}");
    let own = |word: &&str| (*word).to_owned();
    Row {
        service: own(service),
        method: own(method),
        target: own(target),
        state: own(state),
        body: own(body),
        expected,
    }
}

/// Fails when a route that is served has no row, a row has no route, or nobody gets in by one.
pub(crate) fn check_cover(rows: &[Row], served: &BTreeSet<String>) {
    let named: BTreeSet<_> = rows.iter().map(Row::route).collect();
    let missing: Vec<_> = served.difference(&named).collect();
    assert!(missing.is_empty(), "routes without a row in matrix.txt: {missing:#?}");
    let gone: Vec<_> = named.difference(served).collect();
    assert!(gone.is_empty(), "rows of routes that are not served: {gone:#?}");
    for row in rows {
        let open = row.expected.iter().any(|cell| cell == "ok" || cell == "has");
        assert!(open || row.state == "absent", "nobody gets in by {}", row.route());
    }
}
