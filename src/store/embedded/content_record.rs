//! How a plain value is stored: as a protobuf message, whose fields may be added to but never renumbered.
//!
//! It is read by a derived message and written field by field, since that message would have to own what it writes, and a put
//! writes it twice.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{self, WireType};

use crate::domain::object::{Content, Link};

#[derive(Clone, PartialEq, prost::Message)]
struct ContentRecord {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    content_type: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    charset: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    content_encoding: Option<Bytes>,
    #[prost(message, repeated, tag = "5")]
    links: Vec<LinkRecord>,
    #[prost(message, repeated, tag = "6")]
    user_metadata: Vec<PairRecord>,
    #[prost(message, repeated, tag = "7")]
    indexes: Vec<PairRecord>,
    #[prost(uint64, tag = "8")]
    modified_us: u64,
    #[prost(bool, tag = "9")]
    indexes_unchecked: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinkRecord {
    #[prost(bytes = "bytes", optional, tag = "1")]
    bucket: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    tag: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PairRecord {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A field as it is written.
enum Field<'a> {
    Bytes(&'a Bytes),
    Number(u64),
    /// A message of fields that hold bytes.
    Message([Option<(u32, &'a Bytes)>; 3]),
}

impl Field<'_> {
    fn size_bytes(&self, tag: u32) -> usize {
        match self {
            Self::Bytes(bytes) => encoding::bytes::encoded_len(tag, *bytes),
            Self::Number(number) => encoding::uint64::encoded_len(tag, number),
            Self::Message(fields) => {
                let size_bytes = message_bytes(fields);
                encoding::key_len(tag) + prost::length_delimiter_len(size_bytes) + size_bytes
            }
        }
    }

    fn encode(&self, tag: u32, out: &mut impl BufMut) {
        match self {
            Self::Bytes(bytes) => encoding::bytes::encode(tag, *bytes, out),
            Self::Number(number) => encoding::uint64::encode(tag, number, out),
            Self::Message(fields) => {
                encoding::encode_key(tag, WireType::LengthDelimited, out);
                encoding::encode_varint(message_bytes(fields) as u64, out);
                fields.iter().flatten().for_each(|(tag, bytes)| encoding::bytes::encode(*tag, *bytes, out));
            }
        }
    }
}

fn message_bytes(fields: &[Option<(u32, &Bytes)>]) -> usize {
    fields.iter().flatten().map(|(tag, bytes)| encoding::bytes::encoded_len(*tag, *bytes)).sum()
}

/// Visits the fields that are written: those that have a value, and of the rest those that are not what their absence means.
fn visit_fields<'a>(content: &'a Content, mut visit: impl FnMut(u32, Field<'a>)) {
    let given = |bytes: &'a Bytes| (!bytes.is_empty()).then_some(bytes);
    if let Some(value) = given(&content.value) {
        visit(1, Field::Bytes(value));
    }
    for (tag, text) in (2..).zip([&content.content_type, &content.charset, &content.content_encoding]) {
        if let Some(text) = text {
            visit(tag, Field::Bytes(text));
        }
    }
    for link in &content.links {
        let part = |tag, part: &'a Option<Bytes>| part.as_ref().map(|part| (tag, part));
        visit(5, Field::Message([part(1, &link.bucket), part(2, &link.key), part(3, &link.tag)]));
    }
    for (tag, pairs) in [(6, &content.user_metadata), (7, &content.indexes)] {
        for (name, value) in pairs {
            let part = |tag, part| given(part).map(|part| (tag, part));
            visit(tag, Field::Message([part(1, name), part(2, value), None]));
        }
    }
    let modified_us = u64::try_from(content.modified.as_micros()).unwrap_or(u64::MAX);
    for (tag, number) in [(8, modified_us), (9, u64::from(content.indexes_unchecked))] {
        if number != 0 {
            visit(tag, Field::Number(number));
        }
    }
}

/// What a value takes, in bytes, but for its mark of a tombstone.
pub(super) fn size_bytes(content: &Content) -> usize {
    let mut size_bytes = 0;
    visit_fields(content, |tag, field| size_bytes += field.size_bytes(tag));
    size_bytes
}

/// Writes a value, but for its mark of a tombstone.
pub(super) fn encode(content: &Content, out: &mut impl BufMut) {
    visit_fields(content, |tag, field| field.encode(tag, out));
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(record: Bytes, deleted: bool) -> Option<Content> {
    let record = ContentRecord::decode(record).ok()?;
    let pairs = |pairs: Vec<PairRecord>| pairs.into_iter().map(|pair| (pair.name, pair.value)).collect();
    let link = |link: LinkRecord| Link { bucket: link.bucket, key: link.key, tag: link.tag };
    Some(Content {
        value: record.value,
        content_type: record.content_type,
        charset: record.charset,
        content_encoding: record.content_encoding,
        links: record.links.into_iter().map(link).collect(),
        user_metadata: pairs(record.user_metadata),
        indexes: pairs(record.indexes),
        indexes_unchecked: record.indexes_unchecked,
        modified: Duration::from_micros(record.modified_us),
        deleted,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..9).prop_map(Bytes::from)
    }

    pub(in super::super) fn content() -> impl Strategy<Value = Content> {
        let link = (option::of(bytes()), option::of(bytes()), option::of(bytes()));
        let links = vec(link.prop_map(|(bucket, key, tag)| Link { bucket, key, tag }), 0..3);
        let pairs = || vec((bytes(), bytes()), 0..3);
        let names = (option::of(bytes()), option::of(bytes()), option::of(bytes()));
        (bytes(), names, links, pairs(), pairs(), any::<u32>(), any::<(bool, bool)>()).prop_map(
            |(value, (content_type, charset, content_encoding), links, user_metadata, indexes, modified, marks)| {
                let modified = Duration::from_micros(u64::from(modified) << 20);
                let (deleted, indexes_unchecked) = marks;
                #[rustfmt::skip]
                let content = Content {
                    value, content_type, charset, content_encoding, links, user_metadata, indexes, indexes_unchecked,
                    modified, deleted,
                };
                content
            },
        )
    }

    /// The message that is read back, as its derivation writes it.
    fn derived(content: &Content) -> ContentRecord {
        let pairs = |pairs: &[(Bytes, Bytes)]| {
            pairs.iter().map(|(name, value)| PairRecord { name: name.clone(), value: value.clone() }).collect()
        };
        let link =
            |link: &Link| LinkRecord { bucket: link.bucket.clone(), key: link.key.clone(), tag: link.tag.clone() };
        ContentRecord {
            value: content.value.clone(),
            content_type: content.content_type.clone(),
            charset: content.charset.clone(),
            content_encoding: content.content_encoding.clone(),
            links: content.links.iter().map(link).collect(),
            user_metadata: pairs(&content.user_metadata),
            indexes: pairs(&content.indexes),
            modified_us: u64::try_from(content.modified.as_micros()).unwrap(),
            indexes_unchecked: content.indexes_unchecked,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_its_derivation_writes(content in content()) {
            let mut out = Vec::new();
            encode(&content, &mut out);
            prop_assert_eq!(out.len(), size_bytes(&content));
            prop_assert_eq!(&out, &derived(&content).encode_to_vec());
            let deleted = content.deleted;
            prop_assert_eq!(decode(out.into(), deleted), Some(content));
        }
    }
}
