//! Figures by name, and their values.

use crate::calendar::{PerPeriod, Period};
use crate::totals::Figures;

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
        let period = Period::SHOWN.into_iter().find(|period| period.word() == name)?;
        match of {
            "page.views" => Some(Figure::PageViews(period)),
            "views" => Some(Figure::Views(period)),
            "visits" => Some(Figure::Visits(period)),
            "visitors" => Some(Figure::Visitors(period)),
            _ => None,
        }
    }
}

/// What is known now of a site, and of a page of it where one is asked for.
pub struct CurrentFigures {
    pub figures: Figures,
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
