//! Writers that are no more: who is known, and how their markers go.

use std::collections::HashMap;

use chrono::DateTime;
use redis::{FromRedisValue, Value};

use super::connection::Connection;
use super::keys::{key, marker_field};
use crate::sites::SiteKey;
use crate::totals::batch::part::PartId;
use crate::totals::store::contract::{StoreError, WriterId, is_id};
use crate::totals::store::dump::{RETIRED, STEP, last_of_retired};

/// The writers that a site's data knows, and when each last attached.
pub async fn writers(connection: &Connection, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
    let meta: HashMap<String, String> = connection.only(redis::cmd("HGETALL").arg(key(site, "meta"))).await?;
    // A field that is none of ours is left alone.
    let writer = |(field, seen): (String, String)| {
        let id = field.strip_prefix("writer:").filter(|id| is_id(id))?;
        let seen = DateTime::from_timestamp(seen.parse().ok()?, 0)?;
        Some((WriterId(id.into()), seen.timestamp()))
    };
    Ok(meta.into_iter().filter_map(writer).collect())
}

/// Removes the markers of writers from every hash of a site. How many there were.
pub async fn retire(
    connection: &Connection,
    site: &SiteKey,
    writers: &[WriterId],
) -> Result<u64, StoreError> {
    // First of all nobody may apply as these writers any more.
    let run = |writer: &WriterId| (format!("run:{}", writer.0), RETIRED.to_owned());
    connection.note(site, writers.iter().map(run)).await?;
    // Then it is noted how far each came, should it come back; only then do the markers go.
    let keys = Vec::from_iter(connection.keys(&key(site, "*"), Some("hash")).await?);
    let mut last = vec![None; writers.len()];
    for held in of_hashes(connection, "HMGET", &keys, writers).await? {
        let markers = Vec::<Option<String>>::from_redis_value(held).unwrap_or_default();
        for (last, marker) in last.iter_mut().zip(markers) {
            let id: Option<PartId> = marker.and_then(|marker| marker.parse().ok());
            *last = id.map(|id| id.sequence).max(*last);
        }
    }
    let runs = |(writer, last): (&WriterId, Option<u64>)| {
        Some((format!("runs:{}", writer.0), last_of_retired(last?)))
    };
    connection.note(site, writers.iter().zip(last).filter_map(runs)).await?;
    let mut removed = 0;
    for gone in of_hashes(connection, "HDEL", &keys, writers).await? {
        removed += u64::from(connection.read_as::<u32>(gone)?);
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
    keys: &[String],
    writers: &[WriterId],
) -> Result<Vec<Value>, StoreError> {
    let mut told = Vec::new();
    for some in keys.chunks(STEP) {
        let mut pipe = redis::pipe();
        for key in some {
            pipe.cmd(command).arg(key);
            writers.iter().for_each(|writer| _ = pipe.arg(marker_field(writer)));
        }
        told.append(&mut connection.all(pipe).await?);
    }
    Ok(told)
}
