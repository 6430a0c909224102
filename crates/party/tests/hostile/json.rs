//! What a party is told, as JSON and back, by way of the messages that carry it between processes:
//! whatever field they have, it is changed without a line here.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use quorate_rpc::proto::router::v1 as ro;
use quorate_types::*;
use serde_json::Value;

static PROTOS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(quorate_rpc::DESCRIPTORS).unwrap());

/// What kind of thing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Event,
    Joined,
    View,
    Message,
}

/// Something that a party is told.
pub(crate) trait Document: Clone {
    const KIND: Kind;

    fn to_json(&self) -> Value;

    /// As a client reads it: what cannot be read is an error.
    fn from_json(json: &Value) -> Result<Self>;

    /// The session it shows.
    fn session(&self) -> Option<&SessionView>;
}

fn write(name: &str, message: &impl prost::Message) -> Value {
    let kind = PROTOS.get_message_by_name(name).unwrap();
    let dynamic = DynamicMessage::decode(kind, message.encode_to_vec().as_slice()).unwrap();
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

fn read<M: prost::Message + Default>(name: &str, json: &Value) -> Result<M> {
    let kind = PROTOS.get_message_by_name(name).unwrap();
    let unreadable = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
    let dynamic = DynamicMessage::deserialize(kind, json).map_err(|error| unreadable(&error))?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|error| unreadable(&error))
}

impl Document for SessionEvent {
    const KIND: Kind = Kind::Event;

    fn to_json(&self) -> Value {
        write("mpc.router.v1.SessionEvent", &quorate_rpc::event_out(self.clone()))
    }

    fn from_json(json: &Value) -> Result<Self> {
        quorate_rpc::event_in(read::<ro::SessionEvent>("mpc.router.v1.SessionEvent", json)?)
    }

    fn session(&self) -> Option<&SessionView> {
        Some(&self.session)
    }
}

impl Document for JoinedSession {
    const KIND: Kind = Kind::Joined;

    fn to_json(&self) -> Value {
        write("mpc.router.v1.JoinSessionResponse", &quorate_rpc::joined_out(self))
    }

    fn from_json(json: &Value) -> Result<Self> {
        quorate_rpc::joined_in(read("mpc.router.v1.JoinSessionResponse", json)?)
    }

    fn session(&self) -> Option<&SessionView> {
        Some(&self.session)
    }
}

impl Document for SessionView {
    const KIND: Kind = Kind::View;

    fn to_json(&self) -> Value {
        write("mpc.router.v1.SessionDetail", &quorate_rpc::detail(self))
    }

    fn from_json(json: &Value) -> Result<Self> {
        quorate_rpc::view(Some(read("mpc.router.v1.SessionDetail", json)?))
    }

    fn session(&self) -> Option<&SessionView> {
        Some(self)
    }
}

impl Document for Message {
    const KIND: Kind = Kind::Message;

    fn to_json(&self) -> Value {
        write("mpc.router.v1.MPCMessage", &quorate_rpc::message_out(self.clone()))
    }

    fn from_json(json: &Value) -> Result<Self> {
        quorate_rpc::message_in(read("mpc.router.v1.MPCMessage", json)?)
    }

    fn session(&self) -> Option<&SessionView> {
        None
    }
}
