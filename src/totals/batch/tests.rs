use std::collections::BTreeMap;

use proptest::prelude::*;

use super::part::Stamp;
use super::*;
use crate::ingest::Reason;
use crate::totals::disk::codec::tests::{any_hour, any_instant, any_sum, any_sums, survives};

fn any_registers() -> impl Strategy<Value = Registers> {
    prop::collection::vec((0..16384u16, 1..=51u8), 0..5)
}

fn any_site_sums() -> impl Strategy<Value = SiteSums> {
    let pages = prop::collection::btree_map("/[a-c]{0,3}".prop_map(Arc::from), 1..1000u64, 0..5);
    ("[ab]", any_hour(), any_sums(), any_registers(), pages).prop_map(
        |(site, hour, sums, day_registers, pages)| SiteSums {
            site: SiteKey::new(&site).unwrap(),
            hour,
            sums,
            day_registers,
            pages: pages.into_iter().collect(),
        },
    )
}

fn any_entered() -> impl Strategy<Value = Entered> {
    const NAMES: [&str; 6] =
        ["all", "year:2026", "all:pages", "entries", "aliases", "day:2026-11-23:entries"];
    let fields = prop::collection::vec(("[+][a-z/]{1,4}", "[-]?[0-9]{1,6}"), 0..4);
    (0..3usize, prop::sample::select(&NAMES[..]), fields, 1..99u64).prop_map(
        |(site, name, fields, number)| {
            let site = SiteKey::new(["demo", "lamdong", "third"][site]).unwrap();
            let stamp = Stamp { number, writer: "00000000000000aa".into() };
            let fields = fields.into_iter().map(|(field, text)| (field.into(), text.into())).collect();
            Entered { hash: HashName::parse(&site, name).unwrap(), stamp, fields }
        },
    )
}

fn any_part_id() -> impl Strategy<Value = PartId> {
    (any_sum(), any::<u32>(), any::<u64>()).prop_map(|(sequence, part, tag)| PartId { sequence, part, tag })
}

fn hour(day: &str, hour: u8) -> CivilHour {
    let day = day.parse().unwrap();
    CivilHour { day, hour, offset_s: 25_200, week: crate::calendar::Calendar::utc().week_of(day) }
}

/// A site's sums of an hour over so many pages, one to three views each.
pub(in crate::totals) fn sums_of(site: &str, day: &str, at: u8, pages: usize) -> SiteSums {
    let pages: Vec<(Arc<str>, u64)> =
        (0..pages).map(|n| (format!("/{n:05}").into(), n as u64 % 3 + 1)).collect();
    let views = pages.iter().map(|(_, views)| views).sum();
    SiteSums {
        site: SiteKey::new(site).unwrap(),
        hour: hour(day, at),
        sums: Sums { views, visits: views / 2, filtered: [views % 3; Reason::FILTERED.len()] },
        day_registers: vec![(3, 2)],
        pages,
    }
}

fn freeze(sequence: u64, sums: Vec<SiteSums>, last_parts: &mut LastParts) -> Batch {
    Batch::freeze(
        sequence,
        sequence * 77,
        5,
        Frozen { sums, reach: Position { segment: 1, offset: sequence }, oldest_ms: 4, ..Frozen::default() },
        last_parts,
    )
}

/// What a batch is to add: by hash and field.
pub(in crate::totals) fn expected(sums: &[SiteSums]) -> BTreeMap<(String, String, String), u64> {
    let mut all = BTreeMap::new();
    let mut add = |site: &SiteSums, name: String, field: &str, amount: u64| {
        *all.entry((site.site.to_string(), name, field.to_owned())).or_default() += amount;
    };
    for site in sums {
        for (_, period) in Period::WORDS {
            let name = site.hash(period, HashKind::Sums).to_string();
            add(site, name.clone(), "views", site.sums.views);
            add(site, name.clone(), "visits", site.sums.visits);
            for (reason, views) in Reason::FILTERED.iter().zip(site.sums.filtered) {
                add(site, name.clone(), &format!("filtered:{}", reason.word()), views);
            }
        }
        for (page, views) in &site.pages {
            for period in [Period::Day, Period::Month, Period::All] {
                add(site, site.hash(period, HashKind::Pages).to_string(), page, *views);
            }
        }
    }
    all.retain(|_, amount| *amount > 0);
    all
}

fn check_parts(batch: &Batch, before: &LastParts, after: &LastParts) {
    let parts = batch.parts();
    let mut bears = before.clone();
    let mut added = BTreeMap::new();
    for part in &parts {
        assert!(part.sums.len() <= MAX_FIELDS);
        assert_eq!(part.prev.as_ref(), bears.get(&part.hash), "the chain of {:?}", part.hash);
        assert_ne!(part.prev, Some(part.id));
        bears.insert(part.hash.clone(), part.id);
        let mut fields = HashSet::new();
        for (field, amount) in &part.sums {
            assert!(fields.insert(field), "{field} twice");
            let key = (part.hash.site.to_string(), part.hash.to_string(), field.to_string());
            *added.entry(key).or_default() += amount;
        }
    }
    assert_eq!(added, expected(&batch.sums));
    assert_eq!(&bears, after, "the last parts of all hashes are known");
}

#[test]
fn parts_are_chained_from_the_heads_and_add_up_to_the_batch() {
    let mut last_parts = LastParts::new();
    // Two sites; two hours of a site, the same one twice; a hash in several parts.
    let batches = [
        vec![sums_of("a", "2026-11-23", 8, 2500), sums_of("b", "2026-11-23", 8, 1000)],
        vec![
            sums_of("a", "2026-11-23", 8, 3),
            sums_of("a", "2026-11-23", 9, 1001),
            sums_of("a", "2026-11-23", 8, 5),
        ],
        vec![sums_of("a", "2026-11-30", 0, 0), sums_of("a", "2026-11-23", 23, 1)],
    ];
    for (sequence, sums) in (1..).zip(batches) {
        let before = last_parts.clone();
        let batch = freeze(sequence, sums, &mut last_parts);
        check_parts(&batch, &before, &last_parts);
        let mut again = before;
        batch.advance(&mut again);
        assert_eq!(again, last_parts);
        assert!(batch.parts() == batch.parts());
    }
}

#[test]
fn sketches_are_those_that_rose() {
    let batch = freeze(1, vec![sums_of("a", "2026-11-23", 8, 1)], &mut LastParts::new());
    let names: Vec<_> = batch.sketches().into_iter().map(|s| (s.name.to_string(), s.registers)).collect();
    assert_eq!(names, [("day:2026-11-23:visitors".to_owned(), vec![(3, 2)])]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(32)))]

    #[test]
    fn a_batch_is_read_back_and_its_parts_add_up(
        sums in prop::collection::vec(any_site_sums(), 0..5),
        earlier in prop::collection::vec(any_site_sums(), 0..3),
        entries in prop::collection::vec(any_entered(), 0..4),
        numbers in (any_sum(), any::<u64>(), any_instant()),
    ) {
        // Sums that a store could hold.
        let small = |mut site: SiteSums| {
            site.sums = site.sums.with(Sums::default(), |sum, _| sum % 1000);
            site
        };
        let sums: Vec<_> = sums.into_iter().map(small).collect();
        let mut last_parts = LastParts::new();
        Batch::freeze(1, 9, 0, Frozen { sums: earlier, ..Frozen::default() }, &mut last_parts);
        let before = last_parts.clone();
        let (sequence, tag, ms) = numbers;
        let reach = Position { segment: tag >> 11, offset: sequence };
        let batch = Batch::freeze(sequence.max(2), tag, ms, Frozen { sums, entries, reach, oldest_ms: ms }, &mut last_parts);
        check_parts(&batch, &before, &last_parts);
        let entered: usize = batch.parts().iter().map(|part| part.entries.len()).sum();
        prop_assert_eq!(entered, batch.entries.iter().map(|entered| entered.fields.len()).sum::<usize>());
        // What is cut out of it for each site is read back, and brings the same parts.
        let mut joined: Option<Batch> = None;
        for site in batch.sites() {
            let cut = batch.only(|key| *key == site).into_owned();
            let (mut bytes, mut parts) = (Vec::new(), batch.parts());
            parts.retain(|part| part.hash.site == site);
            prop_assert!(cut.parts() == parts);
            cut.encode(&mut bytes);
            prop_assert_eq!(Batch::decode(&bytes), Ok(cut.clone()));
            survives(&bytes, |bytes| Batch::decode(bytes).map(|batch| batch.parts().len()).ok());
            match &mut joined {
                Some(joined) => joined.join(cut),
                None => joined = Some(cut),
            }
        }
        let sorted = |batch: &Batch| {
            let mut parts = batch.parts();
            parts.sort_by_key(|part| part.id.part);
            parts
        };
        prop_assert!(joined.is_none_or(|joined| sorted(&joined) == sorted(&batch)));
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        prop_assert_eq!(Batch::decode(&bytes), Ok(batch));
        survives(&bytes, |bytes| Batch::decode(bytes).map(|batch| batch.parts().len()).ok());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        Batch::decode(&bytes).ok();
    }

    #[test]
    fn a_marker_is_read_back(id in any_part_id(), other in any_part_id(), noise in ".{0,50}") {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(id.is_before(other), (id.sequence, id.part) < (other.sequence, other.part));
        noise.parse::<PartId>().ok();
    }
}

#[test]
fn a_marker_that_is_not_spelled_as_ours_is_none() {
    let ours = PartId { sequence: 7, part: 3, tag: 9 }.to_string();
    assert_eq!(ours, "00000000000000000007.0003.0000000000000009");
    for other in ["", "7", "7.3", "a.b.c", "7.4294967299.9", "00000000000000000007.0003.0000000000000009.1"] {
        assert!(other.parse::<PartId>().is_err(), "{other}");
    }
}

#[test]
fn an_entry_that_is_not_spelled_as_ours_is_none() {
    let ours: Entry = "-5 7 00000000000000aa".parse().unwrap();
    assert_eq!((ours.amount(), ours.stamp.number), (-5, 7));
    assert!(ours.stamp < Stamp { number: 7, writer: "00000000000000ab".into() });
    assert_eq!("{} in words 7 00000000000000aa".parse::<Entry>().map(|entry| entry.amount()), Ok(0));
    for other in
        ["", "5", "5 7", "5 7 aa", "5 07 00000000000000aa", "5 7 00000000000000AA", "5 7 00000000000000aa "]
    {
        assert!(other.parse::<Entry>().is_err(), "{other}");
    }
    for no_number in ["+5", "5.0", "--5", "9007199254740992", ""] {
        let text = format!("{no_number} 7 00000000000000aa");
        assert!(Entry::beside_sum(&text).is_err(), "{text}");
    }
}
