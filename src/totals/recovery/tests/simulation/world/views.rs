//! Views are taken, and noted as counted where they are answered, or stand in the journal.

use super::*;
use crate::ingest::Reason;
use crate::totals::Written;
use crate::totals::disk::log::HEADER;

impl World {
    /// Views of one turn of the event loop.
    pub(super) async fn views(&mut self, by: usize, wanted: Vec<Wanted>) {
        let before = self.oracle.views.len();
        let disk = self.instances[by].disk.clone();
        let (failed, held) = (disk.failed().len(), self.instances[by].journal());
        let taken = wanted.into_iter().filter_map(|wanted| self.view(by, wanted)).collect();
        let outcome = self.answered(by, taken).await;
        let grown = |(name, bytes): (String, Vec<u8>)| {
            let from = held.get(&name).map_or(HEADER as usize, Vec::len);
            let frame = bytes.get(from..).filter(|frame| !frame.is_empty())?.to_vec();
            Some((name, from, frame))
        };
        let (file, from, frame) =
            self.instances[by].journal().into_iter().find_map(grown).unwrap_or_default();
        let is_whole = |length: &[u8; 4]| frame.len() >= 8 + u32::from_le_bytes(*length) as usize;
        let counts = match &outcome {
            Some(ends) if ends.iter().all(Result::is_ok) => true,
            Some(ends) => {
                assert!(ends.iter().all(Result::is_err), "views of a group share its fate: {ends:?}");
                assert!(disk.is_off() || disk.failed().len() > failed, "refused though nothing failed");
                self.instances[by].dead = disk.is_off();
                self.came("Refused");
                false
            }
            // Nobody was answered: what counts is what stands in the file.
            None => {
                self.instances[by].dead = true;
                self.came("Unanswered");
                frame.first_chunk().is_some_and(is_whole)
            }
        };
        if counts {
            let (written, synced) =
                ((file, from, frame), self.kind.sync == Sync::Always && outcome.is_some());
            for view in &mut self.oracle.views[before..] {
                (view.written, view.synced) = (written.clone(), synced);
            }
        } else {
            let refused = self.oracle.views.drain(before..).map(|view| ((view.site, view.who), view.at_ms));
            self.instances[by].refused_ms.extend(refused);
        }
    }

    /// A view is taken; it is noted as counted if it will be.
    fn view(&mut self, by: usize, wanted: Wanted) -> Option<Written> {
        let Wanted { who, site, page, id } = wanted;
        let instance = &self.instances[by];
        let at = instance.clock.now();
        let refused_ms = instance.refused_ms.get(&(site, who)).copied().unwrap_or(i64::MIN);
        let seen_ms = self.oracle.seen_ms(by, site, who);
        let old = |then_ms: i64| at.unix_ms.saturating_sub(then_ms) > 30 * MINUTE_MS;
        // A view that was refused may have kept a session alive.
        if !instance.sites().contains(&site) || (seen_ms.is_some_and(old) && !old(refused_ms)) {
            return None;
        }
        let counted_ms = id.and_then(|id| self.oracle.counted_ms(by, site, id));
        // Between ten and twenty minutes an id may be known or not: then the view bears none.
        let (id, counts) = match counted_ms {
            Some(then) if at.unix_ms - then < 10 * MINUTE_MS => (id, false),
            Some(then) if at.unix_ms - then.max(instance.began_ms) < 25 * MINUTE_MS => (None, true),
            _ => (id, true),
        };
        let beacon = beacon_in(&self.calendar(site), who, site as u16, page, id, at);
        let taken = match instance.totals.as_ref().unwrap().take(beacon) {
            Ok(taken) => taken,
            Err(reason) => {
                assert!(self.kind.tight, "{reason:?}");
                self.came("Refused");
                return None;
            }
        };
        if !counts {
            self.came("Repeated");
            return Some(taken);
        }
        let (at_ms, cut) = (at.unix_ms, self.cuts[site]);
        self.oracle.views.push(View {
            by,
            site,
            page,
            who,
            id,
            at_ms,
            day: cut.day(at_ms),
            names: cut.names(site, at_ms),
            visit: seen_ms.is_none_or(old),
            batch: None,
            written: Default::default(),
            synced: false,
        });
        Some(taken)
    }

    /// What views of a group are answered; none where the process could not go on.
    async fn answered(&self, by: usize, taken: Vec<Written>) -> Option<Vec<Result<(), Reason>>> {
        let all = async {
            let mut ends = Vec::new();
            for written in taken {
                ends.push(written.await);
            }
            ends
        };
        tokio::select! {
            biased;
            ends = all => Some(ends),
            () = self.instances[by].ended() => None,
        }
    }
}
