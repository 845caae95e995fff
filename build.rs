//! Generates the Rust types and services of `proto/`, nothing else. They enter the crate in `src/message/generated.rs` and
//! `src/grpc/generated.rs`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const RIAK: [&str; 5] = ["riak.proto", "riak_kv.proto", "riak_dt.proto", "riak_search.proto", "riak_yokozuna.proto"];

const GRPC: [&str; 4] = [
    "atomix/pb/map/map.proto",
    "atomix/partition/partition.proto",
    "atomix/cluster/cluster.proto",
    "ombak/standby.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    prost_build::Config::new()
        // Bytes fields become slices of the frame they came in: no value is copied on its way in.
        .bytes(["."])
        // Declared by hand, because it arrives in two layouts.
        .extern_path(".MapOp", "crate::message::map_op::MapOp")
        .compile_fds(protox::compile(RIAK, ["proto"])?)?;

    let descriptors = protox::compile(GRPC, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // What the reflection service tells.
    std::fs::write(out_dir.join("grpc_descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").include_file("grpc.rs").compile_fds(descriptors)?;
    Ok(())
}
