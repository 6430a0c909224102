//! Tickets for WebSocket handshakes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A ticket for one WebSocket handshake.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TicketJson {
    /// Value of the query parameter `ticket` of one handshake.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub ticket: String,
    /// Seconds until it expires.
    #[schema(example = 30)]
    pub expires_in: u64,
}
