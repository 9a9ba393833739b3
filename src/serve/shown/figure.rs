//! Figures by name, and their values.

use crate::calendar::{PerPeriod, Period};
use crate::totals;

/// A figure by its name, as `data-footfall` of a page names it: `online`, `visits.week`, `page.views.all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Online,
    PageOnline,
    Views(Period),
    Visits(Period),
    Visitors(Period),
    PageViews(Period),
}

impl Figure {
    /// Reads a name.
    pub fn named(name: &str) -> Option<Figure> {
        let Some((of, name)) = name.rsplit_once('.') else {
            return (name == "online").then_some(Figure::Online);
        };
        if (of, name) == ("page", "online") {
            return Some(Figure::PageOnline);
        }
        let period = Period::SHOWN.into_iter().find(|period| period.name() == name)?;
        match of {
            "page.views" => Some(Figure::PageViews(period)),
            "views" => Some(Figure::Views(period)),
            "visits" => Some(Figure::Visits(period)),
            "visitors" => Some(Figure::Visitors(period)),
            _ => None,
        }
    }
}

/// The totals of a site in its running buckets; none where they are not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct SiteFigures {
    pub views: PerPeriod<Option<u64>>,
    pub visits: PerPeriod<Option<u64>>,
    pub visitors: PerPeriod<Option<u64>>,
    /// When they last changed, Unix milliseconds.
    pub changed_ms: i64,
}

impl From<totals::Figures> for SiteFigures {
    fn from(figures: totals::Figures) -> Self {
        let totals::Figures { views, visits, visitors, changed_ms } = figures;
        SiteFigures { views: views.into(), visits: visits.into(), visitors: visitors.into(), changed_ms }
    }
}

impl SiteFigures {
    /// Whether any of its views are known.
    pub fn are_known(&self) -> bool {
        self.views.iter().any(|(_, views)| views.is_some())
    }
}

/// What is known now of a site, and of a page of it where one is asked for.
pub struct CurrentFigures {
    pub figures: SiteFigures,
    pub online: u64,
    /// Visitors online on the page, and its views.
    pub page: Option<(u64, Option<PerPeriod<u64>>)>,
    /// Whether something may be old or is not known.
    pub stale: bool,
}

impl CurrentFigures {
    pub fn of(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::Online => Some(self.online),
            Figure::PageOnline => self.page.map(|(online, _)| online),
            Figure::PageViews(period) => self.page?.1?.get(period).copied(),
            Figure::Views(period) => *self.figures.views.get(period)?,
            Figure::Visits(period) => *self.figures.visits.get(period)?,
            Figure::Visitors(period) => *self.figures.visitors.get(period)?,
        }
    }
}
