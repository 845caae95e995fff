//! The command line: one file per command. A command talks to a server through its client port or its control
//! socket, and returns what to print.
//! Knows the client, the control messages and the configuration.
//! Must not know the engine, the domain or stores.

mod bench;
mod bucket_type;
mod config_show;
mod del;
mod fetch;
mod get;
mod inspect;
mod json;
mod map;
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
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [default: ombak.toml in the current directory, if there is one]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options")]
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
    /// Everything that talks to a server or looks at its configuration
    #[command(flatten)]
    Ask(AskCommand),
}

/// A command that ends with something to print.
#[derive(Debug, Subcommand)]
pub enum AskCommand {
    /// Create, activate, change and list bucket types of the running server
    #[command(subcommand)]
    BucketType(bucket_type::BucketTypeCommand),
    /// Put load on a server that speaks the protocol, and measure it
    Bench(bench::BenchArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Say whether a server is running on the data directory: exit code 0 if so, 1 if not, 3 if its store has failed and takes
    /// no writes until it is restarted
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
    /// Read and change maps, and keep a copy of them on another server
    #[command(subcommand)]
    Map(map::MapCommand),
    /// Read a part of a data type: a member, a field, a count, a range; or an object's causal state
    Inspect(inspect::InspectArgs),
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
    /// Address to serve maps over gRPC on, or off [default: 127.0.0.1:5678]
    #[arg(long = "grpc", value_name = "ADDR|off")]
    pub grpc_listen: Option<String>,
    /// `--node-name`; its help is no doc comment because rustdoc would read a link in it.
    #[arg(long, value_name = "NAME", help = "The node name that clients are told [default: riak@127.0.0.1]")]
    pub node_name: Option<String>,
    /// What is logged: a level or directives [default: info, and warnings of the storage engine]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// The exit code of a command that did not do what it was asked for.
const FAILED: u8 = 1;
/// The exit code of `ombak status` where the server is there and its store has failed.
const STORE_FAILED: u8 = 3;

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// For standard output, ends of lines included.
    pub text: String,
    /// What the program ends with: 0 unless something was not as it should be, of which the text tells all.
    pub exit_code: u8,
}

impl Outcome {
    fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit_code: 0 }
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
    #[error("cannot read standard input: {cause}")]
    Stdin {
        /// What the system said.
        cause: std::io::Error,
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
            _ => FAILED,
        }
    }
}

impl Cli {
    /// The layers of the configuration that these arguments and this environment make up.
    pub fn sources(&self, current_dir: PathBuf, env: Vec<(OsString, OsString)>) -> Sources {
        let mut flags = Flags { data_dir: self.data_dir.clone(), ..Flags::default() };
        if let Command::Serve(serve) = &self.command {
            flags.pbc_listen = serve.pbc_listen.clone();
            flags.grpc_listen = serve.grpc_listen.clone();
            flags.node_name = serve.node_name.clone();
            flags.log = serve.log.clone();
        }
        Sources { file: self.config.clone(), current_dir, env, flags }
    }
}

/// Runs a command that ends with something to print.
pub async fn run(command: &AskCommand, effective: &Effective) -> Result<Outcome, CliError> {
    let config = &effective.config;
    match command {
        AskCommand::Bench(args) => bench::run(args, config).await,
        AskCommand::BucketType(command) => bucket_type::run(command, &config.data_dir).await,
        AskCommand::Config(command) => Ok(config_show::run(command, effective)),
        AskCommand::Status => status::run(&config.data_dir).await,
        AskCommand::Get(args) => get::run(args, config).await,
        AskCommand::Put(args) => put::run(args, config).await,
        AskCommand::Del(args) => del::run(args, config).await,
        AskCommand::Fetch(args) => fetch::run(args, config).await,
        AskCommand::Update(args) => update::run(args, config).await,
        AskCommand::Map(command) => map::run(command, &config.data_dir).await,
        AskCommand::Inspect(args) => inspect::run(args, &config.data_dir).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::*;
    use crate::client::test_server::*;
    use crate::config::Origin;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["ombak"], line].concat())
    }

    fn effective(cli: &Cli, env: &[(&str, &str)]) -> Effective {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let current_dir = tempfile::tempdir().unwrap();
        crate::config::load(&cli.sources(current_dir.path().to_owned(), env)).unwrap()
    }

    /// Runs a command against a server that gives these replies, each to a request of its own.
    async fn against(replies: Vec<Reply>, line: &[&str]) -> (Result<Outcome, String>, Vec<Request>) {
        let answers = replies.iter().map(|reply| frames(std::slice::from_ref(reply))).collect();
        let (address, served) = serve(answers).await;
        let cli = parse(line).unwrap();
        let effective = effective(&cli, &[("OMBAK_PBC_LISTEN", &address)]);
        let Command::Ask(command) = &cli.command else { panic!("{line:?} asks nothing") };
        let outcome = run(command, &effective).await.map_err(|error| error.to_string());
        (outcome, served.await.unwrap())
    }

    fn printed(outcome: Result<Outcome, String>) -> serde_json::Value {
        serde_json::from_str(&outcome.unwrap().text).unwrap()
    }

    fn error_reply(text: &'static str) -> Reply {
        Reply::Error(RpbErrorResp { errmsg: text.into(), errcode: 0 })
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_environment() {
        let line =
            ["serve", "--pbc", "a:1", "--pbc", "b:2,c:3", "--node-name", "n@h", "--data-dir", "/d", "--log", "warn"];
        let cli = parse(&line).unwrap();
        let effective = effective(&cli, &[("OMBAK_DATA_DIR", "/e"), ("OMBAK_PBC_LISTEN", "e:1")]);
        assert_eq!(effective.config.pbc_listen, ["a:1", "b:2", "c:3"]);
        assert_eq!(effective.config.node_name, "n@h");
        assert_eq!(effective.config.data_dir, PathBuf::from("/d"));
        assert_eq!(effective.config.log, "warn");
        assert!(effective.origins.contains(&("data_dir", Origin::Flag)));
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for line in [
            &["get", "b"][..],
            &["get", "b", "k", "--r", "most"],
            &["put", "b", "k"],
            &["put", "b", "k", "v", "--vclock", "?"],
            &["put", "b", "k", "v", "--meta", "x"],
            &["put", "b", "k", "v", "--link", "x"],
            &["update", "b", "k", "1", "--as", "register"],
            &["bucket-type", "create"],
            &["bucket-type", "update", "T"],
            &["bucket-type", "activate"],
            &["bucket-type", "status"],
            &["config"],
            &["inspect", "sets/b", "k"],
            &["inspect", "sets/b", "k", "is-member"],
            &["inspect", "sets/b", "k", "members", "--limit", "0"],
            &["map", "get", "m"],
            &["map", "put", "m", "k"],
            &["map", "backup"],
            &["frobnicate"],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        let create = parse(&["bucket-type", "create"]).unwrap_err().to_string();
        assert!(create.contains("Usage: ombak bucket-type create NAME ["), "{create}");
    }

    #[tokio::test]
    async fn get_prints_siblings() {
        let content = |value: &'static str| RpbContent { value: value.into(), ..RpbContent::default() };
        let reply = RpbGetResp { content: vec![content("a"), content("b")], vclock: Some("c".into()), unchanged: None };
        let line = ["get", "plain/users", "alice", "--r", "all"];
        let (outcome, requests) = against(vec![Reply::Get(reply)], &line).await;
        assert_eq!(printed(outcome), json!({"siblings": [{"value": "a"}, {"value": "b"}], "vclock": "Yw=="}));
        let [Request::Get(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!((request.r#type(), request.bucket(), request.key()), (&b"plain"[..], &b"users"[..], &b"alice"[..]));
        assert_eq!(request.r(), 4_294_967_292);

        let (outcome, _) = against(vec![Reply::Get(RpbGetResp::default())], &["get", "users", "bob"]).await;
        assert_eq!(outcome, Err("not found".to_owned()));
    }

    #[tokio::test]
    async fn put_sends_all_that_was_given() {
        let line = [
            "put",
            "users",
            "alice",
            "v",
            "--content-type",
            "a/b",
            "--vclock",
            "Yw==",
            "--meta",
            "m=1",
            "--index",
            "i_int=2",
            "--link",
            "b/k/t",
            "--w",
            "2",
            "--if-none-match",
        ];
        let (outcome, requests) = against(vec![Reply::Put(RpbPutResp::default())], &line).await;
        assert_eq!(outcome, Ok(Outcome::default()));
        let [Request::Put(request)] = requests.as_slice() else { panic!("{requests:?}") };
        let content = request.content.as_ref().unwrap();
        assert_eq!((request.vclock(), request.w(), request.if_none_match()), (&b"c"[..], 2, true));
        assert_eq!((&content.value[..], content.content_type()), (&b"v"[..], &b"a/b"[..]));
        assert_eq!(content.usermeta[0].value(), b"1");
        assert_eq!(content.indexes[0].key(), b"i_int");
        assert_eq!(content.links[0].tag(), b"t");

        let content = RpbContent { value: "v".into(), ..RpbContent::default() };
        let reply = RpbPutResp { content: vec![content], ..RpbPutResp::default() };
        let (outcome, _) = against(vec![Reply::Put(reply)], &["put", "b", "k", "v", "--return-body"]).await;
        assert_eq!(printed(outcome), json!({"siblings": [{"value": "v"}], "vclock": null}));
    }

    #[tokio::test]
    async fn del_sends_the_context() {
        let (outcome, requests) = against(vec![Reply::Delete], &["del", "b", "k", "--vclock", "Yw=="]).await;
        assert_eq!(outcome, Ok(Outcome::default()));
        let [Request::Delete(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request.vclock(), b"c");
    }

    #[tokio::test]
    async fn fetch_prints_value_and_context() {
        let value = DtValue { set_value: vec!["a".into()], ..DtValue::default() };
        let reply = DtFetchResp { context: Some("c".into()), r#type: 2, value: Some(value) };
        let (outcome, _) = against(vec![Reply::DtFetch(reply)], &["fetch", "sets/b", "k"]).await;
        assert_eq!(printed(outcome), json!({"type": "set", "value": ["a"], "context": "Yw=="}));

        let missing = DtFetchResp { context: None, r#type: 2, value: None };
        let (outcome, requests) =
            against(vec![Reply::DtFetch(missing)], &["fetch", "sets/b", "k", "--no-context"]).await;
        assert_eq!(outcome, Err("not found".to_owned()));
        let [Request::DtFetch(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert!(!request.include_context());
    }

    #[tokio::test]
    async fn update_asks_for_the_data_type_unless_told() {
        let found = |number| Reply::DtFetch(DtFetchResp { context: None, r#type: number, value: None });
        let done = || Reply::DtUpdate(DtUpdateResp::default());
        let (outcome, requests) = against(vec![found(5), done()], &["update", "t/b", "k", r#"{"add": "a"}"#]).await;
        assert_eq!(outcome, Ok(Outcome::default()));
        let [Request::DtFetch(_), Request::DtUpdate(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request.op.as_ref().unwrap().gset_op.as_ref().unwrap().adds, ["a"]);

        let five = Reply::DtUpdate(DtUpdateResp { counter_value: Some(5), ..DtUpdateResp::default() });
        let line = ["update", "t/b", "k", "-3", "--as", "counter", "--return-body", "--context", "Yw=="];
        let (outcome, requests) = against(vec![five], &line).await;
        assert_eq!(printed(outcome), json!({"type": "counter", "value": 5}));
        let [Request::DtUpdate(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request.op.as_ref().unwrap().counter_op.as_ref().unwrap().increment(), -3);
        assert_eq!(request.context(), b"c");

        let (outcome, requests) = against(vec![found(1)], &["update", "t/b", "k", r#"{"add": "a"}"#]).await;
        assert!(outcome.unwrap_err().starts_with("operation: a counter takes "));
        assert_eq!(requests.len(), 1);
    }

    #[tokio::test]
    async fn refusals_are_the_servers_own_words() {
        let (outcome, _) = against(vec![error_reply("no such type")], &["update", "t/b", "k", "1"]).await;
        assert_eq!(outcome, Err("no such type".to_owned()));
        let (outcome, _) = against(vec![Reply::Ping], &["del", "b", "k"]).await;
        assert_eq!(outcome, Err("the server's reply RpbPingResp does not fit the request".to_owned()));
    }
}
