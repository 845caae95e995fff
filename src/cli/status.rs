//! `ombak status`

use std::path::Path;

use super::{CliError, Outcome};
use crate::control::{self, ControlReply, ControlRequest};

pub(super) async fn run(data_dir: &Path) -> Result<Outcome, CliError> {
    match control::request(data_dir, &ControlRequest::Status).await? {
        ControlReply::Status { version, process_id, uptime_ms, writes, syncs, failure } => {
            let mut text = format!(
                "Ombak {version} is running on data directory {} as process {process_id} for {} s\n\
                 {writes} writes made durable by {syncs} syncs of its log\n",
                data_dir.display(),
                uptime_ms / 1000
            );
            if let Some(failure) = &failure {
                text += &format!("{failure}\nNothing can be written until it is restarted\n");
            }
            Ok(Outcome { text, failed: failure.is_some() })
        }
        ControlReply::Failed { reason } => Err(CliError::Failed { reason }),
        _ => Err(CliError::UnexpectedReply),
    }
}
