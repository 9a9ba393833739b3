//! footfall: visit analytics for news sites. Pages send beacons; footfall keeps who is online in memory
//! and totals by calendar period in a store, and answers live counters.
//!
//! # What flows where
//!
//! ```text
//!            beacon                       view                                      batch
//! page ──▶ serve ──▶ ingest ──▶ sessions ──▶ totals: intake ─ journal ─▶ tally ─▶ delivery ─ outbox ─▶ store
//! page ◀── serve ◀───────────── online ◀──┴───────────────── figures ◀────┘
//! ```
//!
//! **One view, walked through.** [`serve`] bounds and reads the body. [`ingest::accept`] decides: a
//! [`ingest::Beacon`] (site, page, visitor, instant, civil hour) or a [`ingest::Reason`].
//! [`totals::Totals::take`] puts it into the open group, or answers 503; a request that is dropped after
//! that changes nothing. The group's owner ([`totals::Totals::commit_groups`], in `totals/intake`) is a task on
//! the same event loop, woken by the first view; it runs when every request of this turn has put in its own. It
//! claims the ids, has [`sessions::Sessions::observe`] find or begin the sessions, writes the group with one
//! write, and only then has its views and visits counted and answers each request 204. Ids, sessions and sums are
//! looked up for a whole group in a row, so that their waits for memory overlap. A group that cannot be
//! written is cut off the file and undone (ids forgotten, visits uncounted), and every request in it is answered
//! 503.
//!
//! The writer, on a thread of its own, freezes what is pending into batches in the outbox and has them applied
//! to the store. A batch is never cut again, and each hash of the store bears the marker of the last part
//! applied to it, so a part is applied once however often it is sent.
//!
//! A read is stored + unapplied, kept up to date in memory: no read of a page that is known asks the store.
//!
//! # Where to look
//!
//! | question | file |
//! |---|---|
//! | Who is left out? | `ingest/filter.rs`, `ingest/robots.rs` |
//! | Why is a beacon refused? | `ingest/mod.rs` decides, `serve/public/beacon.rs` answers, `serve/refusals.rs` logs |
//! | How often is one client taken? When does a new page count in `(other)`? | `ingest/limits.rs` |
//! | When is a view safe, and what if it cannot be written? | `totals/intake/mod.rs`, `journal.rs` |
//! | What is shown of a site, a page, the last days? | `totals/tally/running.rs`, `pages.rs`, `recent.rs`, all made of `cell.rs` |
//! | What does a batch add to which hash? | `totals/batch/mod.rs`, `part.rs` |
//! | When is a batch sent, and how does the writer stand to the store? | `totals/delivery/send.rs`, `state.rs` |
//! | How long are days of pages kept? | `totals/delivery/prune.rs` |
//! | How is a batch applied once? What if Redis goes back in time? | `totals/delivery/apply.rs` |
//! | What if the data of one site is spoiled? | `totals/delivery/held.rs`; what waits of it is set aside in `outbox.rs` |
//! | What if the data set is another one, or a directory was copied? | `totals/delivery/attach.rs`, `decide.rs` |
//! | What must a store do? | `totals/store/contract.rs`; it is kept in `embedded/` and `redis/` |
//! | What does the writer do in one turn? | `totals/writer/turn.rs` |
//! | What does a start read back? | `totals/recovery.rs` |
//! | How do `verify`, `backup`, `restore`, `migrate` and `export` work? | `totals/upkeep/` |
//! | What is counted of an access log, and in which order? | `logs/mod.rs`; a line is read in `logs/line.rs` |
//! | When is a day of it not entered? | `totals/writer/entries/weigh.rs` |
//! | What is entered by a person, and what are pages shown as that moved? | `totals/writer/entries/`, `sites/aliases.rs` |
//! | What is wrong at three in the morning? | `commands/doctor.rs` asks, `serve/admin/control.rs` tells |
//! | Which route has which handler? | `serve/public/mod.rs`, `serve/admin/mod.rs` |
//!
//! # Who may import whom
//!
//! Down these lists only, and no two files import each other in a loop; a test (`tests/it/tidy.rs`) reads the
//! imports.
//!
//! | rank | part | is |
//! |---|---|---|
//! | 0 | `words`, [`clock`], [`random`], [`calendar`] | enums with a word each; the only readers of time and of chance; an instant and a zone become buckets |
//! | 1 | [`sites`] | the registered sites |
//! | 2 | [`ingest`] | bytes in, a decided beacon or a reason out; no I/O |
//! | 3 | [`metrics`] | every Prometheus series |
//! | 4 | [`sessions`] | who is online, in a DashMap |
//! | 5 | [`totals`] | all that outlives the process |
//! | 6 | [`serve`] | HTTP, and nothing that is not HTTP |
//! | 6 | [`logs`] | access logs of the past in, totals of civil days out |
//! | 7 | [`config`] | one Config made of each part's |
//! | 8 | [`app`] | starts the parts, stops them in reverse; reads the configuration again on SIGHUP |
//! | 9 | [`commands`] | the command line |
//!
//! Inside [`totals`]: disk < batch < store, tally < intake, delivery, upkeep < writer < recovery < the face. The
//! tally never sees the store, delivery never sees the tally, upkeep never sees delivery. Inside [`serve`]: addresses,
//! answer < conn, live, shown, crowds, proxies, refusals < parts < overview < public, admin < the face.
//!
//! # What is absent on purpose
//!
//! - Nothing outside [`serve`] knows HTTP answers; nothing outside [`totals`] knows a file or Redis; nothing
//!   outside [`clock`] reads the wall clock.
//! - No address and no user agent is kept after [`ingest`]: not on disk, not in the store, not in a log.
//! - The event loop never waits for a disk's sync or for a store; it writes the journal to the page cache.
//! - No lock is held across an `.await`, and no guard into the session map while the map is touched again.
//! - Every collection has a bound in `config/footfall.toml` and a count of how often it was reached.
//!
//! # How it is tested
//!
//! Units, tables and properties stand beside the code; `tests/it` asks the service over HTTP, with a real redis-server;
//! `tests/browser` has real browsers read pages. `tests/full` does many times over what is a matter of chance.
//! `tests/broken/run` breaks the service in some thirty ways, one after the other, and a test must notice each: the first
//! line of a patch says what is broken, the second by which test it is caught.
//!
//! `tests/fuzz/run` breeds bytes for what reads those of others; what it found is read by `cargo test` from then on.
//!
//! A random test prints its seed, and `FOOTFALL_TEST_SEED=n` repeats it. The simulation (`cargo test --lib simulation`)
//! runs 5,000 seeds, half of them new in each run; `FOOTFALL_SEEDS=n` changes how many, and `FOOTFALL_SEED=n` runs one and
//! prints its steps. It fails, too, if a kind of fault came in none of them.
//!
//! `cargo build --release` is quick to build; packages, image and figures are those of `--profile dist`, which takes
//! longer and is optimised as a whole. `cargo bench --bench http` and `peers` measure the service from outside; `ingest`,
//! `paths` and `logs` measure single parts. The page script's sources are in `serve/public/script/`, and `node
//! tests/browser/build.mjs` makes them small.
//!
//! # Words
//!
//! **beacon**: what a browser sends (`view`, `ping`, `leave`). **view**: an accepted beacon of kind view.
//! **visitor**: a salted identity, good for one civil day. **session**: a visitor's signs of life without
//! a gap over `visit_timeout`. **visit**: a session, counted with its first view. **online**: visitors with a
//! sign of life within `online_window` who have not left. **bucket**: one calendar period in the site's zone.
//! **total**: a sum in a bucket. **batch**: frozen additions to totals. **journal**: accepted
//! views, pings and leaves on disk.
//! **filtered**: a view that was understood and left out: a sum of its own for each reason.
//! **outbox**: batches on their way. **writer**: an identity that applies batches. **store**: where totals
//! are stored. **reason**: why a beacon was refused: one word in the answer, the metric and the log.

#[macro_use]
mod words;

pub mod app;
pub mod calendar;
pub mod clock;
pub mod commands;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod ingest;
pub mod logs;
pub mod metrics;
pub mod random;
pub mod serve;
pub mod sessions;
pub mod sites;
pub mod totals;
