//! Compiles `proto/` to Rust and to the descriptor set that reflection serves. No `protoc` is needed.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "server")]
    compile();
}

#[cfg(feature = "server")]
fn compile() {
    use protox::prost::Message as _;

    let files = ["proto/ebb/v1/cache.proto", "proto/ebb/v1/admin.proto"];
    let descriptors = protox::compile(files, ["proto"]).expect("proto/ compiles");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("ebb.v1.bin"), descriptors.encode_to_vec()).expect("OUT_DIR is writable");
    tonic_prost_build::configure()
        .codec_path("crate::grpc::codec::Small")
        .bytes(".ebb.v1")
        .compile_fds(descriptors)
        .expect("the descriptors become Rust");
}
