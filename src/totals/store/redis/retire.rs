//! Writers that are no more: who is known, and how their markers go.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Datelike, Days, NaiveDate, Weekday};
use redis::Value;

use super::connection::Connection;
use super::keys::{hash_key, key, marker_field};
use crate::calendar::{Bucket, Calendar, Period, Zone};
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashKind, HashName};
use crate::totals::store::contract::{StoreError, WriterId, is_id, written_day};
use crate::totals::store::dump::{RETIRED, STEP};
use crate::totals::store::progress::Progress;

/// Most zones that a site is taken to have had.
const MOST_ZONES: usize = 16;

/// The writers that a site's data knows, and when each last attached.
pub async fn writers(connection: &Connection, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
    let meta = meta(connection, site).await?;
    // A field that is none of ours is left alone.
    let writer = |(field, seen): (String, String)| {
        let id = field.strip_prefix("writer:").filter(|id| is_id(id))?;
        let seen = DateTime::from_timestamp(seen.parse().ok()?, 0)?;
        Some((WriterId(id.into()), seen.timestamp()))
    };
    Ok(meta.into_iter().filter_map(writer).collect())
}

async fn meta(connection: &Connection, site: &SiteKey) -> Result<HashMap<String, String>, StoreError> {
    connection.only(redis::cmd("HGETALL").arg(key(site, "meta"))).await
}

/// A site's hashes, made from its first day and its zones, those that it had before among them:
/// nothing walks the keys of the server, which are those of all sites and of others.
fn hashes(site: &SiteKey, meta: &HashMap<String, String>, today: NaiveDate) -> Vec<HashName> {
    let since = meta.get("since").and_then(|since| written_day(since)).unwrap_or(today).min(today);
    // What waited elsewhere may be older; another clock may be ahead.
    let (since, until) = (since - Days::new(31), today + Days::new(2));
    let mut buckets = BTreeSet::from([Bucket::All]);
    for day in since.iter_days().take_while(|day| *day <= until) {
        let (year, month) = (day.year(), day.month() as u8);
        // Weeks may have begun on any day.
        buckets.extend([Bucket::Day(day), Bucket::Week(day), Bucket::Month(year, month), Bucket::Year(year)]);
    }
    let calendars = meta.iter().filter(|(field, _)| *field == "zone" || field.starts_with("calendar"));
    let zones: BTreeSet<&str> = calendars.flat_map(|(_, text)| text.split(' ')).collect();
    for zone in zones.into_iter().filter_map(Zone::named).take(MOST_ZONES) {
        let calendar = Calendar { zone, week_start: Weekday::Mon };
        let mut at_ms = calendar.day_begins_ms(since);
        while at_ms < calendar.day_begins_ms(until) {
            let span = calendar.span(at_ms);
            buckets.insert(span.hour.bucket(Period::Hour));
            at_ms = span.until_ms.max(at_ms + 1);
        }
    }
    use HashKind::{Aliases, Entries, Pages, Sums};
    let kinds = |bucket| match bucket {
        Bucket::Hour(..) => &[Sums][..],
        Bucket::Day(_) => &[Sums, Pages, Entries],
        Bucket::All => &[Sums, Pages, Entries, Aliases],
        _ => &[Sums, Pages],
    };
    let of = |bucket| kinds(bucket).iter().map(move |kind| HashName::new(site, bucket, *kind));
    buckets.into_iter().flat_map(of).collect()
}

/// Removes the markers of writers from every hash of a site. How many there were.
pub async fn retire(
    connection: &Connection,
    site: &SiteKey,
    writers: &[WriterId],
    today: NaiveDate,
) -> Result<u64, StoreError> {
    // First of all nobody may apply as these writers any more.
    let run = |writer: &WriterId| (format!("run:{}", writer.0), RETIRED.to_owned());
    connection.note(site, writers.iter().map(run)).await?;
    // Then it is noted how far each came, should it come back; only then do the markers go.
    // Where that was done before and broken off, some have gone already.
    let (meta, field) = (meta(connection, site).await?, |writer: &WriterId| format!("runs:{}", writer.0));
    let before = |writer| meta.get(&field(writer)).and_then(|runs| Progress::read(site, runs).ok().flatten());
    let mut progress: Vec<Progress> =
        writers.iter().map(|writer| before(writer).unwrap_or_default()).collect();
    let hashes = hashes(site, &meta, today);
    for (hash, held) in hashes.iter().zip(of_hashes(connection, "HMGET", &hashes, writers).await?) {
        let markers: Vec<Option<String>> = connection.read_as::<Option<_>>(held)?.unwrap_or_default();
        for (progress, marker) in progress.iter_mut().zip(markers) {
            if let Some(id) = marker.and_then(|marker| marker.parse().ok()) {
                progress.note(hash.clone(), id);
            }
        }
    }
    let runs = writers.iter().zip(progress).filter(|(_, progress)| progress.last > 0);
    connection.note(site, runs.map(|(writer, progress)| (field(writer), progress.to_string()))).await?;
    let mut removed = 0;
    for gone in of_hashes(connection, "HDEL", &hashes, writers).await? {
        removed += u64::from(connection.read_as::<Option<u32>>(gone)?.unwrap_or_default());
    }
    let mut forget = redis::cmd("HDEL");
    forget.arg(key(site, "meta"));
    writers.iter().for_each(|writer| _ = forget.arg(format!("writer:{}", writer.0)));
    connection.only::<i64>(&forget).await?;
    Ok(removed)
}

/// Asks one thing of writers' markers in hashes.
async fn of_hashes(
    connection: &Connection,
    command: &str,
    hashes: &[HashName],
    writers: &[WriterId],
) -> Result<Vec<Value>, StoreError> {
    let mut told = Vec::new();
    for some in hashes.chunks(STEP) {
        let mut pipe = redis::pipe();
        for hash in some {
            pipe.cmd(command).arg(hash_key(hash));
            writers.iter().for_each(|writer| _ = pipe.arg(marker_field(writer)));
        }
        for reply in connection.ask(pipe).await? {
            match reply.map_err(|error| connection.fault(&error)) {
                // What is no hash bears no marker.
                Err(StoreError::Refused(_)) => told.push(Value::Nil),
                reply => told.push(reply?),
            }
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::store::tests::{day, site};

    #[test]
    fn every_hash_that_a_batch_can_have_written_to_is_named() {
        let zones = ["Australia/Lord_Howe", "Asia/Ho_Chi_Minh", "America/St_Johns"];
        let meta = [
            ("since", "2023-11-29"),
            ("zone", zones[0]),
            ("calendar", "Australia/Lord_Howe sunday"),
            ("calendar:2024-05-01T00:00:00+07:00", "Asia/Ho_Chi_Minh monday to America/St_Johns sunday"),
        ];
        let meta = meta.map(|(field, text)| (field.to_owned(), text.to_owned())).into();
        let named = hashes(&site(), &meta, day("2026-11-29"));
        let keys: BTreeSet<String> = named.iter().map(hash_key).collect();
        for zone in zones {
            for week_start in [Weekday::Mon, Weekday::Sun] {
                let calendar = Calendar { zone: Zone::named(zone).unwrap(), week_start };
                let mut at_ms = calendar.day_begins_ms(day("2023-11-20"));
                while at_ms < calendar.day_begins_ms(day("2026-11-30")) {
                    let span = calendar.span(at_ms);
                    for (_, period) in Period::WORDS {
                        let hash = HashName::new(&site(), span.hour.bucket(period), HashKind::Sums);
                        assert!(keys.contains(&hash_key(&hash)), "{hash}");
                    }
                    at_ms = span.until_ms;
                }
            }
        }
        assert!(
            keys.contains("footfall:{demo}:day:2023-11-29:pages")
                && keys.contains("footfall:{demo}:all:pages")
        );
        // Spoiled by hand, it costs no more than what a service can have counted.
        let spoiled = [("since".to_owned(), "0001-01-01".to_owned())].into();
        assert!(hashes(&site(), &spoiled, day("2026-11-29")).len() < 1000);
    }
}
