//! A site whose data the store refuses waits alone, and has all of it in the end.

use super::asked::process_with;
use super::*;
use crate::totals::store::model::Model;

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
        let fresh = tempfile::tempdir().unwrap();
        copy(self.dir.path(), fresh.path());
        self.process.committing.abort();
        self.dir = fresh;
        self.process = begin(&self.model, self.dir.path()).await;
    }

    fn spoil(&self, site: u16, is_spoiled: bool) {
        self.model.spoil(&SiteKey::new(&format!("s{site}")).unwrap(), is_spoiled);
    }

    /// Everything is tried again.
    async fn turns(&mut self) {
        tokio::time::pause();
        for _ in 0..2 {
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
