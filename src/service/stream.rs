//! Answers of many replies, which a task of their own makes.

use tokio::sync::mpsc;

use super::Answer;
use crate::message::Reply;

/// Replies that are made ahead of the connection.
const REPLIES_AHEAD: usize = 2;

/// An answer of the replies that `make` sends until it ends. Where nobody takes them any more, because the client left, it is
/// dropped, whatever it waits for: it may have nothing to send for a long time. Must be called inside a tokio runtime.
pub(super) fn stream<F>(make: impl FnOnce(mpsc::Sender<Reply>) -> F) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(REPLIES_AHEAD);
    let making = make(sender.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = sender.closed() => {}
            () = making => {}
        }
    });
    Answer::Stream(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_made_no_more_though_there_is_nothing_to_send() {
        let (ended, held) = mpsc::channel::<()>(1);
        let answer = stream(|sender| async move {
            let _held = held;
            assert!(sender.send(Reply::Ping).await.is_ok());
            std::future::pending().await
        });
        let Answer::Stream(mut replies) = answer else { panic!("{answer:?}") };
        assert_eq!(replies.recv().await, Some(Reply::Ping));
        assert!(!ended.is_closed());
        drop(replies);
        // A making that goes on keeps this open for ever.
        tokio::time::timeout(std::time::Duration::from_secs(60), ended.closed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_makes_it() {
        let answer = stream(|sender| async move {
            let _ = sender.send(Reply::Ping).await;
        });
        let Answer::Stream(mut replies) = answer else { panic!("{answer:?}") };
        assert_eq!(replies.recv().await, Some(Reply::Ping));
        assert_eq!(replies.recv().await, None);
    }
}
