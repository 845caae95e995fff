//! `ombak inspect`: a part of a data type, however large the whole is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use super::json::{base64, bytes, field_value, map_value, parse_field};
use super::target::ObjectArgs;
use super::{CliError, Outcome};
use crate::client::{Field, FieldKind, FieldValue};
use crate::control::{
    self, ControlReply, ControlRequest, Inspected, InspectedDot, InspectedField, InspectedKind, InspectedPart,
    InspectedState, Inspection, Question, WireBytes,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Asks the server of the data directory, through its control socket. Every question but `count` costs what it shows,
however large the object is; `count` reads all of it, in the memory of a page.

With --field the question is about a field of a map. Fields carry their type in their name, as in `visits_counter`;
each further --field goes one map deeper. Bytes that are no UTF-8 are printed as {\"base64\": \"...\"}, and a field
name that is none is given as `base64:...` before its type.

Examples:
  ombak inspect sets/b followers is-member alice
  ombak inspect sets/b followers members --from bob --limit 10
  ombak inspect maps/users alice value --field home_map --field visits_counter
  ombak inspect maps/users alice count --field likes_set
  ombak inspect maps/users alice state")]
pub struct InspectArgs {
    #[command(flatten)]
    object: ObjectArgs,
    /// What to ask
    #[arg(value_enum, value_name = "QUESTION")]
    question: QuestionName,
    /// The member that `is-member` asks for
    #[arg(value_name = "MEMBER", required_if_eq("question", "is-member"))]
    member: Option<OsString>,
    /// Ask about a field of the map; again for a field of that field
    #[arg(long = "field", value_name = "NAME_TYPE")]
    path: Vec<String>,
    /// The member that `members` begins at, there or not
    #[arg(long, value_name = "MEMBER")]
    from: Option<OsString>,
    /// How many members
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(control::MEMBERS_MAX)))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum QuestionName {
    /// The value, if it is not too large to be shown whole
    Value,
    /// Whether a set has a member
    IsMember,
    /// How many members a set has, or fields a map
    Count,
    /// A range of a set's members, in order
    Members,
    /// Context, actors, siblings and layout of the whole object
    State,
}

pub(super) async fn run(args: &InspectArgs, data_dir: &Path) -> Result<Outcome, CliError> {
    let request = ControlRequest::Inspect { inspection: inspection(args)? };
    let found = match control::request(data_dir, &request).await? {
        ControlReply::Inspected { found } => found,
        ControlReply::Failed { reason } => return Err(CliError::Failed { reason }),
        _ => return Err(CliError::UnexpectedReply),
    };
    let json = match found {
        Inspected::NotFound { reason } => return Err(CliError::Failed { reason }),
        Inspected::Value { is_map, parts } => value(is_map, parts)?,
        Inspected::IsMember(is_member) => json!({ "is_member": is_member }),
        Inspected::Count(count) => json!({ "count": count }),
        Inspected::Members { members, next } => {
            let members: Vec<_> = members.iter().map(|member| bytes(&member.0)).collect();
            json!({ "members": members, "next": next.map(|member| bytes(&member.0)) })
        }
        Inspected::State(found) => state(&found),
    };
    Ok(Outcome::json(&json))
}

fn inspection(args: &InspectArgs) -> Result<Inspection, CliError> {
    let name = args.object.object()?;
    let raw = |text: &OsString| WireBytes(Bytes::copy_from_slice(text.as_bytes()));
    let is = |question| args.question == question;
    for (given, fits, argument) in [
        (args.member.is_some(), is(QuestionName::IsMember), "MEMBER"),
        (args.from.is_some(), is(QuestionName::Members), "--from"),
        (!args.path.is_empty(), !is(QuestionName::State), "--field"),
    ] {
        if given && !fits {
            return Err(CliError::Argument { argument, reason: "does not go with this question".to_owned() });
        }
    }
    let question = match args.question {
        QuestionName::Value => Question::Value,
        QuestionName::IsMember => Question::IsMember(args.member.as_ref().map_or(WireBytes(Bytes::new()), raw)),
        QuestionName::Count => Question::Count,
        QuestionName::Members => Question::Members { from: args.from.as_ref().map(raw), limit: args.limit },
        QuestionName::State => Question::State,
    };
    let field = |text: &String| {
        let Field { name, kind } = parse_field(text)?;
        Ok(InspectedField { name: WireBytes(name.into()), kind: kind_sent(kind) })
    };
    Ok(Inspection {
        bucket_type: WireBytes(name.bucket_type),
        bucket: WireBytes(name.bucket),
        key: WireBytes(name.key),
        path: args.path.iter().map(field).collect::<Result<_, CliError>>()?,
        question,
    })
}

fn kind_sent(kind: FieldKind) -> InspectedKind {
    match kind {
        FieldKind::Counter => InspectedKind::Counter,
        FieldKind::Register => InspectedKind::Register,
        FieldKind::Map => InspectedKind::Map,
        FieldKind::Flag => InspectedKind::Flag,
        FieldKind::Set => InspectedKind::Set,
    }
}

fn kind_shown(kind: InspectedKind) -> FieldKind {
    match kind {
        InspectedKind::Counter => FieldKind::Counter,
        InspectedKind::Register => FieldKind::Register,
        InspectedKind::Map => FieldKind::Map,
        InspectedKind::Flag => FieldKind::Flag,
        InspectedKind::Set => FieldKind::Set,
    }
}

/// What is being put together: the value of a field, or of the object.
#[derive(Default)]
struct Collected {
    scalar: Option<FieldValue>,
    members: Vec<Vec<u8>>,
    fields: Vec<(Field, FieldValue)>,
}

impl Collected {
    fn into_field(self, kind: FieldKind) -> Result<FieldValue, CliError> {
        match kind {
            FieldKind::Set => Ok(FieldValue::Set(self.members)),
            FieldKind::Map => Ok(FieldValue::Map(self.fields)),
            _ => self.scalar.ok_or(CliError::UnexpectedReply),
        }
    }
}

/// Puts a value together.
fn value(is_map: bool, parts: Vec<InspectedPart>) -> Result<Json, CliError> {
    let mut around: Vec<(Field, Collected)> = Vec::new();
    let mut inner = Collected::default();
    for part in parts {
        match part {
            InspectedPart::Counter(sum) => inner.scalar = Some(FieldValue::Counter(sum)),
            InspectedPart::Register(value) => inner.scalar = Some(FieldValue::Register(value.0.to_vec())),
            InspectedPart::Flag(enabled) => inner.scalar = Some(FieldValue::Flag(enabled)),
            InspectedPart::Hll(estimate) => return Ok(json!(estimate)),
            InspectedPart::Member(member) => inner.members.push(member.0.to_vec()),
            InspectedPart::FieldStart(field) => {
                let field = Field { name: field.name.0.to_vec(), kind: kind_shown(field.kind) };
                around.push((field, std::mem::take(&mut inner)));
            }
            InspectedPart::FieldEnd => {
                let (field, outer) = around.pop().ok_or(CliError::UnexpectedReply)?;
                let value = std::mem::replace(&mut inner, outer).into_field(field.kind)?;
                inner.fields.push((field, value));
            }
        }
    }
    Ok(match inner.scalar {
        _ if is_map => map_value(&inner.fields),
        Some(scalar) => field_value(&scalar),
        None => field_value(&FieldValue::Set(inner.members)),
    })
}

fn state(state: &InspectedState) -> Json {
    // An actor is a number of 64 bits, more than programs that read JSON may keep.
    let dot = |dot: &InspectedDot| json!({ "actor": format!("{:016x}", dot.actor), "time": dot.time });
    let dots = |dots: &[InspectedDot]| dots.iter().map(dot).collect::<Vec<_>>();
    let siblings = state.siblings.iter().map(|sibling| {
        let dot = dot(&sibling.dot);
        json!({ "actor": dot["actor"], "time": dot["time"], "deleted": sibling.deleted, "size_bytes": sibling.size_bytes })
    });
    json!({
        "context": base64(&state.context.0),
        "seen": dots(&state.seen),
        "data_type_updates": dots(&state.data_type_clock),
        "siblings": siblings.collect::<Vec<_>>(),
        "layout": if state.packed { "packed" } else { "spread" },
        "floors": state.floors,
    })
}
