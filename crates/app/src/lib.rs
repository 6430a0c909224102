//! The shell around the core: load, apply, persist, release
