//! Compiles `proto/` to Rust and to the descriptor sets that reflection serves. No `protoc` is needed.

use protox::prost_reflect::prost_types::FileDescriptorSet;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use tonic_prost_build::Builder;

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
    serialize(tonic_prost_build::configure(), &ebb)
        .codec_path("crate::codec::Small")
        .bytes(".ebb.v1")
        .compile_fds(ebb)
        .expect("the descriptors become Rust");
    tonic_prost_build::configure().compile_fds(health).expect("the descriptors become Rust");
}

/// Messages that commands and the live page show as JSON.
const AS_JSON: &[&str] = &[
    "MemoryAccount",
    "Receipt",
    "GetStatsResponse",
    "DiagnoseResponse",
    "DiagnoseResponse.Finding",
    "GetConfigResponse",
    "GetConfigResponse.Setting",
    "GetMemoryMapResponse",
    "GetMemoryMapResponse.Log",
    "ListNamespacesResponse",
    "NamespaceInfo",
];

/// Lets serde write these messages as protobuf maps them to JSON, under the names that the fields have in `proto/`.
fn serialize(mut builder: Builder, files: &FileDescriptorSet) -> Builder {
    let messages: Vec<_> = files.file.iter().flat_map(|file| &file.message_type).collect();
    for path in AS_JSON {
        let mut names = path.split('.');
        let outer = names.next().expect("a path has a name");
        let mut message = *messages.iter().find(|message| message.name() == outer).expect("a message of proto/");
        for name in names {
            message = message.nested_type.iter().find(|message| message.name() == name).expect("a nested message");
        }
        if path == &outer {
            // It holds for the messages within, too.
            builder = builder.message_attribute(format!(".ebb.v1.{path}"), "#[derive(serde::Serialize)]");
        }
        for field in message.field.iter().filter(|field| matches!(field.r#type(), Type::Uint64 | Type::Int64)) {
            let of = match field.label() {
                Label::Repeated => "numbers",
                _ if field.proto3_optional() => "perhaps",
                _ => "number",
            };
            let attribute = format!("#[serde(serialize_with = \"crate::json::serialize_{of}\")]");
            builder = builder.field_attribute(format!(".ebb.v1.{path}.{}", field.name()), attribute);
        }
    }
    builder
}
