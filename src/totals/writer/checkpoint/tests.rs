use proptest::prelude::*;

use super::*;
use crate::calendar::{Bucket, PerPeriod};
use crate::totals::batch::part::HashKind;
use crate::totals::disk::codec::tests::{any_hour, any_instant, any_sum, any_sums, survives};

fn any_session() -> impl Strategy<Value = Exported> {
    (any::<u64>(), any::<u16>(), any::<(u32, u32, u32)>(), any::<(bool, bool)>()).prop_map(
        |(visitor, site, (page, age_s, online_s), (begun, counted))| Exported {
            visitor: VisitorId(visitor),
            site: SiteId(site),
            page,
            age_s,
            online_s,
            begun,
            counted,
        },
    )
}

fn any_stored() -> impl Strategy<Value = Stored> {
    let visitors = prop::collection::vec(any::<u64>(), 0..200);
    let earlier = prop::array::uniform4(any_sum());
    let revised = (prop::array::uniform5(any_sum()), prop::option::of("[0-9a-f]{16}"));
    (any_hour(), prop::array::uniform5(any_sums()), earlier, visitors, revised).prop_map(
        |(hour, sums, [week, month, year, all], visitors, (revisions, dataset))| {
            let mut sketch = Sketch::new();
            visitors.into_iter().for_each(|visitor| _ = sketch.insert(visitor));
            let earlier_visitors = PerPeriod { day: 0, week, month, year, all };
            let sums = PerPeriod::from(sums).zip(revisions.into());
            let sums = sums.map(|(value, revision)| Revised { value, revision });
            Stored { dataset: dataset.map(Into::into), hour, sums, earlier_visitors, sketch }
        },
    )
}

fn any_page() -> impl Strategy<Value = KnownPage> {
    let figures = prop::array::uniform5((any_sum(), any_sum()));
    (0..9usize, any_hour(), ".{0,20}", figures).prop_map(|(site, hour, page, figures)| KnownPage {
        site,
        hour,
        page: page.into(),
        figures: figures.map(|(value, revision)| Revised { value, revision }).into(),
    })
}

fn any_key() -> impl Strategy<Value = SiteKey> {
    "[a-z0-9-]{1,32}".prop_map(|key| SiteKey::new(&key).unwrap())
}

fn any_last_part() -> impl Strategy<Value = (HashName, PartId)> {
    let kind = prop_oneof![Just(HashKind::Sums), Just(HashKind::Pages)];
    (any_key(), 0..10_000, kind, (any_sum(), any::<u32>(), any::<u64>())).prop_map(
        |(site, year, kind, id)| {
            let (sequence, part, tag) = id;
            (HashName { site, bucket: Bucket::Year(year), kind }, PartId { sequence, part, tag })
        },
    )
}

fn any_move() -> impl Strategy<Value = (SiteKey, Arc<str>, Entry)> {
    (any_key(), "/.{0,20}", "(/.{0,20})?", any_sum(), "[0-9a-f]{16}").prop_map(
        |(site, page, to, number, writer)| {
            let stamp = crate::totals::batch::part::Stamp { number, writer: writer.into() };
            (site, page.into(), Entry { text: to.into(), stamp })
        },
    )
}

fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    let ids = || prop::collection::vec((any::<u64>(), any::<u16>().prop_map(SiteId)), 0..4);
    let online = prop::collection::vec((any::<u16>(), ".{0,20}"), 0..4);
    (
        (any_instant(), any_sum(), any_sum(), any_sum()),
        prop::collection::vec(any_last_part(), 0..4),
        (prop::collection::vec(any_key(), 0..4), prop::collection::btree_map(any_key(), any_sum(), 0..3)),
        (online, prop::collection::vec(any_session(), 0..4)),
        [ids(), ids()],
        prop::collection::vec((0..9usize, any_stored()), 0..2),
        (prop::collection::vec(any_page(), 0..4), prop::collection::vec(any_move(), 0..4)),
    )
        .prop_map(
            |(numbers, last_parts, (sites, held), (online, sessions), ids, figures, (pages, moved))| {
                let mut moves = Moves::new();
                moved
                    .into_iter()
                    .for_each(|(site, page, to)| _ = moves.entry(site).or_default().insert(page, to));
                let (unix_ms, segment, offset, applied) = numbers;
                let at = Moment { unix_ms, uptime_ms: segment };
                let online = online.into_iter().map(|(site, text)| (SiteId(site), text.into())).collect();
                Checkpoint {
                    written: Stamp { at, boot: offset.into() },
                    position: Position { segment, offset },
                    applied,
                    held,
                    last_parts: last_parts.into_iter().collect(),
                    sites,
                    sessions: Export { pages: online, sessions },
                    ids,
                    figures,
                    pages,
                    moves,
                }
            },
        )
}

/// The file of a body, whatever it is: a checksum alone keeps nothing out that a bug wrote.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = [MAGIC, body].concat();
    file.put_u32(crc32fast::hash(&file));
    file
}

#[test]
fn what_the_first_release_wrote_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0.1.0/redis/checkpoint");
    let read = Checkpoint::decode(&std::fs::read(path).unwrap()).unwrap();
    let [(_, stored)] = &read.figures[..] else { panic!("{:?}", read.figures) };
    assert_eq!((&stored.dataset, stored.sums.all.revision, stored.sums.all.value.views), (&None, 0, 20));
    let views: u64 = read.pages.iter().map(|page| page.figures.all.value).sum();
    assert_eq!((read.pages.len(), views), (3, 20));
    assert!(!read.sessions.sessions.is_empty() && read.ids.iter().any(|ids| !ids.is_empty()));
    assert_eq!(Checkpoint::decode(&encoded(&read, 7)), Ok(read));
}

/// Written so many items at a time.
fn encoded(checkpoint: &Checkpoint, at_a_time: usize) -> Vec<u8> {
    fn list<T>(out: &mut Vec<u8>, items: &[T], at_a_time: usize, put: impl Fn(&mut Vec<u8>, &T)) {
        items.chunks(at_a_time).for_each(|some| put_some(out, some, &put));
        end_list(out);
    }
    let (out, of) = (&mut Vec::new(), checkpoint);
    begin(out, of.written, of.position, of.applied);
    put_some(out, &of.held, put_held);
    end_list(out);
    put_some(out, &of.last_parts, put_last_part);
    end_list(out);
    list(out, &of.sites, at_a_time, |out, site| out.put_text(site.as_str()));
    list(out, &of.sessions.pages, at_a_time, put_online_page);
    list(out, &of.sessions.sessions, at_a_time, put_session);
    of.ids.iter().for_each(|ids| list(out, ids, at_a_time, put_id));
    list(out, &of.figures, at_a_time, put_figures);
    list(out, &of.pages, at_a_time, put_page);
    of.moves.iter().for_each(|of_site| put_moves(out, of_site));
    end_list(out);
    sealed(&out[MAGIC.len()..])
}

#[test]
fn figures_that_add_up_to_more_than_a_sum_can_be_are_read_back() {
    let (day, most) = (chrono::NaiveDate::default(), Revised { value: u64::MAX, revision: u64::MAX });
    let hour = CivilHour { day, hour: 0, offset_s: 0, week: day };
    let known = KnownPage { site: 0, hour, page: "/".into(), figures: [most; 5].into() };
    let checkpoint = Checkpoint { pages: vec![known], ..Checkpoint::default() };
    let read = Checkpoint::decode(&encoded(&checkpoint, 1)).unwrap();
    assert_eq!(read.pages[0].figures.all, Revised { value: (1 << 53) - 1, revision: (1 << 53) - 1 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(10)))]

    #[test]
    fn a_checkpoint_is_read_back(checkpoint in any_checkpoint(), at_a_time in 1..5usize) {
        let file = encoded(&checkpoint, at_a_time);
        prop_assert_eq!(Checkpoint::decode(&file), Ok(checkpoint));
        survives(&file[MAGIC.len()..file.len() - 4], |body| Checkpoint::decode(&sealed(body)).is_ok());
        for cut in 0..file.len() {
            prop_assert!(Checkpoint::decode(&file[..cut]).is_err());
        }
    }

    #[test]
    fn an_altered_file_is_refused(
        checkpoint in any_checkpoint(),
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut file = encoded(&checkpoint, 2);
        let place = place.index(file.len());
        file[place] ^= 1 << bit;
        prop_assert!(Checkpoint::decode(&file).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        Checkpoint::decode(&body).ok();
        Checkpoint::decode(&sealed(&body)).ok();
    }
}
