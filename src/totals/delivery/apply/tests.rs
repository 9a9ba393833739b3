//! The store's sums must be those of the batches, whatever the store or the connection did in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::sites::{SiteKey, Sites};
use crate::totals::OutboxConfig;
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::{LastParts, Stamp};
use crate::totals::batch::tests::{expected, sums_of};
use crate::totals::batch::{Frozen, SiteSums};
use crate::totals::disk::dir::DataDir;
use crate::totals::store::contract::Query;
use crate::totals::store::tests::{Place, TestStore, config, writer};

/// A writer with its outbox, and what it wants the store to hold.
struct Sender {
    place: Place,
    outbox: Outbox,
    last_parts: LastParts,
    metrics: Arc<Metrics>,
    losses: Losses,
    identity: Identity,
    sent: Vec<SiteSums>,
    pruned: HashMap<SiteKey, NaiveDate>,
    files: tempfile::TempDir,
}

impl Sender {
    fn new(place: Place) -> Sender {
        let files = tempfile::tempdir().unwrap();
        let outbox = outbox(&files.path().join("outbox"));
        let metrics = Arc::new(Metrics::new(&Sites::default(), 10).unwrap());
        let dir = DataDir::open(&files.path().join("data")).unwrap();
        let losses = Losses::open(&dir, metrics.clone()).unwrap();
        let identity = Identity::open(&dir).unwrap();
        Sender {
            place,
            outbox,
            last_parts: LastParts::new(),
            metrics,
            losses,
            identity,
            sent: Vec::new(),
            pruned: HashMap::new(),
            files,
        }
    }

    fn flush(&self, refill: bool) -> (Flush<'_, TestStore>, WriterId) {
        let (store, outbox, metrics) = (&self.place.store, &self.outbox, &self.metrics);
        let writer: &'static WriterId = Box::leak(Box::new(writer("0123456789abcdef")));
        let (losses, identity) = (&self.losses, &self.identity);
        let (released, catching_up) = (None, false);
        let flush = Flush {
            store,
            writer,
            identity,
            outbox,
            metrics,
            losses,
            now_ms: 0,
            refill,
            released,
            catching_up,
            pruned: &self.pruned,
        };
        (flush, writer.clone())
    }

    fn freeze(&mut self, sums: Vec<SiteSums>) -> Batch {
        self.freeze_as(sums, 77)
    }

    fn freeze_as(&mut self, sums: Vec<SiteSums>, tag: u64) -> Batch {
        self.sent.extend(sums.clone());
        let sequence = self.outbox.next_sequence();
        let batch =
            Batch::freeze(sequence, tag, 0, Frozen { sums, ..Frozen::default() }, &mut self.last_parts);
        self.outbox.add(&batch).unwrap();
        batch
    }

    /// Sends a batch that enters views of all time.
    async fn enter(&mut self, number: u64, text: &str) {
        let hash = HashName::parse(&SiteKey::new("demo").unwrap(), "all").unwrap();
        let stamp = Stamp { number, writer: "00000000000000aa".into() };
        let entries = vec![Entered { hash, stamp, fields: vec![("+views".into(), text.into())] }];
        let frozen = Frozen { entries, ..Frozen::default() };
        let sequence = self.outbox.next_sequence();
        let batch = Batch::freeze(sequence, 77, 0, frozen, &mut self.last_parts);
        self.outbox.add(&batch).unwrap();
        self.flush(false).0.apply(&batch).await.unwrap();
        self.outbox.set_applied(batch.sequence);
    }

    /// What is entered, and the revision.
    async fn entered(&self) -> (Option<i64>, u64) {
        let hash = HashName::parse(&SiteKey::new("demo").unwrap(), "all").unwrap();
        let query = Query { hash, fields: vec!["views".into()] };
        let found = self.place.store.read(&writer("x"), vec![query]).await.unwrap().remove(0);
        (found.entries[0].as_ref().map(Entry::amount), found.revision)
    }

    async fn send(&mut self, sums: Vec<SiteSums>) -> Batch {
        let batch = self.freeze(sums);
        self.flush(false).0.apply(&batch).await.unwrap();
        self.outbox.set_applied(batch.sequence);
        batch
    }

    /// A start puts the newest batch into a segment of its own; the others grow too old.
    fn forget_all_but_the_newest(&mut self) {
        let applied = self.outbox.applied();
        self.outbox = outbox(&self.files.path().join("outbox"));
        self.outbox.set_applied(applied);
        self.outbox.trim(0, true).unwrap();
        self.outbox.trim(7_200_000, true).unwrap();
    }

    /// What the store holds of all that was sent.
    async fn held(&self) -> BTreeMap<(String, String, String), u64> {
        let mut held = BTreeMap::new();
        for (site, name, field) in expected(&self.sent).into_keys() {
            let hash = HashName::parse(&SiteKey::new(&site).unwrap(), &name).unwrap();
            let query = Query { hash, fields: vec![field.as_str().into()] };
            let found = self.place.store.read(&writer("x"), vec![query]).await.unwrap();
            if let [Some(sum)] = found[0].sums[..] {
                held.insert((site, name, field), sum);
            }
        }
        held
    }

    async fn assert_whole(&self) {
        assert_eq!(self.held().await, expected(&self.sent));
        assert!(self.check(false).await.unwrap(), "every hash bears its last part");
    }

    /// Compares every hash, as the writer does.
    async fn check(&self, refill: bool) -> Result<bool, FlushError> {
        let queries = self
            .last_parts
            .keys()
            .map(|hash| Query { hash: hash.clone(), fields: Vec::new() })
            .collect::<Vec<_>>();
        let (flush, writer) = self.flush(refill);
        let found = self.place.store.read(&writer, queries).await.unwrap();
        let found: Vec<_> =
            self.last_parts.keys().cloned().zip(found.into_iter().map(|f| f.marker)).collect();
        flush.check(&self.last_parts, &found).await
    }

    fn file(&self) -> PathBuf {
        self.place.dir.path().join("totals.redb")
    }

    /// Closes the store, lets `change` at its file, and opens it again.
    async fn closed(mut self, change: impl FnOnce(&Path)) -> Sender {
        let Place { store, server, dir } = self.place;
        drop(store);
        change(&dir.path().join("totals.redb"));
        let store = TestStore::open(&config("embedded"), dir.path()).await.unwrap();
        self.place = Place { store, server, dir };
        self
    }

    async fn saved(self, to: &Path) -> Sender {
        let to = to.to_owned();
        self.closed(move |file| _ = std::fs::copy(file, to).unwrap()).await
    }

    async fn back_to(self, image: &Path) -> Sender {
        let image = image.to_owned();
        self.closed(move |file| _ = std::fs::copy(image, file).unwrap()).await
    }
}

fn outbox(dir: &Path) -> Outbox {
    let config = OutboxConfig { retention: Duration::from_secs(3600), max_bytes: 1 << 30 };
    Outbox::open(dir, config, |_| ()).unwrap()
}

/// Six batches over two sites, two days and a month's end, the third with a hash in several parts.
fn six() -> Vec<Vec<SiteSums>> {
    vec![
        vec![sums_of("a", "2026-11-30", 22, 3)],
        vec![sums_of("a", "2026-11-30", 22, 2), sums_of("b", "2026-11-30", 22, 1)],
        vec![sums_of("a", "2026-11-30", 23, 1500)],
        vec![sums_of("b", "2026-11-30", 23, 2)],
        vec![sums_of("a", "2026-12-01", 0, 4), sums_of("a", "2026-11-30", 23, 1)],
        vec![sums_of("a", "2026-12-01", 1, 2)],
    ]
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_applied_once() {
    for place in [Place::embedded().await, Place::redis().await] {
        let mut sender = Sender::new(place);
        let mut batches = Vec::new();
        for sums in six() {
            batches.push(sender.send(sums).await);
            // The answer was lost.
            assert!(sender.flush(false).0.apply(batches.last().unwrap()).await.unwrap());
        }
        sender.assert_whole().await;
        // A checkpoint from before: each finds its own marker or a younger one of ours.
        for batch in &batches {
            assert!(sender.flush(false).0.apply(batch).await.unwrap());
        }
        sender.assert_whole().await;
        assert_eq!(sender.metrics.healing.regressions.get(), 0);
    }
}

#[tokio::test]
async fn a_batch_that_was_interrupted_between_any_two_parts_goes_on() {
    for place in [Place::embedded().await, Place::redis().await] {
        let mut sender = Sender::new(place);
        sender.send(vec![sums_of("a", "2026-11-30", 22, 3)]).await;
        for round in 0..16 {
            let batch = sender.freeze(vec![sums_of("a", "2026-11-30", 22 + round % 2, 2500)]);
            let mut parts = batch.parts();
            assert_eq!(parts.len(), 15);
            parts.truncate(round as usize);
            let (flush, writer) = sender.flush(false);
            flush.store.apply(&writer, parts, batch.sketches()).await.unwrap();
            assert!(flush.apply(&batch).await.unwrap());
            sender.outbox.set_applied(batch.sequence);
        }
        sender.assert_whole().await;
    }
}

#[tokio::test]
async fn a_store_that_went_back_to_any_earlier_moment_is_healed() {
    let images = tempfile::tempdir().unwrap();
    let image = |n: usize| images.path().join(n.to_string());
    let mut sender = Sender::new(Place::embedded().await).saved(&image(0)).await;
    for (n, sums) in six().into_iter().enumerate() {
        sender.send(sums).await;
        sender = sender.saved(&image(n + 1)).await;
    }
    for n in (0..=6).chain([2, 5, 0]) {
        sender = sender.back_to(&image(n)).await;
        // The next batch heals the hashes that it touches, the check all others.
        let batch = sender.freeze(vec![sums_of("a", "2026-12-01", 2, 2)]);
        let whole = match sender.flush(false).0.apply(&batch).await {
            Err(FlushError::Lost(_)) => sender.flush(true).0.apply(&batch).await.unwrap(),
            other => other.unwrap(),
        };
        sender.outbox.set_applied(batch.sequence);
        if sender.last_parts.len() > 30 || n < 6 {
            assert!(!whole, "image {n}");
        }
        // Hashes that no batch of the image had touched are lost to it.
        sender.check(true).await.unwrap();
        sender.assert_whole().await;
    }
}

#[tokio::test]
async fn of_what_was_entered_the_latest_is_healed_and_nothing_is_added_up() {
    let images = tempfile::tempdir().unwrap();
    let image = |n: usize| images.path().join(n.to_string());
    let mut sender = Sender::new(Place::embedded().await);
    for n in 0..4 {
        sender = sender.saved(&image(n)).await;
        sender.send(vec![sums_of("demo", "2026-12-01", 2, 2)]).await;
        let (number, text) = [(1, "500"), (4, "-2"), (3, "70"), (2, "9")][n];
        sender.enter(number, text).await;
    }
    for n in [3, 0, 2, 1] {
        sender = sender.back_to(&image(n)).await;
        sender.check(true).await.unwrap();
        sender.assert_whole().await;
        let (entered, revision) = sender.entered().await;
        assert_eq!(entered, Some(-2), "image {n}");
        assert!(revision > 0, "a lower figure is believed");
    }
}

#[tokio::test]
async fn a_lost_hash_is_refilled_once_the_data_set_is_known_to_be_ours() {
    let mut sender = Sender::new(Place::redis().await);
    for sums in six() {
        sender.send(sums).await;
    }
    let url = sender.place.server.as_ref().unwrap().url();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys = ["footfall:{a}:month:2026-11:pages", "footfall:{a}:all", "footfall:{b}:day:2026-11-30"];
    let gone: i64 = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await.unwrap();
    assert_eq!(gone, 3);
    let batch = sender.freeze(vec![sums_of("a", "2026-12-01", 2, 2)]);
    let lost = sender.flush(false).0.apply(&batch).await;
    assert!(matches!(lost, Err(FlushError::Lost(_))));
    assert!(!sender.flush(true).0.apply(&batch).await.unwrap());
    sender.outbox.set_applied(batch.sequence);
    assert!(matches!(sender.check(false).await, Err(FlushError::Lost(_))));
    assert!(!sender.check(true).await.unwrap());
    sender.assert_whole().await;
}

#[tokio::test]
async fn a_marker_that_is_not_ours_is_a_twins_and_nothing_is_written() {
    let mut sender = Sender::new(Place::embedded().await);
    sender.send(vec![sums_of("a", "2026-11-30", 22, 3)]).await;
    // A copy of the data directory goes on by itself.
    let outbox = outbox(&sender.files.path().join("twin"));
    let ours = std::mem::replace(&mut sender.outbox, outbox);
    let last_parts = sender.last_parts.clone();
    sender.outbox.add(&ours.get(1).unwrap().unwrap()).unwrap();
    for _ in 0..2 {
        let twins = sender.freeze_as(vec![sums_of("a", "2026-11-30", 22, 1)], 99);
        sender.flush(false).0.apply(&twins).await.unwrap();
    }
    sender.outbox = ours;
    sender.last_parts = last_parts;
    let held = sender.held().await;
    for _ in 0..3 {
        // First one from the future, then one of ours by number, but not by its tag.
        let batch = sender.freeze(vec![sums_of("a", "2026-11-30", 22, 2)]);
        let ended = sender.flush(false).0.apply(&batch).await;
        assert!(matches!(ended, Err(FlushError::Twin(_))), "{ended:?}");
        assert!(matches!(sender.check(false).await, Err(FlushError::Twin(_))));
    }
    sender.sent.truncate(3);
    assert_eq!(sender.held().await, held, "nothing was written");
}

#[tokio::test]
async fn what_the_outbox_keeps_no_more_is_lost_once_and_what_follows_counts() {
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("image");
    let mut sender = Sender::new(Place::embedded().await);
    sender.send(vec![sums_of("a", "2026-11-30", 22, 3), sums_of("b", "2026-11-30", 22, 2)]).await;
    sender = sender.saved(&image).await;
    sender.send(vec![sums_of("a", "2026-11-30", 22, 2), sums_of("b", "2026-11-30", 22, 1)]).await;
    sender.send(vec![sums_of("a", "2026-11-30", 22, 1)]).await;
    sender.forget_all_but_the_newest();
    assert_eq!(sender.outbox.first_sequence(), Some(3));
    sender = sender.back_to(&image).await;
    assert!(!sender.check(false).await.unwrap());
    assert!(sender.check(false).await.unwrap(), "a loss is said once");
    sender.send(vec![sums_of("b", "2026-11-30", 22, 5)]).await;
    sender.sent.drain(2..4);
    sender.assert_whole().await;
    assert!(sender.file().exists());
    // Sketches are raised again with what is re-sent.
    let name = HashName::parse(&SiteKey::new("a").unwrap(), "day:2026-11-30:visitors").unwrap();
    assert_eq!(sender.place.store.visitors(vec![name]).await.unwrap(), [1]);
}

/// Batches of a day, one each few seconds.
const DAY: usize = 2_000;

#[tokio::test]
async fn a_day_that_went_back_is_healed_in_one_pass_and_few_parts() {
    let mut sender = Sender::new(Place::redis().await);
    let mut sent = Vec::new();
    for number in 0..DAY {
        let hour = (number * 24 / DAY) as u8;
        let sums = sums_of("a", "2026-11-30", hour, 1 + number % 20);
        sent.push(sums.clone());
        sender.freeze(vec![sums]);
    }
    // The store knows nothing of all that but the first two batches.
    for sequence in 1..=2 {
        let batch = sender.outbox.get(sequence).unwrap().unwrap();
        sender.flush(false).0.apply(&batch).await.unwrap();
    }
    sender.outbox.set_applied(DAY as u64);
    let began = tokio::time::Instant::now();
    assert!(!sender.check(true).await.unwrap());
    println!("{DAY} batches were healed in {:?}", began.elapsed());
    sender.assert_whole().await;
    let name = HashName::parse(&SiteKey::new("a").unwrap(), "day:2026-11-30:visitors").unwrap();
    assert_eq!(sender.place.store.visitors(vec![name]).await.unwrap(), [1]);
    let server = sender.place.server.as_ref().unwrap();
    let mut redis =
        redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let told: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let calls = told.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    let calls: usize = calls.unwrap().parse().unwrap();
    assert!(calls < 150, "{calls} parts for {DAY} batches");
}

#[tokio::test]
async fn what_lies_beyond_the_outbox_is_recorded_for_the_hashes_that_lost_it_and_no_other() {
    let mut sender = Sender::new(Place::embedded().await);
    sender.send(vec![sums_of("a", "2026-11-30", 22, 3), sums_of("b", "2026-11-30", 22, 2)]).await;
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("image");
    sender = sender.saved(&image).await;
    sender.send(vec![sums_of("a", "2026-11-30", 22, 2)]).await;
    sender.send(vec![sums_of("a", "2026-11-30", 22, 1), sums_of("b", "2026-11-30", 22, 1)]).await;
    sender.forget_all_but_the_newest();
    assert_eq!(sender.outbox.first_sequence(), Some(3));
    sender = sender.back_to(&image).await;
    // What cannot be recorded must be found out again, by what the hashes bear.
    let in_the_way = sender.files.path().join("data/losses.new");
    std::fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        assert!(matches!(sender.check(false).await, Err(FlushError::DataDir(_))));
    }
    std::fs::remove_dir(in_the_way).unwrap();
    assert!(!sender.check(false).await.unwrap());
    let lost = std::fs::read_to_string(sender.files.path().join("data/losses")).unwrap();
    assert_eq!(lost.lines().count(), 9, "{lost}");
    for line in lost.lines() {
        // The site b was not in the batch that is no longer kept: nothing of it is lost.
        assert!(line.contains(" store a/") && line.contains("batches after 1 up to 2"), "{line}");
    }
    // What was read of them before was more: a higher revision says that it does not hold any more.
    for (site, revision) in [("a", 1), ("b", 0)] {
        let hash = HashName::parse(&SiteKey::new(site).unwrap(), "all").unwrap();
        let query = Query { hash, fields: Vec::new() };
        assert_eq!(sender.place.store.read(&writer("x"), vec![query]).await.unwrap()[0].revision, revision);
    }
    sender.sent.remove(2);
    sender.assert_whole().await;
}

#[tokio::test]
async fn a_hash_that_is_pruned_is_not_lost_and_what_comes_late_for_it_counts_in_the_longer_ones() {
    let is_pruned = |site: &str, hash: &str| site == "a" && hash == "day:2026-11-30:pages";
    for place in [Place::embedded().await, Place::redis().await] {
        let mut sender = Sender::new(place);
        for sums in six() {
            sender.send(sums).await;
        }
        let (site, until) = (SiteKey::new("a").unwrap(), NaiveDate::from_ymd_opt(2026, 12, 1).unwrap());
        let days = until - chrono::Days::new(40)..until;
        assert_eq!(sender.place.store.prune(&site, None, days).await.unwrap(), Some(until));
        // It is taken for lost where another instance has pruned it: the store is asked then.
        assert!(matches!(sender.check(false).await, Err(FlushError::Lost(_))));
        sender.pruned.insert(site, until);
        assert!(sender.check(false).await.unwrap());
        sender.send(six().remove(0)).await;
        let mut all = expected(&sender.sent);
        all.retain(|(site, hash, _), _| !is_pruned(site, hash));
        assert_eq!(sender.held().await, all);
        assert!(sender.check(false).await.unwrap());
        assert_eq!(sender.metrics.healing.regressions.get(), 0);
    }
}
