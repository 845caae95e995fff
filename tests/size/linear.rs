//! What a request costs follows its size: the bytes that it writes to the commit log, and the memory that it takes.

use std::fs::File;
use std::io;
use std::path::Path as DirPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ombak::domain::context::{CausalContext, ObjectIdentity};
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::key::{BucketName, ObjectName};
use ombak::mapreduce::MapReduceOptions;
use ombak::message::generated::{DtOp, MapField, MapUpdate, map_field::MapFieldType};
use ombak::message::map_op::MapOpLayoutOption;
use ombak::message::{Reply, Request};
use ombak::service::{Answer, ClientState, IndexQueries, Listings, Service, ServiceOptions};
use ombak::store::embedded::{Disk, EmbeddedOptions, RowLimits, SystemDisk};

use crate::requests;
use crate::workbench::{Workbench, options};

/// What is allowed for each byte of a request, and for every request.
const PER_BYTE: usize = 20;
const BASE_BYTES: usize = 64 * 1024;
/// What memory is allowed for each cell and floor.
const PER_CELL_BYTES: usize = 256;

/// A disk that counts the frames written to it, in bytes.
#[derive(Default)]
struct CountingDisk(AtomicU64);

impl Disk for CountingDisk {
    fn create(&self, path: &DirPath, is_synced_at_once: bool) -> io::Result<File> {
        SystemDisk.create(path, is_synced_at_once)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        // New files are filled with zeros.
        if bytes.iter().any(|&byte| byte != 0) {
            self.0.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        SystemDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        SystemDisk.sync(file)
    }
}

struct Bench {
    workbench: Workbench,
    service: Service,
    state: ClientState,
    disk: Arc<CountingDisk>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(rows: RowLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(CountingDisk::default());
        let options = EmbeddedOptions { log_disk: disk.clone(), rows, ..options(dir.path()) };
        let workbench = Workbench::open(options);
        let service = Service::new(workbench.engine.clone(), service_options());
        Self { workbench, service, state: ClientState::default(), disk, _dir: dir }
    }

    /// Answers a request and waits until it is durable.
    fn answer(&mut self, code: u8, payload: Bytes) -> Reply {
        let Self { workbench, service, state, .. } = self;
        workbench.runtime.block_on(async {
            let Answer::Reply(reply) = service.answer(state, Request::decode(code, payload)).await else {
                panic!("one reply was expected")
            };
            service.gates().opened(service.gate()).await.unwrap();
            reply
        })
    }

    fn send(&mut self, request: &Request) {
        let reply = self.answer(request.code().number(), request.encode());
        assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
    }

    /// A context that has seen all of an object, and so many more actors who were never here.
    fn context(&self, bucket_type: &str, key: &str, actors: u64) -> Bytes {
        let bucket = BucketName::new(Some(Bytes::copy_from_slice(bucket_type.as_bytes())), "b".into());
        let name = ObjectName { bucket, key: Bytes::copy_from_slice(key.as_bytes()) };
        // All that the only writer has written.
        let own = Dot { actor: ActorId(7), time: Time(u64::MAX) };
        let others = (1000..1000 + actors).map(|actor| Dot { actor: ActorId(actor), time: Time(1) });
        CausalContext::from_iter(others.chain([own])).encode(ObjectIdentity::of(&name))
    }

    /// Holds the cost of a request that writes so many cells and floors against its size.
    #[track_caller]
    fn check(&mut self, request: &Request, cells: usize) {
        let (code, payload) = (request.code().number(), request.encode());
        let size_bytes = payload.len();
        let logged_before = self.disk.0.load(Ordering::SeqCst);
        let mut reply = None;
        let used = allocation_counter::measure(|| reply = Some(self.answer(code, payload)));
        let logged_bytes = self.disk.0.load(Ordering::SeqCst) - logged_before;
        assert!(!matches!(reply, None | Some(Reply::Error(_))), "{reply:?}");
        let log_bytes_max = PER_BYTE * size_bytes + BASE_BYTES;
        assert!(logged_bytes <= log_bytes_max as u64, "{logged_bytes} logged for a request of {size_bytes}");
        let memory_bytes_max = log_bytes_max + PER_CELL_BYTES * cells;
        assert!(
            used.bytes_max <= memory_bytes_max as u64,
            "{} bytes of memory for a request of {size_bytes} that writes {cells} cells or floors",
            used.bytes_max,
        );
    }
}

fn service_options() -> ServiceOptions {
    ServiceOptions {
        node_name: "riak@127.0.0.1".into(),
        server_version: "3.2.0".into(),
        map_op_layout: MapOpLayoutOption::Auto,
        map_depth_max: 48,
        ring_size: 64,
        reply_size_bytes_max: 1 << 20,
        list_keys_chunk: 100,
        list_buckets_chunk: 100,
        listings: Listings { buckets: true, buckets_stream: true, keys: true },
        index_queries: IndexQueries { whole: true, stream: true },
        map_reduce: MapReduceOptions::default(),
    }
}

/// The usual limits, and nothing is swept.
fn bench() -> Bench {
    Bench::new(RowLimits { rows_swept_per_step_max: 0, ..RowLimits::default() })
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:06}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn add(members: &[String]) -> DtOp {
    requests::set(&borrowed(members), &[])
}

fn remove(members: &[String]) -> DtOp {
    requests::set(&[], &borrowed(members))
}

#[test]
fn many_members_are_added() {
    let mut bench = bench();
    let members = numbers(50_000);
    bench.check(&requests::update("sets", "new", add(&members)), members.len() + 1);
    bench.check(&requests::update("sets", "new", add(&members)), members.len() + 1);
}

#[test]
fn many_members_are_removed_with_a_context_of_many_actors() {
    let mut bench = bench();
    let members = numbers(20_000);
    bench.send(&requests::update("sets", "k", add(&members)));
    for removed in members.chunks(2000).take(2) {
        let context = bench.context("sets", "k", 2000);
        bench.check(&requests::update_with("sets", "k", remove(removed), &context), removed.len() + 1);
    }
    let context = bench.context("sets", "k", 4000);
    bench.check(&requests::update_with("sets", "k", remove(&members[4000..]), &context), members.len() - 4000 + 1);
    // Nobody was ever here.
    let context = bench.context("sets", "none", 2000);
    bench.check(&requests::update_with("sets", "none", remove(&members[..2000]), &context), 2001);
}

#[test]
fn many_members_are_removed_without_a_context() {
    let mut bench = bench();
    let members: Vec<_> = (0..20_000).map(|number| format!("member-{number:06}")).collect();
    bench.send(&requests::update("sets", "k", add(&members)));
    bench.check(&requests::update("sets", "k", remove(&members)), members.len() + 1);
}

#[test]
fn many_fields_are_written_and_removed() {
    let mut bench = bench();
    let names = numbers(10_000);
    let counters: Vec<_> = names.iter().map(|name| requests::in_counter(name, 1)).collect();
    // Each with its presence.
    bench.check(&requests::update("maps", "k", requests::map(&[], &counters)), 2 * names.len() + 1);
    bench.check(&requests::update("maps", "k", requests::map(&[], &counters)), 2 * names.len() + 1);
    let fields: Vec<MapField> = names.iter().map(|name| requests::field(name, MapFieldType::Counter)).collect();
    let context = bench.context("maps", "k", 2000);
    let update = requests::update_with("maps", "k", requests::map(&fields, &[]), &context);
    bench.check(&update, names.len() + 1);
}

/// An update of a set deep inside maps.
fn deep(name: &str, depth: usize, update: MapUpdate) -> DtOp {
    let nested = (1..depth).fold(update, |inside, _| requests::in_map(name, &[], &[inside]));
    requests::map(&[], &[nested])
}

#[test]
fn members_are_added_and_removed_deep_inside_maps() {
    let mut bench = bench();
    let members = numbers(5_000);
    let set = |adds: &[String], removes: &[String]| requests::in_set("s", &borrowed(adds), &borrowed(removes));
    let cells = members.len() + 40;
    bench.check(&requests::update("maps", "k", deep("m", 40, set(&members, &[]))), cells);
    let context = bench.context("maps", "k", 2000);
    bench.check(&requests::update_with("maps", "k", deep("m", 40, set(&[], &members)), &context), cells);
}

#[test]
fn members_are_added_and_removed_under_long_names() {
    let mut bench = bench();
    for (key, name) in [
        ("long", "n".repeat(200)),
        ("longer", "n".repeat(10_000)),
        ("longest", "n".repeat(60_000)),
        ("few", "n".repeat(60_000)),
    ] {
        let members = numbers(if key == "few" { 200 } else { 2_000 });
        let set = |adds: &[String], removes: &[String]| requests::in_set(&name, &borrowed(adds), &borrowed(removes));
        let cells = members.len() + 2;
        bench.check(&requests::update("maps", key, requests::map(&[], &[set(&members, &[])])), cells);
        let context = bench.context("maps", key, 0);
        let removal = requests::map(&[], &[set(&[], &members)]);
        bench.check(&requests::update_with("maps", key, removal, &context), cells);
    }
}

#[test]
fn long_members_are_added_and_removed() {
    let mut bench = bench();
    for (key, count, fill) in [("few", 10, 500_000), ("many", 2_000, 9_000)] {
        let members: Vec<_> = (0..count).map(|number| format!("{number:06}{}", "m".repeat(fill))).collect();
        bench.check(&requests::update("sets", key, add(&members)), members.len() + 1);
        let context = bench.context("sets", key, 0);
        bench.check(&requests::update_with("sets", key, remove(&members), &context), members.len() + 1);
    }
}

#[test]
fn a_large_value_is_put() {
    let mut bench = bench();
    bench.check(&requests::put("default", "b", "k", &"v".repeat(10_000_000)), 1);
    bench.check(&requests::put("default", "b", "k", &"w".repeat(10_000_000)), 1);
}
