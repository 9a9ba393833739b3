use proptest::prelude::*;

use super::*;
use crate::clock::Moment;
use crate::ingest::{Kind, Page, Visitor, VisitorId};
use crate::sites::SiteId;
use crate::totals::disk::codec::tests::{any_hour, any_instant, survives};

#[derive(Clone, Debug)]
struct View {
    site: String,
    beacon: Beacon,
    sighting: Sighting,
}

fn any_view() -> impl Strategy<Value = View> {
    let visitor = prop::option::of((any::<u64>(), prop::option::of(any::<u64>())));
    (
        "[a-z0-9-]{1,32}",
        "/.{0,80}",
        any_instant(),
        any_hour(),
        any::<u8>(),
        visitor,
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(site, page, unix_ms, hour, decided, visitor, id)| {
            let visitor = visitor
                .map(|(today, beside)| Visitor { today: VisitorId(today), beside: beside.map(VisitorId) });
            let (site_id, at) = (SiteId(0), Moment { unix_ms, uptime_ms: 0 });
            let page = Page::trusted(site_id, &page);
            let kind = [Kind::View, Kind::Ping, Kind::Leave][usize::from(decided / 4 % 3)];
            let beacon = Beacon { kind, site: site_id, page, visitor, id, at, hour, is_shadow: false };
            let sighting = match (decided % 4, &beacon.visitor) {
                (_, None) => Sighting::Anonymous,
                (0, _) => Sighting::Visit,
                (1, _) => Sighting::Known,
                (2, _) => Sighting::NoSession,
                _ => Sighting::Full,
            };
            View { site, beacon, sighting }
        })
}

fn is(record: &Record<'_>, View { site, beacon, sighting }: &View) -> bool {
    *record
        == Record {
            kind: beacon.kind,
            site,
            at_ms: beacon.at.unix_ms,
            hour: beacon.hour,
            sighting: *sighting,
            visitor: beacon.visitor.map(|v| v.today.0),
            beside: beacon.visitor.and_then(|v| v.beside).map(|id| id.0),
            id: beacon.id,
            page: beacon.page.as_str(),
        }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(32)))]

    #[test]
    fn a_group_is_read_back_view_by_view(views in prop::collection::vec(any_view(), 0..6)) {
        let mut group = Vec::new();
        views.iter().for_each(|view| encode(&mut group, &view.site, &view.beacon, view.sighting));
        let mut expected = views.iter();
        let mut same = true;
        decode(&group, |record| same &= expected.next().is_some_and(|view| is(&record, view)))?;
        prop_assert!(same && expected.next().is_none());
        survives(&group, |bytes| decode(bytes, |_| ()).is_ok());
    }

    /// It did not say who found no room: they were taken to be known.
    #[test]
    fn a_view_of_the_first_version_is_read(view in any_view()) {
        let mut group = Vec::new();
        encode(&mut group, &view.site, &view.beacon, view.sighting);
        group[0] &= !FULL;
        let sighting = if view.sighting == Sighting::Full { Sighting::Known } else { view.sighting };
        let mut same = false;
        decode(&group, |record| same = is(&record, &View { sighting, ..view.clone() }))?;
        prop_assert!(same);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes, |_| ()).ok();
    }
}
