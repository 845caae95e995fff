//! The configuration: one struct, filled by layers. Defaults give way to the file, the file to the environment
//! (`OMBAK_…`), the environment to flags; of every value it is known which layer set it.
//! Knows no other room: each of those receives its own small options from `server`.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The file that is read from the current directory when no other is named.
pub const FILE_NAME_DEFAULT: &str = "ombak.toml";

/// In place of an address: nothing is served there.
pub const OFF: &str = "off";

/// What the name of every environment variable that sets a key starts with.
pub const ENV_PREFIX: &str = "OMBAK_";

/// Declares the keys once: the struct, its defaults and the table of their meanings cannot drift apart.
macro_rules! config_keys {
    ($($(#[serde($($serde:tt)+)])? $key:ident: $type:ty = $default:expr, $doc:literal;)+) => {
        /// Everything that can be configured. The limits hold against each other once [`load`] has returned.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            $(#[doc = $doc] $(#[serde($($serde)+)])? pub $key: $type,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        const KEY_DOCS: &[(&str, &str)] = &[$((stringify!($key), $doc),)+];
    };
}

config_keys! {
    data_dir: PathBuf = PathBuf::from("./ombak-data"),
        "Directory of the store and of the control socket; created when missing. A relative path starts at the current directory.";
    #[serde(deserialize_with = "deserialize_addresses")]
    pbc_listen: Vec<String> = vec!["127.0.0.1:8087".to_owned()],
        "Addresses (HOST:PORT) on which Riak clients are served over Protocol Buffers: a list, or one text with commas. Port 0 picks a free one.";
    grpc_listen: String = "127.0.0.1:5678".to_owned(),
        "Address (HOST:PORT) on which maps are served over gRPC, or \"off\". Port 0 picks a free one.";
    grpc_advertised: String = String::new(),
        "Address (HOST:PORT) that the partition and cluster services tell gRPC clients; empty means the one that is listened on.";
    grpc_group_name: String = "default".to_owned(),
        "Name of the partition group where a request names none.";
    #[serde(deserialize_with = "deserialize_addresses")]
    grpc_protocols: Vec<String> = Vec::new(),
        "Protocols (NAMESPACE/NAME) that there are maps of: a list, or one text with commas. None means all.";
    grpc_partition_auto: bool = false,
        "Whether partition 0 in a map's request stands for the one that the key belongs to.";
    tls_certificate_file: PathBuf = PathBuf::new(),
        "Certificate chain in PEM; with it and tls_key_file gRPC is served over TLS.";
    tls_key_file: PathBuf = PathBuf::new(),
        "Key of the certificate, in PEM.";
    tls_ca_file: PathBuf = PathBuf::new(),
        "Certificates in PEM by which a standby's own must be signed, where `ombak map backup` goes to an https address.";
    node_name: String = "riak@127.0.0.1".to_owned(),
        "The node name that clients are told.";
    server_version: String = "3.2.0".to_owned(),
        "The Riak version that clients are told. Three integers with dots, the first above 0: clients compute from it what they may use.";
    create_default_types: bool = true,
        "Whether the first start creates and activates the bucket types counters, sets, gsets, hlls and maps.";
    delete_mode: DeleteMode = DeleteMode::After { delay_ms: 3000 },
        "How long a deleted object's tombstone is kept: a number of milliseconds, \"immediate\" or \"keep\".";
    tombstones_waiting_bytes_max: usize = 32 * 1024 * 1024,
        "Memory for deleted objects whose tombstones wait to be removed; one that does not fit waits from the next read of its key on.";
    map_op_layout: MapOpLayout = MapOpLayout::Auto,
        "Which wire layout of MapOp is spoken: \"auto\" lets each connection's requests decide, \"released\" and \"preview\" refuse the other.";
    ring_size: u32 = 64,
        "Number of partitions that preflists are computed with: a power of two from 8 to 1024.";
    n_val_default: u32 = 3,
        "The n_val of buckets and bucket types that set none.";
    list_keys_chunk: usize = 100,
        "Number of keys in one frame of a key listing.";
    list_buckets_chunk: usize = 1000,
        "Number of buckets in one frame of a streamed bucket listing.";
    list_buckets_enabled: bool = true,
        "Whether buckets may be listed in one reply.";
    stream_list_buckets_enabled: bool = true,
        "Whether buckets may be listed as a stream.";
    stream_list_keys_enabled: bool = true,
        "Whether the keys of a bucket may be listed.";
    secondary_index_enabled: bool = true,
        "Whether index queries may be answered in one reply.";
    stream_secondary_index_enabled: bool = true,
        "Whether index queries may be answered as a stream.";
    frame_size_bytes_max: usize = 128 * 1024 * 1024,
        "Largest frame that is accepted; at least twice object_size_bytes_max, so that an object too large is refused by name.";
    connections_max: usize = 10_000,
        "Connections served at once; further ones wait.";
    connection_requests_max: usize = 1024,
        "Requests of one connection that may wait to be durable while further ones are read.";
    requests_in_flight_max: usize = 65_536,
        "Requests of all connections that may be at work, or wait to be durable.";
    buffered_bytes_max: usize = 256 * 1024 * 1024,
        "Memory for frames and replies of more than 64 KiB that are being read or written, over all connections; a larger one takes all of it.";
    idle_timeout_ms: u32 = 0,
        "How long a connection may rest between two requests before it is closed; 0 means for ever, since pools of clients expect that.";
    keepalive_ms: u32 = 15_000,
        "How long a client may be silent before its system is asked whether it is still there, in whole seconds; 0 means for ever. What is done for a client that has left ends when its system says so.";
    frame_timeout_ms: u32 = 300_000,
        "How long a request may take to arrive, from its first byte to its last; over gRPC, until it is answered.";
    write_timeout_ms: u32 = 60_000,
        "How long a client may take nothing of a reply that waits for it before its connection is closed.";
    key_size_bytes_max: usize = 65_536,
        "Longest key that an object may be stored under, and longest name of a bucket that may be written to.";
    update_elements_max: usize = 200_000,
        "Members and fields that one update of a data type may name, those of nested maps included.";
    member_size_bytes_max: usize = 1024 * 1024,
        "Longest member that may be added to a set, gset or hll.";
    field_name_size_bytes_max: usize = 65_536,
        "Longest name that a field of a map may have.";
    update_names_bytes_max: usize = 64 * 1024 * 1024,
        "Bytes that the names of the fields around an update's members and fields may take, counted for each of them.";
    context_actors_max: usize = 4096,
        "Actors that the causal context of a request may name: one for each data directory that has ever written to the object.";
    object_size_bytes_max: usize = 50 * 1024 * 1024,
        "Largest object, siblings and metadata included, that may be stored.";
    object_size_bytes_warn: usize = 5 * 1024 * 1024,
        "Size above which storing an object is logged as a warning.";
    siblings_max: usize = 100,
        "Siblings that an object may have at most.";
    siblings_warn: usize = 25,
        "Number of siblings above which storing an object is logged as a warning.";
    map_depth_max: usize = 32,
        "How deep maps may be nested, from 1 to 48.";
    mapreduce_enabled: bool = true,
        "Whether MapReduce jobs are taken.";
    mapreduce_timeout_ms_max: u64 = 86_400_000,
        "How long a MapReduce job may take, whatever it asks for.";
    mapreduce_inputs_max: usize = 10_000_000,
        "Inputs that a MapReduce job may have, listed ones included.";
    mapreduce_memory_bytes_max: usize = 256 * 1024 * 1024,
        "Memory that one MapReduce job may take between its phases.";
    mapreduce_terms_max: usize = 2_000_000,
        "Values that the text of a MapReduce job, or one batch of results of a JavaScript function, may consist of.";
    mapreduce_depth_max: usize = 64,
        "Phases that a MapReduce job may have, and how deep its Erlang terms may be nested, from 1 to 128.";
    mapreduce_map_tasks_max: usize = 8,
        "Tasks in which the objects of one MapReduce job are read and mapped at a time.";
    mapreduce_javascript: bool = false,
        "Whether phases in JavaScript are run, as Riak 2 did; if not they are refused, as Riak 3 does.";
    mapreduce_javascript_engines_max: usize = 8,
        "JavaScript engines at a time, over all jobs.";
    mapreduce_javascript_memory_bytes_max: usize = 64 * 1024 * 1024,
        "Memory that a JavaScript engine may take.";
    mapreduce_javascript_timeout_ms_max: u64 = 5_000,
        "How long a JavaScript function may run on a batch of at most 64 objects, or on the inputs gathered for a reduce.";
    map_partitions: u32 = 8,
        "Number of partitions of the maps, from 1 to 1024. A data directory that holds maps keeps the number it began with.";
    map_key_size_bytes_max: usize = 65_536,
        "Longest key of a map.";
    map_value_size_bytes_max: usize = 3 * 1024 * 1024,
        "Largest value in a map.";
    map_name_size_bytes_max: usize = 4096,
        "Longest of the four names in the header of a map's request.";
    map_tombstone_retention_ms: u64 = 86_400_000,
        "How long it is remembered that a key of a map was removed, of the time that the server runs. A standby that missed a removal which is forgotten is compared key by key.";
    grpc_message_size_bytes_max: usize = 4 * 1024 * 1024,
        "Largest gRPC message that is accepted; it holds the largest value with its key and names.";
    grpc_connections_max: usize = 1000,
        "gRPC connections served at once; further ones wait.";
    grpc_streams_per_connection_max: u32 = 256,
        "Requests and streams at a time on one gRPC connection; further ones wait.";
    grpc_requests_in_flight_max: usize = 1024,
        "gRPC requests in work at a time, over all connections; further ones wait.";
    grpc_open_streams_max: usize = 256,
        "Backup, partition and cluster streams at a time, over all connections; further ones are refused.";
    grpc_backup_entries_max: usize = 1024,
        "Entries that one request of a Backup stream may have.";
    grpc_backup_requests_in_flight_max: usize = 64,
        "Requests of one Backup stream that are in work at a time; further ones wait.";
    request_timeout_ms_default: u32 = 60_000,
        "How long a write waits for its turn at an object, where the request names no timeout of its own.";
    drain_timeout_ms: u64 = 10_000,
        "How long requests in flight may take to finish when the server is told to stop.";
    durability: Durability = Durability::Fsync,
        "When a write is answered: \"fsync\", when the disk has it; \"relaxed:MS\", at once, and the disk has it MS milliseconds later, so that a power failure may take what came in between.";
    store_memory_bytes_max: u64 = 0,
        "Memory that the store may take in all: rows that its tables do not have yet, for which writers wait where there is no room, cached blocks, filters and indexes. 0 means a quarter of the machine's memory, or of what its control group allows.";
    cache_size_bytes: u64 = 0,
        "The part of store_memory_bytes_max for blocks that were read; 0 means what the rest leaves.";
    log: String = "info,fjall=warn,lsm_tree=warn,lsm_tree::compaction=off".to_owned(),
        "What is logged: a level, or directives such as \"info,ombak::session=debug\". The default leaves out what the tables do all day, and that a merge was given up when the server stopped.";
    log_format: LogFormat = LogFormat::Text,
        "How a log line looks: \"text\" or \"json\".";
    worker_threads: usize = 0,
        "Threads that serve requests; 0 means one per processor.";
}

/// How long the tombstone of a deleted object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteMode {
    /// Removed this long after it was noticed, unless something was written over it meanwhile.
    After {
        /// The delay.
        delay_ms: u32,
    },
    /// Removed at once.
    Immediate,
    /// Never removed.
    Keep,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Durability {
    /// When the disk has it.
    Fsync,
    /// At once; the disk has it later.
    Relaxed {
        /// How much later at most.
        interval_ms: u32,
    },
}

/// Which of the two wire layouts of `MapOp` are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapOpLayout {
    /// Evidence in the requests decides, and is remembered for the connection.
    Auto,
    /// The layout of every released client.
    Released,
    /// The layout of the published pages.
    Preview,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the layers above the defaults come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file named with `--config`: it must exist.
    pub file: Option<PathBuf>,
    /// The directory in which `ombak.toml` is looked for when no file is named.
    pub current_dir: PathBuf,
    /// The environment. Only names with [`ENV_PREFIX`] are looked at.
    pub env: Vec<(OsString, OsString)>,
    /// The flags.
    pub flags: Flags,
}

/// The keys that flags can set.
#[derive(Debug, Default, Serialize)]
pub struct Flags {
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// `--pbc`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pbc_listen: Vec<String>,
    /// `--grpc`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_listen: Option<String>,
    /// `--node-name`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `--log`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// The layer that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// A flag.
    Flag,
}

/// Why there is no configuration to start with. Each is one line that names the key and its layer.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or may not be read.
    #[error("cannot read config file {}: {cause}", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("config file {}, line {line}: {reason}", path.display())]
    FileSyntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown key `{key}` in {origin} (`ombak config show` lists the known ones)")]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// Its layer.
        origin: Origin,
    },
    /// The value has the wrong type or is out of range.
    #[error("key `{key}` ({origin}): {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// Its layer.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
}

/// A configuration that was checked, with the layer of each of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The layer of each key, in the order of [`key_docs`].
    pub origins: Vec<(&'static str, Origin)>,
}

/// Every key with its meaning, in the order in which they are shown.
pub fn key_docs() -> &'static [(&'static str, &'static str)] {
    KEY_DOCS
}

/// Puts the layers over each other and checks the result.
pub fn load(sources: &Sources) -> Result<Effective, ConfigError> {
    let defaults = Layer::defaults();
    let layers = [file_layer(sources)?, env_layer(sources, &defaults)?, flag_layer(&sources.flags)?];
    let mut origins: Vec<_> = KEY_DOCS.iter().map(|(key, _)| (*key, Origin::Default)).collect();
    let mut figment = Figment::from(defaults);
    for layer in layers {
        for key in layer.values.keys() {
            let origin = layer.source.origin(key);
            match origins.iter_mut().find(|(known, _)| known == key) {
                Some(entry) => entry.1 = origin,
                None => {
                    return Err(ConfigError::UnknownKey { key: key.clone(), origin });
                }
            }
        }
        figment = figment.merge(layer);
    }
    let config: Config = figment.extract().map_err(|error| {
        let key = error.path.first().cloned().unwrap_or_default();
        ConfigError::BadValue { origin: origin_of(&origins, &key), key, reason: error.kind.to_string() }
    })?;
    match check(&config) {
        Ok(()) => Ok(Effective { config, origins }),
        Err((key, reason)) => {
            Err(ConfigError::BadValue { key: key.to_owned(), origin: origin_of(&origins, key), reason })
        }
    }
}

impl Effective {
    /// The configuration as a TOML file that sets the same values, each with its meaning and its layer.
    pub fn to_toml(&self) -> String {
        let values = toml::Table::try_from(&self.config).unwrap_or_default();
        let mut text = String::new();
        for ((key, doc), (_, origin)) in KEY_DOCS.iter().zip(&self.origins) {
            if let Some(value) = values.get(*key) {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "# {doc}\n# Set by: {origin}\n{key} = {value}\n");
            }
        }
        text
    }
}

/// Checks each value's range, and the limits against each other. Types alone cannot: a value that passes here is
/// relied on by every room.
fn check(config: &Config) -> Result<(), (&'static str, String)> {
    if config.pbc_listen.is_empty() {
        return Err(("pbc_listen", "needs at least one address".to_owned()));
    }
    for address in &config.pbc_listen {
        if !is_host_and_port(address) {
            let reason = format!("`{address}` is not HOST:PORT, for example 127.0.0.1:8087 or [::1]:8087");
            return Err(("pbc_listen", reason));
        }
    }
    check_grpc(config)?;
    if config.data_dir.as_os_str().is_empty() {
        return Err(("data_dir", "must not be empty".to_owned()));
    }
    if config.node_name.is_empty() || config.node_name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let reason = "must be a name without blanks, for example riak@127.0.0.1".to_owned();
        return Err(("node_name", reason));
    }
    if !is_server_version(&config.server_version) {
        let reason = format!(
            "`{}` is not three integers with dots, the first above 0, for example 3.2.0: clients split and compare them",
            config.server_version
        );
        return Err(("server_version", reason));
    }
    if !config.ring_size.is_power_of_two() || !(8..=1024).contains(&config.ring_size) {
        let reason = format!("{} is not a power of two from 8 to 1024", config.ring_size);
        return Err(("ring_size", reason));
    }
    in_range("n_val_default", config.n_val_default.into(), 1, config.ring_size.into())?;
    in_range("list_keys_chunk", config.list_keys_chunk as u64, 1, 100_000)?;
    in_range("list_buckets_chunk", config.list_buckets_chunk as u64, 1, 100_000)?;
    // Riak's own framing ends here too: a longer length is its sign of a broken peer.
    in_range("frame_size_bytes_max", config.frame_size_bytes_max as u64, 1024, 0x7FFF_FFFB)?;
    in_range("connections_max", config.connections_max as u64, 1, 1_000_000)?;
    in_range("object_size_bytes_max", config.object_size_bytes_max as u64, 1, u64::MAX)?;
    if config.frame_size_bytes_max / 2 < config.object_size_bytes_max {
        let reason = format!(
            "{} is less than twice object_size_bytes_max ({})",
            config.frame_size_bytes_max, config.object_size_bytes_max
        );
        return Err(("frame_size_bytes_max", reason));
    }
    in_range("object_size_bytes_warn", config.object_size_bytes_warn as u64, 0, config.object_size_bytes_max as u64)?;
    in_range("key_size_bytes_max", config.key_size_bytes_max as u64, 1, config.frame_size_bytes_max as u64 / 2)?;
    in_range("siblings_max", config.siblings_max as u64, 1, 1_000_000)?;
    in_range("siblings_warn", config.siblings_warn as u64, 0, config.siblings_max as u64)?;
    // Readers of protocol buffers give up at 100 messages inside each other, and in an operation a map takes two.
    in_range("map_depth_max", config.map_depth_max as u64, 1, 48)?;
    in_range("mapreduce_timeout_ms_max", config.mapreduce_timeout_ms_max, 1, u32::MAX.into())?;
    in_range("mapreduce_inputs_max", config.mapreduce_inputs_max as u64, 1, u64::MAX)?;
    in_range("mapreduce_memory_bytes_max", config.mapreduce_memory_bytes_max as u64, 1024 * 1024, u64::MAX)?;
    in_range("mapreduce_terms_max", config.mapreduce_terms_max as u64, 1, u64::MAX)?;
    // Terms are read and shown by recursion.
    in_range("mapreduce_depth_max", config.mapreduce_depth_max as u64, 1, 128)?;
    in_range("mapreduce_map_tasks_max", config.mapreduce_map_tasks_max as u64, 1, 1024)?;
    in_range("mapreduce_javascript_engines_max", config.mapreduce_javascript_engines_max as u64, 1, 256)?;
    // Less does not hold what an engine begins with.
    let javascript_memory = config.mapreduce_javascript_memory_bytes_max as u64;
    in_range("mapreduce_javascript_memory_bytes_max", javascript_memory, 1024 * 1024, u64::MAX)?;
    let javascript_timeout = config.mapreduce_javascript_timeout_ms_max;
    in_range("mapreduce_javascript_timeout_ms_max", javascript_timeout, 1, u32::MAX.into())?;
    in_range("request_timeout_ms_default", config.request_timeout_ms_default.into(), 1, u32::MAX.into())?;
    in_range("connection_requests_max", config.connection_requests_max as u64, 1, 1_000_000)?;
    in_range("buffered_bytes_max", config.buffered_bytes_max as u64, 1024 * 1024, i64::MAX as u64)?;
    // Systems count in seconds.
    if config.keepalive_ms > 0 {
        in_range("keepalive_ms", config.keepalive_ms.into(), 1000, 32_767_000)?;
    }
    in_range("frame_timeout_ms", config.frame_timeout_ms.into(), 1, u32::MAX.into())?;
    in_range("write_timeout_ms", config.write_timeout_ms.into(), 1, u32::MAX.into())?;
    in_range("requests_in_flight_max", config.requests_in_flight_max as u64, 1, 1_000_000)?;
    if config.store_memory_bytes_max > 0 {
        in_range("store_memory_bytes_max", config.store_memory_bytes_max, 32 * 1024 * 1024, i64::MAX as u64)?;
    }
    if config.cache_size_bytes > 0 {
        in_range("cache_size_bytes", config.cache_size_bytes, 1024 * 1024, i64::MAX as u64)?;
    }
    in_range("drain_timeout_ms", config.drain_timeout_ms, 0, u32::MAX.into())?;
    in_range("worker_threads", config.worker_threads as u64, 0, 1024)?;
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log) {
        return Err(("log", format!("`{}`: {error}", config.log)));
    }
    Ok(())
}

fn check_grpc(config: &Config) -> Result<(), (&'static str, String)> {
    if config.grpc_listen != OFF && !is_host_and_port(&config.grpc_listen) {
        let reason = format!("`{}` is neither \"off\" nor HOST:PORT, for example 127.0.0.1:5678", config.grpc_listen);
        return Err(("grpc_listen", reason));
    }
    if !config.grpc_advertised.is_empty() && !is_host_and_port(&config.grpc_advertised) {
        return Err(("grpc_advertised", format!("`{}` is not HOST:PORT", config.grpc_advertised)));
    }
    if config.grpc_group_name.is_empty() {
        return Err(("grpc_group_name", "must not be empty".to_owned()));
    }
    if let Some(protocol) = config.grpc_protocols.iter().find(|protocol| !protocol.contains('/')) {
        return Err(("grpc_protocols", format!("`{protocol}` is not NAMESPACE/NAME")));
    }
    if config.tls_certificate_file.as_os_str().is_empty() != config.tls_key_file.as_os_str().is_empty() {
        return Err(("tls_key_file", "a certificate and its key are set together".to_owned()));
    }
    in_range("map_partitions", config.map_partitions.into(), 1, 1024)?;
    in_range("map_key_size_bytes_max", config.map_key_size_bytes_max as u64, 1, 1024 * 1024)?;
    in_range("map_name_size_bytes_max", config.map_name_size_bytes_max as u64, 1, 1024 * 1024)?;
    in_range("map_value_size_bytes_max", config.map_value_size_bytes_max as u64, 1, 1024 * 1024 * 1024)?;
    in_range("map_tombstone_retention_ms", config.map_tombstone_retention_ms, 0, i64::MAX as u64)?;
    // What a message holds beside them: digest, numbers, tags and lengths.
    let least =
        config.map_value_size_bytes_max + config.map_key_size_bytes_max + 4 * config.map_name_size_bytes_max + 256;
    in_range("grpc_message_size_bytes_max", config.grpc_message_size_bytes_max as u64, least as u64, 0x7FFF_FFFF)?;
    in_range("grpc_connections_max", config.grpc_connections_max as u64, 1, 1_000_000)?;
    in_range("grpc_streams_per_connection_max", config.grpc_streams_per_connection_max.into(), 1, 1_000_000)?;
    in_range("grpc_requests_in_flight_max", config.grpc_requests_in_flight_max as u64, 1, 1_000_000)?;
    in_range("grpc_open_streams_max", config.grpc_open_streams_max as u64, 0, 1_000_000)?;
    in_range("grpc_backup_entries_max", config.grpc_backup_entries_max as u64, 256, 1_000_000)?;
    in_range("grpc_backup_requests_in_flight_max", config.grpc_backup_requests_in_flight_max as u64, 1, 65_536)
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), (&'static str, String)> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err((key, format!("{value} is not between {min} and {max}")))
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    })
}

fn is_server_version(version: &str) -> bool {
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok();
    let parts: Vec<_> = version.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| is_number(part)) && parts[0].parse::<u32>().is_ok_and(|major| major > 0)
}

/// What a layer is made of; the environment names its variables key by key.
enum LayerSource {
    Default,
    File(PathBuf),
    Env,
    Flag,
}

impl LayerSource {
    fn origin(&self, key: &str) -> Origin {
        match self {
            Self::Default => Origin::Default,
            Self::File(path) => Origin::File(path.clone()),
            Self::Env => Origin::Env(format!("{ENV_PREFIX}{}", key.to_uppercase())),
            Self::Flag => Origin::Flag,
        }
    }
}

struct Layer {
    source: LayerSource,
    values: Dict,
}

impl Layer {
    fn empty(source: LayerSource) -> Self {
        Self { source, values: Dict::new() }
    }

    fn defaults() -> Self {
        Self { source: LayerSource::Default, values: to_dict(&Config::default()).unwrap_or_default() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(match self.source {
            LayerSource::Default => "defaults",
            LayerSource::File(_) => "file",
            LayerSource::Env => "environment",
            LayerSource::Flag => "flags",
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn file_layer(sources: &Sources) -> Result<Layer, ConfigError> {
    let path = match &sources.file {
        Some(path) => path.clone(),
        None => {
            let path = sources.current_dir.join(FILE_NAME_DEFAULT);
            if !path.exists() {
                return Ok(Layer::empty(LayerSource::File(path)));
            }
            path
        }
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) => return Err(ConfigError::FileUnreadable { path, cause }),
    };
    let table = text.parse::<toml::Table>().map_err(|error| file_syntax(&path, &text, &error))?;
    let values = to_dict(&table).map_err(|error| ConfigError::BadValue {
        key: error.path.join("."),
        origin: Origin::File(path.clone()),
        reason: error.kind.to_string(),
    })?;
    Ok(Layer { source: LayerSource::File(path), values })
}

fn file_syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    ConfigError::FileSyntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        reason: error.message().replace('\n', ", "),
    }
}

/// A variable's text is read as a number or a truth value only where the default is one: a node named `1` is a name.
fn env_layer(sources: &Sources, defaults: &Layer) -> Result<Layer, ConfigError> {
    let mut layer = Layer::empty(LayerSource::Env);
    for (name, value) in &sources.env {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(ENV_PREFIX)) else {
            continue;
        };
        // Both belong to the test suite, which may start servers while they are set.
        if key == "VECTORS" || key.starts_with("TEST_") {
            continue;
        }
        let key = key.to_lowercase();
        let Some(text) = value.to_str() else {
            return Err(ConfigError::BadValue {
                origin: layer.source.origin(&key),
                key,
                reason: "is not UTF-8".to_owned(),
            });
        };
        let parsed = match defaults.values.get(&key) {
            Some(Value::Num(..) | Value::Bool(..)) => match text.parse::<Value>() {
                Ok(value @ (Value::Num(..) | Value::Bool(..))) => value,
                _ => Value::from(text),
            },
            _ => Value::from(text),
        };
        layer.values.insert(key, parsed);
    }
    Ok(layer)
}

fn flag_layer(flags: &Flags) -> Result<Layer, ConfigError> {
    let values = to_dict(flags).map_err(|error| ConfigError::BadValue {
        // Of all flags, only the path can be something that is no text.
        key: "data_dir".to_owned(),
        origin: Origin::Flag,
        reason: error.kind.to_string(),
    })?;
    Ok(Layer { source: LayerSource::Flag, values })
}

fn to_dict<T: Serialize>(values: &T) -> Result<Dict, Box<figment::Error>> {
    Ok(Value::serialize(values)?.into_dict().unwrap_or_default())
}

fn origin_of(origins: &[(&'static str, Origin)], key: &str) -> Origin {
    origins.iter().find(|(known, _)| *known == key).map_or(Origin::Default, |(_, origin)| origin.clone())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fsync => out.write_str("fsync"),
            Self::Relaxed { interval_ms } => write!(out, "relaxed:{interval_ms}"),
        }
    }
}

impl From<Durability> for String {
    fn from(durability: Durability) -> Self {
        durability.to_string()
    }
}

impl TryFrom<String> for Durability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let relaxed = |ms: &str| ms.parse().ok().filter(|ms| *ms > 0).map(|interval_ms| Self::Relaxed { interval_ms });
        match &text[..] {
            "fsync" => Ok(Self::Fsync),
            other => other.strip_prefix("relaxed:").and_then(relaxed).ok_or_else(|| {
                format!("`{other}` is neither \"fsync\" nor \"relaxed:MS\" with a number of milliseconds above 0")
            }),
        }
    }
}

impl Serialize for DeleteMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::After { delay_ms } => serializer.serialize_u32(*delay_ms),
            Self::Immediate => serializer.serialize_str("immediate"),
            Self::Keep => serializer.serialize_str("keep"),
        }
    }
}

impl<'de> Deserialize<'de> for DeleteMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeleteModeVisitor)
    }
}

struct DeleteModeVisitor;

impl Visitor<'_> for DeleteModeVisitor {
    type Value = DeleteMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number of milliseconds up to {}, \"immediate\" or \"keep\"", u32::MAX)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<DeleteMode, E> {
        match u32::try_from(value) {
            Ok(delay_ms) => Ok(DeleteMode::After { delay_ms }),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<DeleteMode, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<DeleteMode, E> {
        match value {
            "immediate" => Ok(DeleteMode::Immediate),
            "keep" => Ok(DeleteMode::Keep),
            _ => match value.parse::<u32>() {
                Ok(delay_ms) => Ok(DeleteMode::After { delay_ms }),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
            },
        }
    }
}

fn deserialize_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(AddressesVisitor)
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses, or one text with commas between them")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Vec<String>, E> {
        Ok(split_addresses(value))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut addresses = Vec::new();
        while let Some(value) = seq.next_element::<String>()? {
            addresses.extend(split_addresses(&value));
        }
        Ok(addresses)
    }
}

fn split_addresses(value: &str) -> Vec<String> {
    value.split(',').map(|part| part.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: Option<&str>, env: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            std::fs::write(dir.path().join(FILE_NAME_DEFAULT), text).unwrap();
        }
        let sources = Sources {
            current_dir: dir.path().to_owned(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ..Sources::default()
        };
        (dir, sources)
    }

    fn loaded(file: Option<&str>, env: &[(&str, &str)]) -> Config {
        let (_dir, sources) = sources(file, env);
        load(&sources).unwrap().config
    }

    /// The error line, with the directory of the test taken out.
    fn refused(file: Option<&str>, env: &[(&str, &str)]) -> String {
        let (dir, sources) = sources(file, env);
        let line = load(&sources).unwrap_err().to_string();
        assert!(!line.contains('\n'), "more than one line: {line}");
        line.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn defaults_stand_alone() {
        assert_eq!(loaded(None, &[]), Config::default());
    }

    #[test]
    fn every_key_is_documented_and_nothing_else_is() {
        let serialized = toml::Table::try_from(Config::default()).unwrap();
        let mut documented: Vec<_> = key_docs().iter().map(|(key, _)| *key).collect();
        documented.sort_unstable();
        assert_eq!(documented, serialized.keys().collect::<Vec<_>>());
        for (key, doc) in key_docs() {
            assert!(doc.ends_with('.') && !doc.contains('\n'), "{key}: {doc}");
        }
    }

    #[test]
    fn later_layers_win_and_the_layer_is_remembered() {
        let file = "ring_size = 128\nn_val_default = 2\nnode_name = 'a@file'\nlog = 'warn'";
        let (dir, mut sources) =
            sources(Some(file), &[("OMBAK_N_VAL_DEFAULT", "1"), ("OMBAK_NODE_NAME", "a@env"), ("OMBAK_LOG", "error")]);
        sources.flags.node_name = Some("a@flag".to_owned());
        let effective = load(&sources).unwrap();
        assert_eq!(effective.config.ring_size, 128);
        assert_eq!(effective.config.n_val_default, 1);
        assert_eq!(effective.config.node_name, "a@flag");
        assert_eq!(effective.config.log, "error");
        let origin = |key| origin_of(&effective.origins, key);
        assert_eq!(origin("ring_size"), Origin::File(dir.path().join(FILE_NAME_DEFAULT)));
        assert_eq!(origin("n_val_default"), Origin::Env("OMBAK_N_VAL_DEFAULT".to_owned()));
        assert_eq!(origin("node_name"), Origin::Flag);
        assert_eq!(origin("siblings_max"), Origin::Default);
    }

    #[test]
    fn environment_texts_take_the_type_of_their_key() {
        let config = loaded(
            None,
            &[
                ("OMBAK_NODE_NAME", "12"),
                ("OMBAK_DATA_DIR", "7"),
                ("OMBAK_CREATE_DEFAULT_TYPES", "false"),
                ("OMBAK_PBC_LISTEN", "[::1]:0, localhost:8087"),
                ("OMBAK_DELETE_MODE", "keep"),
                ("OMBAK_LOG_FORMAT", "json"),
                ("OMBAK_MAP_OP_LAYOUT", "preview"),
                ("OMBAK_VECTORS", "/elsewhere"),
                ("OMBAK_TEST_SEED", "1"),
                ("HOME", "/root"),
            ],
        );
        assert_eq!(config.node_name, "12");
        assert_eq!(config.data_dir, PathBuf::from("7"));
        assert!(!config.create_default_types);
        assert_eq!(config.pbc_listen, ["[::1]:0", "localhost:8087"]);
        assert_eq!(config.delete_mode, DeleteMode::Keep);
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.map_op_layout, MapOpLayout::Preview);
    }

    #[test]
    fn delete_mode_is_a_number_or_a_word() {
        let mode = |text: &str| loaded(Some(&format!("delete_mode = {text}")), &[]).delete_mode;
        assert_eq!(mode("0"), DeleteMode::After { delay_ms: 0 });
        assert_eq!(mode("'250'"), DeleteMode::After { delay_ms: 250 });
        assert_eq!(mode("'immediate'"), DeleteMode::Immediate);
        let line = refused(Some("delete_mode = -1"), &[]);
        assert!(line.starts_with("key `delete_mode` (file ombak.toml): "), "{line}");
        let line = refused(None, &[("OMBAK_DELETE_MODE", "never")]);
        assert!(line.contains("OMBAK_DELETE_MODE") && line.contains("\"immediate\""), "{line}");
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let (_dir, sources) = sources(Some("delete_mode = 'keep'\npbc_listen = ['a:1', 'b:2']"), &[]);
        let shown = load(&sources).unwrap();
        let text = shown.to_toml();
        assert!(text.contains("# Set by: default\nring_size = 64\n"), "{text}");
        assert_eq!(loaded(Some(&text), &[]), shown.config);
    }

    #[test]
    fn unknown_keys_name_their_layer() {
        assert_eq!(
            refused(Some("ring_sise = 8"), &[]),
            "unknown key `ring_sise` in file ombak.toml (`ombak config show` lists the known ones)"
        );
        assert_eq!(
            refused(Some("[limits]\nsiblings_max = 8"), &[]),
            "unknown key `limits` in file ombak.toml (`ombak config show` lists the known ones)"
        );
        assert_eq!(
            refused(None, &[("OMBAK_RING", "8")]),
            "unknown key `ring` in environment variable OMBAK_RING (`ombak config show` lists the known ones)"
        );
    }

    #[test]
    fn wrong_types_name_key_and_layer() {
        assert_eq!(
            refused(Some("ring_size = 'many'"), &[]),
            "key `ring_size` (file ombak.toml): invalid type: found string \"many\", expected u32"
        );
        assert_eq!(
            refused(None, &[("OMBAK_RING_SIZE", "many")]),
            "key `ring_size` (environment variable OMBAK_RING_SIZE): invalid type: found string \"many\", expected u32"
        );
        for file in ["siblings_max = -1", "log_format = 'xml'", "pbc_listen = 8087", "ring_size = 1.5"] {
            let key = file.split(' ').next().unwrap();
            let line = refused(Some(file), &[]);
            assert!(line.starts_with(&format!("key `{key}` (file ombak.toml): ")), "{line}");
        }
    }

    #[test]
    fn ranges_and_limits_are_checked() {
        for (key, value) in [
            ("pbc_listen", "[]"),
            ("pbc_listen", "'8087'"),
            ("pbc_listen", "'::1:8087'"),
            ("pbc_listen", "'localhost:65536'"),
            ("pbc_listen", "'a:1,'"),
            ("data_dir", "''"),
            ("node_name", "''"),
            ("node_name", "'a b'"),
            ("server_version", "'3.2'"),
            ("server_version", "'3.2.0.1'"),
            ("server_version", "'3.2.0-rc1'"),
            ("server_version", "'0.2.0'"),
            ("server_version", "'3..0'"),
            ("server_version", "'+3.2.0'"),
            ("ring_size", "63"),
            ("ring_size", "4"),
            ("ring_size", "2048"),
            ("n_val_default", "0"),
            ("n_val_default", "65"),
            ("list_keys_chunk", "0"),
            ("list_buckets_chunk", "0"),
            ("frame_size_bytes_max", "104857599"),
            ("frame_size_bytes_max", "2147483644"),
            ("connections_max", "0"),
            ("object_size_bytes_max", "0"),
            ("object_size_bytes_warn", "52428801"),
            ("key_size_bytes_max", "0"),
            ("siblings_max", "0"),
            ("siblings_warn", "101"),
            ("map_depth_max", "0"),
            ("map_depth_max", "49"),
            ("request_timeout_ms_default", "0"),
            ("store_memory_bytes_max", "1000"),
            ("cache_size_bytes", "1"),
            ("worker_threads", "5000"),
            ("log", "'ombak=loud'"),
        ] {
            let line = refused(Some(&format!("{key} = {value}")), &[]);
            assert!(line.starts_with(&format!("key `{key}` (file ombak.toml): ")), "{line}");
        }
        assert_eq!(
            refused(Some("object_size_bytes_max = 100_000_000"), &[]),
            "key `frame_size_bytes_max` (default): 134217728 is less than twice object_size_bytes_max (100000000)"
        );
    }

    #[test]
    fn the_file_must_be_readable_toml() {
        assert!(refused(Some("a = 1\nb = ["), &[]).starts_with("config file ombak.toml, line 2: "));
        let (dir, mut sources) = sources(None, &[]);
        sources.file = Some(dir.path().join("missing.toml"));
        let line = load(&sources).unwrap_err().to_string();
        assert!(line.starts_with("cannot read config file "), "{line}");
        assert!(line.contains("missing.toml"), "{line}");
    }
}
