//! The ways in which clients leave, and that their work ends then.

use std::os::fd::AsRawFd;
use std::time::Duration;

use ombak::message::generated::RpbMapRedReq;
use ombak::message::{Reply, Request};
use socket2::SockRef;

use crate::requests::put;
use crate::support::{Connection, Server};

/// As a process does that is killed with replies unread, or a machine that has started anew.
pub fn by_reset(connection: Connection) {
    SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(connection);
}

/// As most do. Its system forgets the socket after a second and not after a minute.
fn by_closing(connection: Connection) {
    let (seconds, length): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
    let socket = connection.stream.as_raw_fd();
    // SAFETY: the pointer is to an integer that lives through the call, and the length is that of an integer.
    let set = unsafe {
        libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_LINGER2, std::ptr::from_ref(&seconds).cast(), length)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    drop(connection);
}

/// A server that runs one function in JavaScript at a time: while one goes on, others wait.
fn server() -> Server {
    let server = Server::start_with(&[
        ("OMBAK_MAPREDUCE_JAVASCRIPT", "true"),
        ("OMBAK_MAPREDUCE_JAVASCRIPT_ENGINES_MAX", "1"),
        ("OMBAK_MAPREDUCE_JAVASCRIPT_TIMEOUT_MS_MAX", "600000"),
        ("OMBAK_KEEPALIVE_MS", "1000"),
    ]);
    assert!(matches!(server.connect().ask(&put("default", "b", "k", "v")), Reply::Put(_)));
    server
}

/// Sends a job that calls a function with one object.
fn send_job(connection: &mut Connection, function: &str) {
    let job = format!(
        r#"{{"inputs":[["b","k"]],"query":[{{"map":{{"language":"javascript","source":"{function}"}}}}],"timeout":600000}}"#
    );
    let request = RpbMapRedReq { request: Some(job.into()), content_type: Some("application/json".into()) };
    let request = Request::MapReduce(request);
    connection.send_frame(request.code().number(), &request.encode());
}

fn expect_job_answered(connection: &mut Connection) {
    let mut next = || {
        let (code, payload) = connection.receive();
        match Reply::decode(code, payload.into()).unwrap() {
            Reply::MapReduce(reply) => (reply.response.map(|response| response.to_vec()), reply.done),
            reply => panic!("{reply:?}"),
        }
    };
    assert_eq!(next(), (Some(b"[1]".to_vec()), None));
    assert_eq!(next(), (None, Some(true)));
}

const FOR_EVER: &str = "function() { for (;;) {} }";
const ONE: &str = "function() { return [1] }";

fn expect_end_of_job_when_its_client_leaves(leave: fn(Connection)) {
    let server = server();
    let mut first = server.connect();
    send_job(&mut first, FOR_EVER);
    std::thread::sleep(Duration::from_millis(500));
    let mut second = server.connect();
    send_job(&mut second, ONE);
    leave(first);
    expect_job_answered(&mut second);
}

#[test]
fn a_job_ends_when_its_client_resets_the_connection() {
    expect_end_of_job_when_its_client_leaves(by_reset);
}

#[test]
fn a_job_ends_when_its_client_closes_the_connection() {
    expect_end_of_job_when_its_client_leaves(by_closing);
}

#[test]
fn a_job_goes_on_for_a_client_that_closes_its_sending_side() {
    let server = server();
    let mut first = server.connect();
    send_job(&mut first, FOR_EVER);
    std::thread::sleep(Duration::from_millis(500));
    let mut second = server.connect();
    send_job(&mut second, ONE);
    second.half_close();
    // Its system is asked several times meanwhile.
    std::thread::sleep(Duration::from_secs(4));
    by_reset(first);
    expect_job_answered(&mut second);
    second.expect_end();
}
