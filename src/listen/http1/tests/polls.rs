//! How often an answer that is not there yet is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_is_polled_when_it_is_asked_for_and_when_it_wakes() {
    let (wake, woken) = oneshot::channel::<()>();
    let (woken, polls) = (Mutex::new(Some(woken)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&polls);
    let handler = Handler::new(move |_| {
        let (mut woken, polls) = (woken.lock().take().unwrap(), Arc::clone(&polls));
        std::future::poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut woken).poll(cx).map(|_| text("late"))
        })
    });
    let mut rig = Rig::new(handler);
    rig.send(GET).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    wake.send(()).unwrap();
    rig.read_to("late").await;
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}
