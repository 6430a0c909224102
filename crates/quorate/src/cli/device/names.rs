//! What devices are called: by their users, and as this device got to know them.

use std::collections::HashMap;

use quorate_client::peers::{DeviceName, VerifyingKey};
use quorate_types::PartyId;

/// Names of devices, for people only: an identity is what counts.
#[derive(Clone, Default)]
pub(in crate::cli) struct Names(HashMap<PartyId, DeviceName>);

impl Names {
    pub(in crate::cli) fn new(members: &[VerifyingKey], names: &[Option<DeviceName>]) -> Self {
        let named = |(key, name): (&VerifyingKey, &Option<DeviceName>)| {
            name.clone().map(|name| (key.party_id(), name))
        };
        Self(members.iter().zip(names).filter_map(named).collect())
    }

    /// The device's name, or its identity where it has none.
    pub(in crate::cli) fn short(&self, device: &PartyId) -> String {
        self.0.get(device).map_or_else(|| device.to_string(), |name| name.as_str().to_owned())
    }

    /// The device's name and its identity.
    pub(in crate::cli) fn full(&self, device: &PartyId) -> String {
        match self.0.get(device) {
            Some(name) => format!("{} ({device})", name.as_str()),
            None => device.to_string(),
        }
    }
}
