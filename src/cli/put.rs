//! `ombak put`: stores an object.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;

use super::get::{Values, object};
use super::target::{ObjectName, Target, parse_context, parse_quorum, read_value};
use super::{CliError, Outcome};
use crate::client::{RpbContent, RpbLink, RpbPair, RpbPutReq};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints nothing unless --return-body is given. Without --vclock, a bucket with siblings gets one more.

Examples:
  ombak put users alice '{\"name\": \"Alice\"}' --content-type application/json
  ombak put users alice - --vclock a85hYGBg... < alice.json
  ombak put users alice x --index email_bin=alice@example.org --meta source=import")]
pub struct PutArgs {
    #[command(flatten)]
    target: Target,
    /// The value; `-` reads it from standard input
    value: OsString,
    /// Media type of the value
    #[arg(long, value_name = "TYPE", default_value = "text/plain")]
    content_type: String,
    /// Context of the read that this write replaces, as `get` printed it
    #[arg(long, value_name = "BASE64", value_parser = parse_context)]
    vclock: Option<Bytes>,
    /// Metadata; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    meta: Vec<RpbPair>,
    /// Entry of a secondary index, whose name ends in _bin or _int; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    index: Vec<RpbPair>,
    /// Link to another object; may be given more than once
    #[arg(long, value_name = "BUCKET/KEY/TAG", value_parser = parse_link)]
    link: Vec<RpbLink>,
    /// Replicas that must confirm: a number, one, quorum or all
    #[arg(long, value_name = "QUORUM", value_parser = parse_quorum)]
    w: Option<u32>,
    /// Print the object after the write
    #[arg(long)]
    return_body: bool,
    /// Fail if the object exists
    #[arg(long)]
    if_none_match: bool,
}

pub(super) async fn run(args: &PutArgs, config: &Config) -> Result<Outcome, CliError> {
    let name = args.target.object()?;
    let value = read_value(&args.value)?;
    let mut client = args.target.connect(config).await?;
    let reply = client.put(request(args, name, value)).await?;
    if !args.return_body {
        return Ok(Outcome::default());
    }
    Ok(Outcome::json(&object(&reply.content, reply.vclock.as_deref(), Values::Shown)))
}

fn request(args: &PutArgs, name: ObjectName, value: Vec<u8>) -> RpbPutReq {
    let content = RpbContent {
        value: value.into(),
        content_type: Some(args.content_type.clone().into()),
        usermeta: args.meta.clone(),
        indexes: args.index.clone(),
        links: args.link.clone(),
        ..RpbContent::default()
    };
    RpbPutReq {
        bucket: Some(name.bucket),
        key: Some(name.key),
        vclock: args.vclock.clone(),
        content: Some(content),
        w: args.w,
        return_body: Some(args.return_body),
        if_none_match: Some(args.if_none_match),
        r#type: Some(name.bucket_type),
        ..RpbPutReq::default()
    }
}

fn parse_pair(text: &str) -> Result<RpbPair, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(RpbPair { key: Some(name.to_owned().into()), value: Some(value.to_owned().into()) })
        }
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

fn parse_link(text: &str) -> Result<RpbLink, String> {
    let parts: Vec<_> = text.splitn(3, '/').map(|part| Some(Bytes::from(part.to_owned()))).collect();
    match <[_; 3]>::try_from(parts) {
        Ok([bucket, key, tag]) => Ok(RpbLink { bucket, key, tag }),
        Err(_) => Err("must be BUCKET/KEY/TAG".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_links_are_read() {
        let pair = parse_pair("email_bin=a=b").unwrap();
        assert_eq!((pair.key(), pair.value()), (b"email_bin".as_slice(), b"a=b".as_slice()));
        assert!(parse_pair("email_bin").is_err() && parse_pair("=x").is_err());
        let link = parse_link("b/k/t/x").unwrap();
        assert_eq!((link.bucket(), link.key(), link.tag()), (b"b".as_slice(), b"k".as_slice(), b"t/x".as_slice()));
        assert!(parse_link("b/k").is_err());
    }
}
