//! What Redis holds: `SCAN` and `HSCAN` in steps, so that no other client waits for long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Value};

use super::connection::Connection;
use super::keys::{key, stored_key};
use crate::sites::SiteKey;
use crate::totals::store::contract::{StoreConfig, StoreError, written_day};
use crate::totals::store::dump::{Dump, Fields, HASHES, Held, KeptSalt, SketchBytes, StoredName};

/// Names that hold nothing to be counted: they live for minutes, or are asked for apart.
const APART: [&str; 3] = ["meta", "salt:", "merge:"];

/// The keys of footfall, over a connection of its own: what is read holds up no batch.
pub struct Keyspace(pub Connection);

impl Keyspace {
    /// Takes the settings; does not connect.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Connection::new(config).map(Keyspace)
    }

    /// Asks one thing of each name: what the server has against one of them is not a fault of all.
    async fn each<T: FromRedisValue>(
        &self,
        command: &str,
        names: &[StoredName],
        fields: &[String],
    ) -> Result<Vec<Result<T, String>>, StoreError> {
        let mut pipe = redis::pipe();
        names.iter().for_each(|name| _ = pipe.cmd(command).arg(stored_key(name)).arg(fields));
        let replies = self.0.ask(pipe).await?;
        let read = |reply: RedisResult<Value>| match reply
            .map_err(|error| self.0.fault(&error))
            .and_then(|value| self.0.read_as(value))
        {
            Ok(held) => Ok(Ok(held)),
            Err(StoreError::Refused(what)) => Ok(Err(what.to_string())),
            Err(error) => Err(error),
        };
        replies.into_iter().map(read).collect()
    }
}

impl Dump for Keyspace {
    fn stands_still(&self) -> bool {
        false
    }

    async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
        let site = |key: &String| SiteKey::new(key.strip_prefix("footfall:{")?.strip_suffix("}:meta")?);
        Ok(self.0.keys("footfall:{*}:meta").await?.iter().filter_map(site).collect())
    }

    async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
        self.0.only(redis::cmd("HGETALL").arg(key(site, "meta"))).await
    }

    async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
        let prefix = key(site, "");
        let is_apart = |name: &str| {
            APART.iter().any(|apart| name == *apart || apart.ends_with(':') && name.starts_with(apart))
        };
        let keys = self.0.keys(&format!("{prefix}*")).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
        Ok(names.filter(|name| !is_apart(name)).map(Arc::from).collect())
    }

    async fn whole(&self, hashes: &[StoredName]) -> Result<Vec<Held>, StoreError> {
        self.each("HGETALL", hashes, &[]).await
    }

    async fn scan(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        self.0.fields(&stored_key(hash), from).await
    }

    async fn get(
        &self,
        hashes: &[StoredName],
        fields: &[String],
    ) -> Result<Vec<Vec<Option<String>>>, StoreError> {
        let mut found = Vec::with_capacity(hashes.len());
        for some in hashes.chunks(HASHES) {
            let none = |_| vec![None; fields.len()];
            let held = self.each("HMGET", some, fields).await?.into_iter();
            found.extend(held.map(|held| held.unwrap_or_else(none)));
        }
        Ok(found)
    }

    async fn sketches(&self, names: &[StoredName]) -> Result<Vec<SketchBytes>, StoreError> {
        self.each("GET", names, &[]).await
    }

    async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
        let mut salts = Vec::new();
        for name in self.0.keys(&key(site, "salt:*")).await? {
            let salt: Option<String> = self.0.only(redis::cmd("GET").arg(&name)).await?;
            let seconds: i64 = self.0.only(redis::cmd("TTL").arg(&name)).await?;
            let day = name.rsplit(':').next().and_then(written_day);
            let salt = salt.and_then(|hex| u128::from_str_radix(&hex, 16).ok());
            if let (Some(day), Some(salt), Ok(seconds)) = (day, salt, u32::try_from(seconds)) {
                salts.push((day, salt.to_be_bytes(), Duration::from_secs(seconds.into())));
            }
        }
        Ok(salts)
    }
}
