//! REST, WebSocket, OpenAPI and documentation pages
