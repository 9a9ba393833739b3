//! The contents of Redis: `SCAN` and `HSCAN` in steps, so that no other client waits for long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::{Redis, key};
use crate::sites::SiteKey;
use crate::totals::store::contract::StoreError;
use crate::totals::store::dump::{Fields, HASHES, Held, KeptSalt, STEP, StoredName, seen_as_seconds};

/// Names that hold nothing to be counted: they live for minutes, or are asked for apart.
const APART: [&str; 3] = ["meta", "salt:", "merge:"];

fn stored_key(name: &StoredName) -> String {
    key(&name.site, &name.name)
}

impl Redis {
    /// Keys that match a pattern, in steps.
    async fn scan(&self, pattern: &str, mut each: impl FnMut(String)) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let (next, keys): (String, Vec<String>) = self.link.only(pipe).await?;
            keys.into_iter().for_each(&mut each);
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    pub async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
        let mut sites = BTreeSet::new();
        let each = |key: String| {
            let site = key.strip_prefix("footfall:{").and_then(|rest| rest.strip_suffix("}:meta"));
            sites.extend(site.and_then(SiteKey::new));
        };
        self.scan("footfall:{*}:meta", each).await?;
        Ok(sites)
    }

    pub async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(key(site, "meta"));
        self.link.only(pipe).await
    }

    pub async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
        let mut names = BTreeSet::new();
        let prefix = key(site, "");
        let each = |key: String| {
            let name = key.strip_prefix(&prefix).unwrap_or_default();
            if !APART.iter().any(|apart| name == *apart || apart.ends_with(':') && name.starts_with(apart)) {
                names.insert(name.into());
            }
        };
        self.scan(&format!("{prefix}*"), each).await?;
        Ok(names)
    }

    pub async fn whole(&self, hashes: &[StoredName]) -> Result<Vec<Held>, StoreError> {
        let mut pipe = redis::pipe();
        for hash in hashes {
            pipe.cmd("HGETALL").arg(stored_key(hash));
        }
        self.each(pipe).await
    }

    /// An answer for each command: what the server has against one of them is not a fault of all.
    async fn each<T: redis::FromRedisValue>(
        &self,
        pipe: redis::Pipeline,
    ) -> Result<Vec<Result<T, String>>, StoreError> {
        let replies = self.link.ask(pipe).await?;
        let read = |reply: RedisResult<Value>| {
            let read = reply.and_then(|value| Ok(T::from_redis_value(value)?));
            match read.map_err(|error| self.link.fault(&error)) {
                Ok(held) => Ok(Ok(held)),
                Err(StoreError::Refused(what)) => Ok(Err(what)),
                Err(error) => Err(error),
            }
        };
        replies.into_iter().map(read).collect()
    }

    pub async fn step(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        let cursor = from.unwrap_or_else(|| "0".to_owned());
        let mut pipe = redis::pipe();
        pipe.cmd("HSCAN").arg(stored_key(hash)).arg(cursor).arg("COUNT").arg(STEP);
        let (next, fields): (String, Fields) = self.link.only(pipe).await?;
        Ok((fields, (next != "0").then_some(next)))
    }

    pub async fn field(&self, hashes: &[StoredName], field: &str) -> Result<Vec<Option<String>>, StoreError> {
        let mut found = Vec::with_capacity(hashes.len());
        for some in hashes.chunks(HASHES) {
            let mut pipe = redis::pipe();
            for hash in some {
                pipe.cmd("HGET").arg(stored_key(hash)).arg(field);
            }
            // What is of another type is told of where it is read whole.
            found.extend(self.each(pipe).await?.into_iter().map(Result::unwrap_or_default));
        }
        Ok(found)
    }

    pub async fn fields(
        &self,
        hash: &StoredName,
        fields: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(stored_key(hash)).arg(fields);
        self.link.only(pipe).await
    }

    pub async fn sketch_bytes(
        &self,
        names: &[StoredName],
    ) -> Result<Vec<Result<Option<Vec<u8>>, String>>, StoreError> {
        let mut pipe = redis::pipe();
        for name in names {
            pipe.cmd("GET").arg(stored_key(name));
        }
        self.each(pipe).await
    }

    pub async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
        let mut keys = BTreeSet::new();
        self.scan(&key(site, "salt:*"), |key| {
            keys.insert(key);
        })
        .await?;
        let mut salts = Vec::new();
        for name in keys {
            let mut pipe = redis::pipe();
            pipe.cmd("GET").arg(&name);
            let salt: Option<String> = self.link.only(pipe).await?;
            let mut pipe = redis::pipe();
            pipe.cmd("TTL").arg(&name);
            let seconds: i64 = self.link.only(pipe).await?;
            let day = name.rsplit(':').next().and_then(|day| day.parse().ok());
            let salt = salt.and_then(|hex| u128::from_str_radix(&hex, 16).ok());
            if let (Some(day), Some(salt), Ok(seconds)) = (day, salt, u64::try_from(seconds)) {
                salts.push((day, salt.to_be_bytes(), Duration::from_secs(seconds)));
            }
        }
        Ok(salts)
    }

    /// See [`Store::put_all`](crate::totals::store::contract::Store::put_all).
    pub async fn put(&self, hashes: &[(StoredName, Fields)]) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for (hash, fields) in hashes.iter().filter(|(_, fields)| !fields.is_empty()) {
            pipe.cmd("HSET").arg(stored_key(hash));
            for (field, value) in fields {
                pipe.arg(field).arg(value);
            }
        }
        self.carried_out(pipe).await
    }

    /// See [`Store::put_sketches`](crate::totals::store::contract::Store::put_sketches).
    pub async fn put_sketches(&self, sketches: &[(StoredName, Vec<u8>)]) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for (name, bytes) in sketches {
            pipe.cmd("SET").arg(stored_key(name)).arg(bytes);
        }
        self.carried_out(pipe).await
    }

    /// See [`Store::put_meta`](crate::totals::store::contract::Store::put_meta).
    pub async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HSET").arg(key(site, "meta"));
        for (name, value) in meta {
            let value = if name.starts_with("writer:") { seen_as_seconds(&value) } else { value };
            pipe.arg(name).arg(value);
        }
        self.carried_out(pipe).await
    }

    async fn carried_out(&self, pipe: redis::Pipeline) -> Result<(), StoreError> {
        for reply in self.link.ask(pipe).await? {
            reply.map_err(|error| self.link.fault(&error))?;
        }
        Ok(())
    }
}
