//! Puts other sites in force while the service runs.
//!
//! A beacon must find a site only when all is ready for its first view: the tally has given it a place, the
//! series are there, and salts are drawn, those of the store where it answers. So the writer, which owns the
//! salts, takes them in between two of its turns, and then puts them in force.

use std::sync::Arc;

use super::mailbox::Registration;
use super::turn::{STORE_PATIENCE, Writer};
use crate::totals::store::contract::Store;

impl<S: Store> Writer<S> {
    /// Takes other sites in and puts them in force. A site that is not among them any more is refused from then
    /// on, and what was taken of it is counted; one that stays keeps its place and its calendar.
    pub async fn register(&mut self, Registration { wanted, done }: Registration) {
        let now = self.shared.clock.now();
        let placed = {
            let mut tally = self.shared.tally();
            self.delivery.sites.replaced_by(&wanted, |site| tally.place(site, now).index())
        };
        let answer = placed.map(Arc::new);
        if let Ok(sites) = &answer {
            self.delivery.sites = sites.clone();
            self.delivery.calendars_noted = None;
            self.shared.metrics.sites.register(sites);
            // The store is attached anew, and asked for the new ones: all instances begin with the same.
            self.draw_salts();
            tokio::time::timeout(STORE_PATIENCE, self.send()).await.ok();
            self.sessions.share_among(sites.iter().len());
            self.shared.intake.share_among(sites.iter().len());
            // Aliases may have been learned since.
            self.shared.sites.store(self.delivery.sites.clone());
        }
        // Whoever asked may have gone.
        done.send(answer.map(drop)).ok();
    }
}
