//! Writers that are no more: who is known, and how their markers go.

use std::collections::HashMap;

use redis::{FromRedisValue, Value};

use super::{Redis, SMALL_TRIP, key, marker_field};
use crate::sites::SiteKey;
use crate::totals::batch::part::PartId;
use crate::totals::store::contract::{StoreError, WriterId};

/// Stands for the run of a writer that was retired: no run of a directory is called so.
const RETIRED: &str = "retired";

impl Redis {
    /// See [`Store::writers`](crate::totals::store::contract::Store::writers).
    pub async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(key(site, "meta"));
        let meta: HashMap<String, String> = self.link.only(pipe).await?;
        let writer = |(field, seen): (String, String)| {
            Some((WriterId(field.strip_prefix("writer:")?.into()), seen.parse().ok()?))
        };
        Ok(meta.into_iter().filter_map(writer).collect())
    }

    /// See [`Store::retire`](crate::totals::store::contract::Store::retire).
    pub async fn retire(&self, site: &SiteKey, writers: &[WriterId]) -> Result<u64, StoreError> {
        // First of all nobody may apply as these writers any more.
        let run = |writer: &WriterId| Some((format!("run:{}", writer.0), RETIRED.to_owned()));
        self.note(site, writers.iter().filter_map(run).collect()).await?;
        // Then it is noted how far each came, should it come back; only then do the markers go.
        let mut last = vec![None; writers.len()];
        for held in self.of_hashes("HMGET", site, writers).await? {
            let markers = Vec::<Option<String>>::from_redis_value(held).unwrap_or_default();
            for (last, marker) in last.iter_mut().zip(markers) {
                let id: Option<PartId> = marker.and_then(|marker| marker.parse().ok());
                *last = id.map(|id| id.sequence).max(*last);
            }
        }
        let runs = |(writer, last): (&WriterId, Option<u64>)| {
            Some((format!("runs:{}", writer.0), format!("{RETIRED}={} ", last?)))
        };
        self.note(site, writers.iter().zip(last).filter_map(runs).collect()).await?;
        let mut removed = 0;
        for gone in self.of_hashes("HDEL", site, writers).await? {
            removed += u64::from_redis_value(gone).map_err(|error| self.link.fault(&error.into()))?;
        }
        let mut pipe = redis::pipe();
        pipe.cmd("HDEL").arg(key(site, "meta"));
        writers.iter().for_each(|writer| _ = pipe.arg(format!("writer:{}", writer.0)));
        let _: i64 = self.link.only(pipe).await?;
        Ok(removed)
    }

    /// Sets fields of a site's meta hash.
    async fn note(&self, site: &SiteKey, fields: Vec<(String, String)>) -> Result<(), StoreError> {
        if fields.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("HSET").arg(key(site, "meta"));
        fields.into_iter().for_each(|(field, value)| _ = pipe.arg(field).arg(value));
        self.link.only::<i64>(pipe).await.map(drop)
    }

    /// Asks one thing of writers' markers in every hash of a site.
    async fn of_hashes(
        &self,
        command: &str,
        site: &SiteKey,
        writers: &[WriterId],
    ) -> Result<Vec<Value>, StoreError> {
        let (mut cursor, mut told) = ("0".to_owned(), Vec::new());
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SCAN").arg(&cursor).arg("MATCH").arg(key(site, "*")).arg("COUNT").arg(SMALL_TRIP);
            pipe.arg("TYPE").arg("hash");
            let (next, keys): (String, Vec<String>) = self.link.only(pipe).await?;
            if !keys.is_empty() {
                let mut pipe = redis::pipe();
                for key in &keys {
                    pipe.cmd(command).arg(key);
                    writers.iter().for_each(|writer| _ = pipe.arg(marker_field(writer)));
                }
                for reply in self.link.ask(pipe).await? {
                    told.push(reply.map_err(|error| self.link.fault(&error))?);
                }
            }
            if next == "0" {
                return Ok(told);
            }
            cursor = next;
        }
    }
}
