//! What a public key and a signature are in each scheme: parse, verify, recover, address
