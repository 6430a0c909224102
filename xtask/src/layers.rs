//! Arrows point down: which crate may see which, and that the pure ones stay pure.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each crate may depend on. A crate that is not named here is a mistake; `*` may see all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("quorate-types", &[]),
    ("quorate-schemes", &["quorate-types"]),
    ("quorate-core", &["quorate-types", "quorate-schemes"]),
    ("quorate-authority", &["quorate-types"]),
    ("quorate-wire", &["quorate-types"]),
    ("quorate-engine", &["quorate-types", "quorate-schemes"]),
    ("quorate-ports", &["quorate-types"]),
    ("quorate-participant", &["quorate-types", "quorate-schemes", "quorate-engine"]),
    (
        "quorate-app",
        &["quorate-types", "quorate-schemes", "quorate-core", "quorate-authority", "quorate-ports"],
    ),
    (
        "quorate-party",
        &[
            "quorate-types",
            "quorate-schemes",
            "quorate-engine",
            "quorate-participant",
            "quorate-authority",
            "quorate-ports",
        ],
    ),
    ("quorate-store", &["quorate-types", "quorate-ports"]),
    ("quorate-notify", &["quorate-types", "quorate-ports", "quorate-wire"]),
    ("quorate-rpc", &["quorate-types", "quorate-ports"]),
    ("quorate-front-rest", &["quorate-types", "quorate-ports", "quorate-wire"]),
    ("quorate-front-grpc", &["quorate-types", "quorate-ports", "quorate-rpc"]),
    ("quorate-front-relay", &["quorate-types", "quorate-core", "quorate-ports", "quorate-wire"]),
    ("quorate-front-jsonrpc", &["quorate-types", "quorate-core", "quorate-ports", "quorate-wire"]),
    (
        "quorate-client",
        &[
            "quorate-types",
            "quorate-schemes",
            "quorate-engine",
            "quorate-participant",
            "quorate-ports",
            "quorate-party",
            "quorate-rpc",
            "quorate-wire",
        ],
    ),
    ("quorate-testkit", &["quorate-types", "quorate-ports"]),
    ("quorate", &["*"]),
    ("quorate-e2e", &["*"]),
    ("quorate-bench", &["*"]),
    ("quorate-fuzz", &["*"]),
    ("xtask", &["*"]),
];

/// Crates without IO, tasks or clocks, and what must not be reachable from them.
pub(crate) const PURE: &[&str] = &[
    "quorate-types",
    "quorate-schemes",
    "quorate-core",
    "quorate-authority",
    "quorate-wire",
    "quorate-engine",
    "quorate-participant",
    "quorate-ports",
];
const IMPURE: &[&str] = &["tokio", "axum", "tonic", "hyper"];

/// Reads the workspace as cargo sees it.
pub(crate) fn metadata() -> Result<Metadata, String> {
    MetadataCommand::new()
        .manifest_path(crate::files::root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .map_err(|error| error.to_string())
}

/// Checks the workspace.
pub(crate) fn check() -> Result<(), String> {
    let metadata = metadata()?;
    let problems = [arrows(&workspace_arrows(&metadata)), purity(&reachable(&metadata))].concat();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Normal dependencies between the crates of the workspace.
fn workspace_arrows(metadata: &Metadata) -> Graph {
    let names: BTreeSet<_> =
        metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let inside = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        normal.map(|d| d.name.clone()).filter(|name| names.contains(name)).collect()
    };
    metadata.workspace_packages().iter().map(|p| (p.name.to_string(), inside(p))).collect()
}

fn arrows(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, targets) in graph {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == from) else {
            problems.push(format!("{from} has no layer: add it to the table"));
            continue;
        };
        for to in targets {
            if !allowed.contains(&"*") && !allowed.contains(&to.as_str()) {
                problems.push(format!("{from} must not depend on {to}"));
            }
        }
    }
    problems
}

/// Everything a pure crate reaches by normal dependencies.
fn reachable(metadata: &Metadata) -> Graph {
    let Some(resolve) = &metadata.resolve else {
        return Graph::new();
    };
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let name = |id| metadata[id].name.to_string();
    let mut graph = Graph::new();
    for package in metadata.workspace_packages() {
        if !PURE.contains(&package.name.as_str()) {
            continue;
        }
        let mut seen = BTreeSet::new();
        let mut next = vec![&package.id];
        while let Some(id) = next.pop() {
            for dependency in nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default() {
                let normal = dependency.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
                if normal && seen.insert(&dependency.pkg) {
                    next.push(&dependency.pkg);
                }
            }
        }
        graph.insert(package.name.to_string(), seen.into_iter().map(name).collect());
    }
    graph
}

fn purity(reachable: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, all) in reachable {
        for impure in IMPURE.iter().filter(|name| all.contains(**name)) {
            problems.push(format!("{from} reaches {impure}; it must stay pure"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(from: &str, to: &[&str]) -> Graph {
        Graph::from([(from.to_owned(), to.iter().map(|&name| name.to_owned()).collect())])
    }

    #[test]
    fn an_arrow_up_or_sideways_is_named() {
        assert!(arrows(&graph("quorate-app", &["quorate-core"])).is_empty());
        let up = arrows(&graph("quorate-core", &["quorate-app"]));
        assert_eq!(up, ["quorate-core must not depend on quorate-app"]);
        assert_eq!(arrows(&graph("quorate-store", &["quorate-rpc"])).len(), 1);
        assert_eq!(arrows(&graph("quorate-new", &[])).len(), 1);
    }

    #[test]
    fn a_runtime_below_is_named() {
        assert_eq!(purity(&graph("quorate-core", &["serde", "tokio"])).len(), 1);
        assert!(purity(&graph("quorate-core", &["serde"])).is_empty());
    }
}
