//! Whose call a role passes on, as a header of its own.
//!
//! A role that proves that it belongs to the installation says for whom it asks; from anybody else
//! the header is refused. So a neighbour's rights are the same whether it asks one process or a
//! chain of them.

use quorate_types::{Caller, Error, PartyId, Result, Scope, Tenant};

/// The header: `open`, `system`, `party NAME` or `key TENANT SCOPE,SCOPE`.
pub const ON_BEHALF_OF: &str = "quorate-on-behalf-of";

/// A caller as the header's value.
pub(crate) fn behalf_out(caller: &Caller) -> String {
    match caller {
        Caller::Open => "open".to_owned(),
        Caller::System => "system".to_owned(),
        Caller::Party(party) => format!("party {party}"),
        Caller::Key { tenant, scopes } => {
            let scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
            format!("key {} {}", tenant.as_str(), scopes.join(","))
        }
    }
}

/// The header's value as a caller.
///
/// # Errors
/// `invalid_request` when it is none of the four forms.
pub fn behalf_in(value: &str) -> Result<Caller> {
    let malformed = || Error::invalid(format!("{ON_BEHALF_OF} is not a caller"));
    let mut words = value.split(' ');
    let caller = match (words.next(), words.next(), words.next()) {
        (Some("open"), None, None) => Caller::Open,
        (Some("system"), None, None) => Caller::System,
        (Some("party"), Some(party), None) => {
            Caller::Party(party.parse::<PartyId>().map_err(|_| malformed())?)
        }
        (Some("key"), Some(tenant), Some(scopes)) => {
            let tenant: Tenant = tenant.parse().map_err(|_| malformed())?;
            let named = scopes.split(',').filter(|scope| !scope.is_empty());
            let scopes = named.map(|scope| scope.parse::<Scope>().map_err(|_| malformed()));
            Caller::Key { tenant, scopes: scopes.collect::<Result<_>>()? }
        }
        _ => return Err(malformed()),
    };
    if words.next().is_some() { Err(malformed()) } else { Ok(caller) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_caller_comes_back_as_it_was() {
        let tenant: Tenant = "acme.example".parse().unwrap();
        let key = |scopes: &[Scope]| Caller::Key { tenant: tenant.clone(), scopes: scopes.into() };
        let callers = [
            Caller::Open,
            Caller::System,
            Caller::Party("alice@phone".parse().unwrap()),
            key(&[]),
            key(Scope::ALL),
        ];
        for caller in callers {
            assert_eq!(behalf_in(&behalf_out(&caller)).unwrap(), caller);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad = [
            "",
            "root",
            "open x",
            "system ",
            "party",
            "party a b",
            "key t",
            "key t all",
            "key t read x",
        ];
        for value in bad {
            assert!(behalf_in(value).is_err(), "{value:?}");
        }
    }
}
