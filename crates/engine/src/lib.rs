//! Threshold protocols as pollable machines, sealed envelopes and the scheme registry
