//! The open group: the views of one turn of the event loop, which reach the journal together and are
//! answered together.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::ingest::Reason;
use crate::sites::SiteId;
use crate::totals::disk::frame::FRAME_HEADER;
use crate::totals::tally::CountedView;

/// A group with more memory than this for its records is not used again.
const MOST_MEMORY: usize = 1 << 20;

/// Views that are written together. Whether a view is a visit is decided when it is written.
pub struct Group {
    /// Room for the frame's header, and the records.
    pub records: Vec<u8>,
    /// Bytes of the records by site, one after the other.
    pub bytes: Vec<(SiteId, usize)>,
    pub views: Vec<CountedView>,
    pub done: Arc<Done>,
}

impl Default for Group {
    fn default() -> Self {
        Group { records: vec![0; FRAME_HEADER], bytes: Vec::new(), views: Vec::new(), done: Arc::default() }
    }
}

impl Group {
    /// Makes it a new group. Its memory is used again, except what a burst took.
    pub fn renew(&mut self) {
        let Group { mut records, mut bytes, mut views, .. } = std::mem::take(self);
        if records.capacity() < MOST_MEMORY {
            records.truncate(FRAME_HEADER);
            bytes.clear();
            views.clear();
            (self.records, self.bytes, self.views) = (records, bytes, views);
        }
    }
}

/// How a group ended, and who waits to know.
#[derive(Default)]
pub struct Done(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    outcome: Option<Result<(), Reason>>,
    wakers: Vec<Waker>,
}

impl Done {
    /// Tells everyone.
    pub fn finish(&self, outcome: Result<(), Reason>) {
        let ended = Waiting { outcome: Some(outcome), wakers: Vec::new() };
        let waiting = std::mem::replace(&mut *self.lock(), ended);
        waiting.wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the view's group is written (and synced, as configured), or undone: then the promise of
/// a 204 cannot be kept. Dropping it changes nothing: the view is counted or undone with its group.
pub struct Written {
    pub(super) group: Arc<Done>,
    /// The index of its waker among those of the group.
    pub(super) place: Option<usize>,
}

impl Future for Written {
    type Output = Result<(), Reason>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Written { group, place } = &mut *self;
        let Waiting { outcome, wakers } = &mut *group.lock();
        if let Some(outcome) = outcome {
            return Poll::Ready(*outcome);
        }
        match place.and_then(|place| wakers.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *place = Some(wakers.len());
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}
