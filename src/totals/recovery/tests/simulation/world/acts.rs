//! What is done in a step, and what befalls instances, their disks and the store.

use super::super::oracle::Registered;
use super::*;
use crate::totals::batch::Frozen;
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::Stamp;
use crate::totals::writer::mailbox::{self, Registration};

impl World {
    pub(super) fn throw(&mut self) -> Act {
        let all = ORDINARY + self.kind.rates.iter().sum::<u64>();
        match self.dice.below(all) {
            0..18 => Act::Views((0..[1, 1, 2, 5][self.below(4)]).map(|_| self.wanted()).collect()),
            18..20 if self.model.late() > 0 => Act::Land,
            18..24 if self.kind.prunes && self.dice.below(8) == 0 => Act::Pass { minutes: 8 * 24 * 60 },
            18..24 => Act::Pass { minutes: [1, 7, 7, 29, 31, 31, 700, 1500][self.below(8)] },
            24..27 => Act::Freeze,
            27..29 => Act::Send,
            29..36 => Act::Turn,
            36..38 => Act::Checkpoint,
            38..40 => Act::AskPage { site: self.below(SITES), page: self.dice.below(PAGES) as u8 },
            40 => Act::Enter { site: self.below(SITES) },
            number => {
                let mut left = number - ORDINARY;
                let drawn = Chaos::ALL.into_iter().zip(self.kind.rates).find(|(_, rate)| {
                    let here = left < *rate;
                    left = left.saturating_sub(*rate);
                    here
                });
                Act::Chaos(drawn.expect("one of them").0)
            }
        }
    }

    pub(super) fn wanted(&mut self) -> Wanted {
        let (site, page) = (self.below(SITES), self.dice.below(PAGES) as u8);
        // Which ids are remembered where there is no room is left open: none comes again.
        let fresh = self.last_id + u8::from(self.kind.tight);
        self.last_id = fresh;
        let id =
            (self.dice.below(3) == 0).then(|| fresh + self.dice.below(3) as u8 * u8::from(!self.kind.tight));
        Wanted { who: self.dice.below(4) as u8, site, page, id }
    }

    pub async fn step(&mut self) {
        let (act, index) = (self.throw(), self.below(self.instances.len()));
        self.take_step(index, act).await;
    }

    pub async fn take_step(&mut self, index: usize, act: Act) {
        if self.talks {
            println!("instance {index}: {act:?}");
        }
        self.act(index, act).await;
        self.bury().await;
        self.check();
    }

    pub(super) async fn act(&mut self, index: usize, act: Act) {
        match act {
            Act::Views(wanted) => self.views(index, wanted).await,
            Act::Pass { minutes } => self.pass(minutes * MINUTE).await,
            Act::Freeze => self.has(index, async |writer| writer.freeze().await).await,
            Act::Send => self.has(index, async |writer| writer.send().await).await,
            Act::Turn => self.has(index, async |writer| writer.turn().await).await,
            Act::Checkpoint => self.has(index, async |writer| writer.checkpoint().await).await,
            Act::AskPage { site, page } => self.ask_page(index, site, page).await,
            Act::Enter { site } => self.enter(index, site).await,
            Act::Land => self.land(),
            Act::Chaos(chaos) => {
                if self.befall(index, chaos).await && !chaos.is_planned() {
                    self.came(&format!("{chaos:?}"));
                }
            }
        }
    }

    /// Whether it could come.
    pub(super) async fn befall(&mut self, index: usize, chaos: Chaos) -> bool {
        let may_go_back = self.vanished.is_none() && self.model.past() > 0;
        let plan = |ends| Fault { calls: 0, parts: 0, ends };
        let fault = match chaos {
            Chaos::Failing => Some(plan(Ends::Failing)),
            Chaos::Silent => Some(plan(Ends::Silent)),
            Chaos::Slow => Some(plan(Ends::Slow)),
            Chaos::GivenUp => Some(plan(Ends::GivenUp)),
            _ => None,
        };
        if let Some(fault) = fault {
            let (calls, parts) = (self.dice.below(6) as u32, self.below(20));
            self.model.plan(Some(Fault { calls, parts, ..fault }));
            return true;
        }
        match chaos {
            Chaos::Down => {
                let down = self.dice.below(3) == 0;
                self.model.set_down(down);
                return down;
            }
            Chaos::Whole if may_go_back => self.go_back(Back::Whole),
            // A week that was made the sum of its days bears no marker of that.
            Chaos::Within if may_go_back && !self.kind.recuts => self.go_back(Back::Within),
            // A hash of a past hour that no kept batch touches is compared by nobody.
            Chaos::Hash if may_go_back && !self.kind.recuts && !self.kind.forgets => self.go_back(Back::Hash),
            Chaos::Vanish if may_go_back && !self.kind.forgets => self.vanished = Some(self.model.vanish()),
            Chaos::Vanish => self.comes_back(),
            Chaos::Kill => self.kill(index).await,
            Chaos::Stop => {
                self.has(index, async |writer| {
                    writer.freeze().await;
                    writer.send().await;
                    writer.checkpoint().await;
                })
                .await;
                self.kill(index).await;
            }
            Chaos::PowerCut if self.kind.forgets => return false,
            Chaos::PowerCut if self.dice.below(3) == 0 => self.cut_power(index).await,
            Chaos::PowerCut => {
                // In the middle of what it does.
                let after = 1 + self.dice.below(24);
                self.instances[index].disk.power_goes_after(after);
            }
            Chaos::Disk => {
                use Operation::*;
                let operation =
                    [Create, Write, Write, Cut, Sync, SyncNames, Rename, Remove, Read][self.below(9)];
                // What is cut off is what was not written.
                let both = [operation, Write];
                let (after, disk) = (1 + self.dice.below(4), &self.instances[index].disk);
                disk.only(if operation == Cut { &both } else { &both[..1] });
                disk.fail_after(after);
                if operation == Cut {
                    disk.fail_after(after + 1);
                }
            }
            Chaos::Reload => self.reload(index).await,
            Chaos::Recut if self.kind.recuts && self.vanished.is_none() => self.recut().await,
            Chaos::Trim if self.kind.forgets => {
                let uptime_ms = self.instances[index].clock.now().uptime_ms;
                self.has(index, async |writer| _ = writer.delivery.outbox.trim(uptime_ms, true)).await;
            }
            _ => return false,
        }
        true
    }

    pub(super) fn go_back(&mut self, how: Back) {
        let (to, cuts) = (self.below(self.model.past()), self.dice.below(2) == 0);
        self.model.go_back(to, how, cuts, |n| self.dice.below(n as u64) as usize);
        // What it knows no more it may do again, and then of later days.
        let known = self.model.data().recut;
        let is_known = |hash: &str, times: u64| {
            known.iter().any(|(known, of)| format!("{}/{known}", known.site) == hash && *of >= times)
        };
        self.recuts.retain(|(hash, times), _| is_known(hash, *times));
        self.went_back = true;
    }

    pub(super) fn land(&mut self) {
        let index = self.below(self.model.late());
        self.model.land(index);
        self.came("Landed");
    }

    /// The data set that had vanished is there again; what was written to the one in its place is gone.
    pub(super) fn comes_back(&mut self) {
        let Some(before) = self.vanished.take() else { return };
        let hashes = self.model.data().hashes;
        assert!(hashes.is_empty(), "something is written in place of what has vanished: {:?}", hashes.keys());
        self.model.come_back(before);
        self.came("Vanished");
    }

    pub(super) async fn pass(&mut self, seconds: u64) {
        // In steps, as the seconds of a process: ids are forgotten by turns.
        tokio::time::advance(Duration::from_secs(seconds)).await;
        for index in 0..self.instances.len() {
            let instance = &mut self.instances[index];
            let mut left = seconds;
            while left > 0 {
                let step = left.min(5 * MINUTE);
                instance.hand.advance(Duration::from_secs(step));
                instance.totals.iter().for_each(|totals| totals.tick(instance.clock.now()));
                left -= step;
            }
            self.sync(index).await;
        }
    }

    /// Waits until the journal is synced, so that what syncs it does nothing at the same time as others; or has ended.
    pub(super) async fn sync(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        let Some(totals) = instance.totals.clone().filter(|_| !instance.dead) else { return };
        let journal = totals.shared.intake.journal.clone().unwrap();
        tokio::select! {
            biased;
            () = journal.sync_ended() => {
                instance.dead = true;
                self.came("Died");
            }
            () = journal.synced_to(journal.ask_sync()) => {
                let views = self.oracle.views.iter_mut().filter(|view| view.by == index);
                views.for_each(|view| view.synced = true);
            }
        }
    }

    /// Other sites are put in force. Nobody goes on with a session or an id beyond it.
    pub(super) async fn reload(&mut self, index: usize) {
        self.pass(31 * MINUTE).await;
        self.instances[index].has_last ^= true;
        let (wanted, (done, _answered)) = (self.sites(index), oneshot::channel());
        // No view finds it before it is in force.
        let has_last = std::mem::take(&mut self.instances[index].has_last);
        if !self.instances[index].dead {
            self.has(index, async |writer| writer.register(Registration { wanted, done }).await).await;
        }
        self.instances[index].has_last = has_last;
    }

    /// A start with other zones and weeks.
    pub(super) async fn recut(&mut self) {
        while self.model.late() > 0 {
            self.land();
        }
        self.end_process(0).await;
        self.pass(31 * MINUTE).await;
        match self.dice.below(2) {
            0 => self.cuts[1].berlin ^= true,
            _ => {
                let first = &mut self.cuts[0].first;
                *first = if *first == Weekday::Mon { Weekday::Sun } else { Weekday::Mon };
            }
        }
        self.recut_ms = self.instances[0].clock.now().unix_ms;
        if self.talks {
            println!("  {:?}", self.cuts);
        }
        self.instances[0].shown.clear();
        self.start_again(0).await;
    }

    /// A value is entered of a year that is not shown, under a stamp that may be earlier than one that was entered before.
    pub(super) async fn enter(&mut self, index: usize, site: usize) {
        if !self.instances[index].sites().any(|known| known == site) {
            return;
        }
        let taken = |number: &u64| self.oracle.entries.iter().all(|entry| entry.stamp.number != *number);
        let number = loop {
            let number = self.dice.below(1000);
            if taken(&number) {
                break number;
            }
        };
        let stamp = Stamp { number, writer: format!("{index:016x}").into() };
        let fields = vec![("+views".into(), number.to_string().into())];
        let hash = entered_into(site);
        let entered = Entered { hash: hash.clone(), stamp: stamp.clone(), fields };
        let mut added = None;
        let mut tried = false;
        self.has(index, async |writer| {
            writer.freeze().await;
            // What could not be frozen is of no batch yet.
            if writer.shared.tally().oldest_ms.is_some() || writer.delivery.outbox.is_full() {
                return;
            }
            let reach = writer.frozen_to;
            tried = true;
            let frozen = Frozen { entries: vec![entered], reach, ..Frozen::default() };
            added = Some(writer.delivery.add(frozen).is_ok());
        })
        .await;
        if tried && added != Some(false) {
            self.oracle.entries.push(Registered { site, stamp, certain: added.is_some() });
            self.came("Entered");
        }
    }

    pub(super) async fn ask_page(&mut self, index: usize, site: usize, page: u8) {
        let id = SiteId(site as u16);
        let (done, _answered) = oneshot::channel();
        let wanted = mailbox::Wanted::Pages(vec![text(id, page)]);
        let request = ReadRequest { site: id, wanted, done, place: None };
        self.has(index, async |writer| writer.answer(vec![request]).await).await;
    }
}
