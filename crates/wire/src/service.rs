//! What every service says of itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Liveness of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthJson {
    /// Always `healthy`.
    #[schema(example = "healthy")]
    pub status: String,
    /// Name of the service.
    #[schema(example = "session-coordinator")]
    pub service: String,
    /// Version of the software.
    pub version: String,
    /// Time since the start, for people, such as `1h2m3s`.
    #[schema(example = "24h30m15s")]
    pub uptime: String,
}

/// Readiness of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadinessJson {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    pub status: String,
    /// Name of the service.
    pub service: String,
    /// Reasons why it is not ready, one sentence each.
    pub reasons: Vec<String>,
}
