//! The civil hour of each site, looked up in the zone's rules once and not once a beacon.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::calendar::Span;
use crate::sites::{Site, Sites};

/// The current [`Span`] of each site. One table serves the whole process; reading it takes no lock and
/// no memory. A site that a reload replaced, or added beyond the table, is looked up anew, so the table
/// can be out of date in speed only.
#[derive(Debug)]
pub struct Spans {
    sites: Vec<ArcSwapOption<Known>>,
}

#[derive(Debug)]
struct Known {
    /// The very site whose calendar was asked: another one, with the same id, has its own.
    site: Arc<Site>,
    span: Span,
}

impl Spans {
    /// An empty table with room for each site.
    pub fn new(sites: &Sites) -> Self {
        Spans { sites: (0..sites.room()).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The civil hour of a site at an instant, and how long it lasts.
    pub fn at(&self, site: &Arc<Site>, unix_ms: i64) -> Span {
        let Some(place) = self.sites.get(site.id.index()) else { return site.calendar.span(unix_ms) };
        let known = place.load();
        match known.as_deref() {
            Some(Known { site: asked, span })
                if Arc::ptr_eq(asked, site) && (span.from_ms..span.until_ms).contains(&unix_ms) =>
            {
                *span
            }
            _ => {
                let span = site.calendar.span(unix_ms);
                place.store(Some(Arc::new(Known { site: site.clone(), span })));
                span
            }
        }
    }
}
