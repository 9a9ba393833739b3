//! Series by site.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::register::Register;
use crate::sites::{Site, SiteId, Sites};

/// How many sites have a label of their own.
const LABELLED_SITES: usize = 250;

/// The label that all further sites share.
const OTHERS: &str = "(others)";

/// The running buckets of totals, as labels.
const PERIODS: [&str; 5] = ["day", "week", "month", "year", "all"];

/// Totals of the running buckets: day, week, month, year, all. `None`: not known.
pub type Totals = [Option<u64>; PERIODS.len()];

/// What a scrape shows of a site.
pub struct Shown<'a> {
    /// The site.
    pub site: &'a Site,
    /// Visitors online.
    pub online: u64,
    /// Views.
    pub views: Totals,
    /// Visits.
    pub visits: Totals,
    /// Visitors.
    pub visitors: Totals,
}

/// The series.
pub struct SiteSeries {
    views: IntCounterVec,
    visits: IntCounterVec,
    /// Views and visits by id, so that no label is looked up for a view.
    counted: Vec<OnceLock<[IntCounter; 2]>>,
    online: IntGaugeVec,
    /// Views, visits, visitors.
    totals: [IntGaugeVec; 3],
}

fn label(site: &Site) -> &str {
    if site.id.index() < LABELLED_SITES { site.key.as_str() } else { OTHERS }
}

impl SiteSeries {
    pub(super) fn new(r: &Register<'_>, sites: &Sites) -> Result<Self, prometheus::Error> {
        let totals = |name: &str, help: &str| r.gauges(name, &["site", "period"], help);
        let shown = SiteSeries {
            views: r.counters("footfall_views_total", &["site"], "Views counted.")?,
            visits: r.counters("footfall_visits_total", &["site"], "Visits counted.")?,
            counted: (0..sites.room()).map(|_| OnceLock::new()).collect(),
            online: r.gauges("footfall_online_visitors", &["site"], "Visitors online now.")?,
            totals: [
                totals("footfall_period_views", "Views of the running period.")?,
                totals("footfall_period_visits", "Visits of the running period.")?,
                totals(
                    "footfall_period_visitors",
                    "Visitors of the running day; of a longer period the sum of its days.",
                )?,
            ],
        };
        shown.register(sites);
        Ok(shown)
    }

    /// Adds series for sites that have none yet.
    pub fn register(&self, sites: &Sites) {
        for site in sites.iter() {
            let labels = &[label(site)];
            let series = |family: &IntCounterVec| family.with_label_values(labels);
            if let Some(counted) = self.counted.get(site.id.index()) {
                counted.get_or_init(|| [series(&self.views), series(&self.visits)]);
            }
            self.online.with_label_values(labels);
        }
    }

    /// Adds counted views and visits of a site.
    pub fn counted(&self, site: SiteId, views: u64, visits: u64) {
        if let Some([of_views, of_visits]) = self.counted.get(site.index()).and_then(OnceLock::get) {
            of_views.inc_by(views);
            if visits > 0 {
                of_visits.inc_by(visits);
            }
        }
    }

    /// Sets what only a scrape needs. A total that is not known is left out: 0 would be wrong, and so would a sum
    /// of those that are known.
    pub fn show<'a>(&self, sites: impl Iterator<Item = Shown<'a>>) {
        let mut by_label = BTreeMap::<&str, (u64, [Totals; 3])>::new();
        let nothing = (0, [[Some(0); PERIODS.len()]; 3]);
        for Shown { site, online, views, visits, visitors } in sites {
            let (sum, totals) = by_label.entry(label(site)).or_insert(nothing);
            *sum += online;
            for (sums, of_site) in totals.iter_mut().zip([views, visits, visitors]) {
                for (sum, total) in sums.iter_mut().zip(of_site) {
                    *sum = sum.zip(total).map(|(sum, total)| sum.saturating_add(total));
                }
            }
        }
        // What is not set now is not shown: sites that are not registered any more, totals that are not known.
        self.online.reset();
        self.totals.iter().for_each(IntGaugeVec::reset);
        for (label, (online, totals)) in by_label {
            self.online.with_label_values(&[label]).set(online as i64);
            for (family, totals) in self.totals.iter().zip(totals) {
                for (period, total) in PERIODS.into_iter().zip(totals) {
                    if let Some(total) = total {
                        family.with_label_values(&[label, period]).set(total as i64);
                    }
                }
            }
        }
    }
}
