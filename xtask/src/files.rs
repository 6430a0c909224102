//! Rules about source files: how long they are, how they open, and that dependencies are used.

use std::path::{Path, PathBuf};

use cargo_metadata::Metadata;

/// Longest source file.
const MAX_LINES: usize = 600;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files with these endings below a folder, without build output.
pub(crate) fn below(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != "node_modules" && name != ".git" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every source file is short and says what it is for.
pub(crate) fn check() -> Result<(), String> {
    let mut problems = Vec::new();
    for path in below(&root(), &["rs", "ts"]) {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{} has {lines} lines; split it", path.display()));
        }
        if path.extension().is_some_and(|e| e == "rs") && !text.starts_with("//!") {
            problems.push(format!("{} does not open with `//!`", path.display()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Dependencies that only generated code names.
const GENERATED: &[(&str, &str)] = &[("quorate-rpc", "tonic-prost")];

/// Every declared dependency is named in its crate's sources.
pub(crate) fn unused_dependencies(metadata: &Metadata) -> Result<(), String> {
    let mut unused = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().map(|p| p.as_std_path().to_owned());
        let sources: String = below(&folder.unwrap_or_default(), &["rs"])
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .collect();
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_");
            let generated = GENERATED.contains(&(package.name.as_str(), dependency.name.as_str()));
            if !generated && !mentions(&sources, &name) {
                unused.push(format!("{} does not use {}", package.name, dependency.name));
            }
        }
    }
    if unused.is_empty() { Ok(()) } else { Err(unused.join("\n")) }
}

/// Whether `name` stands in the text as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_inside_another_word_is_no_mention() {
        assert!(mentions("use serde::Serialize;", "serde"));
        assert!(!mentions("use serde_json::json;", "serde"));
        assert!(!mentions("myserde::x", "serde"));
    }
}
