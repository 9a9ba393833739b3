//! Puts other sites in force while the service runs.
//!
//! A beacon must find a site only when all is ready for its first view: the ledger has given it a place, the
//! series are there, and salts are drawn, those of the store where it answers. So the writer, which owns the
//! salts, takes them in between two of its turns, and then puts them in force.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::turn::Writer;
use crate::sites::{NoPlace, Sites};
use crate::totals::store::contract::Store;
use crate::totals::{STORE_PATIENCE, Totals};

/// Sites on their way to the writer.
pub struct Registration {
    wanted: Sites,
    done: oneshot::Sender<Result<(), NoPlace>>,
}

impl Totals {
    /// Puts these sites in force. A site that is not among them any more is refused from then on, and what
    /// was taken of it is counted; one that stays keeps its place and its calendar.
    ///
    /// # Errors
    /// Too many were added: nothing has changed.
    pub async fn register(&self, wanted: Sites) -> Result<(), NoPlace> {
        let (done, answer) = oneshot::channel();
        // Without a writer the service stops, and needs no sites.
        self.registrations.send(Registration { wanted, done }).await.ok();
        answer.await.unwrap_or(Ok(()))
    }
}

impl<S: Store> Writer<S> {
    /// Takes other sites in and puts them in force.
    pub async fn register(&mut self, Registration { wanted, done }: Registration) {
        let now = self.shared.clock.now();
        let placed = {
            let mut ledger = self.shared.ledger();
            self.sites.replaced_by(&wanted, |site| ledger.register(site, now))
        };
        let answer = placed.map(Arc::new);
        if let Ok(sites) = &answer {
            self.sites = sites.clone();
            self.shared.metrics.register(sites);
            // The store is attached anew, and asked for the new ones: all instances begin with the same.
            self.draw_salts();
            self.pace.calendars_noted = false;
            tokio::time::timeout(STORE_PATIENCE, self.send()).await.ok();
            self.shared.sites.replace(sites.clone());
        }
        // Whoever asked may have gone.
        done.send(answer.map(drop)).ok();
    }
}
