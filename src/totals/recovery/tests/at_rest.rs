//! What a hundred sites with three years behind them ask of their store while nobody reads.

use super::*;
use crate::totals::store::contract::Claim;
use crate::totals::store::tests::servers::{RedisClient, RedisServer, Reply};
use crate::totals::store::tests::{config, day, writer};

const MANY: u16 = 100;

/// How often each command was asked, those of this connection left out.
fn asked(client: &mut RedisClient) -> BTreeMap<String, u64> {
    let Reply::Bytes(Some(text)) = client.ask(&[b"INFO", b"commandstats"]) else { panic!() };
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    let calls =
        |(name, rest): (&str, &str)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap());
    lines.map(calls).collect()
}

#[tokio::test]
async fn a_hundred_sites_of_three_years_ask_little_of_redis() {
    let server = RedisServer::start();
    let mut client = server.client();
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::open(&config(&server.url()), dir.path()).await.unwrap();
    for n in 0..MANY {
        let long_gone = writer("00000000000000aa");
        let key = site(n).key;
        store
            .attach(&key, "Asia/Ho_Chi_Minh", &long_gone, day("2023-11-29"), &Claim::default())
            .await
            .unwrap();
        let meta = format!("footfall:{{{key}}}:meta");
        client.ask(&[b"HSET", meta.as_bytes(), b"writer:00000000000000aa", b"1701216000"]);
        let old = format!("footfall:{{{key}}}:hour:2023-11-29T08+07:00");
        client.ask(&[b"HSET", old.as_bytes(), b"#00000000000000aa", b"1", b"views", b"1"]);
    }
    let (clock, hand) = Clock::by_hand(START_MS);
    let sites = Arc::new(Registry::from_pointee(Sites::new((0..MANY).map(site).collect())));
    let metrics = Arc::new(Metrics::new(&sites.load(), 1000).unwrap());
    let settings = settings(dir.path(), 1000, Sync::Memory);
    let data = DataDir::open(dir.path()).unwrap();
    let begun = Process::start_on(
        async || store,
        Duration::from_secs(60),
        &settings,
        data,
        &clock,
        sites,
        metrics,
        1000,
    );
    let Process { mut writer, totals, .. } = begun.await.unwrap();
    assert!(totals.look(SiteId(99), clock.now()).figures().visitors.all.is_some());
    let start = asked(&mut client);
    // Each day since the beginning is read once.
    assert!((100_000..=115_000).contains(&start["pfcount"]), "{start:?}");
    // A writer that is long gone has been watched for a day.
    hand.advance(Duration::from_secs(24 * 3600));
    writer.turn().await;

    // The outbox is full of hours.
    for _ in 0..72 {
        hand.advance(Duration::from_secs(3600));
        let now = clock.now();
        totals.tick(now);
        for n in 0..MANY {
            drop(totals.take(beacon(1, n, (now.unix_ms / 3_600_000 % 50) as u8, None, now)).unwrap());
        }
    }
    totals.take(beacon(1, 0, 1, None, clock.now())).unwrap().await.unwrap();
    // Days have turned, too.
    writer.turn().await;
    writer.send_all().await;
    assert!(writer.delivery.last_parts.len() > 72 * usize::from(MANY));
    let start = asked(&mut client);

    let began = tokio::time::Instant::now();
    for _ in 0..180 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        hand.advance(Duration::from_secs(1));
        writer.turn().await;
    }
    // What the turns took counts too.
    let seconds = began.elapsed().as_secs();
    let rested = asked(&mut client);
    let mut more: BTreeMap<_, _> =
        rested.iter().map(|(name, calls)| (name.as_str(), calls - start.get(name).unwrap_or(&0))).collect();
    // One site after another loses the markers of a writer that is long gone.
    let retired = more.remove("hdel").unwrap_or(0);
    assert!(retired > 0);
    assert_eq!(client.ask(&[b"HLEN", b"footfall:{s0}:hour:2023-11-29T08+07:00"]).int(), 1);
    *more.get_mut("hmget").unwrap() -= retired;
    let all: u64 = more.values().sum();
    assert!(all <= 100 * seconds, "{} a second: {more:?}", all / seconds);
    assert!(!rested.contains_key("scan"), "nothing walks all keys");
}

/// Visitors of all days before today, as they are read.
async fn earlier_visitors(run: &mut Run) -> u64 {
    let hour = calendar().span(run.clock.now().unix_ms).hour;
    let (writer, key) = (&mut run.process().writer, site(0).key);
    let (since, mut closed) = (writer.delivery.since[&key], std::mem::take(&mut writer.closed));
    let (stored, _) = writer.reader().running(&key, &hour, (None, since), &mut closed).await.unwrap();
    writer.closed = closed;
    stored.earlier_visitors.all
}

#[tokio::test]
async fn visitors_of_a_day_that_is_over_are_read_again_when_they_change() {
    let mut run = Run::new(1000, Sync::Memory).await;
    run.step(&VIEW).await;
    run.step(&Step::Turn).await;
    // A view of the first day stays in a batch, and is brought when that day is long over.
    run.view(2, 0, 1, None, true).await;
    run.step(&Step::Freeze).await;
    for _ in 0..5 {
        run.step(&Step::Minutes(1440)).await;
    }
    assert_eq!(earlier_visitors(&mut run).await, 1);
    run.step(&Step::Send).await;
    assert_eq!(earlier_visitors(&mut run).await, 2);
    run.process.take().unwrap().end().await;
}
