//! `ombak status`

use std::path::Path;

use super::{CliError, Outcome, STORE_FAILED};
use crate::control::{self, ControlReply, ControlRequest};

pub(super) async fn run(data_dir: &Path) -> Result<Outcome, CliError> {
    let reply = control::request(data_dir, &ControlRequest::Status).await?;
    let data_dir = data_dir.display();
    match reply {
        ControlReply::Status { version, process_id, uptime_ms, writes, syncs, measures, failure } => {
            let uptime_s = uptime_ms / 1000;
            let mut counts = format!("{writes} writes made durable by {syncs} syncs of its log\n");
            measures.iter().for_each(|(what, number)| counts.push_str(&format!("{number} {what}\n")));
            Ok(match failure {
                None => Outcome::done(format!(
                    "Ombak {version} is running on data directory {data_dir} as process {process_id} for {uptime_s} s\n{counts}"
                )),
                Some(failure) => Outcome {
                    text: format!(
                        "The store of data directory {data_dir} has failed; Ombak {version}, process {process_id}, \
                         started {uptime_s} s ago, answers reads\n\
                         {counts}{failure}\nNothing can be written until it is restarted\n"
                    ),
                    exit_code: STORE_FAILED,
                },
            })
        }
        ControlReply::Failed { reason } => Err(CliError::Failed { reason }),
        _ => Err(CliError::UnexpectedReply),
    }
}
