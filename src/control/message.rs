//! What travels over the control socket.

use serde::{Deserialize, Serialize};

use super::{Inspected, Inspection, MapChange, MapPlace, MapValue, StandbyProgress, StandbyRequest};

/// Raised when a message changes its meaning, so that a server and a command of two releases refuse each other.
pub(super) const VERSION: u32 = 1;

/// What can be asked of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Makes a bucket type, or makes it anew while it is not active.
    BucketTypeCreate {
        /// Its name.
        name: String,
        /// `{"props":{…}}` as it was typed; absent: defaults only.
        props_json: Option<String>,
    },
    /// Lets clients use it from now on.
    BucketTypeActivate {
        /// Its name.
        name: String,
    },
    /// Changes properties.
    BucketTypeUpdate {
        /// Its name.
        name: String,
        /// `{"props":{…}}` as it was typed.
        props_json: String,
    },
    /// Its state and properties.
    BucketTypeStatus {
        /// Its name.
        name: String,
    },
    /// All bucket types but `default`.
    BucketTypeList,
    /// Whether the server lives, and since when.
    Status,
    /// What a key of a map holds.
    MapGet {
        /// Which one.
        place: MapPlace,
    },
    /// Changes a key of a map.
    MapChange {
        /// Which one.
        place: MapPlace,
        /// What is to become of it.
        change: MapChange,
    },
    /// Brings another server's maps up to what is here and keeps them there, for as long as the connection lasts. It is
    /// answered again and again.
    MapBackup {
        /// Whom, and how.
        standby: StandbyRequest,
    },
    /// A part of an object.
    Inspect {
        /// Which one.
        inspection: Inspection,
    },
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum ControlReply {
    /// The type exists now.
    BucketTypeCreated {
        /// Whether no type was active before, which Riak warns about.
        none_active: bool,
    },
    /// The type is active.
    BucketTypeActivated {
        /// Whether no type was active before, which Riak warns about.
        none_active: bool,
    },
    /// The type has its new properties.
    BucketTypeUpdated,
    /// The state of a type. As the reply to an activation: why it is not active.
    BucketTypeStatus {
        /// The state.
        state: BucketTypeState,
        /// Names and values, printed as Erlang terms, in name order.
        props: Vec<(String, String)>,
    },
    /// All types but `default`, in name order.
    BucketTypeList {
        /// The types.
        types: Vec<BucketTypeEntry>,
    },
    /// The change breaks rules: one reason a line.
    BucketTypeRefused {
        /// Riak's texts.
        reasons: Vec<String>,
    },
    /// The properties cannot be read.
    BucketTypeBadProps {
        /// In which way.
        problem: PropsProblem,
    },
    /// The server lives.
    Status {
        /// The release that is running.
        version: String,
        /// Its process.
        process_id: u32,
        /// How long it has been running.
        uptime_ms: u64,
        /// Writes that it has made durable since it was started.
        #[serde(default)]
        writes: u64,
        /// Syncs of its log, each of which makes all writes before it durable.
        #[serde(default)]
        syncs: u64,
        /// What its store takes and does: phrases with the number that stands before each.
        #[serde(default)]
        measures: Vec<(String, u64)>,
        /// Why nothing can be written until it is restarted, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// What was found of an object.
    Inspected {
        /// That.
        found: Inspected,
    },
    /// What a key of a map holds, or held when it was removed; absent where there is or was no such key.
    MapValue {
        /// The value.
        value: Option<MapValue>,
    },
    /// A key of a map has a new value.
    MapPut {
        /// Its version.
        version: u64,
    },
    /// How far a standby is.
    MapBackup {
        /// That far.
        progress: StandbyProgress,
    },
    /// The request was not understood or could not be carried out.
    Failed {
        /// Why, in one line.
        reason: String,
    },
}

/// A type in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketTypeEntry {
    /// Its name.
    pub name: String,
    /// Whether clients may use it.
    pub active: bool,
}

/// How far a type has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketTypeState {
    /// Clients may use it.
    Active,
    /// It has been created and may be activated.
    Ready,
    /// It has been created but cannot be activated yet.
    NotReady,
    /// There is no such type.
    Undefined,
}

/// How a properties text is wrong before its properties are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PropsProblem {
    /// No JSON.
    #[error("invalid json")]
    InvalidJson,
    /// Not an object with the one member `props` that is an object.
    #[error("no props field found in json")]
    NoPropsField,
}

/// The frame around every message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) version: u32,
    pub(super) body: T,
}

/// The version alone: it is looked at before a body that another release may have shaped otherwise.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// One line, without its end.
pub(super) fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Envelope { version: VERSION, body })
}

/// The message of one line, or what is wrong with it in one line.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T, String> {
    let VersionOnly { version } = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    if version != VERSION {
        return Err(format!("control protocol version {version} is not {VERSION}"));
    }
    let envelope: Envelope<T> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    Ok(envelope.body)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{InspectedField, InspectedKind, Question, WireBytes};
    use super::*;

    #[test]
    fn a_request_is_one_line_of_json() {
        let request = ControlRequest::BucketTypeCreate { name: "a\nb".to_owned(), props_json: None };
        let line = encode(&request).unwrap();
        assert_eq!(line, br#"{"version":1,"body":{"request":"bucket_type_create","name":"a\nb","props_json":null}}"#);
        assert_eq!(decode::<ControlRequest>(&line), Ok(request));
    }

    #[test]
    fn every_request_survives_the_round_trip() {
        let name = || "maps".to_owned();
        let props = || r#"{"props":{}}"#.to_owned();
        let bytes = |bytes: &'static [u8]| WireBytes(Bytes::from_static(bytes));
        for request in [
            ControlRequest::BucketTypeCreate { name: name(), props_json: Some(props()) },
            ControlRequest::BucketTypeActivate { name: name() },
            ControlRequest::BucketTypeUpdate { name: name(), props_json: props() },
            ControlRequest::BucketTypeStatus { name: name() },
            ControlRequest::BucketTypeList,
            ControlRequest::Status,
            ControlRequest::Inspect {
                inspection: Inspection {
                    bucket_type: bytes(b"maps"),
                    bucket: bytes(b""),
                    key: bytes(b"\xff\n"),
                    path: vec![InspectedField { name: bytes(b"\0"), kind: InspectedKind::Map }],
                    question: Question::Members { from: Some(bytes(b"m")), limit: 1 },
                },
            },
        ] {
            assert_eq!(decode::<ControlRequest>(&encode(&request).unwrap()), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_says_why() {
        for (line, part) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("\u{0}\u{1}", "expected value"),
            ("{}", "missing field `version`"),
            (r#"{"version":2,"body":{"anything":1}}"#, "version 2 is not 1"),
            (r#"{"version":1}"#, "missing field `body`"),
            (r#"{"version":1,"body":{"request":"format_disk"}}"#, "unknown variant `format_disk`"),
            (r#"{"version":1,"body":{"request":"bucket_type_status","name":"a","force":1}}"#, "unknown field `force`"),
            (r#"{"version":1,"body":{"request":"bucket_type_status"}}"#, "missing field `name`"),
        ] {
            let reason = decode::<ControlRequest>(line.as_bytes()).unwrap_err();
            assert!(reason.contains(part), "{line}: {reason}");
        }
    }
}
