//! The routes of each service.

pub(crate) mod accounts;
pub(crate) mod api_keys;
pub(crate) mod coordinator;
pub(crate) mod delegates;
pub(crate) mod mpc;
pub(crate) mod party;
pub(crate) mod router;
pub(crate) mod tickets;
