//! One contract, checked on both stores and on the model of one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::contract::*;
use super::dump::{Fields, StoredName};
use super::model;
use super::progress::Progress;
use crate::calendar::Bucket;
use crate::sites::SiteKey;
use crate::totals::batch::part::{Entry, HashName, MAX_FIELDS, MAX_SUM, Part, PartId, SketchPart};
use crate::totals::batch::sketch::{Registers, Sketch};
use chrono::NaiveDate;
pub(in crate::totals) use one::TestStore;
use servers::RedisServer;
use std::sync::Arc;

mod one;
#[path = "../../../tests/it/support/servers.rs"]
pub(in crate::totals) mod servers;
mod years;

/// A store and what it stands on.
pub(in crate::totals) struct Place {
    pub store: TestStore,
    pub server: Option<RedisServer>,
    pub dir: tempfile::TempDir,
}

impl Place {
    pub async fn embedded() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = TestStore::open(&config("embedded"), dir.path()).await.unwrap();
        Place { store, server: None, dir }
    }

    pub async fn redis() -> Place {
        // Synced before each answer: else a busy disk puts off the write, and killing the server loses it.
        let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let dir = tempfile::tempdir().unwrap();
        let store = TestStore::open(&config(&server.url()), dir.path()).await.unwrap();
        Place { store, server: Some(server), dir }
    }

    pub fn model() -> Place {
        let (store, dir) = (TestStore::Model(model::Model::default()), tempfile::tempdir().unwrap());
        Place { store, server: None, dir }
    }

    /// The same data with a new store, after the process (and the server) ended.
    async fn again(mut self) -> Place {
        if matches!(self.store, TestStore::Model(_)) {
            return self;
        }
        drop(self.store);
        let url = match &mut self.server {
            Some(server) => {
                server.restart();
                server.url()
            }
            None => "embedded".to_owned(),
        };
        let store = TestStore::open(&config(&url), self.dir.path()).await.unwrap();
        Place { store, ..self }
    }
}

/// Both stores, and the model that the simulation puts in their place.
async fn all() -> [Place; 3] {
    [Place::embedded().await, Place::redis().await, Place::model()]
}

pub(in crate::totals) fn config(url: &str) -> StoreConfig {
    StoreConfig {
        url: url.parse().unwrap(),
        tls_ca_file: None,
        flush_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(5),
    }
}

pub(in crate::totals) fn site() -> SiteKey {
    SiteKey::new("demo").unwrap()
}

pub(in crate::totals) fn hash(name: &str) -> HashName {
    HashName::parse(&site(), name).unwrap_or_else(|| panic!("{name} names no hash"))
}

pub(in crate::totals) fn stored(name: &str) -> StoredName {
    StoredName { site: site(), name: name.into() }
}

pub(in crate::totals) fn writer(name: &str) -> WriterId {
    WriterId(name.into())
}

/// The id of a part that a test calls by a short name: its sequence is the number in it.
pub(in crate::totals) fn id(name: &str) -> PartId {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    let tag = name.bytes().fold(0, |tag, byte| tag << 8 | u64::from(byte));
    PartId { sequence: digits.parse().unwrap_or(0), part: 0, tag }
}

pub(in crate::totals) fn marker(name: &str) -> PartId {
    id(name)
}

pub(in crate::totals) fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

pub(in crate::totals) fn part(name: &str, prev: Option<&str>, then: &str, sums: &[(&str, u64)]) -> Part {
    Part {
        hash: hash(name),
        prev: prev.map(id),
        id: id(then),
        sums: sums.iter().map(|&(field, add)| (field.into(), add)).collect(),
        entries: Vec::new(),
        revision: None,
    }
}

pub(in crate::totals) async fn read(store: &impl Store, by: &str, name: &str, fields: &[&str]) -> Found {
    let query = Query { hash: hash(name), fields: fields.iter().map(|&field| field.into()).collect() };
    store.read(&writer(by), vec![query]).await.unwrap().pop().unwrap()
}

fn found(then: Option<&str>, sums: &[Option<u64>]) -> Found {
    Found { marker: then.map(marker), sums: sums.to_vec(), entries: vec![None; sums.len()], revision: 0 }
}

async fn apply(store: &TestStore, by: &str, parts: &[Part]) -> Vec<Outcome> {
    store.apply(&writer(by), parts.to_vec(), vec![]).await.unwrap()
}

pub(in crate::totals) fn registers(hashes: std::ops::Range<u64>) -> (Sketch, Registers) {
    let mut sketch = Sketch::new();
    let spread = |n: u64| siphasher::sip::SipHasher13::new_with_keys(1, 2).hash(&n.to_le_bytes());
    let raised = hashes.filter_map(|n| sketch.insert(spread(n))).collect();
    (sketch, raised)
}

#[tokio::test]
async fn a_part_is_applied_once_and_says_so() {
    for place in all().await {
        let store = &place.store;
        let first = part("day:2026-11-23", None, "m1", &[("views", 3), ("visits", 1)]);
        assert_eq!(apply(store, "w", std::slice::from_ref(&first)).await, [Outcome::Applied]);
        assert_eq!(apply(store, "w", std::slice::from_ref(&first)).await, [Outcome::Already]);
        let second = part("day:2026-11-23", Some("m1"), "m2", &[("views", 4)]);
        assert_eq!(apply(store, "w", &[second]).await, [Outcome::Applied]);
        let sums = read(store, "w", "day:2026-11-23", &["visits", "views", "none"]).await;
        assert_eq!(sums, found(Some("m2"), &[Some(1), Some(7), None]));
        // Only equality counts: the first part's marker is gone, its `prev` does not fit.
        assert_eq!(apply(store, "w", &[first]).await, [Outcome::Found(Some(marker("m2")))]);
        assert_eq!(read(store, "w", "day:2026-11-23", &["views"]).await, found(Some("m2"), &[Some(7)]));
    }
}

#[tokio::test]
async fn a_hash_that_bears_another_marker_or_none_is_left_alone() {
    for place in all().await {
        let store = &place.store;
        assert_eq!(read(store, "w", "all", &["views"]).await, found(None, &[None]));
        let lost = part("all", Some("m1"), "m2", &[("views", 1)]);
        assert_eq!(apply(store, "w", &[lost]).await, [Outcome::Found(None)]);
        assert_eq!(read(store, "w", "all", &["views"]).await, found(None, &[None]));
        apply(store, "w", &[part("all", None, "m9", &[("views", 1)])]).await;
        for prev in [None, Some("m1"), Some("m8")] {
            let foreign = part("all", prev, "m2", &[("views", 1)]);
            assert_eq!(apply(store, "w", &[foreign]).await, [Outcome::Found(Some(marker("m9")))]);
        }
        assert_eq!(read(store, "w", "all", &["views"]).await, found(Some("m9"), &[Some(1)]));
    }
}

#[tokio::test]
async fn parts_follow_one_another_on_a_hash_and_hold_up_no_other() {
    for place in all().await {
        let parts = [
            part("all:pages", None, "m1", &[("/a", 1), ("/b", 1)]),
            part("all:pages", Some("m1"), "m2", &[("/a", 2), ("/c", 5)]),
            part("month:2026-11", Some("x"), "m2", &[("views", 1)]),
            part("all:pages", Some("m1"), "m3", &[("/a", 100)]),
            part("year:2026", None, "m2", &[("views", 1)]),
            part("all:pages", Some("m2"), "m3", &[]),
        ];
        let outcomes = apply(&place.store, "w", &parts).await;
        let refound = |then: Option<&str>| Outcome::Found(then.map(marker));
        let expected = [
            Outcome::Applied,
            Outcome::Applied,
            refound(None),
            refound(Some("m2")),
            Outcome::Applied,
            Outcome::Applied,
        ];
        assert_eq!(outcomes, expected);
        let pages = read(&place.store, "w", "all:pages", &["/a", "/b", "/c"]).await;
        assert_eq!(pages, found(Some("m3"), &[Some(3), Some(1), Some(5)]));
    }
}

#[tokio::test]
async fn writers_add_up_and_keep_markers_of_their_own() {
    for place in all().await {
        let store = &place.store;
        apply(store, "w1", &[part("all", None, "a1", &[("views", 10)])]).await;
        // The hash is there, but this writer never wrote to it.
        apply(store, "w2", &[part("all", None, "b1", &[("views", 5), ("visits", 2)])]).await;
        apply(store, "w1", &[part("all", Some("a1"), "a2", &[("views", 1)])]).await;
        assert_eq!(read(store, "w1", "all", &["views"]).await, found(Some("a2"), &[Some(16)]));
        assert_eq!(read(store, "w2", "all", &["visits"]).await, found(Some("b1"), &[Some(2)]));
        assert_eq!(read(store, "w3", "all", &["views"]).await, found(None, &[Some(16)]));
    }
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    for place in all().await {
        let store = Arc::new(place.store);
        let mut tasks = tokio::task::JoinSet::new();
        for by in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0..25 {
                    let prev = (n > 0).then(|| format!("m{n}"));
                    let part =
                        part("all", prev.as_deref(), &format!("m{}", n + 1), &[("views", 1), ("x", n)]);
                    assert_eq!(apply(&store, &format!("w{by}"), &[part]).await, [Outcome::Applied]);
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let sums = read(&*store, "w0", "all", &["views", "x"]).await;
        assert_eq!(sums, found(Some("m25"), &[Some(100), Some(1200)]));
    }
}

#[tokio::test]
async fn large_parts_and_many_of_them() {
    for place in all().await {
        let store = &place.store;
        let fields: Vec<String> = (0..MAX_FIELDS).map(|n| format!("/page {n} – số")).collect();
        let sums: Vec<(&str, u64)> = fields.iter().zip(1..).map(|(field, n)| (field.as_str(), n)).collect();
        let mut parts = vec![part("all:pages", None, "m1", &sums)];
        parts.push(part("all:pages", Some("m1"), "m2", &sums));
        parts.extend((0..250).map(|n| part(&format!("year:{}", 1000 + n), None, "m2", &[("views", n)])));
        assert!(apply(store, "w", &parts).await.iter().all(|outcome| *outcome == Outcome::Applied));
        let asked = [fields[0].as_str(), &fields[999], &fields[500]];
        let pages = read(store, "w", "all:pages", &asked).await;
        assert_eq!(pages, found(Some("m2"), &[Some(2), Some(2000), Some(1002)]));
        let queries = (0..250)
            .map(|n| Query { hash: hash(&format!("year:{}", 1000 + n)), fields: vec!["views".into()] });
        let all = store.read(&writer("w"), queries.collect()).await.unwrap();
        assert!(all.iter().zip(0..).all(|(sums, n)| *sums == found(Some("m2"), &[Some(n)])));
    }
}

#[tokio::test]
async fn sums_are_exact_up_to_their_bound_and_refused_beyond() {
    for place in all().await {
        let store = &place.store;
        apply(store, "w", &[part("all", None, "m1", &[("views", MAX_SUM - 1), ("visits", 1)])]).await;
        apply(store, "w", &[part("all", Some("m1"), "m2", &[("views", 1)])]).await;
        for add in [1, MAX_SUM, u64::MAX] {
            let over = part("all", Some("m2"), "m3", &[("visits", 1), ("views", add)]);
            let refused = store.apply(&writer("w"), vec![over], vec![]).await;
            let Err(StoreError::Refused(text)) = refused else { panic!("{refused:?}") };
            assert!(text.contains("the sum of views would pass 2^53"), "{text}");
        }
        let sums = read(store, "w", "all", &["views", "visits"]).await;
        assert_eq!(sums, found(Some("m2"), &[Some(MAX_SUM), Some(1)]), "nothing was written");
    }
}

#[tokio::test]
async fn parts_that_break_the_rules_are_refused() {
    let many: Vec<String> = (0..=MAX_FIELDS).map(|n| n.to_string()).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|field| (field.as_str(), 1)).collect();
    let cases = [
        (part("all", None, "m", &many), "more than 1,000 fields"),
        (part("all", None, "m", &[("b", 1), ("a", 1), ("b", 1)]), "a field twice"),
        (part("all", None, "m", &[("#w", 1)]), "a field that begins with #"),
    ];
    for place in all().await {
        for (part, text) in &cases {
            let refused = place.store.apply(&writer("w"), vec![part.clone()], vec![]).await;
            assert!(matches!(&refused, Err(StoreError::Refused(said)) if said.contains(text)), "{refused:?}");
        }
        let unordered = part("all", None, "m", &[("b", 1), ("a", 2)]);
        assert_eq!(apply(&place.store, "w", &[unordered]).await, [Outcome::Applied]);
        assert_eq!(read(&place.store, "w", "all", &["a", "b"]).await, found(Some("m"), &[Some(2), Some(1)]));
    }
}

#[tokio::test]
async fn sketches_merge_and_count() {
    for place in all().await {
        let store = &place.store;
        let (name, other) = (hash("day:2026-11-23:visitors"), hash("day:2026-11-24:visitors"));
        let mut whole = Sketch::new();
        for range in [0..10, 5..900, 0..40_000, 100..200] {
            let (sketch, registers) = registers(range);
            whole.merge(&sketch);
            let part = SketchPart { name: name.clone(), registers };
            store.apply(&writer("w"), vec![], vec![part.clone(), part]).await.unwrap();
            let held = store.sketches(vec![other.clone(), name.clone()]).await.unwrap();
            assert_eq!(held, [None, Some(whole.clone())]);
            let visitors = store.visitors(vec![name.clone(), other.clone()]).await.unwrap();
            assert_eq!(visitors, [whole.estimate(), 0]);
        }
        let many: Vec<_> =
            (0..1_500).map(|n| if n % 2 == 0 { name.clone() } else { other.clone() }).collect();
        let visitors = store.visitors(many).await.unwrap();
        let expected = |(n, &count): (usize, &u64)| count == if n % 2 == 0 { whole.estimate() } else { 0 };
        assert!(visitors.iter().enumerate().all(expected) && visitors.len() == 1_500);
    }
}

#[tokio::test]
async fn the_fields_with_the_largest_sums_are_told_and_no_marker() {
    for place in [Place::embedded().await, Place::redis().await] {
        let store = &place.store;
        assert_eq!(store.top(&hash("all:pages"), 3).await.unwrap(), []);
        let fields: Vec<String> = (0..2500).map(|n| format!("/{n:04}")).collect();
        let sums: Vec<(&str, u64)> =
            fields.iter().map(String::as_str).zip((0..2500).map(|n| n / 2)).collect();
        let (mut prev, mut number) = (None, 0);
        for some in sums.chunks(MAX_FIELDS) {
            number += 1;
            let then = format!("m{number}");
            apply(store, "w", &[part("all:pages", prev.as_deref(), &then, some)]).await;
            prev = Some(then);
        }
        let top = store.top(&hash("all:pages"), 3).await.unwrap();
        let expected = [("/2498", 1249), ("/2499", 1249), ("/2496", 1248)];
        assert_eq!(top, expected.map(|(field, sum)| (field.to_owned(), sum)));
        let entries = [("+/2499", "-1000 1 a"), ("+/2498", "1 1 a"), ("+/new", "1249 1 a")];
        let entries = entries.map(|(field, text)| (field.into(), entered(text))).into();
        let part = Part { entries, ..part("all:pages", prev.as_deref(), "m9", &[]) };
        assert_eq!(apply(store, "w", &[part]).await, [Outcome::Applied]);
        let top = store.top(&hash("all:pages"), 3).await.unwrap();
        let expected = [("/2498", 1250), ("/new", 1249), ("/2496", 1248)];
        assert_eq!(top, expected.map(|(field, sum)| (field.to_owned(), sum)), "what is entered counts");
    }
}

#[tokio::test]
async fn the_first_salt_is_heard_by_all() {
    let keep = Duration::from_secs(48 * 3600);
    for place in all().await {
        let salt = async |on: &str, byte| place.store.salt(&site(), day(on), [byte; 16], keep).await.unwrap();
        assert_eq!(salt("2026-11-23", 0x0a).await, [0x0a; 16]);
        assert_eq!(salt("2026-11-23", 0xff).await, [0x0a; 16]);
        assert_eq!(salt("2026-11-24", 0xff).await, [0xff; 16]);
        let other = SiteKey::new("other").unwrap();
        let others = place.store.salt(&other, day("2026-11-23"), [3; 16], keep).await.unwrap();
        assert_eq!(others, [3; 16]);
    }
}

#[tokio::test]
async fn data_is_born_once_and_remembers_its_first_day() {
    for place in all().await {
        let store = &place.store;
        let attach = async |by: &str, today| {
            store
                .attach(&site(), "Asia/Ho_Chi_Minh", &writer(by), day(today), &Claim::default())
                .await
                .unwrap()
        };
        let born = attach("w1", "2026-11-23").await;
        assert!(
            born.standing == Standing::Born && born.dataset.len() == 16 && born.since == day("2026-11-23")
        );
        let later = attach("w2", "2026-11-30").await;
        assert_eq!(later, Attached { standing: Standing::Ours, ..born.clone() });
        let earlier = attach("w1", "2025-12-31").await;
        assert_eq!(earlier.since, day("2025-12-31"));
        assert_eq!(attach("w1", "2026-11-30").await, earlier);
        let other = SiteKey::new("other").unwrap();
        let other =
            store.attach(&other, "UTC", &writer("w1"), day("2026-11-23"), &Claim::default()).await.unwrap();
        assert!(other.standing == Standing::Born && other.dataset != born.dataset);
    }
}

#[tokio::test]
async fn a_writer_that_is_retired_is_refused_and_told_how_far_it_came() {
    let claim = Claim { runs: vec![Run { id: "r".into(), base: 0 }], ..Claim::default() };
    for place in all().await {
        let attach = async |place: &Place, by: &str| {
            let (site, by) = (site(), writer(by));
            let attached = place.store.attach(&site, "UTC", &by, day("2026-11-23"), &claim).await.unwrap();
            (attached.standing, attached.fork)
        };
        for by in ["w1", "w2", "idle"] {
            attach(&place, by).await;
        }
        for by in ["w1", "w2"] {
            apply(&place.store, by, &[part("year:2026", None, "m6", &[]), part("all", None, "m7", &[])])
                .await;
        }
        let retired =
            place.store.retire(&site(), &[writer("w1"), writer("idle")], day("2026-11-23")).await.unwrap();
        assert_eq!(retired, 2);
        let place = place.again().await;
        assert_eq!(attach(&place, "w1").await, (Standing::Retired, Some(7)));
        assert_eq!(attach(&place, "idle").await, (Standing::Retired, None), "it never applied anything");
        let progress = async |by: &str| place.store.progress(&site(), &writer(by)).await.unwrap();
        let mut w1 = progress("w1").await.unwrap();
        w1.markers.sort_unstable_by_key(|(_, id)| id.sequence);
        let markers = vec![(hash("year:2026"), id("m6")), (hash("all"), id("m7"))];
        assert_eq!(w1, Progress { last: 7, whole: 0, markers });
        assert_eq!((progress("idle").await, progress("w2").await), (None, None));
        // Once more, as after an answer that was lost: what was noted stays.
        place.store.retire(&site(), &[writer("w1")], day("2026-11-23")).await.unwrap();
        assert_eq!(progress("w1").await.map(|progress| progress.markers.len()), Some(2));
        assert_eq!(attach(&place, "w2").await.0, Standing::Ours);
        assert_eq!(read(&place.store, "w2", "all", &[]).await, found(Some("m7"), &[]));
        assert_eq!(read(&place.store, "w1", "all", &[]).await, found(None, &[]));
    }
}

#[tokio::test]
async fn the_revision_of_a_hash_rises_with_a_part_that_says_so_and_with_no_other() {
    for place in all().await {
        let revised = |prev, then, revision| Part { revision, ..part("all", prev, then, &[("views", 1)]) };
        let mut revisions = Vec::new();
        for (prev, then, revision) in [
            (None, "m1", None),
            (Some("m1"), "m2", Some(5)),
            (Some("m1"), "m2", Some(5)),
            (Some("m2"), "m3", None),
            (Some("m3"), "m4", Some(3)),
            (Some("m9"), "m5", Some(90)),
        ] {
            apply(&place.store, "w", &[revised(prev, then, revision)]).await;
            revisions.push(read(&place.store, "other", "all", &[]).await.revision);
        }
        assert_eq!(revisions, [0, 5, 5, 5, 6, 6]);
        let place = place.again().await;
        let held = read(&place.store, "w", "all", &["views"]).await;
        assert_eq!(held, Found { revision: 6, ..found(Some("m4"), &[Some(4)]) });
        assert_eq!(read(&place.store, "w", "year:2026", &[]).await.revision, 0);
    }
}

/// `<amount> <number> <last digit of the writer>`
fn entered(text: &str) -> Entry {
    let (rest, writer) = text.rsplit_once(' ').unwrap();
    format!("{rest} 800000000000000{writer}").parse().unwrap()
}

#[tokio::test]
async fn of_two_entries_the_later_holds_in_whatever_order_they_come() {
    for place in all().await {
        let texts = ["10 1 a", "-4 2 b", "7 2 a", "-4 2 b", "1 1 c", "5 10 a", "6 9 f"];
        let (mut seen, mut prev) = (Vec::new(), None);
        for (number, text) in texts.iter().enumerate() {
            let then = format!("m{number}");
            let entries = vec![("+views".into(), entered(text))];
            let sums: &[(&str, u64)] = if number == 3 { &[("views", 3)] } else { &[] };
            let part = Part { entries, revision: Some(0), ..part("all", prev.as_deref(), &then, sums) };
            assert_eq!(apply(&place.store, "w", std::slice::from_ref(&part)).await, [Outcome::Applied]);
            assert_eq!(apply(&place.store, "w", &[part]).await, [Outcome::Already]);
            seen.push(read(&place.store, "w", "all", &["views"]).await.entries[0].clone().unwrap());
            prev = Some(then);
        }
        let expected = ["10 1 a", "-4 2 b", "-4 2 b", "-4 2 b", "-4 2 b", "5 10 a", "5 10 a"].map(entered);
        assert_eq!(seen, expected);
        let place = place.again().await;
        let held = read(&place.store, "w", "all", &["visits", "views"]).await;
        assert_eq!(held.sums, [None, Some(3)]);
        assert_eq!(held.entries, [None, Some(entered("5 10 a"))]);
        assert_eq!(held.revision, texts.len() as u64, "each may have lowered what is shown");
    }
}

#[tokio::test]
async fn fields_that_are_folded_become_part_of_one_and_all_else_stays() {
    for place in all().await {
        let name = "day:2026-11-23:pages";
        let sums = [("/a", 3), ("/b", 4), ("/c", 5), ("(other)", 1)];
        let entries = vec![("+/a".into(), entered("9 1 a")), ("+/c".into(), entered("7 1 a"))];
        let first = Part { entries, revision: Some(0), ..part(name, None, "m", &sums) };
        assert_eq!(apply(&place.store, "w", &[first]).await, [Outcome::Applied]);
        let hashes = [name, "all:pages", "month:2026-11:pages"].map(|name| part(name, None, "m", &[]).hash);
        let fields: Vec<Arc<str>> = ["/a", "+/a", "/b", "+/b", "/none"].map(Arc::from).into();
        let mut removed = Vec::new();
        for _ in 0..2 {
            let fold = Fold { hashes: hashes.to_vec(), fields: fields.clone(), ..Fold::default() };
            removed.push(place.store.fold(fold).await.unwrap());
        }
        let place = place.again().await;
        let held = read(&place.store, "w", name, &["/a", "/b", "/c", "(other)", "/none"]).await;
        assert_eq!(held.sums, [None, None, Some(5), Some(8), None]);
        assert_eq!((&held.entries[0], &held.entries[2]), (&None, &Some(entered("7 1 a"))));
        assert_eq!((held.marker, held.revision), (Some(marker("m")), 2), "what is brought next follows it");
        assert_eq!(removed, [3, 0]);
        let none = read(&place.store, "w", "all:pages", &["(other)"]).await;
        assert_eq!(none, found(None, &[None]), "nothing is made where nothing is");
        let again = part(name, Some("m"), "n", &[("/a", 2)]);
        assert_eq!(apply(&place.store, "w", &[again]).await, [Outcome::Applied]);
    }
}

#[tokio::test]
async fn entries_are_numbered_above_all_that_is_known() {
    for place in all().await {
        let mut numbers = Vec::new();
        for known in [0, 1, 7, 8] {
            numbers.push(place.store.next_entry(&site(), known).await.unwrap());
        }
        assert_eq!(numbers, [1, 2, 8, 9].map(Some));
        assert_eq!(place.again().await.store.next_entry(&site(), 9).await.unwrap(), Some(10));
    }
}

#[tokio::test]
async fn what_was_kept_is_there_again() {
    for place in all().await {
        let (_, registers) = registers(0..300);
        let visitors = SketchPart { name: hash("day:2026-11-23:visitors"), registers };
        let sums = part("all", None, "m1", &[("views", 7)]);
        place.store.apply(&writer("w"), vec![sums.clone()], vec![visitors]).await.unwrap();
        let keep = Duration::from_secs(3600);
        place.store.salt(&site(), day("2026-11-23"), [1; 16], keep).await.unwrap();
        let born = place
            .store
            .attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default())
            .await
            .unwrap();
        let counted = place.store.visitors(vec![hash("day:2026-11-23:visitors")]).await.unwrap();
        let place = place.again().await;
        assert_eq!(read(&place.store, "w", "all", &["views"]).await, found(Some("m1"), &[Some(7)]));
        assert_eq!(apply(&place.store, "w", &[sums]).await, [Outcome::Already]);
        let again = place.store.visitors(vec![hash("day:2026-11-23:visitors")]).await.unwrap();
        assert_eq!(again, counted);
        let salt = place.store.salt(&site(), day("2026-11-23"), [2; 16], keep).await.unwrap();
        assert_eq!(salt, [1; 16]);
        let again = place
            .store
            .attach(&site(), "UTC", &writer("w"), day("2026-11-24"), &Claim::default())
            .await
            .unwrap();
        assert_eq!(again, Attached { standing: Standing::Ours, ..born });
    }
}

#[tokio::test]
async fn pages_of_days_are_pruned_by_the_stores_own_word() {
    const KEPT: [&str; 6] = [
        "day:2023-09-10",
        "day:2023-09-11:pages",
        "week:2023-W36",
        "week:2023-W37:pages",
        "month:2023-09:pages",
        "all:pages",
    ];
    const PRUNED: [&str; 4] =
        ["day:2023-09-10:pages", "day:2023-09-09:pages", "week:2023-W36:pages", "week:2023-09-03/P7D:pages"];
    for place in all().await {
        let store = &place.store;
        let attach = async |store: &TestStore| {
            let claim = Claim::default();
            store.attach(&site(), "UTC", &writer("w"), day("2023-09-12"), &claim).await.unwrap().pruned
        };
        assert_eq!(attach(store).await, None);
        let parts: Vec<Part> =
            KEPT.iter().chain(&PRUNED).map(|name| part(name, None, "m1", &[("/a", 2)])).collect();
        apply(store, "w", &parts).await;
        let visitors = SketchPart { name: hash("day:2023-09-10:visitors"), registers: vec![(1, 2)] };
        store.apply(&writer("w"), vec![], vec![visitors]).await.unwrap();
        let days = |from, until| day(from)..day(until);
        let prune = async |held, days| store.prune(&site(), held, days).await.unwrap();
        assert_eq!(prune(None, days("2023-09-01", "2023-09-09")).await, Some(day("2023-09-09")));
        // Another instance, which does not know of that.
        let known = [None, Some(day("2023-09-08"))];
        for held in known {
            assert_eq!(prune(held, days("2023-09-01", "2023-09-30")).await, Some(day("2023-09-09")));
        }
        assert_eq!(read(store, "w", PRUNED[1], &["/a"]).await, found(Some("m1"), &[Some(2)]));
        let word = Some(day("2023-09-11"));
        assert_eq!(prune(Some(day("2023-09-09")), days("2023-09-09", "2023-09-11")).await, word);
        for late in [part(PRUNED[0], Some("m1"), "m2", &[("/a", 1)]), part(PRUNED[2], None, "m2", &[])] {
            let entries = vec![("+/a".into(), entered("5 1 a"))];
            assert_eq!(apply(store, "w", &[Part { entries, ..late }]).await, [Outcome::Already]);
        }
        let place = place.again().await;
        assert_eq!(attach(&place.store).await, word);
        for name in PRUNED {
            assert_eq!(read(&place.store, "w", name, &["/a"]).await, found(None, &[None]), "{name}");
        }
        for name in KEPT {
            let next = part(name, Some("m1"), "m2", &[("/a", 1)]);
            assert_eq!(apply(&place.store, "w", &[next]).await, [Outcome::Applied]);
            assert_eq!(read(&place.store, "w", name, &["/a"]).await, found(Some("m2"), &[Some(3)]), "{name}");
        }
        assert_eq!(place.store.visitors(vec![hash("day:2023-09-10:visitors")]).await.unwrap(), [1]);
    }
}

#[tokio::test]
async fn a_file_goes_on_with_few_days_only_where_they_have_many_pages() {
    let place = Place::embedded().await;
    let fields: Vec<String> = (0..MAX_FIELDS).map(|n| format!("/{n}")).collect();
    let sums: Vec<(&str, u64)> = fields.iter().map(|field| (field.as_str(), 1)).collect();
    for number in 1..=30 {
        let name = format!("day:2023-09-{number:02}:pages");
        apply(&place.store, "w", &[part(&name, None, "m1", &sums)]).await;
    }
    let (mut held, mut steps, until) = (None, Vec::new(), day("2024-01-01"));
    while held != Some(until) {
        let from = held.unwrap_or(day("2023-08-01"));
        held = place.store.prune(&site(), held, from..until).await.unwrap();
        steps.extend(held);
    }
    assert_eq!(steps, ["2023-09-11", "2023-09-21", "2023-10-01", "2024-01-01"].map(day));
}

#[tokio::test]
async fn nothing_is_pruned_where_the_data_set_has_vanished() {
    let place = Place::redis().await;
    let claim = Claim::default();
    place.store.attach(&site(), "UTC", &writer("w"), day("2023-09-12"), &claim).await.unwrap();
    place.server.as_ref().unwrap().client().ask(&[b"FLUSHALL"]);
    let pruned = place.store.prune(&site(), None, day("2023-09-01")..day("2023-09-02")).await;
    assert!(matches!(pruned, Err(StoreError::Detached)), "{pruned:?}");
    assert!(place.server.as_ref().unwrap().is_empty());
}

/// Views of a page of all time, in two months and on a day; and whether something is entered of it.
type Read = ([Option<u64>; 4], bool);

const FOLDED: [&str; 4] = ["all:pages", "month:2023-08:pages", "month:2023-09:pages", "day:2023-09-15:pages"];

/// What is in a store that pages were put into and folded: each hash's sums, those of `(other)` last, and revision.
async fn folded(store: &TestStore, by: &str, pages: &[Read], below: u64) -> Vec<(Vec<Option<u64>>, u64)> {
    let names: Vec<Arc<str>> = (0..pages.len()).map(|page| format!("/{page}").into()).collect();
    for (place, name) in FOLDED.iter().enumerate() {
        let sums =
            pages.iter().zip(&names).filter_map(|((views, _), page)| Some((page.clone(), views[place]?)));
        let beside = pages.iter().zip(&names).filter(|((_, entered), _)| *entered && place == 0);
        let entries = beside.map(|(_, page)| (format!("+{page}").into(), entered("1 1 a"))).collect();
        let part =
            Part { sums: sums.collect(), entries, hash: hash_by(by, name), ..part(name, None, "m1", &[]) };
        apply(store, "w", &[part]).await;
    }
    let hashes = |from: &[&str]| from.iter().map(|name| hash_by(by, name)).collect();
    let (longer, days) = (hashes(&FOLDED[..3]), hashes(&FOLDED[3..]));
    let is_idle =
        |(views, entered): &&Read| views[0].is_some_and(|all| all < below) && views[3].is_none() && !entered;
    let idle = pages
        .iter()
        .filter(is_idle)
        .map(|(views, _)| views[..3].iter().flatten().count() as u64)
        .sum::<u64>();
    let fold = Fold { hashes: longer, fields: names.clone(), below: Some(below), days };
    assert_eq!(store.fold(fold.clone()).await.unwrap(), idle);
    assert_eq!(store.fold(fold).await.unwrap(), 0, "it is done");
    let fields: Vec<Arc<str>> = names.into_iter().chain(["(other)".into()]).collect();
    let queries = hashes(&FOLDED).into_iter().map(|hash| Query { hash, fields: fields.clone() }).collect();
    let found = store.read(&writer("w"), queries).await.unwrap();
    assert!(found.iter().all(|found| found.marker == Some(marker("m1"))));
    found.into_iter().map(|found| (found.sums, found.revision)).collect()
}

/// A hash of a site of one round.
fn hash_by(site: &str, name: &str) -> HashName {
    HashName { site: SiteKey::new(site).unwrap(), ..hash(name) }
}

#[test]
fn folded_pages_are_part_of_the_others_and_no_sum_changes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let places = runtime.block_on(all());
    let views = prop_oneof![Just(None), (0u64..6).prop_map(Some)];
    let page = (prop::array::uniform4(views), prop::bool::weighted(0.2));
    let round = std::cell::Cell::new(0);
    let outcome = TestRunner::new(Config::with_cases(crate::totals::cases(30))).run(
        &(prop::collection::vec(page, 0..12), 0u64..5),
        |(pages, below)| {
            round.set(round.get() + 1);
            let site = format!("s{}", round.get());
            let mut seen = Vec::new();
            for place in &places {
                seen.push(runtime.block_on(folded(&place.store, &site, &pages, below)));
            }
            assert!(seen.iter().all(|held| *held == seen[0]), "{seen:?}");
            for (place, (held, revision)) in seen[0].iter().enumerate() {
                let sum = |sums: &mut dyn Iterator<Item = Option<u64>>| sums.flatten().sum::<u64>();
                let before: Vec<Option<u64>> = pages.iter().map(|(views, _)| views[place]).collect();
                assert_eq!(sum(&mut held.iter().copied()), sum(&mut before.iter().copied()));
                let is_same = held.starts_with(&before);
                assert_eq!(*revision, u64::from(!is_same), "{held:?}");
                for ((views, entered), now) in pages.iter().zip(held) {
                    let is_idle = views[0].is_some_and(|all| all < below) && views[3].is_none() && !entered;
                    assert_eq!(*now, views[place].filter(|_| !is_idle));
                }
            }
            Ok(())
        },
    );
    outcome.unwrap();
}

/// What a store should do, in the plainest form: per hash, sums and each writer's marker.
#[derive(Clone, Default)]
struct Model(BTreeMap<HashName, Hash>, Option<NaiveDate>);

/// A hash's sums and markers.
type Hash = (BTreeMap<Arc<str>, u64>, HashMap<WriterId, PartId>);

impl Model {
    fn last(&self, hash: &HashName, by: &WriterId) -> Option<PartId> {
        self.0.get(hash)?.1.get(by).copied()
    }

    fn apply(&mut self, by: &WriterId, part: &Part) -> Outcome {
        let last = self.last(&part.hash, by);
        let is_pruned = self.1.is_some_and(|before| part.hash.bucket < Bucket::Day(before));
        if last == Some(part.id) || is_pruned {
            return Outcome::Already;
        }
        if last != part.prev {
            return Outcome::Found(last);
        }
        let (sums, markers) = self.0.entry(part.hash.clone()).or_default();
        for (field, add) in &part.sums {
            *sums.entry(field.clone()).or_default() += add;
        }
        markers.insert(by.clone(), part.id);
        Outcome::Applied
    }
}

/// A part: hash, the marker it names as the one before (none: the right one), the marker afterwards,
/// additions.
type Draft = (u8, Option<Option<u8>>, u8, BTreeMap<u8, u64>);

#[derive(Clone, Debug)]
enum Step {
    /// A writer's parts.
    Apply(u8, Vec<Draft>),
    /// The same call as the last one: its answer was lost.
    Again,
    /// Remember the store's state; later it goes back to it.
    Remember,
    GoBack,
    /// Another client empties the script cache.
    FlushScripts,
    /// Days are pruned up to one, by an instance that may not know of those that are.
    Prune(bool, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let prev = prop_oneof![3 => Just(None), 1 => prop::option::of(0u8..4).prop_map(Some)];
    let sums = prop::collection::btree_map(0u8..5, prop_oneof![0u64..9, 0u64..1 << 40], 0..5);
    let part = (0u8..3, prev, 0u8..12, sums);
    let step = prop_oneof![
        8 => (0u8..3, prop::collection::vec(part, 0..5)).prop_map(|(by, parts)| Step::Apply(by, parts)),
        3 => Just(Step::Again),
        1 => Just(Step::Remember),
        1 => Just(Step::GoBack),
        1 => Just(Step::FlushScripts),
        2 => (prop::bool::weighted(0.8), 0u8..4).prop_map(|(knows, days)| Step::Prune(knows, days)),
    ];
    prop::collection::vec(step, 1..14)
}

/// Puts the model's state in place of the server's.
fn overwrite(redis: &mut servers::RedisClient, model: &Model) {
    redis.ask(&[b"FLUSHALL"]);
    if let Some(pruned) = model.1 {
        redis.ask(&[b"HSET", b"footfall:{demo}:meta", b"pruned", pruned.to_string().as_bytes()]);
    }
    for (name, (sums, markers)) in &model.0 {
        let key = format!("footfall:{{demo}}:{name}");
        for (field, sum) in sums {
            redis.ask(&[b"HSET", key.as_bytes(), field.as_bytes(), sum.to_string().as_bytes()]);
        }
        for (by, id) in markers {
            let (field, marker) = (format!("#{}", by.0), id.to_string());
            redis.ask(&[b"HSET", key.as_bytes(), field.as_bytes(), marker.as_bytes()]);
        }
    }
}

/// A hash that no other round uses.
fn hash_of(round: u32, number: u8) -> HashName {
    hash(&format!("day:{}:pages", day_of(round, number)))
}

fn day_of(round: u32, number: u8) -> NaiveDate {
    let first = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
    first + chrono::Days::new(u64::from(round) * 3 + u64::from(number))
}

/// Begins with the day before which the last round had pruned. The one that it leaves.
async fn check(
    store: &TestStore,
    mut redis: Option<servers::RedisClient>,
    round: u32,
    steps: Vec<Step>,
    pruned: Option<NaiveDate>,
) -> Option<NaiveDate> {
    let mut model = Model(BTreeMap::new(), pruned);
    let mut remembered = model.clone();
    let mut last = (writer("w0"), Vec::new());
    for step in steps {
        match step {
            Step::Apply(by, parts) => {
                let by = writer(&format!("w{by}"));
                let mut ahead = model.clone();
                let mut frozen = Vec::new();
                for (name, prev, then, sums) in parts {
                    let hash = hash_of(round, name);
                    let part = Part {
                        prev: prev.map_or_else(
                            || ahead.last(&hash, &by),
                            |prev| prev.map(|n| id(&format!("m{n}"))),
                        ),
                        id: id(&format!("m{then}")),
                        hash,
                        sums: sums.into_iter().map(|(f, add)| (format!("/{f}").into(), add)).collect(),
                        entries: Vec::new(),
                        revision: None,
                    };
                    ahead.apply(&by, &part);
                    frozen.push(part);
                }
                last = (by, frozen);
            }
            Step::Again => {}
            Step::Remember => remembered = model.clone(),
            Step::GoBack => {
                if let Some(redis) = &mut redis {
                    model = remembered.clone();
                    overwrite(redis, &model);
                }
            }
            Step::Prune(knows, days) => {
                let (held, until) = (if knows { model.1 } else { Some(day_of(0, 0)) }, day_of(round, days));
                let from = held.unwrap_or_default().max(day_of(round, 0)).min(until);
                if held == model.1 && model.1 <= Some(until) {
                    model.0.retain(|hash, _| hash.bucket >= Bucket::Day(until));
                    model.1 = Some(until);
                } else if held == model.1 {
                    continue;
                }
                assert_eq!(store.prune(&site(), held, from..until).await.unwrap(), model.1);
            }
            Step::FlushScripts => {
                if let Some(redis) = &mut redis {
                    redis.ask(&[b"SCRIPT", b"FLUSH"]);
                }
            }
        }
        let (by, parts) = &last;
        let expected: Vec<_> = parts.iter().map(|part| model.apply(by, part)).collect();
        assert_eq!(store.apply(by, parts.clone(), vec![]).await.unwrap(), expected);
    }
    let fields: Vec<Arc<str>> = (0..5).map(|f| format!("/{f}").into()).collect();
    for by in ["w0", "w1", "w2"] {
        for hash in (0..3).map(|n| hash_of(round, n)) {
            let query = Query { hash: hash.clone(), fields: fields.clone() };
            let held = store.read(&writer(by), vec![query]).await.unwrap().pop().unwrap();
            let sums = model.0.get(&hash).map(|(sums, _)| sums);
            let sums = fields.iter().map(|field| sums.and_then(|sums| sums.get(field)).copied()).collect();
            let (marker, entries) = (model.last(&hash, &writer(by)), vec![None; fields.len()]);
            assert_eq!(held, Found { marker, sums, entries, revision: 0 });
        }
    }
    model.1
}

fn check_many(place: &Place, runtime: &tokio::runtime::Runtime, cases: u32) {
    let (round, pruned) = (std::cell::Cell::new(0), std::cell::Cell::new(None));
    let outcome = TestRunner::new(Config::with_cases(crate::totals::cases(cases))).run(&steps(), |steps| {
        round.set(round.get() + 1);
        let redis = place.server.as_ref().map(RedisServer::client);
        pruned.set(runtime.block_on(check(&place.store, redis, round.get(), steps, pruned.get())));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn redis_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    check_many(&runtime.block_on(Place::redis()), &runtime, 300);
}

#[test]
fn the_store_of_the_simulation_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    check_many(&Place::model(), &runtime, 300);
}

#[test]
fn the_embedded_store_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    check_many(&runtime.block_on(Place::embedded()), &runtime, 40);
}
