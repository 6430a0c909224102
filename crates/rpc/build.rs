//! Compiles the protos; needs no `protoc`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    let files = [
        "mpc/router/v1/message_router.proto",
        "mpc/coordinator/v1/session_coordinator.proto",
        "quorate/operator/v1/api_keys.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(files, [root])?;
    let out = std::env::var("OUT_DIR")?;
    tonic_prost_build::configure()
        .bytes(".")
        .file_descriptor_set_path(Path::new(&out).join("descriptors.bin"))
        .compile_fds(descriptors.clone())?;
    let mut bytes = Vec::new();
    prost::Message::encode(&descriptors, &mut bytes)?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), bytes)?;
    Ok(())
}
