//! An engine on an embedded store, without a network: objects of any size, and what an operation on them costs.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path as DirPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ombak::domain::cell::{FieldKind, FieldName, Path};
use ombak::domain::datatype::limits::UpdateLimits;
use ombak::domain::datatype::value::{Value, ValueBuilder};
use ombak::domain::datatype::{DataType, FieldOperation, FieldUpdate, MapOperation, Operation, SetOperation};
use ombak::domain::dot::ActorId;
use ombak::domain::key::{BucketName, ObjectName};
use ombak::domain::object::ObjectLimits;
use ombak::engine::{DeleteMode, Engine, EngineError, EngineOptions, ReadOptions, Update, WriteOptions};
use ombak::store::embedded::{EmbeddedOptions, EmbeddedStore, RowCounts, RowLimits};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Members and fields that one request writes while an object is grown.
const PER_REQUEST: u64 = 10_000;

pub struct Workbench {
    pub store: Arc<EmbeddedStore>,
    pub engine: Engine,
    pub runtime: Runtime,
}

impl Workbench {
    pub fn open(options: EmbeddedOptions) -> Workbench {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let store = Arc::new(EmbeddedStore::open(options).unwrap());
        let no_limits = ObjectLimits { siblings_max: usize::MAX, object_size_bytes_max: usize::MAX };
        let options = EngineOptions {
            delete_mode: DeleteMode::Keep,
            object_limits: no_limits,
            object_warnings: no_limits,
            key_size_bytes_max: 65_536,
            context_actors_max: 4096,
            update_limits: UpdateLimits {
                elements_max: usize::MAX,
                member_size_bytes_max: usize::MAX,
                field_name_size_bytes_max: usize::MAX,
                names_size_bytes_max: usize::MAX,
            },
            n_val_default: 3,
            create_default_types: true,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(60),
        };
        let engine = runtime.block_on(Engine::start(store.clone(), options)).unwrap();
        Workbench { store, engine, runtime }
    }

    pub fn update(&self, name: &ObjectName, operation: Operation) {
        self.try_update(name, operation).unwrap();
    }

    pub fn try_update(&self, name: &ObjectName, operation: Operation) -> Result<(), EngineError> {
        let bucket = self.engine.data_type_bucket(&name.bucket).unwrap();
        let update = Update { operation, context: None, options: WriteOptions::default() };
        self.runtime.block_on(self.engine.update(name, &bucket, update, None)).map(|_| ())
    }

    /// Each object's updates one after the other, and the objects side by side: as many writes wait as there are objects.
    pub fn update_side_by_side(&self, updates: Vec<(ObjectName, Vec<Operation>)>) {
        let one = |engine: Engine, name: ObjectName, operations: Vec<Operation>| async move {
            let bucket = engine.data_type_bucket(&name.bucket).unwrap();
            for operation in operations {
                let update = Update { operation, context: None, options: WriteOptions::default() };
                engine.update(&name, &bucket, update, None).await.unwrap();
            }
        };
        self.runtime.block_on(async {
            let tasks = updates.into_iter().map(|(name, operations)| one(self.engine.clone(), name, operations));
            tasks.collect::<JoinSet<_>>().join_all().await;
        });
    }

    pub fn fetch(&self, name: &ObjectName, data_type: DataType) -> Value {
        let bucket = self.engine.data_type_bucket(&name.bucket).unwrap();
        let mut value = ValueBuilder::new(data_type);
        self.runtime.block_on(self.engine.fetch(name, &bucket, ReadOptions::default(), &mut value)).unwrap();
        value.finish()
    }

    /// Lets a set hold this many members.
    pub fn grow_set(&self, name: &ObjectName, members: u64) {
        for numbers in requests(members) {
            self.update(name, add(numbers.map(number)));
        }
    }

    /// Lets a map hold this many counters.
    pub fn grow_map(&self, name: &ObjectName, fields: u64) {
        for numbers in requests(fields) {
            self.update(name, increment(numbers.map(number)));
        }
    }

    /// Lets a map hold one set of this many members.
    pub fn grow_field(&self, name: &ObjectName, members: u64) {
        for numbers in requests(members) {
            let operation = FieldOperation::Set(SetOperation { adds: numbers.map(number).collect(), removes: vec![] });
            self.update(name, update_field("tags", operation));
        }
    }

    /// The rows that an operation costs. Its runs must cost the same; the best of three counts, because a write that raises
    /// the clock's bound may fall on one of them.
    pub fn cost(&self, mut operation: impl FnMut(u64)) -> RowCounts {
        let run = |number| {
            let before = self.store.counts();
            operation(number);
            self.store.counts().since(before)
        };
        (0..3).map(run).min_by_key(|counts| (counts.put, counts.read)).unwrap()
    }
}

/// Options for objects that are grown: rows are counted, so nothing is swept beside what is counted.
pub fn options(dir: &DirPath) -> EmbeddedOptions {
    let rows = RowLimits { rows_swept_per_step_max: 0, ..RowLimits::default() };
    EmbeddedOptions { rows, ..EmbeddedOptions::new(dir.join("data"), ActorId(7)) }
}

fn requests(count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..count).step_by(PER_REQUEST as usize).map(move |first| first..count.min(first + PER_REQUEST))
}

/// A name of the same length for each number.
pub fn number(number: u64) -> Bytes {
    format!("{number:010}").into()
}

pub fn object(bucket_type: &'static str, key: impl Into<String>) -> ObjectName {
    let bucket = BucketName::new(Some(bucket_type.into()), "b".into());
    ObjectName { bucket, key: key.into().into() }
}

pub fn add(members: impl Iterator<Item = Bytes>) -> Operation {
    Operation::Set(SetOperation { adds: members.collect(), removes: vec![] })
}

pub fn remove(members: impl Iterator<Item = Bytes>) -> Operation {
    Operation::Set(SetOperation { adds: vec![], removes: members.collect() })
}

pub fn increment(fields: impl Iterator<Item = Bytes>) -> Operation {
    let update = |name| FieldUpdate { name, operation: FieldOperation::Counter(1) };
    Operation::Map(MapOperation { updates: fields.map(update).collect(), ..MapOperation::default() })
}

pub fn update_field(name: &'static str, operation: FieldOperation) -> Operation {
    let updates = vec![FieldUpdate { name: name.into(), operation }];
    Operation::Map(MapOperation { updates, ..MapOperation::default() })
}

pub fn remove_field(name: Bytes, kind: FieldKind) -> Operation {
    Operation::Map(MapOperation { removes: vec![FieldName { name, kind }], ..MapOperation::default() })
}

pub fn field(name: impl Into<Bytes>, kind: FieldKind) -> Path {
    Path::root().child(FieldName { name: name.into(), kind })
}
