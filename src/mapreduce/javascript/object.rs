//! Objects in the form in which Riak gives them to JavaScript functions.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::domain::context::ObjectIdentity;
use crate::domain::dot::Dot;
use crate::domain::key::ObjectName;
use crate::domain::object::Content;
use crate::engine::ObjectView;
use crate::erlang::Term;
use crate::mapreduce::job::MapInput;

/// `{"bucket_type"?, "bucket", "key", "vclock", "values": [{"metadata", "data"}]}`
pub(in crate::mapreduce) fn object(name: &ObjectName, view: ObjectView) -> Term {
    let vclock = BASE64_STANDARD.encode(view.context.encode(ObjectIdentity::of(name)));
    let values = view.siblings.into_iter().map(|(dot, content)| value(dot, content)).collect();
    let members = [("vclock", Term::binary(vclock.as_bytes())), ("values", Term::List(values))];
    structure(named(name).chain(members))
}

/// What a function is given, and what a map makes, of an object that is not there.
pub(in crate::mapreduce) fn not_found(name: &ObjectName, input: &MapInput) -> Term {
    structure([("not_found", structure(named(name).chain([("keydata", input.key_data.clone())])))])
}

fn named(name: &ObjectName) -> impl Iterator<Item = (&'static str, Term)> {
    let bucket_type = (!name.bucket.is_default_type()).then(|| Term::Binary(name.bucket.bucket_type.clone()));
    let bucket_type = bucket_type.map(|bucket_type| ("bucket_type", bucket_type));
    let bucket = ("bucket", Term::Binary(name.bucket.bucket.clone()));
    bucket_type.into_iter().chain([bucket, ("key", Term::Binary(name.key.clone()))])
}

fn value(dot: Dot, content: Content) -> Term {
    let data = if content.deleted { Bytes::new() } else { content.value.clone() };
    structure([("metadata", metadata(dot, content)), ("data", Term::Binary(data))])
}

fn metadata(dot: Dot, content: Content) -> Term {
    let given = |name, value: Option<Bytes>| value.map(|value| (name, Term::Binary(value)));
    let part = |part: Option<Bytes>| Term::Binary(part.unwrap_or_default());
    let links =
        content.links.into_iter().map(|link| Term::List(vec![part(link.bucket), part(link.key), part(link.tag)]));
    let pairs = |pairs: Vec<(Bytes, Bytes)>| {
        let pair = |(name, value)| Term::Tuple(vec![Term::Binary(name), Term::Binary(value)]);
        Term::Tuple(vec![Term::atom("struct"), Term::List(pairs.into_iter().map(pair).collect())])
    };
    let always = [
        ("X-Riak-VTag", Term::Binary(dot.vtag())),
        ("X-Riak-Last-Modified", Term::binary(http_date(content.modified).as_bytes())),
        ("X-Riak-Meta", pairs(content.user_metadata)),
        ("index", pairs(content.indexes)),
        ("Links", Term::List(links.collect())),
    ];
    let deleted = content.deleted.then(|| ("X-Riak-Deleted", Term::binary(b"true")));
    let optional = [
        given("content-type", content.content_type),
        given("charset", content.charset),
        given("content-encoding", content.content_encoding),
        deleted,
    ];
    structure(always.into_iter().chain(optional.into_iter().flatten()))
}

fn structure(members: impl IntoIterator<Item = (&'static str, Term)>) -> Term {
    let member = |(name, value): (&str, Term)| Term::Tuple(vec![Term::binary(name.as_bytes()), value]);
    Term::Tuple(vec![Term::atom("struct"), Term::List(members.into_iter().map(member).collect())])
}

/// `Thu, 01 Jan 1970 00:00:00 GMT`
fn http_date(since_1970: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let seconds = since_1970.as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // A clock that is far off must not cost time: years come in cycles of 400, which are whole weeks.
    let (mut year, mut day) = (1970 + days / 146_097 * 400, days % 146_097);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let length = |month: usize, year| MONTHS[month].1 + u64::from(month == 1 && is_leap(year));
    while day >= length(month, year) {
        day -= length(month, year);
        month += 1;
    }
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month].0);
    let (hours, minutes, seconds) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {:02} {month} {year} {hours:02}:{minutes:02}:{seconds:02} GMT", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dot::{ActorId, Time};
    use crate::domain::key::BucketName;
    use crate::domain::object::Link;
    use crate::mapreduce::json;

    #[test]
    fn an_object_has_riaks_form() {
        let bucket = BucketName::new(Some("t".into()), "b".into());
        let name = ObjectName { bucket, key: "k".into() };
        let dot = Dot { actor: ActorId(1), time: Time(2) };
        let content = Content {
            value: "v".into(),
            content_type: Some("text/plain".into()),
            links: vec![Link { bucket: Some("b".into()), key: Some("l".into()), tag: None }],
            user_metadata: vec![("a".into(), "1".into())],
            indexes: vec![("n_int".into(), "5".into())],
            modified: Duration::from_secs(1),
            ..Content::default()
        };
        let context = [dot].into_iter().collect();
        let view = ObjectView { siblings: vec![(dot, content)], typed: None, context };
        let text = json::render(&object(&name, view)).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["bucket_type"], "t");
        assert_eq!((&parsed["bucket"], &parsed["key"]), (&"b".into(), &"k".into()));
        assert!(!parsed["vclock"].as_str().unwrap().is_empty());
        let value = &parsed["values"][0];
        assert_eq!(value["data"], "v");
        let metadata = &value["metadata"];
        assert_eq!(metadata["content-type"], "text/plain");
        assert_eq!(metadata["X-Riak-Meta"], serde_json::json!({"a": "1"}));
        assert_eq!(metadata["index"], serde_json::json!({"n_int": "5"}));
        assert_eq!(metadata["Links"], serde_json::json!([["b", "l", ""]]));
        assert_eq!(metadata["X-Riak-Last-Modified"], "Thu, 01 Jan 1970 00:00:01 GMT");
        assert!(metadata.get("charset").is_none() && metadata.get("X-Riak-Deleted").is_none());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| http_date(Duration::from_secs(seconds));
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
        assert_eq!(date(4_102_444_800), "Fri, 01 Jan 2100 00:00:00 GMT");
        assert!(date(u64::MAX).ends_with("GMT"));
    }
}
