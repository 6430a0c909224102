//! JSON shapes of the REST and WebSocket interfaces
