//! One value of an object, as a message and as the domain's content.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::context::ObjectIdentity;
use crate::domain::dot::Dot;
use crate::domain::key::ObjectName;
use crate::domain::object::{Content, Link};
use crate::engine::{ObjectView, TypedContent};
use crate::message::generated::{RpbContent, RpbLink, RpbPair};
use crate::message::value::ValueReply;
use crate::service::Service;
use crate::service::datatype::value::ReplyValue;
use crate::service::error::Refusal;

/// The content that a put asks to store. Its vtag and times are the server's to set.
pub(in crate::service) fn from_message(message: RpbContent) -> Content {
    let pair = |pair: RpbPair| {
        // Riak's own accident, which clients have learnt to read.
        let value = pair.value.unwrap_or(Bytes::from_static(b"undefined"));
        (pair.key.unwrap_or_default(), value)
    };
    Content {
        value: message.value,
        content_type: message.content_type,
        charset: message.charset,
        content_encoding: message.content_encoding,
        links: message
            .links
            .into_iter()
            .map(|link| Link { bucket: link.bucket, key: link.key, tag: link.tag })
            .collect(),
        user_metadata: message.usermeta.into_iter().map(pair).collect(),
        indexes: message.indexes.into_iter().map(pair).collect(),
        indexes_unchecked: false,
        modified: Duration::ZERO,
        deleted: message.deleted == Some(true),
    }
}

/// The contents and the vclock of an object that is there, where `typed_value` has taken the value of its data type content.
pub(in crate::service) fn to_messages(
    name: &ObjectName,
    view: ObjectView,
    typed_value: ReplyValue,
    head: bool,
) -> (Vec<RpbContent>, Option<Bytes>) {
    let vclock = view.context.encode(ObjectIdentity::of(name));
    let shown = |value: ReplyValue| if head { Bytes::new() } else { value.finish_opaque() };
    let typed = view.typed.map(|typed| typed_to_message(typed, shown(typed_value)));
    let siblings = view.siblings.into_iter().map(|(dot, content)| to_message(dot, content, head));
    (typed.into_iter().chain(siblings).collect(), Some(vclock))
}

fn to_message(dot: Dot, content: Content, head: bool) -> RpbContent {
    let pair = |(key, value)| RpbPair { key: Some(key), value: Some(value) };
    RpbContent {
        // A tombstone shows no value, whatever was put with it.
        value: if head || content.deleted { Bytes::new() } else { content.value },
        content_type: content.content_type,
        charset: content.charset,
        content_encoding: content.content_encoding,
        vtag: Some(dot.vtag()),
        links: content
            .links
            .into_iter()
            .map(|link| RpbLink { bucket: link.bucket, key: link.key, tag: link.tag })
            .collect(),
        usermeta: content.user_metadata.into_iter().map(pair).collect(),
        indexes: content.indexes.into_iter().map(pair).collect(),
        deleted: content.deleted.then_some(true),
        ..times(content.modified)
    }
}

/// Takes the value of data type content for a reply that shows it as plain content.
pub(in crate::service) fn typed_value(service: &Service, name: &ObjectName) -> Result<ReplyValue, Refusal> {
    let data_type = service.engine.content_data_type(name)?;
    Ok(ReplyValue::new(data_type, ValueReply::Fetch, service.options.reply_size_bytes_max))
}

fn typed_to_message(typed: TypedContent, value: Bytes) -> RpbContent {
    let content_type = format!("application/riak_{}", typed.data_type.name());
    RpbContent {
        value,
        content_type: Some(content_type.into()),
        vtag: Some(typed.dot.vtag()),
        ..times(Duration::from_micros(typed.dot.time.0))
    }
}

fn times(modified: Duration) -> RpbContent {
    RpbContent {
        // The protocol's seconds end in 2106.
        last_mod: Some(u32::try_from(modified.as_secs()).unwrap_or(u32::MAX)),
        last_mod_usecs: Some(modified.subsec_micros()),
        ..RpbContent::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_pair_without_value_reads_back_as_undefined() {
        let message =
            RpbContent { usermeta: vec![RpbPair { key: Some("k".into()), value: None }], ..RpbContent::default() };
        assert_eq!(from_message(message).user_metadata, vec![("k".into(), "undefined".into())]);
    }
}
