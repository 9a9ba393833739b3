//! Figures by name, and their values as they are now.

use crate::calendar::{PerPeriod, Period};
use crate::clock::Moment;
use crate::ingest::Page;
use crate::sessions::Sessions;
use crate::sites::Site;
use crate::totals::{Figures, Totals};

/// A figure by its name, as `data-footfall` of a page names it: `online`, `visits.week`, `page.views.all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Online,
    PageOnline,
    Of(Total, Period),
    PageViews(Period),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    Views,
    Visits,
    Visitors,
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
            "views" => Some(Figure::Of(Total::Views, period)),
            "visits" => Some(Figure::Of(Total::Visits, period)),
            "visitors" => Some(Figure::Of(Total::Visitors, period)),
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
    pub fn now(totals: &Totals, sessions: &Sessions, site: &Site, page: Option<&Page>, now: Moment) -> Self {
        let figures = totals.look(site.id, now).figures();
        let page = page.map(|page| (sessions.page_online(page, now), totals.look(site.id, now).page(page)));
        let are_known = figures.visits.iter().all(|(_, visits)| visits.is_some());
        let is_page_unknown = page.is_some_and(|(_, views)| views.is_none());
        CurrentFigures {
            figures,
            online: sessions.online(site.id, now),
            page,
            stale: totals.stale() || !are_known || is_page_unknown,
        }
    }

    pub fn of(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::Online => Some(self.online),
            Figure::PageOnline => self.page.map(|(online, _)| online),
            Figure::PageViews(period) => self.page?.1?.get(period).copied(),
            Figure::Of(Total::Views, period) => *self.figures.views.get(period)?,
            Figure::Of(Total::Visits, period) => *self.figures.visits.get(period)?,
            Figure::Of(Total::Visitors, period) => *self.figures.visitors.get(period)?,
        }
    }
}
