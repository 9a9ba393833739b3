//! The running civil hour of each site, looked up in the zone's rules once an hour and not once a request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Site, Sites};
use crate::calendar::{CivilHour, Span};

/// The running hour of each site, with what `T` makes of it. Reading it takes no lock. A site that a reload
/// replaced, or added beyond the table, is looked up again: only speed depends on the table.
#[derive(Debug)]
pub struct Hours<T = Span>(Vec<ArcSwapOption<SiteHour<T>>>);

/// One civil hour of a site.
#[derive(Debug)]
pub struct SiteHour<T> {
    /// The site whose calendar was asked. A site that a reload put in its place has its own.
    site: Arc<Site>,
    /// The hour and how long it lasts.
    pub span: Span,
    /// What is made of it once.
    pub made: T,
}

impl<T> SiteHour<T> {
    fn holds(&self, site: &Arc<Site>, unix_ms: i64) -> bool {
        Arc::ptr_eq(&self.site, site) && (self.span.from_ms..self.span.until_ms).contains(&unix_ms)
    }
}

impl<T: From<Span>> Hours<T> {
    /// An empty table with room for each site.
    pub fn new(sites: &Sites) -> Self {
        Hours((0..sites.room()).map(|_| ArcSwapOption::empty()).collect())
    }

    /// The hour of a site at an instant.
    pub fn at(&self, site: &Arc<Site>, unix_ms: i64) -> Arc<SiteHour<T>> {
        let place = self.0.get(site.id.index());
        let known = place.and_then(ArcSwapOption::load_full).filter(|hour| hour.holds(site, unix_ms));
        known.unwrap_or_else(|| {
            let span = site.calendar.span(unix_ms);
            let hour = Arc::new(SiteHour { site: site.clone(), span, made: span.into() });
            if let Some(place) = place {
                place.store(Some(hour.clone()));
            }
            hour
        })
    }

    /// The same without what is made of it, and without a count of references: for every beacon.
    pub fn civil(&self, site: &Arc<Site>, unix_ms: i64) -> CivilHour {
        let place = self.0.get(site.id.index()).map(ArcSwapOption::load);
        match place.as_ref().and_then(|place| place.as_deref()) {
            Some(hour) if hour.holds(site, unix_ms) => hour.span.hour,
            _ => self.at(site, unix_ms).span.hour,
        }
    }
}
