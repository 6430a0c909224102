//! gRPC services over the ports
