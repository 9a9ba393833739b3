//! A store that counted agrees; every kind of tampering is found and named.

use super::*;
use crate::calendar::CivilHour;
use crate::ingest::Reason;
use crate::totals::batch::part::{LastParts, SketchPart};
use crate::totals::batch::{Batch, Frozen, SiteSums};
use crate::totals::store::AnyDump;
use crate::totals::store::contract::{Claim, Store};
use crate::totals::store::dump::Fill;
use crate::totals::store::tests::{Place, TestStore, day, site, stored, writer};

const WRITER: &str = "00000000000000aa";

/// Views in an hour of a day whose week begins `since` days before; two of every three are of `/a`.
fn counted(date: &str, hour: u8, since: u64, views: u64) -> SiteSums {
    let day = day(date);
    let week = day.checked_sub_days(Days::new(since)).unwrap();
    SiteSums {
        site: site(),
        hour: CivilHour { day, hour, offset_s: 7 * 3600, week },
        sums: Sums { views, visits: views / 2, filtered: [views; Reason::FILTERED.len()] },
        day_registers: vec![(5, 3)],
        pages: vec![("/a".into(), views - 1), ("(other)".into(), 1)],
    }
}

/// Two years, a week across their border and a month with two weeks.
async fn fill(store: &TestStore, last_parts: &mut LastParts, sequence: u64) {
    let sums = vec![
        counted("2023-12-31", 22, 6, 5),
        counted("2023-12-31", 23, 6, 7),
        counted("2024-01-01", 0, 0, 3),
        counted("2024-01-06", 9, 5, 4),
        counted("2024-01-09", 9, 1, 11),
    ];
    let batch = Batch::freeze(sequence, 7, 0, Frozen { sums, ..Frozen::default() }, last_parts);
    store.apply(&writer(WRITER), batch.parts(), batch.sketches()).await.unwrap();
}

async fn filled() -> [Place; 2] {
    let places = [Place::embedded().await, Place::redis().await];
    for place in &places {
        let mut last_parts = LastParts::new();
        fill(&place.store, &mut last_parts, 1).await;
        fill(&place.store, &mut last_parts, 2).await;
        place
            .store
            .attach(&site(), "Asia/Ho_Chi_Minh", &writer(WRITER), day("2023-12-31"), &Claim::default())
            .await
            .unwrap();
    }
    places
}

async fn dump_of(place: &Place) -> AnyDump {
    place.store.dump().await.unwrap()
}

async fn audit_of(place: &Place) -> Audit {
    audit(&dump_of(place).await, &site()).await.unwrap()
}

#[tokio::test]
async fn what_was_counted_agrees() {
    for place in filled().await {
        let audit = audit_of(&place).await;
        assert_eq!(audit.disagreements, []);
        assert_eq!((audit.views, audit.visits, audit.pages), (60, 26, 2));
        assert_eq!(audit.buckets, 5 + 4 + 3 + 2 + 2 + 1, "hours, days, weeks, months, years, all");
    }
}

#[tokio::test]
async fn pages_of_days_that_are_pruned_are_not_missed_and_all_others_are() {
    let places = filled().await;
    for place in &places {
        place.store.prune(&site(), None, day("2023-12-01")..day("2024-01-07")).await.unwrap();
        assert_eq!(audit_of(place).await.disagreements, []);
    }
    let told = tampered(&places, "day:2024-01-09:pages", "/a", "21").await;
    assert_eq!(
        told,
        [disagreement("day:2024-01-09:pages", "all pages", "22, the views of day:2024-01-09", "23")]
    );
    let told = tampered(&places, "month:2024-01:pages", "/a", "31").await;
    let of_month = disagreement("month:2024-01:pages", "all pages", "36, the views of month:2024-01", "37");
    assert_eq!(told, [disagreement("all:pages", "/a", "51, the sum of its months", "50"), of_month]);
}

/// Sets one field, and what the audit then says.
async fn tampered(places: &[Place; 2], name: &str, field: &str, value: &str) -> Vec<Disagreement> {
    let mut told = Vec::new();
    for place in places {
        let read = dump_of(place).await.field(&[stored(name)], field).await.unwrap().remove(0);
        place.store.put(&stored(name), vec![(field.to_owned(), value.to_owned())]).await.unwrap();
        let disagreements = audit_of(place).await.disagreements;
        let before = read.unwrap_or_else(|| "0".to_owned());
        place.store.put(&stored(name), vec![(field.to_owned(), before)]).await.unwrap();
        if !told.is_empty() {
            assert_eq!(told, disagreements, "the same on both stores");
        }
        told = disagreements;
    }
    told
}

fn disagreement(bucket: &str, what: &str, expected: &str, found: &str) -> Disagreement {
    let [bucket, what, expected, found] = [bucket, what, expected, found].map(str::to_owned);
    Disagreement { bucket, what, expected, found }
}

#[tokio::test]
async fn every_sum_that_was_changed_is_named() {
    let places = filled().await;
    // An hour too much: only its day knows.
    let told = tampered(&places, "hour:2024-01-09T09+07:00", "views", "23").await;
    assert_eq!(told, [disagreement("day:2024-01-09", "views", "23, the sum of its hours", "22")]);
    // A day too little: its hours, week, month and pages know.
    let told = tampered(&places, "day:2023-12-31", "views", "23").await;
    assert_eq!(
        told,
        [
            disagreement("day:2023-12-31", "views", "24, the sum of its hours", "23"),
            disagreement("day:2023-12-31:pages", "all pages", "23, the views of day:2023-12-31", "24"),
            disagreement("month:2023-12", "views", "23, the sum of its days", "24"),
            disagreement("week:2023-W52", "views", "23, the sum of its days", "24"),
        ]
    );
    let told = tampered(&places, "week:2024-W01", "visits", "0").await;
    assert_eq!(told, [disagreement("week:2024-W01", "visits", "6, the sum of its days", "0")]);
    let told = tampered(&places, "week:2024-W01", "filtered:robot", "13").await;
    assert_eq!(told, [disagreement("week:2024-W01", "filtered:robot", "14, the sum of its days", "13")]);
    let told = tampered(&places, "month:2024-01", "visits", "17").await;
    assert_eq!(
        told,
        [
            disagreement("month:2024-01", "visits", "16, the sum of its days", "17"),
            disagreement("year:2024", "visits", "17, the sum of its months", "16"),
        ]
    );
    let told = tampered(&places, "year:2023", "views", "25").await;
    assert_eq!(
        told,
        [
            disagreement("all", "views", "61, the sum of its years", "60"),
            disagreement("year:2023", "views", "24, the sum of its months", "25"),
        ]
    );
    let told = tampered(&places, "all", "visits", "25").await;
    assert_eq!(told, [disagreement("all", "visits", "26, the sum of its years", "25")]);
    for place in &places {
        assert_eq!(audit_of(place).await.disagreements, [], "all is as it was");
    }
}

#[tokio::test]
async fn every_page_that_was_changed_is_named() {
    let places = filled().await;
    let told = tampered(&places, "month:2024-01:pages", "/a", "31").await;
    assert_eq!(
        told,
        [
            disagreement("all:pages", "/a", "51, the sum of its months", "50"),
            disagreement("month:2024-01:pages", "/a", "30, the sum of its days", "31"),
            disagreement("month:2024-01:pages", "all pages", "36, the views of month:2024-01", "37"),
        ]
    );
    let told = tampered(&places, "day:2024-01-06:pages", "/made-up", "9").await;
    assert_eq!(told[0].bucket, "day:2024-01-06:pages");
    assert!(told.contains(&disagreement(
        "month:2024-01:pages",
        "/made-up",
        "9, the sum of its days",
        "nothing"
    )));
}

#[tokio::test]
async fn what_is_not_written_as_it_should_be_is_named() {
    let places = filled().await;
    let marker = format!("#{WRITER}");
    let told = tampered(&places, "week:2024-W01", &marker, "00000000000000000001.0000.tag").await;
    assert_eq!(told, [disagreement("week:2024-W01", &marker, "a marker", "00000000000000000001.0000.tag")]);
    let fine = "00000000000000000001.0000.0000000000000007";
    let told = tampered(&places, "all:pages", "#me", fine).await;
    assert_eq!(told[0], disagreement("all:pages", "#me", "# and the 16 hex digits of a writer", "#me"));
    for place in &places {
        // What a hash lost, and a bucket that nobody counted.
        let sketch = vec![(stored("day:2024-01-09:visitors"), b"HYLL?".to_vec())];
        place.store.put_sketches(sketch).await.unwrap();
        place.store.put(&stored("year:2031"), vec![("views".into(), "1".into())]).await.unwrap();
        place.store.put(&stored("opening"), vec![("visits".into(), "1316717".into())]).await.unwrap();
        let audit = audit_of(place).await;
        let buckets: Vec<&str> = audit.disagreements.iter().map(|d| d.bucket.as_str()).collect();
        assert!(buckets.contains(&"day:2024-01-09:visitors"), "{buckets:?}");
        assert!(audit.disagreements.contains(&disagreement(
            "year:2031",
            "views",
            "0: nothing shorter is kept",
            "1"
        )));
        assert!(audit.beside.contains(&("opening".into(), "visits".into(), "1316717".into())));
    }
    let mut redis = places[1].server.as_ref().unwrap().client();
    redis.ask(&[b"HSET", b"footfall:{demo}:day:2024-01-01", b"views", b"6.0"]);
    redis.ask(&[b"DEL", b"footfall:{demo}:month:2023-12"]);
    redis.ask(&[b"SET", b"footfall:{demo}:day:2024-01-06", b"text"]);
    let told = audit_of(&places[1]).await.disagreements;
    assert!(told.contains(&disagreement("day:2024-01-01", "views", "a plain number", "6.0")), "{told:?}");
    assert!(told.contains(&disagreement("month:2023-12", "views", "24, the sum of its days", "nothing")));
    assert!(told.iter().any(|d| d.bucket == "day:2024-01-06" && d.found.contains("WRONGTYPE")));
}

#[tokio::test]
async fn a_week_that_was_cut_holds_at_most_its_days() {
    let places = filled().await;
    for place in &places {
        // From Tuesday on weeks begin on a Sunday: the rest of the week is in another one.
        let late = vec![counted("2024-01-10", 9, 3, 8)];
        let mut last_parts = LastParts::new();
        let batch = Batch::freeze(9, 7, 0, Frozen { sums: late, ..Frozen::default() }, &mut last_parts);
        store_of(place)
            .apply(&writer("00000000000000bb"), batch.parts(), Vec::<SketchPart>::new())
            .await
            .unwrap();
        assert_eq!(audit_of(place).await.disagreements, []);
    }
    let told = tampered(&places, "week:2024-W02", "views", "31").await;
    assert_eq!(told, [disagreement("week:2024-W02", "views", "at most 30, the sum of its days", "31")]);
}

fn store_of(place: &Place) -> &TestStore {
    &place.store
}

#[tokio::test]
async fn a_store_that_is_written_to_meanwhile_agrees() {
    let place = Place::redis().await;
    let contents = dump_of(&place).await;
    let mut last_parts = LastParts::new();
    fill(&place.store, &mut last_parts, 1).await;
    let writes = async {
        for sequence in 2..60 {
            fill(&place.store, &mut last_parts, sequence).await;
        }
    };
    let audits = async {
        let mut audits = Vec::new();
        for _ in 0..10 {
            audits.push(audit(&contents, &site()).await.unwrap());
        }
        audits
    };
    let (audits, ()) = tokio::join!(audits, writes);
    for audit in audits {
        assert_eq!(audit.disagreements, []);
    }
}
