//! Device SDK: a party over gRPC or WebSocket
