//! Response streams that end when they must, also where their client takes nothing: HTTP/2 asks a stream for its next message only when
//! there is room for it, so what lives in such a stream would never hear that its time is over.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;
use tracing::Instrument as _;

/// How often a stream whose client takes nothing is asked whether it may go on.
const CHECK: Duration = Duration::from_millis(500);

/// Runs `steps` in a task of its own, one message ahead of the client. It ends with the first error, when the client goes, and when
/// `ended` has a reason while a message waits for the client; what `steps` holds is dropped then, whether or not anybody reads the end.
pub fn driven<T: Send + 'static>(
    steps: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ended: impl Fn() -> Option<Status> + Send + 'static,
) -> BoxStream<T> {
    let (sender, receiver) = mpsc::channel(1);
    // What it logs belongs to the call.
    let driver = tokio::spawn(drive(Box::pin(steps), sender, ended).in_current_span());
    let end = stream::once(async move {
        match driver.await {
            Ok(end) => end,
            // Whoever reads the stream knows what to do with that.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Some(Status::unavailable("the stream was ended")),
            },
        }
    });
    let end = end.filter_map(|end| std::future::ready(end.map(Err)));
    Box::pin(ReceiverStream::new(receiver).map(Ok).chain(end))
}

async fn drive<T>(
    mut steps: Pin<Box<impl Stream<Item = Result<T, Status>>>>,
    sender: mpsc::Sender<T>,
    ended: impl Fn() -> Option<Status>,
) -> Option<Status> {
    loop {
        let step = tokio::select! {
            () = sender.closed() => return None,
            step = steps.next() => step?,
        };
        let step = match step {
            Ok(step) => step,
            Err(status) => return Some(status),
        };
        let place = loop {
            tokio::select! {
                place = sender.reserve() => break place.ok()?,
                () = tokio::time::sleep(CHECK) => if let Some(status) = ended() { return Some(status) },
            }
        };
        place.send(step);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    /// Counts for ever; the flag is alone again when it is dropped.
    fn counting(flag: &Arc<AtomicBool>) -> impl Stream<Item = Result<u32, Status>> + use<> {
        stream::unfold((0, Arc::clone(flag)), |(count, flag)| async move { Some((Ok(count), (count + 1, flag))) })
    }

    async fn dropped(flag: &Arc<AtomicBool>) {
        let gone = async {
            while Arc::strong_count(flag) > 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the stream is dropped");
    }

    #[tokio::test]
    async fn messages_come_in_order_and_then_the_error() {
        let steps = counting(&Arc::default()).take(3).chain(stream::iter([Err(Status::aborted("why")), Ok(9)]));
        let told: Vec<_> = driven(steps, || None).map(|step| step.map_err(|status| status.code())).collect().await;
        assert_eq!(told, [Ok(0), Ok(1), Ok(2), Err(tonic::Code::Aborted)]);
        let told: Vec<_> = driven(counting(&Arc::default()).take(2), || None).map(Result::unwrap).collect().await;
        assert_eq!(told, [0, 1], "one that ends by itself has no error");
    }

    #[tokio::test]
    async fn one_that_nobody_reads_ends_when_its_time_is_over() {
        let (held, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let kept = Arc::clone(&held);
        let is_over = Arc::clone(&over);
        let ended = move || is_over.load(Ordering::Relaxed).then(|| Status::unauthenticated("over"));
        let stream = driven(counting(&held), ended);
        tokio::time::sleep(CHECK * 3).await;
        assert!(Arc::strong_count(&held) > 2, "it waits for its client");
        over.store(true, Ordering::Relaxed);
        dropped(&kept).await;
        let told: Vec<_> = stream.map(|step| step.map_err(|status| status.code())).collect().await;
        assert_eq!(told, [Ok(0), Err(tonic::Code::Unauthenticated)]);
    }

    #[tokio::test]
    async fn one_whose_client_goes_is_dropped() {
        let held = Arc::new(AtomicBool::new(false));
        let kept = Arc::clone(&held);
        let mut stream = driven(counting(&held), || None);
        assert!(stream.next().await.is_some());
        drop(stream);
        dropped(&kept).await;
    }

    #[tokio::test]
    async fn a_panic_reaches_whoever_reads() {
        let steps = stream::once(async { panic!("of the test") });
        let mut stream = driven::<u32>(steps, || None);
        assert!(AssertUnwindSafe(stream.next()).catch_unwind().await.is_err());
    }
}
