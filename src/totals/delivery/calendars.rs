//! A change of a site's calendar: another time zone holds for views accepted afterwards; weeks that begin
//! on another day have other names, and the running one is made the sum of its days.
//!
//! The store keeps the calendar that it was last written with, and a mark of every change. The change is
//! made when everything that waited has been applied: then a week's sum is that of its days, whichever
//! calendar the batches were frozen under. Another instance that still counts with the old calendar adds
//! to the days and to the old week: restart all of them together.

use crate::calendar::{Bucket, Calendar, Period, WEEKDAYS};
use crate::clock::Moment;
use crate::sites::Site;
use crate::totals::batch::part::{HashKind, HashName};
use crate::totals::store::contract::{Store, StoreError};

/// A calendar as the store notes it: `Asia/Ho_Chi_Minh monday`.
fn noted(calendar: &Calendar) -> String {
    let (first, _) = WEEKDAYS[calendar.week_start.num_days_from_monday() as usize];
    format!("{} {first}", calendar.zone.name())
}

/// Notes the calendar of a site in the store, which holds everything that was frozen of it. Whether it had changed,
/// so that figures must be read again.
///
/// # Errors
/// See [`StoreError`]; what was done is not done again.
pub async fn note(store: &impl Store, site: &Site, now: Moment) -> Result<bool, StoreError> {
    let hour = site.calendar.span(now.unix_ms).hour;
    let hash = |bucket| HashName::new(&site.key, bucket, HashKind::Sums);
    let week = hash(hour.bucket(Period::Week));
    let days = hour.week.iter_days().take_while(|day| *day <= hour.day);
    let days = days.map(|day| hash(Bucket::Day(day))).collect();
    let (calendar, at) = (noted(&site.calendar), site.calendar.rfc3339(now.unix_ms));
    let before = store.note_calendar(&calendar, &at, week, days).await?;
    if let Some(before) = &before {
        tracing::warn!(
            site = %site.key,
            before,
            now = calendar,
            "the calendar has changed: closed days stay as they were cut"
        );
    }
    Ok(before.is_some())
}
