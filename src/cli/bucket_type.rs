//! `ombak bucket-type …`: what `riak admin bucket-type` prints, byte for byte, on standard output as there.

use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;

use super::{CliError, FAILED, Outcome};
use crate::control::{self, BucketTypeState, ControlReply, ControlRequest, PropsProblem};

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  ombak bucket-type create carts '{\"props\": {\"datatype\": \"set\"}}'
  ombak bucket-type activate carts
  ombak bucket-type status carts
  ombak bucket-type update carts '{\"props\": {\"n_val\": 1}}'
  ombak bucket-type list")]
pub enum BucketTypeCommand {
    /// Create a bucket type, or create it anew while it is not active
    #[command(override_usage = "ombak bucket-type create NAME ['{\"props\":{…}}']")]
    Create {
        /// Name of the bucket type
        name: String,
        /// Properties as JSON: {"props": {"datatype": "map"}}
        #[arg(value_name = "JSON")]
        props_json: Option<String>,
    },
    /// Let clients use a bucket type
    #[command(override_usage = "ombak bucket-type activate NAME")]
    Activate {
        /// Name of the bucket type
        name: String,
    },
    /// Change properties of a bucket type
    #[command(override_usage = "ombak bucket-type update NAME '{\"props\":{…}}'")]
    Update {
        /// Name of the bucket type
        name: String,
        /// Properties as JSON: {"props": {"n_val": 1}}
        #[arg(value_name = "JSON")]
        props_json: String,
    },
    /// Print the state and the properties of a bucket type
    #[command(override_usage = "ombak bucket-type status NAME")]
    Status {
        /// Name of the bucket type
        name: String,
    },
    /// Print all bucket types
    List,
}

pub(super) async fn run(command: &BucketTypeCommand, data_dir: &Path) -> Result<Outcome, CliError> {
    let reply = control::request(data_dir, &request(command)).await?;
    print(command, reply)
}

fn request(command: &BucketTypeCommand) -> ControlRequest {
    match command.to_owned() {
        BucketTypeCommand::Create { name, props_json } => {
            // Riak takes an empty text for no properties.
            let props_json = props_json.filter(|json| !json.is_empty());
            ControlRequest::BucketTypeCreate { name, props_json }
        }
        BucketTypeCommand::Activate { name } => ControlRequest::BucketTypeActivate { name },
        BucketTypeCommand::Update { name, props_json } => ControlRequest::BucketTypeUpdate { name, props_json },
        BucketTypeCommand::Status { name } => ControlRequest::BucketTypeStatus { name },
        BucketTypeCommand::List => ControlRequest::BucketTypeList,
    }
}

fn print(command: &BucketTypeCommand, reply: ControlReply) -> Result<Outcome, CliError> {
    use BucketTypeCommand as Command;
    let refused = |text| Ok(Outcome { text, exit_code: FAILED });
    match (command, reply) {
        (_, ControlReply::Failed { reason }) => Err(CliError::Failed { reason }),
        (Command::Create { name, .. }, ControlReply::BucketTypeCreated { none_active }) => {
            let mut text = format!("{name} created\n");
            if none_active {
                let _ = write!(
                    text,
                    "\nWARNING: After activating {name}, nodes in this cluster\n\
                     can no longer be downgraded to a version of Riak prior to 2.0\n"
                );
            }
            Ok(Outcome::done(text))
        }
        (Command::Create { name, .. }, ControlReply::BucketTypeRefused { reasons }) => {
            refused(format!("Error creating bucket type {name}:\n{}\n", reasons.join("\n")))
        }
        (Command::Activate { name }, ControlReply::BucketTypeActivated { none_active }) => {
            let mut text = format!("{name} has been activated\n");
            if none_active {
                text.push_str(
                    "\nWARNING: Nodes in this cluster can no longer be\n\
                     downgraded to a version of Riak prior to 2.0\n",
                );
            }
            Ok(Outcome::done(text))
        }
        (Command::Activate { name }, ControlReply::BucketTypeStatus { state, .. }) => {
            refused(format!("{}\n", state_line(name, state)))
        }
        (Command::Update { name, .. }, ControlReply::BucketTypeUpdated) => {
            Ok(Outcome::done(format!("{name} updated\n")))
        }
        (Command::Update { name, .. }, ControlReply::BucketTypeRefused { reasons }) => {
            refused(format!("Error updating bucket type {name}:\n{}\n", reasons.join("\n")))
        }
        (Command::Create { name, .. } | Command::Update { name, .. }, ControlReply::BucketTypeBadProps { problem }) => {
            refused(format!("{}\n", bad_props_line(command, name, problem)))
        }
        (Command::Status { name }, ControlReply::BucketTypeStatus { state, props }) => {
            let mut text = format!("{}\n", state_line(name, state));
            if state == BucketTypeState::Undefined {
                return refused(text);
            }
            text.push('\n');
            for (name, value) in props {
                let _ = writeln!(text, "{name}: {value}");
            }
            Ok(Outcome::done(text))
        }
        (Command::List, ControlReply::BucketTypeList { types }) => {
            let mut text = "default (active)\n".to_owned();
            for entry in types {
                let state = if entry.active { "active" } else { "not active" };
                let _ = writeln!(text, "{} ({state})", entry.name);
            }
            Ok(Outcome::done(text))
        }
        _ => Err(CliError::UnexpectedReply),
    }
}

fn state_line(name: &str, state: BucketTypeState) -> String {
    let state = match state {
        BucketTypeState::Active => "is active",
        BucketTypeState::Ready => "has been created and may be activated",
        BucketTypeState::NotReady => "has been created but cannot be activated yet",
        BucketTypeState::Undefined => "is not an existing bucket type",
    };
    format!("{name} {state}")
}

/// Riak's `update` says `create` when there are no properties, and has one colon more when there is no JSON.
fn bad_props_line(command: &BucketTypeCommand, name: &str, problem: PropsProblem) -> String {
    match (command, problem) {
        (BucketTypeCommand::Update { .. }, PropsProblem::InvalidJson) => {
            format!("Cannot update bucket type: {name}: {problem}")
        }
        _ => format!("Cannot create bucket type {name}: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::BucketTypeEntry;

    fn create() -> BucketTypeCommand {
        BucketTypeCommand::Create { name: "T".to_owned(), props_json: None }
    }

    fn update() -> BucketTypeCommand {
        BucketTypeCommand::Update { name: "T".to_owned(), props_json: "{}".to_owned() }
    }

    fn activate() -> BucketTypeCommand {
        BucketTypeCommand::Activate { name: "T".to_owned() }
    }

    fn status() -> BucketTypeCommand {
        BucketTypeCommand::Status { name: "T".to_owned() }
    }

    #[track_caller]
    fn check(command: BucketTypeCommand, reply: ControlReply, text: &str, failed: bool) {
        assert_eq!(print(&command, reply).unwrap(), Outcome { text: text.to_owned(), exit_code: failed.into() });
    }

    #[test]
    fn successes_print_as_riak_prints_them() {
        check(create(), ControlReply::BucketTypeCreated { none_active: false }, "T created\n", false);
        check(
            create(),
            ControlReply::BucketTypeCreated { none_active: true },
            "T created\n\nWARNING: After activating T, nodes in this cluster\n\
             can no longer be downgraded to a version of Riak prior to 2.0\n",
            false,
        );
        check(activate(), ControlReply::BucketTypeActivated { none_active: false }, "T has been activated\n", false);
        check(
            activate(),
            ControlReply::BucketTypeActivated { none_active: true },
            "T has been activated\n\nWARNING: Nodes in this cluster can no longer be\n\
             downgraded to a version of Riak prior to 2.0\n",
            false,
        );
        check(update(), ControlReply::BucketTypeUpdated, "T updated\n", false);
        let prop = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let props = vec![prop("allow_mult", "true"), prop("r", "quorum")];
        check(
            status(),
            ControlReply::BucketTypeStatus { state: BucketTypeState::Ready, props },
            "T has been created and may be activated\n\nallow_mult: true\nr: quorum\n",
            false,
        );
        let entry = |name: &str, active| BucketTypeEntry { name: name.to_owned(), active };
        check(
            BucketTypeCommand::List,
            ControlReply::BucketTypeList { types: vec![entry("a", true), entry("b", false)] },
            "default (active)\na (active)\nb (not active)\n",
            false,
        );
    }

    #[test]
    fn refusals_print_as_riak_prints_them() {
        let reasons = || vec!["already_active".to_owned(), "not_active".to_owned()];
        let refused = |reasons| ControlReply::BucketTypeRefused { reasons };
        check(create(), refused(reasons()), "Error creating bucket type T:\nalready_active\nnot_active\n", true);
        check(update(), refused(reasons()), "Error updating bucket type T:\nalready_active\nnot_active\n", true);
        let bad = |problem| ControlReply::BucketTypeBadProps { problem };
        let (no_json, no_props) = (PropsProblem::InvalidJson, PropsProblem::NoPropsField);
        check(create(), bad(no_json), "Cannot create bucket type T: invalid json\n", true);
        check(create(), bad(no_props), "Cannot create bucket type T: no props field found in json\n", true);
        check(update(), bad(no_json), "Cannot update bucket type: T: invalid json\n", true);
        check(update(), bad(no_props), "Cannot create bucket type T: no props field found in json\n", true);
        let state = |state| ControlReply::BucketTypeStatus { state, props: vec![] };
        let undefined = "T is not an existing bucket type\n";
        check(status(), state(BucketTypeState::Undefined), undefined, true);
        check(activate(), state(BucketTypeState::Undefined), undefined, true);
        check(activate(), state(BucketTypeState::NotReady), "T has been created but cannot be activated yet\n", true);
    }

    #[test]
    fn other_replies_are_errors() {
        let failed = ControlReply::Failed { reason: "the store is read-only".to_owned() };
        assert_eq!(print(&create(), failed).unwrap_err().to_string(), "the store is read-only");
        let error = print(&BucketTypeCommand::List, ControlReply::BucketTypeUpdated).unwrap_err();
        assert!(matches!(error, CliError::UnexpectedReply));
    }
}
