//! `ombak get`: an object with all its siblings as JSON.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::json::{base64, bytes};
use super::target::{Target, parse_quorum};
use super::{CliError, Outcome};
use crate::client::{RpbContent, RpbGetReq, RpbPair};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints {\"siblings\": [...], \"vclock\": \"...\"}; give the vclock to `put` or `del` to replace what was read.
Bytes that are no UTF-8 are printed as {\"base64\": \"...\"}.

Examples:
  ombak get users alice
  ombak get plain/users alice --head")]
pub struct GetArgs {
    #[command(flatten)]
    target: Target,
    /// Leave out the values
    #[arg(long)]
    head: bool,
    /// Replicas that must answer: a number, one, quorum or all
    #[arg(long, value_name = "QUORUM", value_parser = parse_quorum)]
    r: Option<u32>,
}

pub(super) async fn run(args: &GetArgs, config: &Config) -> Result<Outcome, CliError> {
    let name = args.target.object()?;
    let mut client = args.target.connect(config).await?;
    let request = RpbGetReq {
        bucket: Some(name.bucket),
        key: Some(name.key),
        r: args.r,
        head: Some(args.head),
        r#type: Some(name.bucket_type),
        ..RpbGetReq::default()
    };
    let reply = client.get(request).await?;
    if reply.content.is_empty() {
        return Err(CliError::NotFound);
    }
    let siblings = if args.head { Values::LeftOut } else { Values::Shown };
    Ok(Outcome::json(&object(&reply.content, reply.vclock.as_deref(), siblings)))
}

/// Whether siblings are shown with their values. A reply about metadata only has empty ones in their place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Shown,
    LeftOut,
}

/// An object as get and put print it. Lists of pairs stay lists: names may repeat, and the order is the writer's.
pub(super) fn object(siblings: &[RpbContent], vclock: Option<&[u8]>, values: Values) -> Json {
    let siblings: Vec<_> = siblings.iter().map(|content| sibling(content, values)).collect();
    json!({ "siblings": siblings, "vclock": vclock.map(base64) })
}

fn sibling(content: &RpbContent, values: Values) -> Json {
    let mut json = Map::new();
    let mut add = |name: &str, value: Json| json.insert(name.to_owned(), value);
    if values == Values::Shown {
        add("value", bytes(&content.value));
    }
    for (name, value) in [
        ("content_type", &content.content_type),
        ("charset", &content.charset),
        ("content_encoding", &content.content_encoding),
        ("vtag", &content.vtag),
    ] {
        if let Some(value) = value {
            add(name, bytes(value));
        }
    }
    if let Some(seconds) = content.last_mod {
        let microseconds = u64::from(seconds) * 1_000_000 + u64::from(content.last_mod_usecs());
        add("last_modified_us", json!(microseconds));
    }
    if !content.usermeta.is_empty() {
        add("meta", pairs(&content.usermeta));
    }
    if !content.indexes.is_empty() {
        add("indexes", pairs(&content.indexes));
    }
    if !content.links.is_empty() {
        let links =
            content.links.iter().map(|link| json!([bytes(link.bucket()), bytes(link.key()), bytes(link.tag())]));
        add("links", links.collect());
    }
    if content.deleted() {
        add("deleted", json!(true));
    }
    Json::Object(json)
}

fn pairs(pairs: &[RpbPair]) -> Json {
    pairs.iter().map(|pair| json!([bytes(pair.key()), bytes(pair.value())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::RpbLink;

    #[test]
    fn objects_print_what_they_have() {
        let pair =
            |key: &'static str, value: &'static str| RpbPair { key: Some(key.into()), value: Some(value.into()) };
        let link = RpbLink { bucket: Some("b".into()), key: Some("k".into()), tag: None };
        let full = RpbContent {
            value: vec![0xff].into(),
            content_type: Some("text/plain".into()),
            last_mod: Some(2),
            last_mod_usecs: Some(5),
            usermeta: vec![pair("b", "1"), pair("a", "2"), pair("b", "3")],
            indexes: vec![pair("age_int", "7")],
            links: vec![link],
            deleted: Some(true),
            ..RpbContent::default()
        };
        let empty = RpbContent::default();
        assert_eq!(
            object(&[full.clone(), empty], Some(&[0]), Values::Shown),
            json!({"vclock": "AA==", "siblings": [{
                "value": {"base64": "/w=="}, "content_type": "text/plain", "last_modified_us": 2_000_005,
                "meta": [["b", "1"], ["a", "2"], ["b", "3"]], "indexes": [["age_int", "7"]],
                "links": [["b", "k", ""]], "deleted": true
            }, {"value": ""}]})
        );
        let head = object(&[full], None, Values::LeftOut);
        assert_eq!(head["siblings"][0].get("value"), None);
        assert_eq!(head["vclock"], Json::Null);
    }
}
