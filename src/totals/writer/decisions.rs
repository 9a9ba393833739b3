//! Orders of operators, carried out between two turns: the writer alone owns what they change, and a service
//! that runs goes on taking views meanwhile.
//!
//! An order comes from a command, through the control socket of a running service or, where none runs, from
//! the command's own process, which has opened the totals itself.
//!
//! To add one: a variant of [`Order`], whose fields are its JSON, and an arm in [`Writer::obey`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entries::Meanwhile;
use super::mailbox::{Order, OrderRequest};
use super::reads::ClosedDays;
use super::turn::Writer;
use crate::totals::delivery::Reason;
use crate::totals::store::contract::{Store, WriterId};

impl<S: Store> Writer<S> {
    /// Carries out an order.
    pub async fn obey(&mut self, request: OrderRequest) {
        let OrderRequest { order, done } = request;
        tracing::info!(?order, "an operator orders");
        let answer = match order {
            Order::Refill { dry_run } => {
                let said = self.delivery.refill(dry_run).await;
                self.go_on(said, dry_run).await
            }
            Order::AcceptEmpty { dry_run } => {
                let said = self.delivery.accept_empty(dry_run).await;
                self.go_on(said, dry_run).await
            }
            Order::Drain => self.drain().await,
            Order::Retire { writer, force } => {
                return self.begin_retiring(WriterId(writer.into()), force, done).await;
            }
            Order::Enter(entering) => self.in_turn(async |writer| writer.enter(&entering).await).await,
            Order::Undo { site, number, intent } => {
                let site = site.as_deref();
                self.in_turn(async |writer| writer.undo(site, number, intent.clone()).await).await
            }
            Order::Entries { site, number } => self.entries(site.as_deref(), number).await,
            Order::Move(moving) => self.in_turn(async |writer| writer.move_pages(&moving).await).await,
            Order::EraseSite { site, intent } => self.erase_site(&site, intent).await,
            Order::Moves { site } => self.moves(site.as_deref()).await,
            Order::Job(job) => return self.begin_job(job, done).await,
        };
        OrderRequest::answer(done, answer.map_err(|reason| reason.to_string()));
    }

    /// Enters something that follows from what was entered before; anew where another instance entered something
    /// meanwhile. Its number is waited for as long as the store does.
    async fn in_turn(
        &mut self,
        enters: impl AsyncFn(&mut Self) -> Result<String, Reason>,
    ) -> Result<String, Reason> {
        loop {
            match enters(self).await {
                Err(why) if why.is::<Meanwhile>() => tokio::time::sleep(Duration::from_millis(100)).await,
                said => return said,
            }
        }
    }

    /// Brings the store up to date after a decision, and adds how that went.
    pub(super) async fn go_on(
        &mut self,
        said: Result<String, Reason>,
        dry_run: bool,
    ) -> Result<String, Reason> {
        let said = said?;
        if dry_run {
            return Ok(said);
        }
        self.refreshed_at = None;
        self.closed = ClosedDays::default();
        // The data set may be another one now.
        self.moves.clear();
        // What lies before the outbox may be gone from days that no batch touches.
        self.shared.tally().forget_past();
        self.delivery.retry_now();
        self.send().await;
        let away = || self.delivery.is_failing().then(|| "the store is away".to_owned());
        let waits = || self.more_waits.then(|| "batches that waited are being sent".to_owned());
        Ok(match self.delivery.why_held().or_else(away).or_else(waits) {
            Some(why) => format!("{said}\nthat is not done yet: {why}"),
            None => {
                format!("{said}\nthe store is up to date: {}", self.config.store.url.place(self.dir.path()))
            }
        })
    }

    async fn drain(&mut self) -> Result<String, Reason> {
        if self.shared.serves.load(Ordering::Acquire) {
            return Err("a service runs on this data_dir and goes on taking views; stop it first".into());
        }
        self.freeze().await;
        self.delivery.retry_now();
        // No service runs that this could keep waiting.
        self.send_all().await;
        let waiting = self.delivery.outbox.waiting();
        let is_held = !self.delivery.outbox.held().is_empty();
        if waiting > 0 || is_held || self.delivery.is_failing() || self.shared.tally().oldest_ms.is_some() {
            return Err(self.not_brought(waiting).into());
        }
        let (writer, not_removed) = self.delivery.give_up_identity().await?;
        let dir = self.dir.path().display();
        let done = format!(
            "everything is in the store, and {dir} may be deleted: it holds nothing more of writer {}",
            writer.0
        );
        Ok(match not_removed {
            None => done,
            Some(error) => format!("{done}, whose markers are removed at the next start ({error})"),
        })
    }

    /// Why so many batches still wait.
    pub fn not_brought(&self, waiting: u64) -> String {
        if self.more_waits {
            return format!(
                "{waiting} batches that waited for the store are being sent; try again when they are there"
            );
        }
        let why = self.delivery.why_held().unwrap_or_else(|| "the store does not answer".to_owned());
        let what = if waiting > 0 { format!("{waiting} batches") } else { "what waits of a site".to_owned() };
        format!("{what} cannot be brought to the store: {why}")
    }
}
