//! What holds of listing and writing beyond what `verify` and `migrate` show.

use super::*;
use crate::totals::store::contract::{Claim, Store};
use crate::totals::store::tests::{Place, day, id, part, site, stored, writer};

#[tokio::test]
async fn a_large_hash_is_told_in_steps_with_its_markers() {
    for place in [Place::embedded().await, Place::redis().await] {
        let fields: Fields = (0..2500).map(|n| (format!("/{n}"), n.to_string())).collect();
        for some in fields.chunks(1000) {
            place.store.put(&stored("all:pages"), some.to_vec()).await.unwrap();
        }
        place
            .store
            .apply(&writer("w"), vec![part("all:pages", None, "m", &[("/x", 1)])], vec![])
            .await
            .unwrap();
        let dump = place.store.dump().await.unwrap();
        let (mut told, mut from, mut steps) = (BTreeSet::new(), Some(None), 0);
        while let Some(cursor) = from {
            let (fields, next) = dump.scan(&stored("all:pages"), cursor).await.unwrap();
            told.extend(fields);
            from = next.map(Some);
            steps += 1;
        }
        assert!(steps > 2);
        let mut expected: BTreeSet<_> = fields.into_iter().collect();
        expected.extend([("/x".into(), "1".into()), ("#w".into(), id("m").to_string())]);
        assert_eq!(told, expected);
        let markers = dump.markers(&stored("all:pages"), &["v".into(), "w".into()]).await.unwrap();
        assert_eq!(markers, [("#w".to_owned(), id("m").to_string())]);
    }
}

#[tokio::test]
async fn names_of_one_site_are_not_those_of_another() {
    for place in [Place::embedded().await, Place::redis().await] {
        for key in ["demo", "demo-2", "dem"] {
            let key = SiteKey::new(key).unwrap();
            let name = StoredName { site: key.clone(), name: format!("day:{key}").into() };
            place.store.put(&name, vec![("views".into(), "1".into())]).await.unwrap();
            place
                .store
                .attach(&key, "UTC", &writer("w"), day("2026-11-23"), &Claim::default())
                .await
                .unwrap();
            place.store.salt(&key, day("2026-11-23"), [7; 16], Duration::from_secs(600)).await.unwrap();
        }
        let dump = place.store.dump().await.unwrap();
        assert_eq!(dump.sites().await.unwrap().len(), 3);
        assert_eq!(dump.names(&site()).await.unwrap(), BTreeSet::from(["day:demo".into()]));
        let salts = dump.salts(&site()).await.unwrap();
        assert_eq!((salts.len(), salts[0].0, salts[0].1), (1, day("2026-11-23"), [7; 16]));
        assert!((590..=600).contains(&salts[0].2.as_secs()), "{:?}", salts[0].2);
        let meta = dump.meta(&site()).await.unwrap();
        for name in ["format", "dataset", "since", "zone", "writer:w"] {
            assert!(meta.iter().any(|(field, _)| field == name), "{name}: {meta:?}");
        }
    }
}

#[test]
fn a_writers_last_sign_of_life_is_kept_as_each_store_does() {
    assert_eq!(seen_as_day("1700000000"), "2023-11-14");
    assert_eq!(seen_as_seconds("2023-11-14"), "1699920000");
    assert_eq!(seen_as_day("2023-11-14"), "2023-11-14");
}
