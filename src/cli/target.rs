//! What the data commands have in common: which server, which object, quorums, contexts.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;

use super::CliError;
use crate::client::Client;
use crate::config::Config;

/// The server and the object that a data command is about. Names may be any bytes.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Bucket type and bucket, or a bucket of the type `default`
    #[arg(value_name = "TYPE/BUCKET")]
    bucket: OsString,
    /// Key of the object
    key: OsString,
    /// Server to talk to [default: the first address of pbc_listen]
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
}

/// The object that a target names.
pub(super) struct ObjectName {
    pub(super) bucket_type: Bytes,
    pub(super) bucket: Bytes,
    pub(super) key: Bytes,
}

impl Target {
    /// The first slash divides type and bucket.
    pub(super) fn object(&self) -> Result<ObjectName, CliError> {
        let text = self.bucket.as_bytes();
        let (bucket_type, bucket) = match text.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&text[..slash], &text[slash + 1..]),
            None => (b"default".as_slice(), text),
        };
        for (argument, part) in [("TYPE/BUCKET", bucket_type), ("TYPE/BUCKET", bucket), ("KEY", self.key.as_bytes())] {
            if part.is_empty() {
                return Err(CliError::Argument { argument, reason: "has an empty part".to_owned() });
            }
        }
        Ok(ObjectName {
            bucket_type: Bytes::copy_from_slice(bucket_type),
            bucket: Bytes::copy_from_slice(bucket),
            key: Bytes::copy_from_slice(self.key.as_bytes()),
        })
    }

    pub(super) async fn connect(&self, config: &Config) -> Result<Client, CliError> {
        Ok(Client::connect(&address(self.host.as_deref(), config)).await?)
    }
}

/// Where the server is: as the command says, else as the configuration does.
pub(super) fn address(host: Option<&str>, config: &Config) -> String {
    match host {
        Some(host) => host.to_owned(),
        None => connectable(config.pbc_listen.first().map_or("", String::as_str)),
    }
}

/// A server that listens on every address is reached on this machine.
fn connectable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

/// Reads a quorum: a number of replicas, or one of Riak's words, which travel as the largest numbers.
pub(super) fn parse_quorum(text: &str) -> Result<u32, String> {
    match text {
        "one" => Ok(u32::MAX - 1),
        "quorum" => Ok(u32::MAX - 2),
        "all" => Ok(u32::MAX - 3),
        "default" => Ok(u32::MAX - 4),
        _ => text.parse().map_err(|_| "must be a number, one, quorum, all or default".to_owned()),
    }
}

/// Reads a context as the commands print it.
pub(super) fn parse_context(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("is not base64: {error}"))
}

/// A value from the command line, or all of standard input for `-`.
pub(super) fn read_value(argument: &OsStr) -> Result<Vec<u8>, CliError> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_owned());
    }
    let mut value = Vec::new();
    std::io::stdin().lock().read_to_end(&mut value).map_err(|cause| CliError::Stdin { cause })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bucket: &str, key: &str) -> Result<(Bytes, Bytes, Bytes), String> {
        let target = Target { bucket: bucket.into(), key: key.into(), host: None };
        match target.object() {
            Ok(name) => Ok((name.bucket_type, name.bucket, name.key)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_first_slash_divides_type_and_bucket() {
        assert_eq!(object("users", "k/1"), Ok(("default".into(), "users".into(), "k/1".into())));
        assert_eq!(object("maps/users", "k"), Ok(("maps".into(), "users".into(), "k".into())));
        assert_eq!(object("maps/a/b", "k"), Ok(("maps".into(), "a/b".into(), "k".into())));
        for (bucket, key) in [("", "k"), ("/b", "k"), ("maps/", "k"), ("maps/b", "")] {
            assert!(object(bucket, key).unwrap_err().ends_with("has an empty part"), "{bucket} {key}");
        }
    }

    #[test]
    fn quorums_are_numbers_or_words() {
        assert_eq!(parse_quorum("2"), Ok(2));
        assert_eq!(parse_quorum("one"), Ok(4_294_967_294));
        assert_eq!(parse_quorum("quorum"), Ok(4_294_967_293));
        assert_eq!(parse_quorum("all"), Ok(4_294_967_292));
        assert_eq!(parse_quorum("default"), Ok(4_294_967_291));
        assert!(parse_quorum("-1").is_err() && parse_quorum("most").is_err() && parse_quorum("").is_err());
    }

    #[test]
    fn contexts_are_base64() {
        assert_eq!(parse_context("/wA="), Ok(Bytes::from_static(&[0xff, 0])));
        assert!(parse_context("not base64").is_err());
    }

    #[test]
    fn wildcard_listeners_are_reached_on_loopback() {
        assert_eq!(connectable("0.0.0.0:8087"), "127.0.0.1:8087");
        assert_eq!(connectable("[::]:1"), "[::1]:1");
        assert_eq!(connectable("db.example:8087"), "db.example:8087");
    }
}
