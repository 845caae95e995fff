//! `ombak update`: changes a data type by an operation in JSON.

use std::ffi::OsString;

use bytes::Bytes;
use clap::{Args, ValueEnum};

use super::fetch::datatype;
use super::json::parse_operation;
use super::target::{ObjectName, Target, parse_context, parse_quorum, read_value};
use super::{CliError, Outcome};
use crate::client::{Client, Datatype, DtFetchReq, DtUpdateReq};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Operations:
  counter    5    -3    {\"increment\": 5}    {\"decrement\": 3}
  set        {\"add\": [\"a\", \"b\"], \"remove\": [\"c\"]}
  gset, hll  {\"add\": [\"a\", \"b\"]}
  map        {\"update\": {\"name_register\": \"x\", \"n_counter\": 5, \"f_flag\": true,
                         \"s_set\": {\"add\": [\"a\"]},
                         \"m_map\": {\"update\": {...}, \"remove\": [...]}},
              \"remove\": [\"old_register\"]}
A field's name ends in its type: _register, _counter, _flag, _set or _map.
A text may be written as {\"base64\": \"...\"} where it is any bytes. `-` reads the operation from standard input.

Prints nothing unless --return-body is given.

Examples:
  ombak update counters/pages home 1 --return-body
  ombak update sets/carts alice '{\"add\": [\"milk\"]}'
  ombak update maps/users alice '{\"remove\": [\"old_register\"]}' --context AQID...")]
pub struct UpdateArgs {
    #[command(flatten)]
    target: Target,
    /// What to do, as JSON
    #[arg(allow_negative_numbers = true)]
    operation: OsString,
    /// Context of the fetch that removes go by, as `fetch` printed it
    #[arg(long, value_name = "BASE64", value_parser = parse_context)]
    context: Option<Bytes>,
    /// Read the operation as one of this data type; without it, the server is asked first
    #[arg(long = "as", value_name = "DATATYPE")]
    datatype: Option<DatatypeName>,
    /// Replicas that must confirm: a number, one, quorum or all
    #[arg(long, value_name = "QUORUM", value_parser = parse_quorum)]
    w: Option<u32>,
    /// Print the value after the update, with its context
    #[arg(long)]
    return_body: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DatatypeName {
    Counter,
    Set,
    Gset,
    Hll,
    Map,
}

pub(super) async fn run(args: &UpdateArgs, config: &Config) -> Result<Outcome, CliError> {
    let name = args.target.object()?;
    let text = read_value(&args.operation)?;
    let text = std::str::from_utf8(&text)
        .map_err(|error| CliError::Argument { argument: "OPERATION", reason: format!("is not UTF-8: {error}") })?;
    // With the type given, an operation that is none is refused before anybody is asked.
    let (mut client, datatype_known, operation) = match args.datatype {
        Some(given) => {
            let operation = parse_operation(text, given.into())?;
            (args.target.connect(config).await?, given.into(), operation)
        }
        None => {
            let mut client = args.target.connect(config).await?;
            let found = ask_datatype(&mut client, &name).await?;
            let operation = parse_operation(text, found)?;
            (client, found, operation)
        }
    };
    let request = DtUpdateReq {
        bucket: Some(name.bucket),
        key: Some(name.key),
        r#type: Some(name.bucket_type),
        context: args.context.clone(),
        w: args.w,
        return_body: Some(args.return_body),
        ..DtUpdateReq::default()
    };
    let updated = client.update(request, &operation).await?;
    Ok(match &updated.value {
        None => Outcome::default(),
        Some(value) => Outcome::json(&datatype(datatype_known, value, updated.context.as_deref())),
    })
}

/// A fetch tells the bucket type's data type, whether the object exists or not.
async fn ask_datatype(client: &mut Client, name: &ObjectName) -> Result<Datatype, CliError> {
    let request = DtFetchReq {
        bucket: Some(name.bucket.clone()),
        key: Some(name.key.clone()),
        r#type: Some(name.bucket_type.clone()),
        include_context: Some(false),
        ..DtFetchReq::default()
    };
    Ok(client.fetch(request).await?.datatype)
}

impl From<DatatypeName> for Datatype {
    fn from(name: DatatypeName) -> Self {
        match name {
            DatatypeName::Counter => Self::Counter,
            DatatypeName::Set => Self::Set,
            DatatypeName::Gset => Self::Gset,
            DatatypeName::Hll => Self::Hll,
            DatatypeName::Map => Self::Map,
        }
    }
}
