//! Compiles `proto/` to Rust and to the descriptor sets that reflection serves. No `protoc` is needed.

fn main() {
    println!("cargo:rerun-if-changed=../../proto");
    compile();
}

fn compile() {
    use protox::prost::Message as _;

    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let [mut ebb, admin, health] = ["ebb/v1/cache", "ebb/v1/admin", "grpc/health/v1/health"].map(|file| {
        let set = protox::compile([format!("../../proto/{file}.proto")], ["../../proto"]).expect("proto/ compiles");
        let name = file.rsplit('/').next().expect("a path has a name");
        std::fs::write(out.join(format!("{name}.bin")), set.encode_to_vec()).expect("OUT_DIR is writable");
        set
    });
    ebb.file.extend(admin.file);
    tonic_prost_build::configure()
        .codec_path("crate::codec::Small")
        .bytes(".ebb.v1")
        .compile_fds(ebb)
        .expect("the descriptors become Rust");
    tonic_prost_build::configure().compile_fds(health).expect("the descriptors become Rust");
}
