//! Generates the Rust types of `proto/`, nothing else. They enter the crate in `src/message/generated.rs`.

use std::error::Error;

const FILES: [&str; 5] = ["riak.proto", "riak_kv.proto", "riak_dt.proto", "riak_search.proto", "riak_yokozuna.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new()
        // Bytes fields become slices of the frame they came in: no value is copied on its way in.
        .bytes(["."])
        // Declared by hand, because it arrives in two layouts.
        .extern_path(".MapOp", "crate::message::map_op::MapOp")
        .compile_fds(descriptors)?;
    Ok(())
}
