//! Maps, as an administrator asks about them.

use std::pin::Pin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ControlReply, EngineAdmin, WireBytes};
use crate::domain::map::{Condition, MapKey, MapName, Versioned};
use crate::engine::maps::MapError;

/// A key of a map. Its partition is the key's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapPlace {
    /// Namespace and name of the protocol.
    pub protocol: (String, String),
    /// Namespace and name of the map.
    pub map: (String, String),
    /// The key.
    pub key: String,
}

/// What a key of a map holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapValue {
    /// Its value.
    pub value: WireBytes,
    /// Its version.
    pub version: u64,
}

/// What is to become of a key, where it has the version that is asked for; 0 asks for none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapChange {
    /// It gets a value.
    Put {
        /// The value.
        value: WireBytes,
        /// The version asked for.
        version: u64,
    },
    /// It is removed.
    Remove {
        /// The version asked for.
        version: u64,
    },
}

/// Which server is to be a standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandbyRequest {
    /// Its gRPC address, HOST:PORT or a URL.
    pub to: String,
    /// Whether all keys are compared, whatever is remembered of it.
    pub compare_all: bool,
}

/// How far a standby is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyProgress {
    /// What is going on.
    pub phase: StandbyPhase,
    /// Keys compared so far.
    pub compared: u64,
    /// Keys there are to compare.
    pub keys: u64,
    /// Entries that the standby has acknowledged.
    pub acknowledged: u64,
    /// Changes that it has not acknowledged: an upper bound.
    pub behind: u64,
    /// Why it is lost, while it is.
    pub problem: Option<String>,
}

/// What is going on with a standby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyPhase {
    /// It is not reached, or not yet.
    #[default]
    Connecting,
    /// Its keys are compared with those here.
    Comparing,
    /// It is sent what changes.
    Following,
}

/// Who carries out what is asked about maps.
pub trait MapAdmin: Send + Sync + 'static {
    /// What a key holds.
    fn map_get(&self, place: MapPlace) -> impl Future<Output = Result<Option<MapValue>, String>> + Send;

    /// Changes a key.
    fn map_change(
        &self,
        place: MapPlace,
        change: MapChange,
    ) -> impl Future<Output = Result<ControlReply, String>> + Send;

    /// Feeds a standby, and tells how far it is, until the feed ends: with its reason. Dropping it ends it too.
    fn feed(
        &self,
        standby: StandbyRequest,
        tell: Box<dyn Fn(StandbyProgress) + Send + Sync + '_>,
    ) -> impl Future<Output = String> + Send;
}

/// Who feeds standbys: whoever speaks their protocol.
pub trait StandbyFeeder: Send + Sync + 'static {
    /// See [`MapAdmin::feed`].
    fn feed<'a>(
        &'a self,
        standby: StandbyRequest,
        tell: Box<dyn Fn(StandbyProgress) + Send + Sync + 'a>,
    ) -> Pin<Box<dyn Future<Output = String> + Send + 'a>>;
}

impl MapPlace {
    fn into_key(self) -> MapKey {
        let map = MapName {
            protocol_namespace: self.protocol.0.into(),
            protocol_name: self.protocol.1.into(),
            primitive_namespace: self.map.0.into(),
            primitive_name: self.map.1.into(),
        };
        MapKey { map, key: self.key.into() }
    }
}

impl From<Versioned> for MapValue {
    fn from(Versioned { value, version }: Versioned) -> Self {
        Self { value: WireBytes(value), version }
    }
}

impl MapAdmin for EngineAdmin {
    async fn map_get(&self, place: MapPlace) -> Result<Option<MapValue>, String> {
        let key = place.into_key();
        let get = async {
            let home = self.maps.partitions().home_of(&key.key);
            self.maps.get(self.maps.locate(home.number(), &key)?, &key).await
        };
        let found: Result<_, MapError> = get.await;
        found.map(|found| found.map(MapValue::from)).map_err(|error| error.to_string())
    }

    async fn map_change(&self, place: MapPlace, change: MapChange) -> Result<ControlReply, String> {
        let key = place.into_key();
        let changed = async {
            let home = self.maps.partitions().home_of(&key.key);
            let partition = self.maps.locate(home.number(), &key)?;
            Ok(match change {
                MapChange::Put { value, version } => {
                    let condition = Condition::of_version(version);
                    let value: Bytes = value.0;
                    ControlReply::MapPut { version: self.maps.put(partition, key, value, condition).await? }
                }
                MapChange::Remove { version } => {
                    let removed = self.maps.remove(partition, key, Condition::of_version(version)).await?;
                    ControlReply::MapValue { value: removed.map(MapValue::from) }
                }
            })
        };
        changed.await.map_err(|error: MapError| error.to_string())
    }

    async fn feed(&self, standby: StandbyRequest, tell: Box<dyn Fn(StandbyProgress) + Send + Sync + '_>) -> String {
        self.standbys.feed(standby, tell).await
    }
}
