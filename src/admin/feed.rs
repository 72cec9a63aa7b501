//! The status, once a second, to everybody who follows it: made once however many there are, and not at all while nobody
//! does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{Access, AdminSource};

/// Sends on what the source says.
pub(super) struct Feed {
    source: Arc<dyn AdminSource + Send + Sync>,
    news: watch::Sender<Option<News>>,
    places: Arc<Semaphore>,
    followed: Notify,
}

/// One event, and who might have it.
#[derive(Debug, Clone)]
struct News {
    access: Access,
    event: Bytes,
}

/// What is answered: at once, or for as long as somebody reads.
pub(super) enum Body {
    /// All of it.
    Whole(Full<Bytes>),
    /// Events.
    Events(Following),
}

/// The events of one who follows.
pub(super) struct Following {
    first: Option<Bytes>,
    /// Events to come.
    left: u32,
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    /// Who let him in: when a reload changes that, he has to ask again.
    access: Access,
    _place: OwnedSemaphorePermit,
}

/// What comes next, and what comes after it; none: nothing more.
type Next = Option<(News, watch::Receiver<Option<News>>)>;

impl Feed {
    pub(super) fn new(source: Arc<dyn AdminSource + Send + Sync>) -> Self {
        let (news, _) = watch::channel(None);
        Self { source, news, places: Arc::new(Semaphore::new(FOLLOWERS)), followed: Notify::new() }
    }

    /// All events from now on, after the `first`; none if too many follow already.
    pub(super) fn follow(&self, first: Bytes) -> Option<Following> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut receiver = self.news.subscribe();
        receiver.mark_unchanged();
        self.followed.notify_one();
        let access = self.source.access();
        Some(Following { first: Some(first), left: EVENTS, next: Box::pin(next(receiver)), access, _place: place })
    }

    /// Makes the events.
    pub(super) async fn run(&self) {
        loop {
            let followed = self.followed.notified();
            if self.news.receiver_count() == 0 {
                followed.await;
            }
            self.feed().await;
        }
    }

    /// As long as somebody follows.
    async fn feed(&self) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            if self.news.receiver_count() == 0 {
                return;
            }
            let source = Arc::clone(&self.source);
            let made = tokio::task::spawn_blocking(move || News {
                access: source.access(),
                event: event(news(source.status())),
            });
            if let Ok(news) = made.await {
                self.news.send_replace(Some(news));
            }
        }
    }
}

async fn next(mut receiver: watch::Receiver<Option<News>>) -> Next {
    receiver.changed().await.ok()?;
    let news = receiver.borrow_and_update().clone()?;
    Some((news, receiver))
}

/// A status as an event (HTML, section 9.2.5). JSON in one line has no line break.
pub(super) fn event(status: Value) -> Bytes {
    format!("event: status\ndata: {status}\n\n").into()
}

/// Of the curves the newest values alone: the others are known from the first event.
fn news(mut status: Value) -> Value {
    let upstreams = status.get_mut("upstreams").and_then(Value::as_array_mut);
    let curves = upstreams.into_iter().flatten().filter_map(|upstream| upstream.get_mut("curves")?.as_object_mut());
    for values in curves.flat_map(|curves| curves.values_mut()).filter_map(Value::as_array_mut) {
        values.drain(..values.len().saturating_sub(VALUES));
    }
    status
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Events(following) => following.poll(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

impl Following {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        let Some((news, receiver)) = ready!(self.next.as_mut().poll(cx)) else { return Poll::Ready(None) };
        self.left = left;
        self.next = Box::pin(next(receiver));
        Poll::Ready((news.access == self.access).then_some(news.event))
    }
}

/// A team and its wall screen; the other places of the listener are for scrapers and orders.
pub(super) const FOLLOWERS: usize = 16;
/// Between two events.
const PERIOD: Duration = Duration::from_secs(1);
/// After so many he has to ask again: in order, before the listener's bound of a connection cuts him off.
const EVENTS: u32 = 540;
/// Of each curve in an event: one may be skipped by somebody who reads slowly.
const VALUES: usize = 5;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::super::tests::Known;
    use super::*;

    async fn text(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_follow_get_the_same_and_nothing_is_made_for_nobody() {
        let known = Arc::new(Known::default());
        let feed = Arc::new(Feed::new(Arc::clone(&known) as _));
        let running = Arc::clone(&feed);
        let running = tokio::spawn(async move { running.run().await });
        tokio::time::advance(100 * PERIOD).await;
        assert_eq!(known.asked(), 0);
        let follow = || Body::Events(feed.follow(Bytes::from_static(b"first")).unwrap());
        let mut both = [follow(), follow()];
        for body in &mut both {
            assert_eq!(text(body).await.as_deref(), Some("first"));
        }
        for body in &mut both {
            assert_eq!(text(body).await.as_deref(), Some("event: status\ndata: {\"upstreams\":[]}\n\n"));
        }
        assert_eq!(known.asked(), 1);
        drop(both);
        tokio::time::sleep(100 * PERIOD).await;
        assert!(known.asked() <= 2, "{}", known.asked());
        let mut again = follow();
        text(&mut again).await.unwrap();
        text(&mut again).await.unwrap();
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_come_back() {
        let feed = Feed::new(Arc::new(Known::default()));
        let all: Vec<_> = (0..FOLLOWERS).map(|_| feed.follow(Bytes::new()).unwrap()).collect();
        assert!(feed.follow(Bytes::new()).is_none());
        drop(all);
        assert!(feed.follow(Bytes::new()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_let_in_by_an_old_token_has_to_ask_again() {
        let known = Arc::new(Known::default());
        let feed = Arc::new(Feed::new(Arc::clone(&known) as _));
        let mut body = Body::Events(feed.follow(Bytes::from_static(b"first")).unwrap());
        text(&mut body).await.unwrap();
        known.renew();
        let running = Arc::clone(&feed);
        let running = tokio::spawn(async move { running.run().await });
        assert_eq!(text(&mut body).await, None);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn events_end_in_order_before_the_connection_is_cut() {
        let feed = Arc::new(Feed::new(Arc::new(Known::default())));
        let running = Arc::clone(&feed);
        let running = tokio::spawn(async move { running.run().await });
        let mut body = Body::Events(feed.follow(Bytes::from_static(b"first")).unwrap());
        let clock = crate::clock::Clock::default();
        let begin = clock.now();
        let mut count = 0;
        while text(&mut body).await.is_some() {
            count += 1;
        }
        assert_eq!(count, EVENTS + 1);
        assert!(clock.now() < begin + super::super::serve::LIFETIME);
        running.abort();
    }

    #[test]
    fn an_event_has_the_newest_values_alone() {
        let status = json!({ "upstreams": [{ "curves": { "newest": 9, "busy": [1, 2, 3, 4, 5, 6, 7] } }] });
        let expected = json!({ "upstreams": [{ "curves": { "newest": 9, "busy": [3, 4, 5, 6, 7] } }] });
        assert_eq!(news(status), expected);
        assert_eq!(news(Value::Null), Value::Null);
    }
}
