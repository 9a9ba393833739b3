//! Between any two stores, whole; into nothing but an empty one. (Under load, and killed meanwhile: in
//! `tests/it/copies.rs`.)

use std::time::Duration;

use super::*;
use crate::totals::batch::part::{Part, SketchPart};
use crate::totals::store::contract::{Claim, Run, Standing, WriterId};
use crate::totals::store::tests::servers::Reply;
use crate::totals::store::tests::{
    Place, TestStore, config, day, hash, id, part, registers, site, stored, writer,
};

const WRITER: &str = "00000000000000aa";

const RESUMED: Manner = Manner { resumes: true, with_salts: true };
const WITH_SALTS: Manner = Manner { resumes: false, with_salts: true };

async fn dump(place: &Place) -> AnyDump {
    place.store.dump().await.unwrap()
}

/// Copies all, salts too.
async fn copied(from: &AnyDump, to: &StoreConfig, manner: Manner) -> Result<Vec<Audit>, CopyError> {
    copy(from, to, Path::new(""), manner).await
}

async fn fill(store: &TestStore) {
    let views = [("views", 2500), ("visits", 7)];
    let names =
        ["hour:2024-01-09T09+07:00", "day:2024-01-09", "week:2024-W02", "month:2024-01", "year:2024", "all"];
    let mut parts: Vec<_> = names.iter().map(|name| part(name, None, "m1", &views)).collect();
    let pages: Vec<String> = (0..2500).map(|page| format!("/{page}")).collect();
    for name in ["day:2024-01-09:pages", "month:2024-01:pages", "all:pages"] {
        let mut prev = None;
        for (number, some) in pages.chunks(1000).enumerate() {
            let then = format!("{number}");
            let sums: Vec<(&str, u64)> = some.iter().map(|page| (page.as_str(), 1)).collect();
            parts.push(part(name, prev.as_deref(), &then, &sums));
            prev = Some(then);
        }
    }
    parts.push(Part { revision: Some(7), ..part("all:pages", Some("2"), "3", &[]) });
    let enter = |name, prev, field: &str, text: &str| Part {
        entries: vec![(field.into(), format!("{text} 1 {WRITER}").parse().unwrap())],
        revision: Some(0),
        ..part(name, prev, "4", &[])
    };
    parts.push(enter("all", Some("m1"), "+visits", "1316656"));
    parts.push(enter("all:pages", Some("3"), "+/7", "12"));
    parts.push(enter("week:2024-W02:pages", None, "+/7", "-1"));
    parts.push(enter("entries", None, "+1.aa", "{}"));
    parts.push(enter("day:2024-01-08:entries", None, "+1.aa day:2024-01-08 views", "0 7"));
    let (_, registers) = registers(0..500);
    let sketch = SketchPart { name: hash("day:2024-01-09:visitors"), registers };
    store.apply(&writer(WRITER), parts, vec![sketch]).await.unwrap();
    store
        .attach(&site(), "Asia/Ho_Chi_Minh", &writer(WRITER), day("2024-01-09"), &Claim::default())
        .await
        .unwrap();
    store.salt(&site(), day("2024-01-09"), [7; 16], Duration::from_secs(600)).await.unwrap();
    store.put(&stored("opening"), vec![("visits".into(), "1316717".into())]).await.unwrap();
}

/// The settings of another store of a kind, its directory, and its server.
async fn other(of: &Place) -> (StoreConfig, Place) {
    match &of.server {
        Some(server) => (config(&server.url()), Place::embedded().await),
        None => (
            config(&format!("embedded:{}", of.dir.path().join("other.redb").display())),
            Place::embedded().await,
        ),
    }
}

#[tokio::test]
async fn between_any_two_stores_everything_is_copied() {
    for from in [Place::embedded().await, Place::redis().await] {
        fill(&from.store).await;
        from.store.prune(&site(), None, day("2024-01-01")..day("2024-01-05")).await.unwrap();
        for to in [Place::embedded().await, Place::redis().await] {
            let (settings, _) = other(&to).await;
            let audits = copied(&dump(&from).await, &settings, WITH_SALTS).await.unwrap();
            assert_eq!((audits[0].views, audits[0].visits, audits[0].pages), (2500, 7, 2500));
            let ours = dump(&from).await;
            let theirs = AnyDump::open(&settings, Path::new("")).await.unwrap();
            let names = ours.names(&site()).await.unwrap();
            assert_eq!(names, theirs.names(&site()).await.unwrap());
            for name in names.iter().filter(|name| !name.ends_with(":visitors")) {
                let mut both = Vec::new();
                for dump in [&ours, &theirs] {
                    let mut all = dump.whole(&[stored(name)]).await.unwrap().remove(0).unwrap();
                    all.sort();
                    both.push(all);
                }
                assert_eq!(both[0], both[1], "{name}");
            }
            let sketch = [stored("day:2024-01-09:visitors")];
            assert_eq!(ours.sketches(&sketch).await.unwrap(), theirs.sketches(&sketch).await.unwrap());
            let salts = theirs.salts(&site()).await.unwrap();
            assert_eq!((salts[0].0, salts[0].1), (day("2024-01-09"), [7; 16]));
            let meta =
                |fields: Fields| ["dataset", "pruned"].map(|name| value(&fields, name).unwrap().to_owned());
            let told = meta(theirs.meta(&site()).await.unwrap());
            assert_eq!((meta(ours.meta(&site()).await.unwrap()), &*told[1]), (told.clone(), "2024-01-05"));
            drop(theirs);
            // A second time it is not empty any more.
            let again = copied(&dump(&from).await, &settings, RESUMED).await.map(drop);
            assert!(matches!(again, Err(CopyError::NotEmpty(_))), "{again:?}");
        }
    }
}

#[tokio::test]
async fn a_writer_that_was_retired_is_refused_by_every_copy_and_no_other_is() {
    let claim = |run: &str| Claim { runs: vec![Run { id: run.into(), base: 0 }], ..Claim::default() };
    let gone = writer("00000000000000bb");
    for from in [Place::embedded().await, Place::redis().await] {
        fill(&from.store).await;
        from.store.apply(&gone, vec![part("all", None, "m17", &[("views", 0)])], vec![]).await.unwrap();
        for by in [&gone, &writer(WRITER)] {
            let claim = claim("before");
            let attached = from.store.attach(&site(), "", by, day("2024-01-09"), &claim).await.unwrap();
            assert_eq!(attached.standing, Standing::Ours);
        }
        from.store.retire(&site(), std::slice::from_ref(&gone), day("2024-01-09")).await.unwrap();
        for to in [Place::embedded().await, Place::redis().await] {
            let (settings, _) = other(&to).await;
            copied(&dump(&from).await, &settings, WITH_SALTS).await.unwrap();
            let store = TestStore::open(&settings, to.dir.path()).await.unwrap();
            let progress = store.progress(&site(), &gone).await.unwrap().unwrap();
            assert_eq!(progress.markers, [(hash("all"), id("m17"))]);
            let attach = async |by: &WriterId| {
                let attached =
                    store.attach(&site(), "", by, day("2024-01-09"), &claim("after")).await.unwrap();
                (attached.standing, attached.fork)
            };
            assert_eq!(attach(&gone).await, (Standing::Retired, Some(17)));
            assert_eq!(
                attach(&writer(WRITER)).await,
                (Standing::Ours, None),
                "its process may be another one"
            );
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_broken_off_is_taken_up_and_what_is_wrong_in_it_is_set_right() {
    let (from, to) = (Place::embedded().await, Place::redis().await);
    fill(&from.store).await;
    let settings = config(&to.server.as_ref().unwrap().url());
    let ours = dump(&from).await;
    let dataset = value(&ours.meta(&site()).await.unwrap(), "dataset").unwrap().to_owned();
    to.store
        .put_meta(&site(), vec![("format".into(), UNFINISHED.into()), ("dataset".into(), dataset)])
        .await
        .unwrap();
    to.store.put(&stored("all:pages"), vec![("/0".into(), "9".into())]).await.unwrap();
    to.store.put(&stored("all"), vec![("views".into(), "2".into())]).await.unwrap();
    // All but the revision is there of this one.
    let pages = StoredName { site: site(), name: "month:2024-01:pages".into() };
    to.store
        .put(&pages, ours.whole(std::slice::from_ref(&pages)).await.unwrap().remove(0).unwrap())
        .await
        .unwrap();
    from.store.put(&pages, vec![("#revision".into(), "4".into())]).await.unwrap();
    let ours = dump(&from).await;
    let refused = to.store.attach(&site(), "UTC", &writer("w"), day("2024-01-09"), &Claim::default()).await;
    assert!(refused.unwrap_err().to_string().contains(UNFINISHED), "no service takes it for a store");
    let error = copied(&ours, &settings, WITH_SALTS).await.unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
    assert_eq!(copied(&ours, &settings, RESUMED).await.unwrap()[0].views, 2500);
    let revision = dump(&to).await.field(&[pages], "#revision").await.unwrap();
    assert_eq!(revision, [Some("4".to_owned())]);
    let attached =
        to.store.attach(&site(), "UTC", &writer("w"), day("2024-01-09"), &Claim::default()).await.unwrap();
    assert_eq!(attached.standing, Standing::Ours);
}

#[tokio::test]
async fn a_copy_that_was_broken_off_at_its_end_is_ended_for_the_sites_that_are_left() {
    let (from, to) = (Place::embedded().await, Place::redis().await);
    fill(&from.store).await;
    let late = StoredName { site: SiteKey::new("late").unwrap(), name: "all".into() };
    from.store.put(&late, vec![("views".into(), "0".into())]).await.unwrap();
    from.store
        .attach(&late.site, "UTC", &writer(WRITER), day("2024-01-09"), &Claim::default())
        .await
        .unwrap();
    let settings = config(&to.server.as_ref().unwrap().url());
    let ours = dump(&from).await;
    copied(&ours, &settings, WITH_SALTS).await.unwrap();
    to.store.put_meta(&late.site, vec![("format".into(), UNFINISHED.into())]).await.unwrap();
    // The other site has been counted in since.
    to.store.put(&stored("opening"), vec![("visits".into(), "2".into())]).await.unwrap();
    let audits = copied(&ours, &settings, RESUMED).await.unwrap();
    assert_eq!((audits.len(), audits[0].site.as_str()), (1, "late"));
    let theirs = dump(&to).await;
    assert_eq!(value(&theirs.meta(&late.site).await.unwrap(), "format"), Some("1"));
    let opening = theirs.field(&[stored("opening")], "visits").await.unwrap();
    assert_eq!(opening, [Some("2".to_owned())], "what was copied is left as it is");
}

#[tokio::test]
async fn what_only_the_target_has_is_found_and_the_target_stays_no_store() {
    let (from, to) = (Place::embedded().await, Place::redis().await);
    fill(&from.store).await;
    let settings = config(&to.server.as_ref().unwrap().url());
    let ours = dump(&from).await;
    let dataset = value(&ours.meta(&site()).await.unwrap(), "dataset").unwrap().to_owned();
    let half = vec![("format".into(), UNFINISHED.into()), ("dataset".into(), dataset)];
    to.store.put_meta(&site(), half).await.unwrap();
    to.store.put(&stored("all:pages"), vec![("/only-here".into(), "1".into())]).await.unwrap();
    let error = copied(&ours, &settings, RESUMED).await.unwrap_err();
    assert!(error.to_string().contains("all:pages"), "{error}");
    let format = to.server.as_ref().unwrap().client().ask(&[b"HGET", b"footfall:{demo}:meta", b"format"]);
    assert_eq!(format, Reply::Bytes(Some(UNFINISHED.into())));
}

#[tokio::test]
async fn a_source_that_somebody_writes_to_is_said_to_move() {
    let (from, to) = (Place::redis().await, Place::embedded().await);
    fill(&from.store).await;
    let (settings, _) = other(&to).await;
    let ours = dump(&from).await;
    let writes = async {
        let mut prev = "4".to_owned();
        for number in 0..100_000u32 {
            let then = format!("n{number}");
            let more = part("all", Some(&prev), &then, &[("views", 1)]);
            from.store.apply(&writer(WRITER), vec![more], vec![]).await.unwrap();
            prev = then;
        }
    };
    tokio::select! {
        copied = copied(&ours, &settings, WITH_SALTS) => {
            assert!(matches!(copied, Err(CopyError::Moves(_))), "{copied:?}");
        }
        () = writes => panic!("the copy takes for ever"),
    }
    assert!(!to.dir.path().join("other.redb").exists());
}
