//! Bucket types and the properties of buckets: kept in memory, written to the store's records before they take effect.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::EngineError;
use crate::domain::datatype::DataType;
use crate::domain::key::{BucketName, DEFAULT_TYPE};
use crate::domain::props::{BucketProps, Property, PropsChange, PropsError};
use crate::store::{Store, StoreError};

/// The types that a new store begins with.
const DEFAULT_TYPES: [(&str, DataType); 5] = [
    ("counters", DataType::Counter),
    ("sets", DataType::Set),
    ("gsets", DataType::GSet),
    ("hlls", DataType::Hll),
    ("maps", DataType::Map),
];

const TYPE_RECORDS: &[u8] = b"type/";
const BUCKET_RECORDS: &[u8] = b"bucket/";

/// A bucket type as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketType {
    /// Its properties.
    pub props: BucketProps,
    /// Whether it may be used. Once it is, it stays so.
    pub active: bool,
}

/// A bucket's own properties as they are stored.
#[derive(Serialize, Deserialize)]
struct BucketRecord {
    bucket_type: Bytes,
    bucket: Bytes,
    props: BucketProps,
}

/// Why a bucket type cannot be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The name is taken by the default type or reserved.
    #[error("the name may not be used")]
    Reserved,
    /// The type is active already.
    #[error("the type is active already")]
    AlreadyActive,
    /// The properties contradict each other.
    #[error(transparent)]
    Props(#[from] PropsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bucket type cannot be changed or activated.
#[derive(Debug, Error)]
pub enum TypeError {
    /// There is no such type.
    #[error("there is no such bucket type")]
    Undefined,
    /// It was created but is not active.
    #[error("the bucket type is not active")]
    NotActive,
    /// The default type is changed by configuration only.
    #[error("the default type cannot be changed")]
    Default,
    /// The new properties were refused.
    #[error(transparent)]
    Props(#[from] PropsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bucket types and bucket properties.
pub struct Buckets {
    store: Arc<dyn Store>,
    n_val_default: u32,
    name_size_bytes_max: usize,
    default_props: Arc<BucketProps>,
    // Read by every request, never across an await.
    known: Arc<RwLock<Known>>,
    // Held from the look at what is changed until the change is durable and known.
    changing: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Known {
    types: BTreeMap<Bytes, (Arc<BucketProps>, bool)>,
    buckets: HashMap<BucketName, Arc<BucketProps>>,
}

impl Buckets {
    pub(super) async fn load(
        store: Arc<dyn Store>,
        n_val_default: u32,
        name_size_bytes_max: usize,
    ) -> Result<Self, EngineError> {
        let damaged = |_| StoreError::Damaged { what: "bucket properties" };
        let mut known = Known::default();
        for (key, value) in store.records().await? {
            if let Some(name) = key.strip_prefix(TYPE_RECORDS) {
                let stored: BucketType = serde_json::from_slice(&value).map_err(damaged)?;
                known.types.insert(key.slice_ref(name), (Arc::new(stored.props), stored.active));
            } else if key.starts_with(BUCKET_RECORDS) {
                let stored: BucketRecord = serde_json::from_slice(&value).map_err(damaged)?;
                let name = BucketName { bucket_type: stored.bucket_type, bucket: stored.bucket };
                known.buckets.insert(name, Arc::new(stored.props));
            }
        }
        let default_props = Arc::new(BucketProps::of_default_type(n_val_default));
        Ok(Self {
            store,
            n_val_default,
            name_size_bytes_max,
            default_props,
            known: Arc::new(RwLock::new(known)),
            changing: Arc::default(),
        })
    }

    /// Waits for its turn to change something.
    async fn change(&self) -> OwnedMutexGuard<()> {
        self.changing.clone().lock_owned().await
    }

    /// Writes a record, and lets it take effect once it is durable: for all requests at once, and no request waits for it.
    /// Whoever asks may leave meanwhile. What has been written takes effect all the same, or it would only after a restart.
    async fn write_record(
        &self,
        changing: OwnedMutexGuard<()>,
        key: Bytes,
        value: Option<Bytes>,
        take_effect: impl FnOnce(&mut Known) + Send + 'static,
    ) -> Result<(), StoreError> {
        let durable = self.store.durable(self.store.put_record(key, value)?);
        let known = self.known.clone();
        let writing = tokio::spawn(async move {
            durable.await?;
            // Every change is a single insertion or removal.
            take_effect(&mut known.write().unwrap_or_else(PoisonError::into_inner));
            drop(changing);
            Ok(())
        });
        // It ends early only with the server.
        writing.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Gives a store that has no types yet the usual ones, one after the other. Where it has the first of them and nothing
    /// else, that was cut short and goes on.
    pub(super) async fn create_default_types(&self) -> Result<(), EngineError> {
        let types = self.types();
        let has = |name: &str| types.iter().any(|(known, _)| known == name);
        let made = DEFAULT_TYPES.iter().take_while(|(name, _)| has(name)).count();
        if types.len() > made {
            return Ok(());
        }
        for &(name, data_type) in &DEFAULT_TYPES[made..] {
            let datatype = Property::Datatype(Bytes::from_static(data_type.name().as_bytes()));
            let props = BucketProps::created(self.n_val_default, PropsChange { properties: vec![datatype] })?;
            let name = Bytes::from_static(name.as_bytes());
            self.write_type(self.change().await, name, BucketType { props, active: true }).await?;
        }
        Ok(())
    }

    /// The effective properties of a bucket; `None` when its type is unknown or not active.
    pub fn props(&self, bucket: &BucketName) -> Option<Arc<BucketProps>> {
        let known = self.read();
        match known.buckets.get(bucket) {
            Some(props) => Some(props.clone()),
            None => self.active_props(&known, &bucket.bucket_type),
        }
    }

    /// The properties of a bucket type; `None` when it is unknown or not active.
    pub fn type_props(&self, bucket_type: &[u8]) -> Option<Arc<BucketProps>> {
        self.active_props(&self.read(), bucket_type)
    }

    fn active_props(&self, known: &Known, bucket_type: &[u8]) -> Option<Arc<BucketProps>> {
        if bucket_type == DEFAULT_TYPE {
            return Some(self.default_props.clone());
        }
        known.types.get(bucket_type).filter(|(_, active)| *active).map(|(props, _)| props.clone())
    }

    /// Every created type but the default one, by name, and whether it is active.
    pub fn types(&self) -> Vec<(Bytes, bool)> {
        self.read().types.iter().map(|(name, (_, active))| (name.clone(), *active)).collect()
    }

    /// A created type, active or not.
    pub fn find_type(&self, name: &[u8]) -> Option<BucketType> {
        if name == DEFAULT_TYPE {
            return Some(BucketType { props: (*self.default_props).clone(), active: true });
        }
        self.read().types.get(name).map(|(props, active)| BucketType { props: (**props).clone(), active: *active })
    }

    /// Changes a bucket's properties. What it then has is a full copy: later changes of its type do not reach it.
    pub async fn set_props(&self, bucket: BucketName, change: PropsChange) -> Result<(), EngineError> {
        if bucket.bucket.len() > self.name_size_bytes_max {
            return Err(EngineError::BucketTooLarge { bytes_max: self.name_size_bytes_max });
        }
        let changing = self.change().await;
        let current = self.props(&bucket).ok_or(EngineError::NoSuchType)?;
        let props = current.changed(change, bucket.is_default_type())?;
        let record = BucketRecord {
            bucket_type: bucket.bucket_type.clone(),
            bucket: bucket.bucket.clone(),
            props: props.clone(),
        };
        let key = bucket_key(&bucket);
        let take_effect = move |known: &mut Known| drop(known.buckets.insert(bucket, Arc::new(props)));
        Ok(self.write_record(changing, key, Some(encode(&record)), take_effect).await?)
    }

    /// Drops a bucket's own properties: those of its type hold again. An unknown bucket or type has none.
    pub async fn reset_props(&self, bucket: &BucketName) -> Result<(), EngineError> {
        let changing = self.change().await;
        if !self.read().buckets.contains_key(bucket) {
            return Ok(());
        }
        let name = bucket.clone();
        let take_effect = move |known: &mut Known| drop(known.buckets.remove(&name));
        Ok(self.write_record(changing, bucket_key(bucket), None, take_effect).await?)
    }

    /// Creates a type, or creates it anew while it is not active.
    pub async fn create_type(&self, name: Bytes, change: PropsChange) -> Result<(), CreateError> {
        let changing = self.change().await;
        if name == DEFAULT_TYPE || name == "any" {
            return Err(CreateError::Reserved);
        }
        if self.find_type(&name).is_some_and(|existing| existing.active) {
            return Err(CreateError::AlreadyActive);
        }
        let props = BucketProps::created(self.n_val_default, change)?;
        Ok(self.write_type(changing, name, BucketType { props, active: false }).await?)
    }

    /// Activates a type. An active one stays as it is.
    pub async fn activate_type(&self, name: Bytes) -> Result<(), TypeError> {
        let changing = self.change().await;
        let existing = self.find_type(&name).ok_or(TypeError::Undefined)?;
        if existing.active {
            return Ok(());
        }
        Ok(self.write_type(changing, name, BucketType { active: true, ..existing }).await?)
    }

    /// Changes the properties of an active type.
    pub async fn update_type(&self, name: Bytes, change: PropsChange) -> Result<(), TypeError> {
        let changing = self.change().await;
        if name == DEFAULT_TYPE {
            return Err(TypeError::Default);
        }
        let existing = self.find_type(&name).ok_or(TypeError::Undefined)?;
        if !existing.active {
            return Err(TypeError::NotActive);
        }
        let props = existing.props.changed(change, false)?;
        Ok(self.write_type(changing, name, BucketType { props, active: true }).await?)
    }

    async fn write_type(
        &self,
        changing: OwnedMutexGuard<()>,
        name: Bytes,
        bucket_type: BucketType,
    ) -> Result<(), StoreError> {
        let (key, value) = ([TYPE_RECORDS, &name].concat().into(), encode(&bucket_type));
        let take_effect = move |known: &mut Known| {
            known.types.insert(name, (Arc::new(bucket_type.props), bucket_type.active));
        };
        self.write_record(changing, key, Some(value), take_effect).await
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names stand in the record as well, so the key need only be unique.
fn bucket_key(bucket: &BucketName) -> Bytes {
    let length = (bucket.bucket_type.len() as u64).to_be_bytes();
    [BUCKET_RECORDS, &length, &bucket.bucket_type, &bucket.bucket].concat().into()
}

fn encode(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record).expect("records hold nothing that JSON cannot").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dot::ActorId;
    use crate::store::memory::MemoryStore;

    fn change(properties: &[Property]) -> PropsChange {
        PropsChange { properties: properties.to_vec() }
    }

    async fn buckets() -> (Arc<dyn Store>, Buckets) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(ActorId(1)));
        let buckets = Buckets::load(store.clone(), 3, 1000).await.unwrap();
        (store, buckets)
    }

    fn bucket(bucket_type: &'static str) -> BucketName {
        BucketName { bucket_type: bucket_type.into(), bucket: Bytes::from_static(b"b\0\xff") }
    }

    #[tokio::test]
    async fn default_types_whose_creation_was_cut_short_are_completed() {
        let (store, buckets) = buckets().await;
        buckets.create_default_types().await.unwrap();
        let all = buckets.types();
        assert_eq!(all.len(), DEFAULT_TYPES.len());
        for made in 0..DEFAULT_TYPES.len() {
            for (name, _) in &DEFAULT_TYPES[made..] {
                let record = [TYPE_RECORDS, name.as_bytes()].concat();
                store.put_record(record.into(), None).unwrap();
            }
            let reloaded = Buckets::load(store.clone(), 3, 1000).await.unwrap();
            assert_eq!(reloaded.types().len(), made);
            reloaded.create_default_types().await.unwrap();
            assert_eq!(reloaded.types(), all);
        }
    }

    #[tokio::test]
    async fn a_store_with_types_of_its_own_is_given_none() {
        let (_, buckets) = buckets().await;
        for name in ["t", "counters"] {
            buckets.create_type(name.into(), change(&[])).await.unwrap();
            buckets.create_default_types().await.unwrap();
        }
        assert_eq!(buckets.types().len(), 2);
    }

    #[tokio::test]
    async fn a_type_is_unknown_until_it_is_active() {
        let (_, buckets) = buckets().await;
        buckets.create_type("t".into(), change(&[])).await.unwrap();
        assert!(buckets.props(&bucket("t")).is_none());
        assert!(matches!(buckets.update_type("t".into(), change(&[])).await, Err(TypeError::NotActive)));
        buckets.create_type("t".into(), change(&[Property::NVal(5)])).await.unwrap();
        buckets.activate_type("t".into()).await.unwrap();
        assert_eq!(buckets.props(&bucket("t")).unwrap().n_val, 5);
        assert!(matches!(buckets.create_type("t".into(), change(&[])).await, Err(CreateError::AlreadyActive)));
        assert!(matches!(buckets.create_type("any".into(), change(&[])).await, Err(CreateError::Reserved)));
        assert!(matches!(buckets.activate_type("u".into()).await, Err(TypeError::Undefined)));
    }

    #[tokio::test]
    async fn a_buckets_own_properties_are_a_full_copy_until_reset() {
        let (store, buckets) = buckets().await;
        buckets.create_type("t".into(), change(&[])).await.unwrap();
        buckets.activate_type("t".into()).await.unwrap();
        buckets.set_props(bucket("t"), change(&[Property::BasicQuorum(true)])).await.unwrap();
        buckets.update_type("t".into(), change(&[Property::NVal(5)])).await.unwrap();
        let reloaded = Buckets::load(store, 3, 1000).await.unwrap();
        for buckets in [&buckets, &reloaded] {
            let props = buckets.props(&bucket("t")).unwrap();
            assert!(props.basic_quorum && props.n_val == 3);
            buckets.reset_props(&bucket("t")).await.unwrap();
            let props = buckets.props(&bucket("t")).unwrap();
            assert!(!props.basic_quorum && props.n_val == 5);
        }
    }
}
