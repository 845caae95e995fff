//! `ombak del`: deletes an object.

use bytes::Bytes;
use clap::Args;

use super::target::{Target, parse_context};
use super::{CliError, Outcome};
use crate::client::RpbDelReq;
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints nothing. An object that does not exist is deleted without complaint. Counters, sets and maps are
deleted in the same way.

Examples:
  ombak del users alice
  ombak del plain/users alice --vclock a85hYGBg...")]
pub struct DelArgs {
    #[command(flatten)]
    target: Target,
    /// Context of the read that this delete replaces, as `get` printed it; without it, whatever is there goes
    #[arg(long, value_name = "BASE64", value_parser = parse_context)]
    vclock: Option<Bytes>,
}

pub(super) async fn run(args: &DelArgs, config: &Config) -> Result<Outcome, CliError> {
    let name = args.target.object()?;
    let mut client = args.target.connect(config).await?;
    let request = RpbDelReq {
        bucket: Some(name.bucket),
        key: Some(name.key),
        vclock: args.vclock.clone(),
        r#type: Some(name.bucket_type),
        ..RpbDelReq::default()
    };
    client.delete(request).await?;
    Ok(Outcome::default())
}
