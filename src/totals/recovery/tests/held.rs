//! A site whose data the store refuses waits alone, and has all of it in the end.

use super::asked::process_with;
use super::*;
use crate::totals::store::model::{Data, Ends, Fault, Model};

/// Processes on one directory and a store in memory, one after another; the first of two sites is in trouble.
struct Trouble {
    model: Model,
    dir: tempfile::TempDir,
    process: Process,
    /// Views of each site.
    taken: [u64; 2],
}

impl Trouble {
    async fn new() -> Trouble {
        let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
        let process = begin(&model, dir.path()).await;
        Trouble { model, dir, process, taken: [0, 0] }
    }

    /// Views of both sites, a batch each; pages enough that few batches fill a segment.
    async fn views(&mut self, batches: u64) {
        for n in 0..batches {
            for (site, taken) in (0..SITES).zip(&mut self.taken) {
                let now = self.process.totals.shared.clock.now();
                let view = beacon((n % 50) as u8, site, (n % 60) as u8, None, now);
                self.process.totals.take(view).unwrap().await.unwrap();
                *taken += 1;
            }
            self.process.writer.turn().await;
        }
    }

    fn stored(&self, site: u16) -> u64 {
        let all = HashName::parse(&SiteKey::new(&format!("s{site}")).unwrap(), "all").unwrap();
        self.model
            .data()
            .hashes
            .get(&all)
            .and_then(|hash| hash.sums.get("views"))
            .copied()
            .unwrap_or_default()
    }

    fn shown(&self, site: u16) -> (Option<u64>, bool) {
        let totals = &self.process.totals;
        let figures = totals.look(SiteId(site), totals.shared.clock.now()).figures();
        (figures.views.all, totals.stale(SiteId(site)))
    }

    /// As after `kill -9`.
    async fn kill(&mut self) {
        self.kill_and(async || ()).await;
    }

    /// The same, and its writer is retired before it comes back.
    async fn retire(&mut self) {
        let (model, writer) = (self.model.clone(), self.process.writer.delivery.identity.writer.clone());
        let day = calendar().span(START_MS).hour.day;
        self.kill_and(async || {
            for site in (0..SITES).map(site) {
                model.spoil(&site.key, false);
                model.retire(&site.key, std::slice::from_ref(&writer), day).await.unwrap();
            }
        })
        .await;
        assert_ne!(self.process.writer.delivery.identity.writer, writer);
    }

    async fn kill_and(&mut self, meanwhile: impl AsyncFnOnce()) {
        let fresh = tempfile::tempdir().unwrap();
        copy(self.dir.path(), fresh.path());
        self.process.committing.abort();
        self.dir = fresh;
        meanwhile().await;
        self.process = begin(&self.model, self.dir.path()).await;
    }

    fn spoil(&self, site: u16, is_spoiled: bool) {
        self.model.spoil(&SiteKey::new(&format!("s{site}")).unwrap(), is_spoiled);
    }

    /// Everything is tried again.
    async fn turns(&mut self) {
        self.some_turns(2).await;
    }

    async fn some_turns(&mut self, turns: u32) {
        tokio::time::pause();
        for _ in 0..turns {
            tokio::time::advance(Duration::from_secs(6)).await;
            self.process.writer.turn().await;
        }
        tokio::time::resume();
    }

    /// Both sites have exactly what was taken.
    fn assert_exact(&self) {
        assert_eq!([0, 1].map(|site| self.stored(site)), self.taken);
        assert_eq!([0, 1].map(|site| self.shown(site)), self.taken.map(|taken| (Some(taken), false)));
        assert!(self.model.data().doubled.is_none());
        for (name, hash) in self.model.data().hashes.iter().filter(|(name, _)| name.kind == HashKind::Sums) {
            let taken = (0..SITES).zip(self.taken).find(|(id, _)| site(*id).key == name.site).unwrap().1;
            assert_eq!(hash.sums.get("views"), Some(&taken), "all were in one hour: {} {name}", name.site);
        }
        assert_eq!(self.process.totals.shared.losses.summary(), None);
    }
}

async fn begin(model: &Model, dir: &Path) -> Process {
    let mut config = settings(dir, 1000, Sync::EverySecond);
    config.outbox.max_bytes = 60_000;
    process_with(model, config).await
}

fn asides(dir: &Path) -> Vec<String> {
    let names = Folder::from(&*dir.join("outbox")).names().unwrap();
    names.into_iter().filter(|name| name.starts_with("held-")).collect()
}

#[tokio::test]
async fn what_waits_of_a_site_is_set_aside_and_applied_once_after_kills() {
    let mut trouble = Trouble::new().await;
    trouble.views(5).await;
    trouble.assert_exact();
    trouble.spoil(0, true);
    let before = trouble.taken[0];
    for _ in 0..3 {
        trouble.views(60).await;
        assert_eq!([trouble.stored(0), trouble.stored(1)], [before, trouble.taken[1]]);
        let [held, other] = [trouble.shown(0), trouble.shown(1)];
        assert_eq!((held, other), ((Some(trouble.taken[0]), true), (Some(trouble.taken[1]), false)));
        let health = trouble.process.totals.health();
        assert!(health.troubled[0].starts_with("s0: the store refuses: s0 "), "{health:?}");
        assert!(health.store_up && health.held.is_none());
        trouble.process.writer.checkpoint().await;
        trouble.views(3).await;
        trouble.kill().await;
        assert_eq!(trouble.shown(0), (Some(trouble.taken[0]), true));
    }
    let outbox = &trouble.process.writer.delivery.outbox;
    assert!(!outbox.is_full() && outbox.waiting() == 0);
    assert_eq!(asides(trouble.dir.path()), ["held-s0"]);
    let (batches, oldest_ms) = outbox.waiting_of(&SiteKey::new("s0").unwrap());
    assert!(batches >= 3 * 60 && oldest_ms == Some(START_MS), "{batches}, {oldest_ms:?}");
    trouble.spoil(0, false);
    trouble.turns().await;
    trouble.assert_exact();
    // Killed before it is on disk that it is applied, and after.
    trouble.kill().await;
    trouble.turns().await;
    trouble.assert_exact();
    trouble.process.writer.checkpoint().await;
    assert!(asides(trouble.dir.path()).is_empty());
    trouble.kill().await;
    trouble.views(2).await;
    trouble.assert_exact();
}

#[tokio::test]
async fn a_site_of_which_no_more_can_be_kept_is_refused_alone() {
    let mut trouble = Trouble::new().await;
    trouble.spoil(0, true);
    let is_refused = |process: &Process, site| {
        let now = process.totals.shared.clock.now();
        process.totals.take(beacon(1, site, 1, None, now)).is_err()
    };
    while trouble.process.writer.delivery.outbox.full_asides().next().is_none() {
        trouble.views(1).await;
        assert!(trouble.taken[0] < 5000);
    }
    trouble.process.writer.turn().await;
    assert!(is_refused(&trouble.process, 0));
    assert!(!is_refused(&trouble.process, 1));
    trouble.taken[1] += 1;
    trouble.process.writer.turn().await;
    trouble.spoil(0, false);
    trouble.turns().await;
    trouble.assert_exact();
    assert!(!is_refused(&trouble.process, 0));
}

#[tokio::test]
async fn where_all_are_held_nothing_is_sent_and_each_gets_its_own_back() {
    let mut trouble = Trouble::new().await;
    trouble.views(3).await;
    for site in 0..SITES {
        trouble.spoil(site, true);
        trouble.views(3).await;
    }
    let health = trouble.process.totals.health();
    assert!(!health.store_up && health.held.is_some() && health.troubled.len() == 2, "{health:?}");
    trouble.kill().await;
    trouble.spoil(1, false);
    trouble.turns().await;
    assert_eq!((trouble.stored(1), trouble.shown(1)), (trouble.taken[1], (Some(trouble.taken[1]), false)));
    assert!(trouble.shown(0).1);
    trouble.spoil(0, false);
    trouble.turns().await;
    trouble.assert_exact();
}

#[tokio::test]
async fn what_waited_of_a_held_site_when_its_writer_was_retired_is_sent_by_the_one_that_comes_back() {
    for knows in [false, true] {
        let mut trouble = Trouble::new().await;
        trouble.views(5).await;
        trouble.spoil(0, true);
        trouble.views(60).await;
        if knows {
            trouble.process.writer.checkpoint().await;
        }
        trouble.views(2).await;
        trouble.retire().await;
        trouble.turns().await;
        trouble.assert_exact();
        // Retired once more, and by those who know nothing of it.
        trouble.views(2).await;
        trouble.retire().await;
        trouble.turns().await;
        trouble.kill().await;
        trouble.views(2).await;
        trouble.assert_exact();
    }
}

#[tokio::test]
async fn of_a_batch_that_was_applied_in_part_one_that_was_retired_sends_the_rest() {
    let mut partly = 0;
    for parts in 0..=18 {
        let mut trouble = Trouble::new().await;
        trouble.views(3).await;
        if parts % 2 == 0 {
            trouble.process.writer.checkpoint().await;
        }
        trouble.views(2).await;
        trouble.model.plan(Some(Fault { calls: 0, parts, ends: Ends::Failing }));
        trouble.views(1).await;
        let views = |data: &Data| -> BTreeSet<u64> {
            let sums = data.hashes.iter().filter(|(name, _)| name.kind == HashKind::Sums);
            sums.map(|(_, hash)| hash.sums["views"]).collect()
        };
        partly += usize::from(views(&trouble.model.data()).len() == 2);
        trouble.retire().await;
        trouble.turns().await;
        trouble.assert_exact();
    }
    assert!(partly > 10, "{partly}");
}

#[tokio::test]
async fn a_held_site_that_was_brought_up_to_date_in_part_is_so_whole_after_its_writer_was_retired() {
    for (calls, parts) in (0..10).flat_map(|calls| [2, 5].map(|parts| (calls, parts))) {
        let mut trouble = Trouble::new().await;
        trouble.views(5).await;
        trouble.spoil(0, true);
        trouble.views(70).await;
        trouble.process.writer.checkpoint().await;
        trouble.spoil(0, false);
        trouble.model.plan(Some(Fault { calls, parts, ends: Ends::Failing }));
        trouble.some_turns(1).await;
        trouble.model.plan(None);
        trouble.retire().await;
        trouble.turns().await;
        trouble.assert_exact();
    }
}

#[tokio::test]
async fn one_that_was_retired_from_some_sites_only_goes_on_in_all() {
    let mut trouble = Trouble::new().await;
    trouble.views(5).await;
    let (model, writer) = (trouble.model.clone(), trouble.process.writer.delivery.identity.writer.clone());
    let day = calendar().span(START_MS).hour.day;
    trouble.kill_and(async || _ = model.retire(&site(1).key, &[writer], day).await.unwrap()).await;
    trouble.turns().await;
    trouble.views(3).await;
    trouble.assert_exact();
}
