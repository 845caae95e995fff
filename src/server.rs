//! Builds the rooms and stops them.

use crate::config::Config;

/// Why the server did not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// This build has no store and no front ends.
    #[error("this build of ombak has no server")]
    NotBuilt,
}

/// Runs the server until it is told to stop.
pub async fn run(_config: Config) -> Result<(), ServerError> {
    Err(ServerError::NotBuilt)
}
