//! Deadlines of requests. Tonic keeps them too, but says CANCELLED where gRPC has DEADLINE_EXCEEDED.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Layer;

/// Answers requests whose time is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineLayer {
    /// How long a request may take that asks for more or for nothing, its arrival included: it holds a place meanwhile that others
    /// wait for.
    pub(super) time_max: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, time_max: self.time_max }
    }
}

/// A service whose answers come in time. Streams that have begun are not its business: their callers end them.
#[derive(Clone, Debug)]
pub(super) struct Deadline<S> {
    inner: S,
    time_max: Duration,
}

impl<S, A, B> Service<Request<A>> for Deadline<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(ctx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let arrived = Instant::now();
        let time_left = time_left(request.headers()).unwrap_or(self.time_max).min(self.time_max);
        let answer = self.inner.call(request);
        // Tonic's own timer begins after this one, and looks at the answer first.
        Box::pin(async move {
            // What is too late already is not begun: an answer that needs no waiting would come all the same.
            let late = || Ok(Status::deadline_exceeded("the deadline has passed").into_http());
            if arrived.elapsed() >= time_left {
                return late();
            }
            timeout(time_left, answer).await.unwrap_or_else(|_| late())
        })
    }
}

/// What the header `grpc-timeout` says: up to eight digits and a unit. Anything else counts as none.
fn time_left(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().next_back()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn headers(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())])
    }

    #[test]
    fn timeouts_have_a_unit() {
        for (text, time) in [
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("1S", Some(Duration::from_secs(1))),
            ("5m", Some(Duration::from_millis(5))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("5", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("123456789S", None),
            ("1s", None),
        ] {
            assert_eq!(time_left(&headers(text)), time, "{text}");
        }
        assert_eq!(time_left(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_time_is_up_is_told_so() {
        let slow = tower::service_fn(|_: Request<()>| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, Infallible>(Response::new(String::from("done")))
        });
        let mut service = DeadlineLayer { time_max: Duration::from_secs(10) }.layer(slow);
        let mut ask = async |text| {
            let mut request = Request::new(());
            *request.headers_mut() = headers(text);
            service.call(request).await.unwrap()
        };
        let never = ask("0n").await;
        assert_eq!(never.headers()["grpc-status"], "4");
        let late = ask("4S").await;
        assert_eq!(late.headers()["grpc-status"], "4");
        let in_time = ask("6S").await;
        assert_eq!((in_time.headers().get("grpc-status"), in_time.body().as_str()), (None, "done"));
    }
}
