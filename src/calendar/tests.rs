//! The calendar against a calculation of its own: offsets that another program read from the same
//! database, and plain arithmetic for everything else.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// 2005-01-01 and 2031-01-01 in UTC: what the table of offsets covers.
const TABLE_S: std::ops::Range<i64> = 1_104_537_600..1_924_992_000;

/// A zone as the table has it: offset changes only, from the first to the last.
struct Row {
    zone: &'static str,
    first_s: i64,
    changes: Vec<(i64, i64)>,
}

impl Row {
    /// The offset at a second, and the stretch in which it is in force.
    fn offset(&self, at_s: i64) -> (i64, i64, i64) {
        let past = self.changes.partition_point(|(change_s, _)| *change_s <= at_s);
        let (from_s, offset_s) =
            past.checked_sub(1).map_or((i64::MIN / 4, self.first_s), |last| self.changes[last]);
        (offset_s, from_s, self.changes.get(past).map_or(i64::MAX / 4, |next| next.0))
    }
}

fn table() -> Vec<Row> {
    let rows = include_str!("offsets.txt").lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut words = line.split(' ');
        let (zone, first_s) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        let pair = |word: &str| {
            let (at_s, offset_s) = word.split_once(':').unwrap();
            (at_s.parse().unwrap(), offset_s.parse().unwrap())
        };
        Row { zone, first_s, changes: words.map(pair).collect() }
    })
    .collect()
}

fn calendar(zone: &str, week_start: Weekday) -> Calendar {
    Calendar { zone: Zone::named(zone).unwrap(), week_start }
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn ms(rfc3339: &str) -> i64 {
    DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_millis()
}

/// Year, month and day of a number of days since 1970-01-01, by counting.
fn naive_date(mut days: i64) -> (i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days < 0 {
        year -= 1;
        days += 365 + i64::from(leap(year));
    }
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if days < length {
            return (year, month, days + 1);
        }
        days -= length;
    }
    unreachable!("a year has twelve months")
}

/// 0 on Monday: 1970-01-01 was a Thursday.
fn naive_weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// ISO 8601: a week belongs to the year of its Thursday; week 1 holds the year's first Thursday.
fn naive_iso_week(days: i64) -> String {
    let thursday = days - naive_weekday(days) + 3;
    let year = naive_date(thursday).0;
    let mut week = 1;
    while naive_date(thursday - 7 * week).0 == year {
        week += 1;
    }
    format!("{year:04}-W{week:02}")
}

fn naive_day(days: i64) -> String {
    let (year, month, day) = naive_date(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn naive_week(days: i64, week_start: Weekday) -> String {
    let since = (naive_weekday(days) - i64::from(week_start.num_days_from_monday())).rem_euclid(7);
    match week_start {
        Weekday::Mon => naive_iso_week(days),
        _ => format!("{}/P7D", naive_day(days - since)),
    }
}

fn naive_offset(offset_s: i64) -> String {
    let (sign, size) = if offset_s < 0 { ('-', -offset_s) } else { ('+', offset_s) };
    format!("{sign}{:02}:{:02}", size / 3600, size / 60 % 60)
}

const WEEK_STARTS: [Weekday; 3] = [Weekday::Mon, Weekday::Sat, Weekday::Sun];

/// Everything that a span says about an instant, against the table and plain arithmetic.
fn check(row: &Row, week_start: Weekday, at_ms: i64) {
    let at_s = at_ms.div_euclid(1000);
    let (offset_s, steady_from_s, steady_until_s) = row.offset(at_s);
    let local_s = at_s + offset_s;
    let (days, hour) = (local_s.div_euclid(86_400), local_s.rem_euclid(86_400) / 3600);
    let begin_s = local_s - local_s.rem_euclid(3600) - offset_s;

    let calendar = calendar(row.zone, week_start);
    let span = calendar.span(at_ms);
    let named = |period| span.hour.bucket(period).to_string();
    let context = format!("{} at {at_ms}", row.zone);
    assert_eq!(
        named(Period::Hour),
        format!("{}T{hour:02}{}", naive_day(days), naive_offset(offset_s)),
        "{context}"
    );
    assert_eq!(named(Period::Day), naive_day(days), "{context}");
    assert_eq!(named(Period::Week), naive_week(days, week_start), "{context}");
    assert_eq!(named(Period::Month), naive_day(days)[..7], "{context}");
    assert_eq!(named(Period::Year), naive_day(days)[..4], "{context}");
    assert_eq!(named(Period::All), "all");
    assert_eq!(span.from_ms, begin_s.max(steady_from_s) * 1000, "{context}");
    assert_eq!(span.until_ms, (begin_s + 3600).min(steady_until_s) * 1000, "{context}");
    assert_eq!(
        calendar.rfc3339(at_ms),
        format!(
            "{}T{hour:02}:{:02}:{:02}{}",
            naive_day(days),
            local_s.rem_euclid(3600) / 60,
            local_s.rem_euclid(60),
            naive_offset(offset_s)
        )
    );
    for (_, period) in Period::WORDS {
        let bucket = span.hour.bucket(period);
        assert_eq!(bucket.period(), period);
        assert_eq!(bucket.to_string().parse(), Ok(bucket), "{context}");
        if let Some((first, last)) = bucket.days() {
            assert!((first..=last).contains(&span.hour.day), "{context}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_instant_in_any_zone(
        zone in 0..31_usize,
        start in 0..3_usize,
        at_ms in TABLE_S.start * 1000..TABLE_S.end * 1000,
    ) {
        check(&table()[zone], WEEK_STARTS[start], at_ms);
    }

    /// Spans follow each other without gap or overlap, and neighbours are different hours.
    #[test]
    fn spans_tile_time(zone in 0..31_usize, at_ms in -2_000_000_000_000_i64..4_000_000_000_000) {
        let calendar = calendar(table()[zone].zone, Weekday::Mon);
        let span = calendar.span(at_ms);
        prop_assert!(span.from_ms <= at_ms && at_ms < span.until_ms);
        prop_assert!(span.until_ms - span.from_ms <= HOUR_MS);
        prop_assert_eq!(calendar.span(span.from_ms), span);
        prop_assert_eq!(calendar.span(span.until_ms - 1), span);
        let (before, after) = (calendar.span(span.from_ms - 1), calendar.span(span.until_ms));
        prop_assert_eq!(before.until_ms, span.from_ms);
        prop_assert_eq!(after.from_ms, span.until_ms);
        prop_assert_ne!(before.hour, span.hour);
        prop_assert_ne!(after.hour, span.hour);
    }

    /// Whenever a session may have begun that is alive, its day is the hour's own or the neighbour. Nights on
    /// which clocks change are tried as often as others.
    #[test]
    fn a_session_began_on_the_day_or_its_neighbour(
        zone in 0..31_usize,
        change: prop::sample::Index,
        changes: bool,
        at_s in TABLE_S,
        after_s in 0..40 * 3600_i64,
    ) {
        let row = &table()[zone];
        let at_s = if changes && !row.changes.is_empty() { change.get(&row.changes).0 + after_s } else { at_s };
        let naive_days = |at_s: i64| (at_s + row.offset(at_s).0).div_euclid(86_400);
        let span = calendar(row.zone, Weekday::Mon).span(at_s * 1000);
        for earlier_s in (0..=3 * 3600).step_by(20) {
            let began = naive_days(at_s - earlier_s);
            let known = span.neighbour.is_some_and(|day| day.to_string() == naive_day(began));
            prop_assert!(began == naive_days(at_s) || known, "{} at {at_s}, {earlier_s} s before", row.zone);
        }
    }

    /// A day begins at the first instant at which the zone's clock shows it.
    #[test]
    fn a_day_begins_once(zone in 0..31_usize, days in 12_784_i64..22_280) {
        let calendar = calendar(table()[zone].zone, Weekday::Mon);
        let civil = day(&naive_day(days));
        let begins_ms = calendar.day_begins_ms(civil);
        prop_assert!(calendar.span(begins_ms).hour.day >= civil);
        for back_s in [0, 1, 59, 600, 3599, 3600, 7200, 40_000, 86_400] {
            prop_assert!(calendar.span(begins_ms - 1 - back_s * 1000).hour.day < civil);
        }
    }

    #[test]
    fn reading_a_name_is_strict(name in "[0-9]{1,5}([-W/+:TP7D]{1,2}[0-9]{1,2}){0,5}(/P7D)?") {
        if let Ok(bucket) = name.parse::<Bucket>() {
            prop_assert_eq!(bucket.to_string(), name);
        }
    }

    #[test]
    fn any_instant_at_all_is_taken(zone in 0..31_usize, at_ms: i64) {
        let calendar = calendar(table()[zone].zone, Weekday::Sun);
        let hour = calendar.span(at_ms).hour;
        for (_, period) in Period::WORDS {
            prop_assert_eq!(hour.bucket(period).to_string().parse(), Ok(hour.bucket(period)));
        }
        prop_assert!(DateTime::parse_from_rfc3339(&calendar.rfc3339(at_ms)).is_ok());
    }
}

/// One millisecond before, at, and around every offset change of every zone in the table.
#[test]
fn every_offset_change_of_the_table() {
    let mut checked = 0;
    for row in table() {
        for (change_s, _) in &row.changes {
            for beside_s in [-3600, -1800, -1, 0, 1, 1799, 1800, 3600] {
                check(&row, WEEK_STARTS[checked % 3], (change_s + beside_s) * 1000);
            }
            check(&row, Weekday::Mon, change_s * 1000 - 1);
            checked += 1;
        }
    }
    assert!(checked > 900, "{checked} changes");
}

/// Walks from span to span: the hours of a civil day are as many as the day is long, and no bucket's
/// name comes back once it is over.
fn walk(zone: &str, first: &str, last: &str) -> Vec<(String, i64)> {
    let calendar = calendar(zone, Weekday::Mon);
    let (mut at_ms, end_ms) = (calendar.day_begins_ms(day(first)), calendar.day_begins_ms(day(last)));
    let (mut seen, mut stretches) = (HashSet::new(), Vec::new());
    while at_ms < end_ms {
        let span = calendar.span(at_ms);
        let name = span.hour.bucket(Period::Hour).to_string();
        assert!(seen.insert(name.clone()), "{name} comes twice");
        stretches.push((name, (span.until_ms - at_ms) / 60_000));
        at_ms = span.until_ms;
    }
    assert_eq!(at_ms, end_ms);
    stretches
}

#[test]
fn a_short_and_a_long_day() {
    assert_eq!(walk("Europe/Berlin", "2026-03-29", "2026-03-30").len(), 23);
    let long = walk("Europe/Berlin", "2026-10-25", "2026-10-26");
    assert_eq!(long.len(), 25);
    assert_eq!(long[2].0, "2026-10-25T02+02:00");
    assert_eq!(long[3].0, "2026-10-25T02+01:00");
    assert_eq!(walk("Asia/Ho_Chi_Minh", "2026-10-25", "2026-10-26").len(), 24);
}

#[test]
fn lord_howe_moves_by_half_an_hour() {
    let long = walk("Australia/Lord_Howe", "2026-04-05", "2026-04-06");
    assert_eq!(long.iter().map(|(_, minutes)| minutes).sum::<i64>(), 24 * 60 + 30);
    assert_eq!(long[1], ("2026-04-05T01+11:00".to_owned(), 60));
    assert_eq!(long[2], ("2026-04-05T01+10:30".to_owned(), 30));
    assert_eq!(long[3], ("2026-04-05T02+10:30".to_owned(), 60));
    let short = walk("Australia/Lord_Howe", "2026-10-04", "2026-10-05");
    assert_eq!(short.iter().map(|(_, minutes)| minutes).sum::<i64>(), 23 * 60 + 30);
    assert_eq!(short[2], ("2026-10-04T02+11:00".to_owned(), 30));
}

#[test]
fn apia_had_no_2011_12_30() {
    let calendar = calendar("Pacific/Apia", Weekday::Mon);
    let (skipped, next) = (day("2011-12-30"), day("2011-12-31"));
    assert_eq!(calendar.day_begins_ms(skipped), calendar.day_begins_ms(next));
    assert_eq!(calendar.day_begins_ms(next), ms("2011-12-31T00:00:00+14:00"));
    assert_eq!(calendar.span(calendar.day_begins_ms(next) - 1).hour.day, day("2011-12-29"));
}

#[test]
fn a_day_may_begin_at_one() {
    // In Brazil the clock was set forward at midnight: 2018-11-04 had no hour 0.
    let calendar = calendar("America/Sao_Paulo", Weekday::Mon);
    let begins_ms = calendar.day_begins_ms(day("2018-11-04"));
    assert_eq!(begins_ms, ms("2018-11-04T01:00:00-02:00"));
    assert_eq!(calendar.span(begins_ms).hour.hour, 1);
    assert_eq!(walk("America/Sao_Paulo", "2018-11-04", "2018-11-05").len(), 23);
}

#[test]
fn a_day_may_be_interrupted() {
    // St. John's set its clock back at 00:01 until 2011: one minute of the new day, then the last 59
    // minutes of the old one again.
    let calendar = calendar("America/St_Johns", Weekday::Mon);
    let begins_ms = calendar.day_begins_ms(day("2010-11-07"));
    assert_eq!(begins_ms, ms("2010-11-07T00:00:00-02:30"));
    let days = [0, 59_999, 60_000, 60 * 60_000 - 1, 60 * 60_000]
        .map(|after| calendar.span(begins_ms + after).hour.bucket(Period::Day).to_string());
    assert_eq!(days, ["2010-11-07", "2010-11-07", "2010-11-06", "2010-11-06", "2010-11-07"]);
}

/// British Columbia keeps UTC-7 all year since 2026: the spring change of 2026-03-08 was the last, and
/// on 2026-11-01 only the zone's abbreviation changed (database 2026f: `MST7`; 2025b still falls back
/// to UTC-8). So 2026-11-02 begins at 07:00 UTC, and no hour is cut on 2026-11-01.
#[test]
fn vancouver_follows_the_rules_of_2026() {
    let calendar = calendar("America/Vancouver", Weekday::Mon);
    assert_eq!(calendar.day_begins_ms(day("2026-11-02")), ms("2026-11-02T07:00:00Z"));
    assert_eq!(calendar.rfc3339(ms("2026-11-02T07:30:00Z")), "2026-11-02T00:30:00-07:00");
    assert_eq!(calendar.rfc3339(ms("2027-01-15T20:00:00Z")), "2027-01-15T13:00:00-07:00");
    assert_eq!(walk("America/Vancouver", "2026-11-01", "2026-11-02").len(), 24);
    assert_eq!(walk("America/Vancouver", "2025-11-02", "2025-11-03").len(), 25);
}

/// Runs this test binary once more with a zone directory of its own, in which Vancouver lies at
/// UTC+5: what the bundled database says still holds.
#[test]
fn the_machines_zone_files_are_not_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("America/Vancouver");
    std::fs::create_dir(directory.path().join("America")).unwrap();
    // RFC 8536, version 1: no transition, one type (18,000 s, standard, abbreviation at 0), "ABC\0".
    let mut forged = b"TZif".to_vec();
    forged.extend([0; 16]);
    forged.extend([0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat());
    forged.extend(18_000_i32.to_be_bytes());
    forged.extend([0, 0]);
    forged.extend(b"ABC\0");
    std::fs::write(file, forged).unwrap();
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "calendar::tests::vancouver_follows_the_rules_of_2026"])
        .env("TZDIR", directory.path())
        .env("TZ", "America/Vancouver")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn weeks_at_the_turn_of_the_year() {
    let names = [
        ("2020-12-31", "2020-W53"),
        ("2021-01-03", "2020-W53"),
        ("2021-01-04", "2021-W01"),
        ("2024-12-29", "2024-W52"),
        ("2024-12-30", "2025-W01"),
        ("2026-11-23", "2026-W48"),
        ("2026-12-31", "2026-W53"),
        ("2027-01-01", "2026-W53"),
    ];
    let iso = calendar("Asia/Ho_Chi_Minh", Weekday::Mon);
    for (date, name) in names {
        let span = iso.span(iso.day_begins_ms(day(date)));
        assert_eq!(span.hour.bucket(Period::Week).to_string(), name, "{date}");
    }
    for (start, name) in [(Weekday::Sun, "2026-12-27/P7D"), (Weekday::Sat, "2026-12-26/P7D")] {
        let other = calendar("Asia/Ho_Chi_Minh", start);
        let span = other.span(other.day_begins_ms(day("2027-01-01")));
        assert_eq!(span.hour.bucket(Period::Week).to_string(), name);
    }
}

#[test]
fn names_and_their_days() {
    let cases = [
        ("2026-11-23T08+07:00", Some(("2026-11-23", "2026-11-23"))),
        ("2026-11-23T23-09:30", Some(("2026-11-23", "2026-11-23"))),
        ("1900-01-01T00+07:06:30", Some(("1900-01-01", "1900-01-01"))),
        ("2024-02-29", Some(("2024-02-29", "2024-02-29"))),
        ("2026-W48", Some(("2026-11-23", "2026-11-29"))),
        ("2026-W53", Some(("2026-12-28", "2027-01-03"))),
        ("2026-11-22/P7D", Some(("2026-11-22", "2026-11-28"))),
        ("2024-02", Some(("2024-02-01", "2024-02-29"))),
        ("2026-12", Some(("2026-12-01", "2026-12-31"))),
        ("2026", Some(("2026-01-01", "2026-12-31"))),
        ("all", None),
    ];
    for (name, days) in cases {
        let bucket: Bucket = name.parse().unwrap();
        assert_eq!(bucket.to_string(), name);
        assert_eq!(bucket.days(), days.map(|(first, last)| (day(first), day(last))), "{name}");
    }
}

#[test]
fn what_is_no_name_of_a_bucket() {
    let wrong = [
        "",
        "ALL",
        "all ",
        "26",
        "+026",
        "-123",
        "-123-05",
        "-123-W05",
        "-123-11-22/P7D",
        "20260",
        "2026-1",
        "2026-13",
        "2026-00",
        "2026-W00",
        "2025-W53",
        "2026-w48",
        "2026-W4",
        "2026-02-29",
        "2026-2-028",
        "2026/11/23",
        "2026-11-23/P7D",
        "2026-11-22/P8D",
        "2026-11-22/p7d",
        "2026-11-23T24+07:00",
        "2026-11-23t08+07:00",
        "2026-11-23T08-00:00",
        "2026-11-23T08+07:60",
        "2026-11-23T08+26:00",
        "2026-11-23T08+99:00",
        "2026-11-23T99+07:00",
        "2026-11-23T08+07:00:00",
        "2026-11-23T08+7:000",
        "2026-11-23T8 +07:00",
        "2026-11-23T08\u{2212}7:0",
        "2026-11-23T+8+07:00",
        "+262142-12-31T08+07:00",
        "\u{663}\u{663}",
    ];
    for name in wrong {
        assert_eq!(name.parse::<Bucket>(), Err(NotABucket), "{name}");
    }
}

#[test]
fn zones_by_name() {
    assert_eq!(Zone::named("Asia/Ho_Chi_Minh").unwrap().name(), "Asia/Ho_Chi_Minh");
    assert_eq!(Zone::named("asia/ho_chi_minh").unwrap().name(), "Asia/Ho_Chi_Minh");
    assert_eq!(Zone::named("UTC").unwrap().name(), "UTC");
    for unknown in ["", "Asia/Atlantis", "Etc/Unknown", "+07:00", "ICT-7", "../etc/localtime"] {
        assert!(Zone::named(unknown).is_none(), "{unknown}");
    }
}
