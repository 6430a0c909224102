//! The party runtime: drives engine machines over a transport
