//! `ombak config show`

use clap::Subcommand;

use super::Outcome;
use crate::config::Effective;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration in effect as TOML, with the meaning of each key and the layer that set it
    Show,
}

pub(super) fn run(command: &ConfigCommand, effective: &Effective) -> Outcome {
    match command {
        ConfigCommand::Show => Outcome::done(effective.to_toml()),
    }
}
