//! `ombak map`: maps for people, and a standby of them.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::json::bytes;
use super::{CliError, Outcome};
use crate::control::{
    self, ControlReply, ControlRequest, MapChange, MapPlace, MapValue, StandbyPhase, StandbyProgress, StandbyRequest,
    WireBytes,
};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
These commands ask the server of the data directory, through its control socket.

Examples:
  ombak map put users alice '{\"age\": 30}'
  ombak map get users alice
  ombak map put users alice '{\"age\": 31}' --version 1
  ombak map remove users alice
  ombak map backup --to standby.example:5678")]
pub enum MapCommand {
    /// Print what a key holds, with its version
    Get(KeyArgs),
    /// Store a value and print its version
    Put(PutArgs),
    /// Remove a key and print what it held
    Remove(RemoveArgs),
    /// Keep the maps of another server equal to this one's
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Map, as NAME or NAMESPACE/NAME
    #[arg(value_name = "MAP")]
    map: String,
    /// Key
    #[arg(value_name = "KEY")]
    key: String,
    /// Protocol of the map, as NAME or NAMESPACE/NAME
    #[arg(long, value_name = "PROTOCOL", default_value = "default")]
    protocol: String,
}

#[derive(Debug, Args)]
pub struct PutArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Value; - reads it from standard input
    #[arg(value_name = "VALUE")]
    value: String,
    /// Only if the key has this version
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    version: u64,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Only if the key has this version
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    version: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The standby is another Ombak server. All partitions are copied, and then it follows what changes, for as long as the command
runs. Started again it goes on where it was; a standby that is new, or was away for longer than removals are remembered
(map_tombstone_retention_ms), is compared key by key first: keys that only the standby has are removed there.

Examples:
  ombak map backup --to standby.example:5678
  ombak map backup --to https://standby.example:5678 --once")]
pub struct BackupArgs {
    /// gRPC address of the standby: HOST:PORT, or a URL with http or https
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// End when the standby has all there is
    #[arg(long)]
    once: bool,
    /// Compare all keys, whatever is remembered of the standby
    #[arg(long)]
    compare_all: bool,
}

pub(super) async fn run(command: &MapCommand, data_dir: &Path) -> Result<Outcome, CliError> {
    match command {
        MapCommand::Get(args) => {
            let reply = control::request(data_dir, &ControlRequest::MapGet { place: place(args) }).await?;
            value(reply)
        }
        MapCommand::Put(PutArgs { key, value, version }) => {
            let value = WireBytes(read_value(value)?.into());
            let change = MapChange::Put { value, version: *version };
            let request = ControlRequest::MapChange { place: place(key), change };
            match control::request(data_dir, &request).await? {
                ControlReply::MapPut { version } => Ok(Outcome::json(&json!({ "version": version }))),
                other => Err(refused(other)),
            }
        }
        MapCommand::Remove(RemoveArgs { key, version }) => {
            let change = MapChange::Remove { version: *version };
            value(control::request(data_dir, &ControlRequest::MapChange { place: place(key), change }).await?)
        }
        MapCommand::Backup(args) => backup(args, data_dir).await,
    }
}

fn place(KeyArgs { map, key, protocol }: &KeyArgs) -> MapPlace {
    MapPlace { protocol: name(protocol), map: name(map), key: key.clone() }
}

/// Namespace and name. The namespace may be left out, and is then empty.
fn name(text: &str) -> (String, String) {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    (namespace.to_owned(), name.to_owned())
}

fn read_value(text: &str) -> Result<Vec<u8>, CliError> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut value = Vec::new();
    std::io::stdin().read_to_end(&mut value).map_err(|cause| CliError::Stdin { cause })?;
    Ok(value)
}

fn value(reply: ControlReply) -> Result<Outcome, CliError> {
    match reply {
        ControlReply::MapValue { value: Some(MapValue { value, version }) } => {
            Ok(Outcome::json(&json!({ "value": bytes(&value.0), "version": version })))
        }
        ControlReply::MapValue { value: None } => Err(CliError::NotFound),
        other => Err(refused(other)),
    }
}

fn refused(reply: ControlReply) -> CliError {
    match reply {
        ControlReply::Failed { reason } => CliError::Failed { reason },
        _ => CliError::UnexpectedReply,
    }
}

/// Shows how far the standby is until the feed ends.
async fn backup(args: &BackupArgs, data_dir: &Path) -> Result<Outcome, CliError> {
    let standby = StandbyRequest { to: args.to.clone(), compare_all: args.compare_all };
    let mut replies = control::request_stream(data_dir, &ControlRequest::MapBackup { standby }).await?;
    let bar = ProgressBar::new(0).with_style(style());
    bar.enable_steady_tick(Duration::from_millis(200));
    loop {
        let progress = match replies.next().await? {
            ControlReply::MapBackup { progress } => progress,
            other => {
                bar.finish_and_clear();
                return Err(refused(other));
            }
        };
        show(&bar, args, &progress);
        if args.once && progress.phase == StandbyPhase::Following && progress.behind == 0 {
            bar.finish_and_clear();
            let StandbyProgress { acknowledged, .. } = progress;
            return Ok(Outcome::done(format!("{} has everything: {acknowledged} entries were sent\n", args.to)));
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn show(bar: &ProgressBar, args: &BackupArgs, progress: &StandbyProgress) {
    let StandbyProgress { phase, compared, keys, acknowledged, behind, problem } = progress;
    let to = &args.to;
    let (message, done, all) = match (phase, problem) {
        (StandbyPhase::Connecting, Some(problem)) => (format!("{to} is lost ({problem})"), 0, 0),
        (StandbyPhase::Connecting, None) => (format!("reaching {to}"), 0, 0),
        // Keys may have come meanwhile.
        (StandbyPhase::Comparing, _) => {
            (format!("comparing with {to}, {acknowledged} sent"), *compared, *keys.max(compared))
        }
        (StandbyPhase::Following, _) => (format!("{to} follows"), *acknowledged, acknowledged + behind),
    };
    bar.set_length(all);
    bar.set_position(done);
    bar.set_message(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_be_left_out() {
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(name("m"), text("", "m"));
        assert_eq!(name("app/m"), text("app", "m"));
        assert_eq!(name("app/m/n"), text("app", "m/n"));
    }
}
