//! `/events`: the status page as server-sent events (HTML Standard 9.2), one every other second.
//!
//! Each event is the whole page, rendered once for all browsers. A stream ends before its connection would be closed, and
//! the browser opens another. A browser beyond [`LISTENERS`] gets 503, and fetches the page instead.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures_util::stream;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{Pages, page, router::refusal};
use crate::clock::{self, Moment};

/// The most browsers that follow the page.
const LISTENERS: u32 = 16;
/// The time between two events.
const PERIOD: Duration = Duration::from_secs(2);
/// The age at which a page that was rendered for another browser is rendered anew.
const FRESH: Duration = Duration::from_secs(1);
/// The time of a stream, less than a connection's.
const LIFETIME: Duration = Duration::from_secs(50);
/// How soon the browser opens the next stream.
const RETRY: Duration = Duration::from_secs(1);
/// How long a stop waits for the streams to end.
const CLOSING: Duration = Duration::from_millis(50);

/// The status page, as browsers follow it.
#[derive(Debug)]
pub struct LivePage {
    places: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    rendered: Mutex<Option<(Moment, Arc<str>)>>,
}

impl Default for LivePage {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTENERS as usize)),
            stopping: watch::Sender::new(false),
            rendered: Mutex::default(),
        }
    }
}

impl LivePage {
    /// Ends every stream, and waits for a moment until they have ended.
    pub async fn close(&self) {
        self.stopping.send_replace(true);
        drop(timeout(CLOSING, self.places.acquire_many(LISTENERS)).await);
    }

    fn render(&self, pages: &Pages) -> Arc<str> {
        let now = Moment::now();
        let mut rendered = self.rendered.lock();
        if let Some((at, page)) = &*rendered
            && now.since(*at) < FRESH
        {
            return Arc::clone(page);
        }
        let page: Arc<str> = status_page(pages).into();
        *rendered = Some((now, Arc::clone(&page)));
        page
    }
}

/// The status page as it is now.
pub(super) fn status_page(pages: &Pages) -> String {
    page::page(&(pages.status)(), &(pages.perimeter)(), &(pages.top)(), clock::wall().as_secs())
}

/// One browser.
struct Listener {
    pages: Pages,
    stopping: watch::Receiver<bool>,
    next: Instant,
    end: Instant,
    /// Held for as long as the stream lives.
    _place: OwnedSemaphorePermit,
}

/// The stream.
pub(super) async fn events(State(pages): State<Pages>) -> Response {
    let Ok(place) = Arc::clone(&pages.live.places).try_acquire_owned() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "enough browsers follow this page; fetch it instead");
    };
    let (stopping, now) = (pages.live.stopping.subscribe(), Instant::now());
    let listener = Listener { pages, stopping, next: now, end: now + LIFETIME, _place: place };
    Sse::new(stream::unfold(listener, next)).into_response()
}

async fn next(mut listener: Listener) -> Option<(Result<Event, Infallible>, Listener)> {
    tokio::select! {
        biased;
        _ = listener.stopping.wait_for(|stopping| *stopping) => return None,
        () = sleep_until(listener.next.min(listener.end)) => {}
    }
    if listener.next >= listener.end {
        return None;
    }
    listener.next = Instant::now() + PERIOD;
    let page = listener.pages.live.render(&listener.pages);
    Some((Ok(Event::default().event("page").retry(RETRY).data(page)), listener))
}
