//! An old site: how large it is, and that it becomes as small as what is kept of it.
//!
//! `FOOTFALL_DAYS=3652 FOOTFALL_ARTICLES=200000` is a newspaper of a province with ten years behind it; with
//! `FOOTFALL_PAGE_DAYS=62` it was pruned all along.

use std::collections::BTreeMap;

use chrono::{Datelike, Days};
use tokio::time::Instant;

use super::*;
use crate::calendar::Bucket;
use crate::totals::batch::part::HashKind;
use crate::totals::store::dump::Fill;
use crate::totals::upkeep::audit;

const KEPT: u64 = 62;

/// How long the site has been there.
fn days() -> u64 {
    number("FOOTFALL_DAYS", 250)
}

/// The first of the days, which end with a month.
fn first() -> NaiveDate {
    day("2023-09-30") - Days::new(days() - 1)
}

fn number(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).map_or(usually, |text| text.parse().expect("a number"))
}

/// Views of articles on a day, of so many as there are in the end: those of the last days are read often, all others
/// seldom; some five of a hundred each day.
fn read_on(day: u64, articles: u64) -> BTreeMap<u64, u64> {
    let known = (articles * (day + 1)).div_ceil(days());
    let mut views = BTreeMap::new();
    for n in 0..articles / 15 {
        let dice = siphasher::sip::SipHasher13::new_with_keys(day, 7).hash(&n.to_le_bytes());
        let age = known as f64 * ((dice >> 11) as f64 / (1u64 << 53) as f64).powi(4);
        *views.entry(known.saturating_sub(1 + age as u64)).or_default() += 1;
    }
    views
}

fn of_pages(views: BTreeMap<u64, u64>) -> Fields {
    let page = |article| format!("/tin-tuc/thoi-su/bai-viet-so-{article:06}-cua-bao-lam-dong.html");
    views.into_iter().map(|(article, views)| (page(article), views.to_string())).collect()
}

/// Puts the past of a site into a store, the pages of the last days by day.
async fn fill(store: &TestStore, articles: u64, page_days: u64) {
    let stored = |bucket, kind| StoredName::from(&HashName::new(&site(), bucket, kind));
    let (mut sums, mut pages) = (BTreeMap::<Bucket, u64>::new(), [BTreeMap::new(), BTreeMap::new()]);
    let visitors = registers(0..articles / 20).0.to_bytes();
    for number in 0..days() {
        let (day, read) = (first() + Days::new(number), read_on(number, articles));
        let month = Bucket::Month(day.year(), day.month() as u8);
        let views: u64 = read.values().sum();
        let week = Bucket::Week(day.week(chrono::Weekday::Mon).first_day());
        for bucket in [Bucket::Day(day), week, month, Bucket::Year(day.year()), Bucket::All] {
            *sums.entry(bucket).or_default() += views;
        }
        for hour in 0..24 {
            let of_hour = views / 24 + if hour == 8 { views % 24 } else { 0 };
            sums.insert(Bucket::Hour(day, hour, 25_200), of_hour);
        }
        for (article, views) in &read {
            pages.iter_mut().for_each(|of| *of.entry(*article).or_default() += views);
        }
        let name = stored(Bucket::Day(day), HashKind::Visitors);
        store.put_sketches(vec![(name, visitors.clone())]).await.unwrap();
        if number + page_days >= days() {
            store.put(&stored(Bucket::Day(day), HashKind::Pages), of_pages(read)).await.unwrap();
        }
        if (day + Days::new(1)).day() == 1 {
            let of_month = of_pages(std::mem::take(&mut pages[0]));
            store.put(&stored(month, HashKind::Pages), of_month).await.unwrap();
        }
    }
    let [_, of_all] = pages;
    for some in of_pages(of_all).chunks(10_000) {
        store.put(&stored(Bucket::All, HashKind::Pages), some.to_vec()).await.unwrap();
    }
    let fields = |views: u64| ["views", "visits"].map(|field| (field.to_owned(), views.to_string())).to_vec();
    let sums: Vec<_> =
        sums.into_iter().map(|(bucket, views)| (stored(bucket, HashKind::Sums), fields(views))).collect();
    for some in sums.chunks(1000) {
        store.put_all(some.to_vec()).await.unwrap();
    }
    let zone = "Asia/Ho_Chi_Minh";
    store.attach(&site(), zone, &writer("0123456789abcdef"), first(), &Claim::default()).await.unwrap();
}

/// The bytes of a file, or of a server's memory once all that was let go of is free.
fn size(place: &Place) -> u64 {
    let Some(server) = &place.server else {
        return std::fs::metadata(place.dir.path().join("totals.redb")).unwrap().len();
    };
    let info = |name: &str| {
        let told = server.client().ask(&[b"INFO", b"memory"]).text();
        let value =
            told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().to_owned();
        value.trim().parse::<u64>().unwrap()
    };
    while info("lazyfree_pending_objects") > 0 {}
    info("used_memory")
}

#[tokio::test]
async fn an_old_site_becomes_as_small_as_what_is_kept_of_it() {
    let articles = number("FOOTFALL_ARTICLES", 9000);
    let page_days = number("FOOTFALL_PAGE_DAYS", days());
    for mut place in [Place::embedded().await, Place::redis().await] {
        let empty = size(&place);
        fill(&place.store, articles, page_days).await;
        if place.server.is_none() {
            place = place.again().await;
        }
        let before = size(&place) - empty;
        let (mut held, mut longest, mut steps) = (None, Duration::ZERO, 0);
        let (began, until) = (Instant::now(), first() + Days::new(days() - KEPT));
        while held != Some(until) {
            let from = held.unwrap_or(first());
            let step = Instant::now();
            held = place.store.prune(&site(), held, from..until.min(from + Days::new(500))).await.unwrap();
            (longest, steps) = (longest.max(step.elapsed()), steps + 1);
        }
        let pruned = began.elapsed();
        let opened = Instant::now();
        // The file is made smaller when it is opened.
        place = place.again().await;
        let (opened, after) = (opened.elapsed(), size(&place).saturating_sub(empty));
        println!(
            "{} articles, pages of {page_days} days: {before} bytes; pruned in {pruned:?}, {steps} steps, at most \
             {longest:?}; opened in {opened:?}: {after} bytes, {}",
            articles,
            place.store.kind()
        );
        assert!(after * 4 < before * 3 || page_days < days(), "{after} of {before} bytes are left");
        let audit = audit::audit(&place.store.dump().await.unwrap(), &site()).await.unwrap();
        assert_eq!((audit.disagreements, audit.buckets > 24 * days() as usize), (Vec::new(), true));
    }
}
