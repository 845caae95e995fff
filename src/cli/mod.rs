//! The command line: one file per command. A command talks to a server through its client port or its control
//! socket, and returns what to print.
//! Knows `client`, control's messages and the configuration; must not know engine, domain or stores.

mod bucket_type;
mod config_show;
mod del;
mod fetch;
mod get;
mod json;
mod put;
mod status;
mod target;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::client::ClientError;
use crate::config::{Effective, Flags, Sources};
use crate::control::ControlError;

pub use json::OperationError;

/// A server that Riak clients connect to unchanged, and the commands to look after it
#[derive(Debug, Parser)]
#[command(name = "ombak", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Directory of the store and of the control socket [default: ./ombak-data]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [default: ombak.toml in the current directory, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ombak serve
  ombak update maps/users alice '{\"update\": {\"visits_counter\": 1, \"name_register\": \"Alice\"}}'
  ombak fetch maps/users alice
  ombak bucket-type create carts '{\"props\": {\"datatype\": \"set\"}}'
  ombak bucket-type activate carts

Every key of the configuration can also be set in the environment, as OMBAK_ and the key in capitals.
`ombak config show` lists them with their meaning.";

/// What to do
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM
    Serve(ServeArgs),
    /// Create, activate, change and list bucket types of the running server
    #[command(subcommand)]
    BucketType(bucket_type::BucketTypeCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Say whether a server is running on the data directory
    Status,
    /// Read an object and print its siblings
    Get(get::GetArgs),
    /// Store an object
    Put(put::PutArgs),
    /// Delete an object
    Del(del::DelArgs),
    /// Read a counter, set, gset, hll or map
    Fetch(fetch::FetchArgs),
    /// Change a counter, set, gset, hll or map
    Update(update::UpdateArgs),
}

/// Flags of `serve`. They win over the environment and the file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ombak serve
  ombak --data-dir /var/lib/ombak serve --pbc 0.0.0.0:8087
  OMBAK_LOG=debug ombak serve --pbc 127.0.0.1:8087 --pbc '[::1]:8087'")]
pub struct ServeArgs {
    /// Address to serve Riak clients on; may be given more than once [default: 127.0.0.1:8087]
    #[arg(long = "pbc", value_name = "ADDR")]
    pub pbc_listen: Vec<String>,
    /// The node name that clients are told [default: riak@127.0.0.1]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// What is logged: a level or directives [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// For standard output, ends of lines included.
    pub text: String,
    /// Whether what was asked for was not done although the text tells all.
    pub failed: bool,
}

impl Outcome {
    fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), failed: false }
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::done(format!("{value:#}\n"))
    }
}

/// Why a command has nothing to print. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server of the data directory did not answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The server on the client port did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operation is not understood.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// An argument is not understood.
    #[error("{argument}: {reason}")]
    Argument {
        /// Its name in the help.
        argument: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A value cannot be read from standard input.
    #[error("cannot read standard input: {source}")]
    Stdin {
        /// What the system said.
        source: std::io::Error,
    },
    /// The server could not do it.
    #[error("{reason}")]
    Failed {
        /// Its reason.
        reason: String,
    },
    /// The server answered something else.
    #[error("the server's reply does not fit the request")]
    UnexpectedReply,
    /// There is no such object.
    #[error("not found")]
    NotFound,
}

impl CliError {
    /// 2 when the arguments are at fault, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Operation(_) | Self::Argument { .. } => 2,
            _ => 1,
        }
    }
}

impl Cli {
    /// The layers of the configuration that these arguments and this environment make up.
    pub fn sources(&self, current_dir: PathBuf, env: Vec<(OsString, OsString)>) -> Sources {
        let mut flags = Flags { data_dir: self.data_dir.clone(), ..Flags::default() };
        if let Command::Serve(serve) = &self.command {
            flags.pbc_listen = serve.pbc_listen.clone();
            flags.node_name = serve.node_name.clone();
            flags.log = serve.log.clone();
        }
        Sources { file: self.config.clone(), current_dir, env, flags }
    }
}

/// Runs a command other than `serve`, which has a process to itself.
pub async fn run(command: &Command, effective: &Effective) -> Result<Outcome, CliError> {
    let config = &effective.config;
    match command {
        Command::Serve(_) => Ok(Outcome::default()),
        Command::BucketType(command) => bucket_type::run(command, &config.data_dir).await,
        Command::Config(command) => Ok(config_show::run(command, effective)),
        Command::Status => status::run(&config.data_dir).await,
        Command::Get(args) => get::run(args, config).await,
        Command::Put(args) => put::run(args, config).await,
        Command::Del(args) => del::run(args, config).await,
        Command::Fetch(args) => fetch::run(args, config).await,
        Command::Update(args) => update::run(args, config).await,
    }
}
