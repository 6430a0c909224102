//! Generated gRPC stubs, conversions and the remote halves of the ports
