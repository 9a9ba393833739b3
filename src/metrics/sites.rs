//! Series by site.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::register::Register;
use crate::ingest::Reason;
use crate::sites::{Site, SiteId, Sites};

words! {
    /// What happened to a beacon that was not refused.
    pub enum Outcome {
        /// A view, written and counted under the name of its page.
        Counted = "counted",
        /// A view, written and counted in `(other)`: there was no room for its page, it was not admitted, or it was erased.
        Folded = "folded",
        /// A view whose id was counted before.
        Repeated = "repeated",
        /// A ping or a leave.
        Taken = "taken",
        /// A ping for which there was no room among the sessions.
        Shed = "shed",
    }
}

/// How many sites have a label of their own.
const LABELLED_SITES: usize = 250;

/// The label that all further sites share.
const OTHERS: &str = "(others)";

/// The label of beacons that name no registered site.
const NO_SITE: &str = "-";

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
    beacons: IntCounterVec,
    /// Of beacons that name no site.
    of_none: BeaconSeries,
    /// By id, so that no label is looked up for a beacon.
    counted: Vec<OnceLock<Counted>>,
    online: IntGaugeVec,
    hour: IntGaugeVec,
    /// Views, visits, visitors.
    totals: [IntGaugeVec; 3],
}

/// What is counted of a site.
struct Counted {
    views: IntCounter,
    visits: IntCounter,
    beacons: BeaconSeries,
}

/// Beacons by what became of them.
struct BeaconSeries {
    outcomes: [IntCounter; Outcome::WORDS.len()],
    reasons: [IntCounter; Reason::WORDS.len()],
}

impl BeaconSeries {
    fn of(family: &IntCounterVec, site: &str) -> Self {
        let series = |word: &str| family.with_label_values(&[site, word]);
        BeaconSeries {
            outcomes: Outcome::WORDS.map(|(word, _)| series(word)),
            reasons: Reason::WORDS.map(|(word, _)| series(word)),
        }
    }
}

fn label(site: &Site) -> &str {
    if site.id.index() < LABELLED_SITES { site.key.as_str() } else { OTHERS }
}

impl SiteSeries {
    pub(super) fn new(r: &Register<'_>, sites: &Sites) -> Result<Self, prometheus::Error> {
        let totals = |name: &str, help: &str| r.gauges(name, &["site", "period"], help);
        let about = "Beacons by site (- where they name none) and what became of them.";
        let beacons = r.counters("footfall_beacons_total", &["site", "outcome"], about)?;
        let shown = SiteSeries {
            of_none: BeaconSeries::of(&beacons, NO_SITE),
            beacons,
            views: r.counters("footfall_views_total", &["site"], "Views counted.")?,
            visits: r.counters("footfall_visits_total", &["site"], "Visits counted.")?,
            counted: (0..sites.room()).map(|_| OnceLock::new()).collect(),
            hour: r.gauges(
                "footfall_hour_views_per_visitor",
                &["site"],
                "Views of the last full hour of this process for each of its visitors.",
            )?,
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
                counted.get_or_init(|| Counted {
                    views: series(&self.views),
                    visits: series(&self.visits),
                    beacons: BeaconSeries::of(&self.beacons, label(site)),
                });
            }
            self.online.with_label_values(labels);
            self.hour.with_label_values(labels);
        }
    }

    /// Adds counted views and visits of a site, and how many of the views are in `(other)`.
    pub fn counted(&self, site: SiteId, views: u64, visits: u64, folded: u64) {
        if let Some(counted) = self.of(site) {
            counted.views.inc_by(views);
            counted.beacons.outcomes[Outcome::Counted as usize].inc_by(views - folded);
            if folded > 0 {
                counted.beacons.outcomes[Outcome::Folded as usize].inc_by(folded);
            }
            if visits > 0 {
                counted.visits.inc_by(visits);
            }
        }
    }

    /// Views and visits that were counted of a site.
    pub fn counts(&self, site: SiteId) -> (u64, u64) {
        self.of(site).map_or((0, 0), |counted| (counted.views.get(), counted.visits.get()))
    }

    /// What follows is of another hour.
    pub fn begin_hour(&self) {
        self.hour.reset();
    }

    /// Shows the views a visitor of an hour; of sites that share a label the most.
    pub fn hour(&self, site: &Site, per_visitor: u64) {
        let shown = self.hour.with_label_values(&[label(site)]);
        shown.set(shown.get().max(per_visitor as i64));
    }

    /// Counts a beacon that was neither counted nor refused.
    pub fn beacon(&self, site: SiteId, outcome: Outcome) {
        if let Some(counted) = self.of(site) {
            counted.beacons.outcomes[outcome as usize].inc();
        }
    }

    /// Counts a refused beacon.
    pub fn refused(&self, site: Option<SiteId>, reason: Reason) {
        let of_site = site.and_then(|site| self.of(site)).map(|counted| &counted.beacons);
        of_site.unwrap_or(&self.of_none).reasons[reason as usize].inc();
    }

    fn of(&self, site: SiteId) -> Option<&Counted> {
        self.counted.get(site.index()).and_then(OnceLock::get)
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
