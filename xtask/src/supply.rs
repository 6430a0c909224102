//! Licences, banned crates and sources.
//!
//! `cargo deny` reads `deny.toml` where it is installed; else the same rules are checked here, on
//! what cargo itself says of the tree, so that no gate depends on a tool that takes minutes to build.

use cargo_metadata::Metadata;

use crate::files::root;
use crate::steps::{cargo_command, run};

/// Checks the dependency tree.
pub(crate) fn check(metadata: &Metadata) -> Result<(), String> {
    let rules = Rules::read()?;
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if rules.banned.iter().any(|banned| banned == name) || is_banned_family(name) {
            problems.push(format!("{name} is banned; see deny.toml"));
        }
        match &package.source {
            None => {}
            Some(source) if source.is_crates_io() => {}
            Some(source) => problems.push(format!("{name} comes from {source}")),
        }
        let licence = package.license.as_deref().unwrap_or("none");
        if !satisfied(licence, &rules.allowed) {
            problems.push(format!("{name} has the licence {licence}"));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    if cargo_command().args(["deny", "--version"]).output().is_ok_and(|o| o.status.success()) {
        // The advisory database is fetched from outside and may be out of reach: not a gate.
        run(cargo_command().args(["deny", "check", "licenses", "bans", "sources"]))?;
    }
    Ok(())
}

fn is_banned_family(name: &str) -> bool {
    name.starts_with("sl-mpc") || name.contains("gg18") || name.contains("gg20")
}

struct Rules {
    allowed: Vec<String>,
    banned: Vec<String>,
}

impl Rules {
    /// The lists of `deny.toml`, which has one entry a line.
    fn read() -> Result<Self, String> {
        let text = std::fs::read_to_string(root().join("deny.toml"))
            .map_err(|error| format!("deny.toml: {error}"))?;
        let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let list = |start: &str| {
            text.lines()
                .skip_while(|line| *line != start)
                .skip(1)
                .take_while(|line| *line != "]")
                .filter_map(quoted)
                .collect::<Vec<_>>()
        };
        let rules = Self { allowed: list("allow = ["), banned: list("deny = [") };
        if rules.allowed.is_empty() || rules.banned.is_empty() {
            return Err("deny.toml has no `allow = [` or `deny = [` list, one entry a line".into());
        }
        Ok(rules)
    }
}

/// Whether an SPDX expression can be fulfilled by allowed licences.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // Without nesting, `A AND (B OR C)` is true if each AND-part has an allowed alternative; crates
    // that need more are not in the tree, and an unknown shape fails.
    expression.split(" AND ").all(|part| {
        part.split(" OR ").any(|licence| allowed.iter().any(|known| known == licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_needs_an_allowed_alternative_in_each_part() {
        let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
        for good in ["MIT", "Apache-2.0 OR MIT", "GPL-3.0/MIT", "(MIT OR X) AND Unicode-3.0"] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "none", "MIT AND GPL-3.0", ""] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn the_rules_are_readable() {
        let rules = Rules::read().unwrap();
        assert!(rules.allowed.contains(&"MIT".to_owned()));
        assert!(rules.banned.contains(&"openssl".to_owned()));
    }
}
