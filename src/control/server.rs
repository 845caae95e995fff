//! The side of the server.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::{decode, encode};
use super::socket::{Line, bind, read_line};
use super::{
    BucketTypeEntry, BucketTypeState, ControlError, ControlReply, ControlRequest, Inspector, LINE_SIZE_BYTES_MAX,
    MapAdmin, SOCKET_NAME, StandbyRequest, parse_props,
};
use crate::engine::DurableCounts;

/// Administrators are few; more connections than this are a fault, and wait.
const CONNECTIONS_MAX: usize = 32;

/// A peer that neither finishes its line nor takes its reply for this long is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Who carries out what is asked about bucket types.
pub trait BucketTypeAdmin: Send + Sync + 'static {
    /// All types but `default`.
    fn list(&self) -> impl Future<Output = Result<Vec<BucketTypeEntry>, String>> + Send;

    /// The state and properties of a type, `default` included; of a missing one, `Undefined` and none.
    fn status(&self, name: &str) -> impl Future<Output = Result<BucketTypeStatus, String>> + Send;

    /// Makes a type from the defaults and these properties.
    fn create(&self, name: &str, props: Vec<(String, Value)>)
    -> impl Future<Output = Result<(), ChangeRefusal>> + Send;

    /// Changes properties of a type.
    fn update(&self, name: &str, props: Vec<(String, Value)>)
    -> impl Future<Output = Result<(), ChangeRefusal>> + Send;

    /// Lets clients use a type; one that is active stays so.
    fn activate(&self, name: &str) -> impl Future<Output = Result<(), ActivateRefusal>> + Send;
}

/// The state and properties of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketTypeStatus {
    /// The state.
    pub state: BucketTypeState,
    /// Names and values, the values printed as Erlang terms; in any order.
    pub props: Vec<(String, String)>,
}

/// Why a type was neither made nor changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// The change breaks rules: Riak's texts, one a line.
    Rules(Vec<String>),
    /// It could not be carried out: one line.
    Failed(String),
}

/// Why a type was not activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivateRefusal {
    /// Its state forbids it.
    State(BucketTypeState),
    /// It could not be carried out: one line.
    Failed(String),
}

/// The socket, bound and not yet served.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlServer {
    /// Binds the socket in a data directory that the caller holds the lock of.
    pub fn bind(data_dir: &Path) -> Result<Self, ControlError> {
        let listener = bind(data_dir)?;
        Ok(Self { listener, path: data_dir.join(SOCKET_NAME) })
    }

    /// Answers until `shutdown`, then finishes the requests in work and removes the socket.
    pub async fn serve<A: BucketTypeAdmin + Inspector + MapAdmin>(self, admin: Arc<A>, shutdown: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let started = Instant::now();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = async {
                    let permit = permits.clone().acquire_owned().await;
                    (self.listener.accept().await, permit)
                } => accepted,
            };
            match accepted {
                (Ok((stream, _)), permit) => {
                    let answer = Answer { admin: admin.clone(), started };
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = converse(stream, &answer, &shutdown).await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    // Out of descriptors, most likely: another try at once would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "cannot remove the control socket");
        }
    }
}

/// One connection: a reply a line, until the peer closes or sends what has no next line.
async fn converse<A: BucketTypeAdmin + Inspector + MapAdmin>(
    stream: UnixStream,
    answer: &Answer<A>,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            line = tokio::time::timeout(IDLE_TIMEOUT, read_line(&mut reader)) => line??,
        };
        let (reply, last) = match line {
            Line::Closed => return Ok(()),
            Line::TooLong => (failed(ControlError::LineTooLong), true),
            Line::Whole(line) => match decode(&line) {
                Ok(ControlRequest::MapBackup { standby }) => {
                    return feed(&mut reader, &mut writer, answer, standby, shutdown).await;
                }
                Ok(request) => match while_there(&mut reader, answer.to(request)).await {
                    Some(reply) => (reply, false),
                    None => return Ok(()),
                },
                Err(reason) => (failed(format!("request not understood: {reason}")), false),
            },
        };
        write_reply(&mut writer, &reply).await?;
        if last {
            return Ok(());
        }
    }
}

/// Does something for the peer; `None` when it closes meanwhile. Not so if it only sends no more. Of what it sends ahead no
/// more is read than the reader has room for.
async fn while_there<T>(reader: &mut BufReader<OwnedReadHalf>, work: impl Future<Output = T>) -> Option<T> {
    let closed = async {
        let has_left = match reader.fill_buf().await {
            Ok(ahead) if !ahead.is_empty() => false,
            // Sockets of this kind are told of both ends at once.
            _ => reader.get_ref().ready(Interest::WRITABLE).await.is_ok_and(|ready| ready.is_write_closed()),
        };
        if !has_left {
            std::future::pending().await
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = closed => None,
    }
}

async fn write_reply(writer: &mut OwnedWriteHalf, reply: &ControlReply) -> std::io::Result<()> {
    let mut line = encode(reply)?;
    if line.len() > LINE_SIZE_BYTES_MAX {
        line = encode(&failed(ControlError::LineTooLong))?;
    }
    line.push(b'\n');
    tokio::time::timeout(IDLE_TIMEOUT, writer.write_all(&line)).await?
}

/// Feeds a standby and tells how far it is, until the peer closes, the feed ends, or the server stops. Whatever else the peer
/// sends on this connection is not read.
async fn feed<A: MapAdmin>(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    answer: &Answer<A>,
    standby: StandbyRequest,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let (progress, mut told) = watch::channel(None);
    let feeding = answer.admin.feed(standby, Box::new(move |now| drop(progress.send_replace(Some(now)))));
    tokio::pin!(feeding);
    loop {
        let reply = tokio::select! {
            () = shutdown.cancelled() => return write_reply(writer, &failed("the server is stopping")).await,
            read = reader.fill_buf() => match read {
                Ok(bytes) if !bytes.is_empty() => return Ok(()),
                ended => return ended.map(|_| ()),
            },
            reason = &mut feeding => return write_reply(writer, &failed(reason)).await,
            Ok(()) = told.changed() => match told.borrow_and_update().clone() {
                Some(progress) => ControlReply::MapBackup { progress },
                None => continue,
            },
        };
        write_reply(writer, &reply).await?;
    }
}

fn failed(reason: impl ToString) -> ControlReply {
    ControlReply::Failed { reason: reason.to_string() }
}

/// Turns requests into replies.
struct Answer<A> {
    admin: Arc<A>,
    started: Instant,
}

impl<A: BucketTypeAdmin + Inspector + MapAdmin> Answer<A> {
    async fn to(&self, request: ControlRequest) -> ControlReply {
        let reply = match request {
            ControlRequest::BucketTypeCreate { name, props_json } => self.create(&name, props_json.as_deref()).await,
            ControlRequest::BucketTypeActivate { name } => self.activate(&name).await,
            ControlRequest::BucketTypeUpdate { name, props_json } => self.update(&name, &props_json).await,
            ControlRequest::BucketTypeStatus { name } => self.status(&name).await,
            ControlRequest::BucketTypeList => self.list().await,
            ControlRequest::Status => Ok(self.server_status()),
            ControlRequest::MapGet { place } => {
                self.admin.map_get(place).await.map(|value| ControlReply::MapValue { value })
            }
            ControlRequest::MapChange { place, change } => self.admin.map_change(place, change).await,
            // It is answered again and again, and so elsewhere.
            ControlRequest::MapBackup { .. } => Err("a standby is fed on a connection of its own".to_owned()),
            ControlRequest::Inspect { inspection } => {
                self.admin.inspect(inspection).await.map(|found| ControlReply::Inspected { found })
            }
        };
        reply.unwrap_or_else(failed)
    }

    async fn create(&self, name: &str, json: Option<&str>) -> Result<ControlReply, String> {
        let props = match json.map_or(Ok(Vec::new()), parse_props) {
            Ok(props) => props,
            Err(problem) => return Ok(ControlReply::BucketTypeBadProps { problem }),
        };
        let none_active = self.none_active().await?;
        match self.admin.create(name, props).await {
            Ok(()) => Ok(ControlReply::BucketTypeCreated { none_active }),
            Err(refusal) => refused(refusal),
        }
    }

    async fn update(&self, name: &str, json: &str) -> Result<ControlReply, String> {
        let props = match parse_props(json) {
            Ok(props) => props,
            Err(problem) => return Ok(ControlReply::BucketTypeBadProps { problem }),
        };
        match self.admin.update(name, props).await {
            Ok(()) => Ok(ControlReply::BucketTypeUpdated),
            Err(refusal) => refused(refusal),
        }
    }

    async fn activate(&self, name: &str) -> Result<ControlReply, String> {
        let none_active = self.none_active().await?;
        match self.admin.activate(name).await {
            Ok(()) => Ok(ControlReply::BucketTypeActivated { none_active }),
            Err(ActivateRefusal::State(state)) => Ok(ControlReply::BucketTypeStatus { state, props: Vec::new() }),
            Err(ActivateRefusal::Failed(reason)) => Err(reason),
        }
    }

    async fn status(&self, name: &str) -> Result<ControlReply, String> {
        let BucketTypeStatus { state, mut props } = self.admin.status(name).await?;
        props.sort();
        Ok(ControlReply::BucketTypeStatus { state, props })
    }

    async fn list(&self) -> Result<ControlReply, String> {
        let mut types = self.admin.list().await?;
        types.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ControlReply::BucketTypeList { types })
    }

    /// Riak warns on the way to the first active type, and looks before it changes anything.
    async fn none_active(&self) -> Result<bool, String> {
        Ok(!self.admin.list().await?.iter().any(|entry| entry.active))
    }

    fn server_status(&self) -> ControlReply {
        let uptime_ms = self.started.elapsed().as_millis();
        let DurableCounts { writes, syncs } = self.admin.durable_counts();
        ControlReply::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: std::process::id(),
            uptime_ms: u64::try_from(uptime_ms).unwrap_or(u64::MAX),
            writes,
            syncs,
            measures: self.admin.store_measures().into_iter().map(|(what, number)| (what.to_owned(), number)).collect(),
            failure: self.admin.failure(),
        }
    }
}

fn refused(refusal: ChangeRefusal) -> Result<ControlReply, String> {
    match refusal {
        ChangeRefusal::Rules(reasons) => Ok(ControlReply::BucketTypeRefused { reasons }),
        ChangeRefusal::Failed(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use tokio::task::JoinHandle;

    use super::super::{
        Inspected, Inspection, MapChange, MapPlace, MapValue, PropsProblem, StandbyProgress, WireBytes, request,
        request_stream,
    };
    use super::*;

    /// Types by name, with whether they are active. Refuses the property `bad`.
    #[derive(Default)]
    struct Types(Mutex<BTreeMap<String, Type>>);

    type Type = (bool, Vec<(String, String)>);

    impl BucketTypeAdmin for Types {
        async fn list(&self) -> Result<Vec<BucketTypeEntry>, String> {
            let types = self.0.lock().unwrap();
            let entry = |(name, (active, _)): (&String, &Type)| BucketTypeEntry { name: name.clone(), active: *active };
            Ok(types.iter().rev().map(entry).collect())
        }

        async fn status(&self, name: &str) -> Result<BucketTypeStatus, String> {
            Ok(match self.0.lock().unwrap().get(name) {
                None => BucketTypeStatus { state: BucketTypeState::Undefined, props: Vec::new() },
                Some((active, props)) => BucketTypeStatus {
                    state: if *active { BucketTypeState::Active } else { BucketTypeState::Ready },
                    props: props.clone(),
                },
            })
        }

        async fn create(&self, name: &str, props: Vec<(String, Value)>) -> Result<(), ChangeRefusal> {
            if props.iter().any(|(name, _)| name == "bad") {
                return Err(ChangeRefusal::Rules(vec!["one".to_owned(), "two".to_owned()]));
            }
            let props = props.into_iter().map(|(name, value)| (name, value.to_string()));
            let entry = (false, props.collect());
            self.0.lock().unwrap().insert(name.to_owned(), entry);
            Ok(())
        }

        async fn update(&self, _: &str, _: Vec<(String, Value)>) -> Result<(), ChangeRefusal> {
            Err(ChangeRefusal::Failed("the store is read-only".to_owned()))
        }

        async fn activate(&self, name: &str) -> Result<(), ActivateRefusal> {
            match self.0.lock().unwrap().get_mut(name) {
                None => Err(ActivateRefusal::State(BucketTypeState::Undefined)),
                Some((active, _)) => {
                    *active = true;
                    Ok(())
                }
            }
        }
    }

    impl Inspector for Types {
        async fn inspect(&self, inspection: Inspection) -> Result<Inspected, String> {
            Err(format!("nothing at {:?}", inspection.key))
        }

        fn failure(&self) -> Option<String> {
            None
        }

        fn durable_counts(&self) -> DurableCounts {
            DurableCounts { writes: 3, syncs: 2 }
        }

        fn store_measures(&self) -> Vec<(&'static str, u64)> {
            vec![("bytes", 5)]
        }
    }

    impl MapAdmin for Types {
        async fn map_get(&self, place: MapPlace) -> Result<Option<MapValue>, String> {
            let value = WireBytes(place.key.into());
            Ok(Some(MapValue { value, version: 3 }))
        }

        async fn map_change(&self, _: MapPlace, change: MapChange) -> Result<ControlReply, String> {
            Err(format!("no {change:?}"))
        }

        async fn feed(&self, standby: StandbyRequest, tell: Box<dyn Fn(StandbyProgress) + Send + Sync + '_>) -> String {
            tell(StandbyProgress { keys: 7, ..StandbyProgress::default() });
            tokio::time::sleep(Duration::from_millis(50)).await;
            format!("no way to {}", standby.to)
        }
    }

    fn start(data_dir: &Path) -> (JoinHandle<()>, CancellationToken) {
        let shutdown = CancellationToken::new();
        let server = ControlServer::bind(data_dir).unwrap();
        let served = server.serve(Arc::new(Types::default()), shutdown.clone());
        (tokio::spawn(served), shutdown)
    }

    async fn raw(data_dir: &Path, bytes: &[u8]) -> Result<ControlReply, String> {
        let mut stream = super::super::socket::connect(data_dir).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        match read_line(&mut BufReader::new(stream)).await.unwrap() {
            Line::Whole(line) => decode(&line),
            other => panic!("no reply: {other:?}"),
        }
    }

    #[tokio::test]
    async fn requests_are_answered_until_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        // The way a deep data directory looks: over 107 bytes, which no socket path may have.
        let data_dir = dir.path().join("x".repeat(100)).join("y".repeat(200));
        std::fs::create_dir_all(&data_dir).unwrap();
        let (served, shutdown) = start(&data_dir);
        let socket = data_dir.join(SOCKET_NAME);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let ask = async |message: ControlRequest| request(&data_dir, &message).await.unwrap();
        let name = |name: &str| name.to_owned();
        let create = |name: &str, json: Option<&str>| ControlRequest::BucketTypeCreate {
            name: name.to_owned(),
            props_json: json.map(str::to_owned),
        };
        assert_eq!(
            ask(create("b", Some(r#"{"props":{"w":2,"n_val":1}}"#))).await,
            ControlReply::BucketTypeCreated { none_active: true }
        );
        assert_eq!(
            ask(ControlRequest::BucketTypeStatus { name: name("b") }).await,
            ControlReply::BucketTypeStatus {
                state: BucketTypeState::Ready,
                props: vec![(name("n_val"), name("1")), (name("w"), name("2"))],
            }
        );
        assert_eq!(
            ask(ControlRequest::BucketTypeActivate { name: name("b") }).await,
            ControlReply::BucketTypeActivated { none_active: true }
        );
        assert_eq!(ask(create("a", None)).await, ControlReply::BucketTypeCreated { none_active: false });
        assert_eq!(
            ask(ControlRequest::BucketTypeActivate { name: name("c") }).await,
            ControlReply::BucketTypeStatus { state: BucketTypeState::Undefined, props: vec![] }
        );
        let entry = |name: &str, active| BucketTypeEntry { name: name.to_owned(), active };
        assert_eq!(
            ask(ControlRequest::BucketTypeList).await,
            ControlReply::BucketTypeList { types: vec![entry("a", false), entry("b", true)] }
        );
        assert_eq!(
            ask(create("d", Some(r#"{"props":{"bad":1}}"#))).await,
            ControlReply::BucketTypeRefused { reasons: vec![name("one"), name("two")] }
        );
        assert_eq!(
            ask(create("d", Some("{"))).await,
            ControlReply::BucketTypeBadProps { problem: PropsProblem::InvalidJson }
        );
        let update =
            |json: &str| ControlRequest::BucketTypeUpdate { name: "b".to_owned(), props_json: json.to_owned() };
        assert_eq!(ask(update("{}")).await, ControlReply::BucketTypeBadProps { problem: PropsProblem::NoPropsField });
        assert_eq!(
            ask(update(r#"{"props":{}}"#)).await,
            ControlReply::Failed { reason: name("the store is read-only") }
        );
        assert!(matches!(ask(ControlRequest::Status).await, ControlReply::Status { .. }));

        shutdown.cancel();
        served.await.unwrap();
        assert!(!socket.exists());
        let error = request(&data_dir, &ControlRequest::Status).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("No Ombak server is running on data directory {} (no control socket)", data_dir.display())
        );
    }

    #[tokio::test]
    async fn a_feed_is_told_about_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (_served, _shutdown) = start(dir.path());
        let standby = StandbyRequest { to: "h:1".to_owned(), compare_all: false };
        let mut replies = request_stream(dir.path(), &ControlRequest::MapBackup { standby }).await.unwrap();
        let progress = StandbyProgress { keys: 7, ..StandbyProgress::default() };
        assert_eq!(replies.next().await.unwrap(), ControlReply::MapBackup { progress });
        assert_eq!(replies.next().await.unwrap(), ControlReply::Failed { reason: "no way to h:1".to_owned() });
        assert!(replies.next().await.is_err());
    }

    #[tokio::test]
    async fn garbage_is_answered_and_the_connection_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (_served, _shutdown) = start(dir.path());
        let mut stream = super::super::socket::connect(dir.path()).await.unwrap();
        stream.write_all(b"\xff\x00garbage\n\n").await.unwrap();
        stream.write_all(&encode(&ControlRequest::BucketTypeList).unwrap()).await.unwrap();
        stream.write_all(b"\n").await.unwrap();
        let mut reader = BufReader::new(stream);
        for _ in 0..2 {
            let Line::Whole(line) = read_line(&mut reader).await.unwrap() else {
                panic!("no reply to garbage");
            };
            let Ok(ControlReply::Failed { reason }) = decode(&line) else {
                panic!("garbage was understood");
            };
            assert!(reason.starts_with("request not understood: "), "{reason}");
        }
        assert!(matches!(read_line(&mut reader).await.unwrap(), Line::Whole(_)));
    }

    #[tokio::test]
    async fn what_is_done_for_a_peer_ends_when_it_leaves_and_only_then() {
        let pair = || {
            let (peer, stream) = UnixStream::pair().unwrap();
            let (reader, writer) = stream.into_split();
            (peer, BufReader::new(reader), writer)
        };
        let work = async || tokio::time::sleep(Duration::from_millis(100)).await;
        let (peer, mut reader, _writer) = pair();
        drop(peer);
        assert_eq!(while_there(&mut reader, std::future::pending::<()>()).await, None);
        let (mut peer, mut reader, _writer) = pair();
        peer.shutdown().await.unwrap();
        assert_eq!(while_there(&mut reader, work()).await, Some(()));
        let (mut peer, mut reader, _writer) = pair();
        peer.write_all(b"ahead").await.unwrap();
        assert_eq!(while_there(&mut reader, work()).await, Some(()));
        assert_eq!(reader.fill_buf().await.unwrap(), b"ahead");
    }

    #[tokio::test]
    async fn an_oversized_line_ends_its_connection_only() {
        let dir = tempfile::tempdir().unwrap();
        let (_served, _shutdown) = start(dir.path());
        let reply = raw(dir.path(), &vec![b'x'; LINE_SIZE_BYTES_MAX + 1]).await;
        let reason = ControlError::LineTooLong.to_string();
        assert_eq!(reply, Ok(ControlReply::Failed { reason }));
        let long = ControlRequest::BucketTypeStatus { name: "x".repeat(LINE_SIZE_BYTES_MAX) };
        let error = request(dir.path(), &long).await.unwrap_err();
        assert!(matches!(error, ControlError::LineTooLong));
        assert!(request(dir.path(), &ControlRequest::Status).await.is_ok());
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_server_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        drop(ControlServer::bind(dir.path()).unwrap());
        let error = request(dir.path(), &ControlRequest::Status).await.unwrap_err();
        assert!(matches!(error, ControlError::NoServer { .. }), "{error}");
        let (_served, _shutdown) = start(dir.path());
        assert!(request(dir.path(), &ControlRequest::Status).await.is_ok());

        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(SOCKET_NAME), "mine").unwrap();
        let error = ControlServer::bind(other.path()).unwrap_err();
        assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
        let missing = other.path().join("missing");
        assert!(matches!(ControlServer::bind(&missing), Err(ControlError::Bind { .. })));
        let error = request(&missing, &ControlRequest::Status).await.unwrap_err();
        assert!(matches!(error, ControlError::NoServer { .. }), "{error}");
    }
}
