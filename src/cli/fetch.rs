//! `ombak fetch`: a data type's value as JSON.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::json::{base64, datatype_name, value};
use super::target::{Target, parse_quorum};
use super::{CliError, Outcome};
use crate::client::{Datatype, DtFetchReq, Value};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints {\"type\": \"map\", \"value\": {...}, \"context\": \"...\"}. Give the context to `update` with removes,
so that they remove only what was read. The fields of a map carry their type in their name, as in
`visits_counter`. Bytes that are no UTF-8 are printed as {\"base64\": \"...\"}.

Examples:
  ombak fetch maps/users alice
  ombak fetch counters/pages home --host 10.0.0.7:8087")]
pub struct FetchArgs {
    #[command(flatten)]
    target: Target,
    /// Leave out the context
    #[arg(long)]
    no_context: bool,
    /// Replicas that must answer: a number, one, quorum or all
    #[arg(long, value_name = "QUORUM", value_parser = parse_quorum)]
    r: Option<u32>,
}

pub(super) async fn run(args: &FetchArgs, config: &Config) -> Result<Outcome, CliError> {
    let name = args.target.object()?;
    let mut client = args.target.connect(config).await?;
    let request = DtFetchReq {
        bucket: Some(name.bucket),
        key: Some(name.key),
        r#type: Some(name.bucket_type),
        r: args.r,
        include_context: Some(!args.no_context),
        ..DtFetchReq::default()
    };
    let fetched = client.fetch(request).await?;
    match &fetched.value {
        None => Err(CliError::NotFound),
        Some(value) => Ok(Outcome::json(&datatype(fetched.datatype, value, fetched.context.as_deref()))),
    }
}

/// A data type as fetch and update print it.
pub(super) fn datatype(datatype: Datatype, shown: &Value, context: Option<&[u8]>) -> Json {
    let mut json = Map::new();
    json.insert("type".to_owned(), json!(datatype_name(datatype)));
    json.insert("value".to_owned(), value(shown));
    if let Some(context) = context {
        json.insert("context".to_owned(), json!(base64(context)));
    }
    Json::Object(json)
}
