//! What a person enters beside sums: an opening balance, a backfill, an adjustment.

use std::sync::Arc;

use super::part::{ByField, Entry, HashName, Stamp};
use crate::sites::SiteKey;
use crate::totals::disk::codec::{Damaged, Put, Take};

words! {
    /// What may be entered of a bucket.
    pub enum Total {
        /// Views.
        Views = "views",
        /// Visits.
        Visits = "visits",
        /// Visitors: a number beside the days' sketches.
        Visitors = "visitors",
    }
}

/// What is entered into one hash: at most [`super::part::MAX_FIELDS`] fields, which make one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub hash: HashName,
    pub stamp: Stamp,
    /// Fields, `+` in front, and their texts.
    pub fields: ByField<Arc<str>>,
}

impl Entered {
    /// The registers as a part bears them.
    pub fn entries(&self) -> ByField<Entry> {
        let entry = |text: &Arc<str>| Entry { text: text.clone(), stamp: self.stamp.clone() };
        self.fields.iter().map(|(field, text)| (field.clone(), entry(text))).collect()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(self.hash.site.as_str());
        out.put_text(&self.hash.to_string());
        out.put_varint(self.stamp.number);
        out.put_text(&self.stamp.writer);
        out.put_varint(self.fields.len() as u64);
        for (field, text) in &self.fields {
            out.put_text(field);
            out.put_text(text);
        }
    }

    pub(super) fn decode(take: &mut Take<'_>) -> Result<Self, Damaged> {
        let site = SiteKey::new(take.text()?).ok_or(Damaged("a site's key"))?;
        let hash = HashName::parse(&site, take.text()?).ok_or(Damaged("the name of a hash"))?;
        let stamp = Stamp { number: take.sum()?, writer: take.text()?.into() };
        let fields = (0..take.count(2)?).map(|_| Ok((take.text()?.into(), take.text()?.into())));
        Ok(Entered { hash, stamp, fields: fields.collect::<Result<_, Damaged>>()? })
    }
}
