//! How keys and fields are written: every key of a site begins `footfall:{<site>}:`, so that one site is one slot.

use std::fmt::Display;

use crate::sites::SiteKey;
use crate::totals::batch::part::HashName;
use crate::totals::store::contract::WriterId;
use crate::totals::store::dump::StoredName;

pub fn key(site: &SiteKey, name: impl Display) -> String {
    format!("footfall:{{{site}}}:{name}")
}

pub fn hash_key(hash: &HashName) -> String {
    key(&hash.site, hash)
}

pub fn stored_key(name: &StoredName) -> String {
    key(&name.site, &name.name)
}

/// The field of a hash that holds a writer's marker.
pub fn marker_field(writer: &WriterId) -> String {
    format!("#{}", writer.0)
}
