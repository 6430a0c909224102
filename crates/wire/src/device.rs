//! A participant's device, flat or nested.

use quorate_types::{DeviceInfo, Error, NewParticipant, PartyId, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::delegate::OnBehalfOfJson;

/// A device, free text throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceJson {
    /// The type of device, such as `server` or `iOS`.
    pub device_type: String,
    /// The device's id, as it names itself.
    pub device_id: String,
    /// Operating system or browser.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Version of the application.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app_version: String,
}

impl From<DeviceJson> for DeviceInfo {
    fn from(json: DeviceJson) -> Self {
        let DeviceJson { device_type, device_id, platform, app_version } = json;
        Self { device_type, device_id, platform, app_version }
    }
}

impl From<DeviceInfo> for DeviceJson {
    fn from(device: DeviceInfo) -> Self {
        let DeviceInfo { device_type, device_id, platform, app_version } = device;
        Self { device_type, device_id, platform, app_version }
    }
}

/// A participant as a session's creator names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewParticipantJson {
    /// The id of the party.
    #[schema(value_type = String, example = "party_user_device")]
    pub party_id: PartyId,
    /// The device's type, when `device_info` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// The device's id, when `device_info` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// What the device says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<DeviceJson>,
    /// The user for whom a delegate takes the seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOfJson>,
}

impl NewParticipantJson {
    /// The participant; `at` is this object's path, for refusals.
    ///
    /// # Errors
    /// `invalid_request` when the flat and the nested device contradict each other, and naming what
    /// is wrong in `on_behalf_of`.
    pub fn into_participant(self, at: &str) -> Result<NewParticipant> {
        let device = device(self.device_type, self.device_id, self.device_info, at)?;
        let words = |of: OnBehalfOfJson| of.into_words(&format!("{at}on_behalf_of."));
        let on_behalf_of = self.on_behalf_of.map(words).transpose()?;
        Ok(NewParticipant { party_id: self.party_id, device, on_behalf_of })
    }
}

impl From<NewParticipant> for NewParticipantJson {
    fn from(participant: NewParticipant) -> Self {
        let NewParticipant { party_id, device, on_behalf_of } = participant;
        let device_info = (device != DeviceInfo::default()).then(|| device.into());
        let on_behalf_of = on_behalf_of.map(Into::into);
        Self { party_id, device_type: None, device_id: None, device_info, on_behalf_of }
    }
}

/// All participants of a request.
pub(crate) fn participants(list: Vec<NewParticipantJson>) -> Result<Vec<NewParticipant>> {
    let named = |(index, participant): (usize, NewParticipantJson)| {
        participant.into_participant(&format!("participants[{index}]."))
    };
    list.into_iter().enumerate().map(named).collect()
}

/// Merges the two ways to name a device.
pub(crate) fn device(
    device_type: Option<String>,
    device_id: Option<String>,
    nested: Option<DeviceJson>,
    at: &str,
) -> Result<DeviceInfo> {
    let mut device = DeviceInfo::from(nested.unwrap_or_default());
    merge(&mut device.device_type, device_type, at, "device_type")?;
    merge(&mut device.device_id, device_id, at, "device_id")?;
    Ok(device)
}

fn merge(nested: &mut String, flat: Option<String>, at: &str, name: &str) -> Result<()> {
    let Some(flat) = flat else { return Ok(()) };
    if !nested.is_empty() && *nested != flat {
        return Err(Error::invalid_field(
            &format!("{at}{name}"),
            format!("{at}{name} is {flat:?} but {at}device_info says {nested:?}; give one"),
        ));
    }
    *nested = flat;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<NewParticipant> {
        crate::parse::<NewParticipantJson>(json.as_bytes())?.into_participant("participants[3].")
    }

    #[test]
    fn flat_and_nested_devices_mean_the_same() {
        let flat = read(r#"{"party_id":"a","device_type":"iOS","device_id":"d1"}"#).unwrap();
        let nested =
            read(r#"{"party_id":"a","device_info":{"device_type":"iOS","device_id":"d1"}}"#)
                .unwrap();
        assert_eq!(flat.device, nested.device);
        assert_eq!(flat.device.device_type, "iOS");
    }

    #[test]
    fn contradicting_devices_name_the_member() {
        let error = read(r#"{"party_id":"a","device_id":"x","device_info":{"device_id":"y"}}"#)
            .unwrap_err();
        assert!(error.details.fields.contains_key("participants[3].device_id"));
    }

    #[test]
    fn unknown_device_member_is_refused() {
        let error = read(r#"{"party_id":"a","device_info":{"os":"y"}}"#).unwrap_err();
        assert!(error.details.fields.contains_key("device_info.os"), "{error:?}");
    }
}
