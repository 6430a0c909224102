//! What every service says of itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthJson {
    /// `healthy`.
    #[schema(example = "healthy")]
    pub status: String,
    /// The service's name.
    #[schema(example = "session-coordinator")]
    pub service: String,
    /// The software's version.
    pub version: String,
    /// How long it runs.
    #[schema(example = "24h30m15s")]
    pub uptime: String,
}

/// Whether the service can do its work now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadinessJson {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    pub status: String,
    /// The service's name.
    pub service: String,
    /// Why not, one sentence each.
    pub reasons: Vec<String>,
}
