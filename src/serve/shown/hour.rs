//! The texts of a body that stay the same for an hour: the names of the running buckets.

use chrono::{DateTime, FixedOffset, SecondsFormat};

use crate::calendar::{Calendar, Period, Span};

/// A civil hour of a site in words: [`Hours`](crate::sites::Hours) has it made once an hour.
pub struct Hour {
    span: Span,
    /// The names of the running buckets: the JSON object of day, week, month and year.
    pub buckets: String,
}

impl From<Span> for Hour {
    fn from(span: Span) -> Self {
        let [day, week, month, year] =
            [Period::Day, Period::Week, Period::Month, Period::Year].map(|period| span.hour.bucket(period));
        let buckets = format!(r#"{{"day":"{day}","week":"{week}","month":"{month}","year":"{year}"}}"#);
        Hour { span, buckets }
    }
}

impl Hour {
    /// An instant in the site's zone, whole seconds (RFC 3339). No zone is asked within the hour.
    pub fn rfc3339(&self, calendar: &Calendar, unix_ms: i64) -> String {
        self.within_hour(unix_ms).unwrap_or_else(|| calendar.rfc3339(unix_ms))
    }

    fn within_hour(&self, unix_ms: i64) -> Option<String> {
        let span = &self.span;
        let utc = DateTime::from_timestamp_millis(unix_ms)?;
        // RFC 3339 has no seconds of an offset.
        let offset = FixedOffset::east_opt(span.hour.offset_s / 60 * 60)?;
        let is_within = (span.from_ms..span.until_ms).contains(&unix_ms);
        is_within.then(|| utc.with_timezone(&offset).to_rfc3339_opts(SecondsFormat::Secs, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::CivilHour;
    use chrono::NaiveDate;

    /// 2023-09-15T08:00+07:00.
    const EIGHT: i64 = 1_694_739_600_000;

    fn hour(from_ms: i64) -> Hour {
        let day = NaiveDate::from_ymd_opt(2023, 9, 15).unwrap();
        let week = NaiveDate::from_ymd_opt(2023, 9, 11).unwrap();
        let hour = CivilHour { day, hour: 8, offset_s: 7 * 3600, week };
        Hour::from(Span { hour, from_ms, until_ms: from_ms + 3_600_000, neighbour: None })
    }

    #[test]
    fn an_instant_within_the_hour_is_written_with_its_offset() {
        let hour = hour(EIGHT);
        let text = hour.within_hour(EIGHT + 19 * 60_000 + 999);
        assert_eq!(text.as_deref(), Some("2023-09-15T08:19:00+07:00"));
        assert_eq!(
            hour.within_hour(EIGHT + 59 * 60_000 + 59_000).as_deref(),
            Some("2023-09-15T08:59:59+07:00")
        );
        assert!(hour.buckets.starts_with(r#"{"day":"2023-09-15","week":"2023-W37","#), "{}", hour.buckets);
        assert_eq!(hour.within_hour(EIGHT - 1), None);
        assert_eq!(hour.within_hour(EIGHT + 3_600_000), None);
    }
}
