//! What is read back, whatever became of the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::totals::disk::faults::Faults;

const KIND: u8 = b'j';

type Frames = Vec<(Position, Position, Vec<u8>)>;

fn append(log: &mut Segments, payload: &[u8]) -> Position {
    let mut buffer = vec![0; FRAME_HEADER];
    buffer.extend_from_slice(payload);
    let at = log.end();
    assert_eq!(log.append(&mut buffer).unwrap(), log.end());
    at
}

fn read_all(log: &Segments, from: Position) -> (Frames, Vec<Damage>) {
    let mut frames = Vec::new();
    let damage = log
        .replay(from, |payload, at, end| {
            frames.push((at, end, payload.to_vec()));
            Ok(())
        })
        .unwrap();
    (frames, damage)
}

fn open(dir: &Path) -> Segments {
    Segments::open(dir.into(), KIND, 0).unwrap()
}

fn roll(log: &mut Segments) {
    let fresh = log.next().prepare().unwrap();
    log.install(fresh);
}

/// Fifty frames of all kinds of lengths in one segment: its file, its bytes, and where frames end.
fn fifty(dir: &Path) -> (PathBuf, Vec<u8>, Frames) {
    let mut log = open(dir);
    for n in 0..50u8 {
        append(&mut log, &vec![n; 1 + usize::from(n) * 7 % 23]);
    }
    drop(log);
    let path = dir.join(segment_name(1));
    let bytes = fs::read(&path).unwrap();
    let (frames, damage) = read_all(&open(dir), Position::default());
    assert_eq!((frames.len(), damage), (50, vec![]));
    fs::remove_file(dir.join(segment_name(2))).unwrap();
    fs::remove_file(dir.join(LIST)).unwrap();
    (path, bytes, frames)
}

#[test]
fn a_segment_cut_anywhere_gives_back_the_whole_frames_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, frames) = fifty(dir.path());
    let read = |cut: usize| {
        fs::write(&path, &bytes[..cut]).unwrap();
        let kept = BTreeMap::from([(1, cut as u64), (2, HEADER)]);
        let folder = Folder::from(dir.path());
        let current = Arc::new(folder.open(&segment_name(1)).unwrap());
        let harmed = BTreeMap::new();
        let log = Segments { folder, kind: KIND, current, number: 2, end: HEADER, kept, harmed };
        read_all(&log, Position::default())
    };
    for cut in 0..=bytes.len() {
        let whole = frames.iter().filter(|(_, end, _)| end.offset <= cut as u64);
        let (found, damage) = read(cut);
        assert!(found.iter().eq(whole), "cut at {cut}");
        let end = found.last().map_or(HEADER, |(_, end, _)| end.offset);
        match damage.as_slice() {
            [] => assert!(cut as u64 <= end),
            [torn] => {
                assert_eq!(torn.harm, Harm::TornTail);
                assert_eq!((torn.at.offset, torn.bytes), (end, cut as u64 - end));
            }
            more => panic!("cut at {cut}: {more:?}"),
        }
    }
}

#[test]
fn a_cut_file_is_opened_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, _) = fifty(dir.path());
    for cut in [0, 1, HEADER as usize - 1, HEADER as usize, HEADER as usize + 3, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let log = open(dir.path());
        assert_eq!(log.bytes(), cut as u64 + (log.number - 1) * HEADER);
        assert_eq!(fs::read(&path).unwrap(), &bytes[..cut]);
    }
}

#[test]
fn a_flipped_bit_costs_the_frame_it_is_in_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, frames) = fifty(dir.path());
    let log = open(dir.path());
    for bit in (HEADER as usize * 8..bytes.len() * 8).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        let (found, damage) = read_all(&log, Position::default());
        let byte = (bit / 8) as u64;
        let others = frames.iter().filter(|(at, end, _)| !(at.offset..end.offset).contains(&byte));
        assert!(found.iter().eq(others), "bit {bit}");
        let [damage] = damage.as_slice() else { panic!("bit {bit}: {damage:?}") };
        assert!((damage.at.offset..damage.at.offset + damage.bytes).contains(&byte));
        let is_last = found.len() == 49 && found.last() == frames.get(48);
        assert_eq!(damage.harm, if is_last { Harm::TornTail } else { Harm::Unreadable });
        let hit = frames.iter().find(|(at, end, _)| (at.offset..end.offset).contains(&byte)).unwrap();
        assert!(log.read(hit.0).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(60)))]

    #[test]
    fn what_is_read_was_written_there(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..20),
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let written: BTreeMap<_, _> = payloads.iter().map(|p| (append(&mut log, p), p.clone())).collect();
        drop(log);
        let path = dir.path().join(segment_name(1));
        let mut bytes = fs::read(&path).unwrap();
        let clean = bytes.clone();
        for (place, byte) in &harm {
            let place = HEADER as usize + place.index(bytes.len() - HEADER as usize);
            bytes[place] = *byte;
        }
        let harmed: Vec<u64> = (0..bytes.len()).filter(|i| bytes[*i] != clean[*i]).map(|i| i as u64).collect();
        bytes.extend_from_slice(&garbage);
        fs::write(&path, &bytes).unwrap();
        let (found, damage) = read_all(&open(dir.path()), Position::default());
        for (at, end, payload) in &found {
            prop_assert_eq!(written.get(at), Some(payload));
            prop_assert_eq!(end.offset, at.offset + (FRAME_HEADER + payload.len()) as u64);
        }
        for (at, payload) in &written {
            let end = at.offset + (FRAME_HEADER + payload.len()) as u64;
            let is_harmed = harmed.iter().any(|byte| (at.offset..end).contains(byte));
            prop_assert_eq!(found.iter().any(|(found, ..)| found == at), !is_harmed);
        }
        // Found and damaged together are the file.
        let read: u64 = found.iter().map(|(at, end, _)| end.offset - at.offset).sum();
        let lost: u64 = damage.iter().map(|damage| damage.bytes).sum();
        prop_assert_eq!(read + lost + HEADER, bytes.len() as u64);
    }

    #[test]
    fn a_log_is_read_back_from_any_position_over_any_number_of_segments(
        plan in prop::collection::vec((0..4u8, prop::collection::vec(any::<u8>(), 1..30)), 1..30),
        from in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let mut written = Vec::new();
        for (what, payload) in &plan {
            match what {
                0 => roll(&mut log),
                1 => log = open(dir.path()),
                _ => written.push((append(&mut log, payload), payload.clone())),
            }
        }
        let end = log.end();
        let log = open(dir.path());
        prop_assert!(log.end() > end);
        let from = written.get(from.index(plan.len())).map_or(Position::default(), |(at, _)| *at);
        let (found, damage) = read_all(&log, from);
        let found: Vec<_> = found.into_iter().map(|(at, _, payload)| (at, payload)).collect();
        let expected: Vec<_> = written.iter().filter(|(at, _)| *at >= from).cloned().collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(damage, vec![]);
        for (at, payload) in &written {
            prop_assert_eq!(&log.read(*at).unwrap(), payload);
        }
    }
}

#[test]
fn a_position_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = Position::default();
    for round in 0..6 {
        let mut log = Segments::open(dir.path().into(), KIND, last.segment).unwrap();
        assert!(log.end() > last, "round {round}");
        if round % 2 == 0 {
            append(&mut log, b"x");
            roll(&mut log);
            append(&mut log, b"y");
        }
        last = log.end();
        drop(log);
        if round % 3 == 1 {
            // The files are gone, those who remember the position are not.
            fs::remove_dir_all(dir.path()).unwrap();
        }
    }
    // The last number of all is refused, not gone round.
    fs::write(dir.path().join(segment_name(u64::MAX)), header(KIND, u64::MAX)).unwrap();
    assert_eq!(
        Segments::open(dir.path().into(), KIND, 0).map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn segments_before_a_position_are_given_up_and_the_current_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut starts = vec![append(&mut log, b"one")];
    for payload in [b"two", b"six"] {
        roll(&mut log);
        starts.push(append(&mut log, payload));
    }
    let bytes = log.bytes();
    let forget = |log: &mut Segments, position| {
        let forgotten = log.forget_before(position);
        let numbers = forgotten.numbers.clone();
        forgotten.delete().unwrap();
        numbers
    };
    assert!(forget(&mut log, starts[0]).is_empty());
    assert!(forget(&mut log, Position { offset: starts[0].offset + 1, ..starts[0] }).is_empty());
    let end_of_first = Position { offset: starts[0].offset + FRAME_HEADER as u64 + 3, ..starts[0] };
    assert_eq!(forget(&mut log, end_of_first), [1]);
    assert_eq!(log.bytes(), bytes - end_of_first.offset);
    let beyond = Position { segment: 99, offset: 0 };
    assert_eq!(forget(&mut log, beyond), [2]);
    assert!(forget(&mut log, beyond).is_empty());
    append(&mut log, b"on");
    assert_eq!(log.bytes(), log.end().offset);
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let foreign: [Vec<u8>; 5] = [
        header(b'o', 7).into(),
        header(KIND, 8).into(),
        vec![b'#'; 100],
        vec![0; 100],
        header(KIND, 7).iter().enumerate().map(|(i, b)| if i == 9 { b + 1 } else { *b }).collect(),
    ];
    for bytes in foreign {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(segment_name(7));
        fs::write(&path, &bytes).unwrap();
        let error = Segments::open(dir.path().into(), KIND, 0).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("0000000000000007.seg"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made beside it");
    }
}

#[test]
fn files_of_other_names_are_none_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["notes.txt", "7.seg", "+000000000000007.seg", "000000000000000A.seg", "0000000000000007.seg.bak"]
    {
        fs::write(dir.path().join(name), b"x").unwrap();
    }
    let mut log = open(dir.path());
    assert_eq!(log.end().segment, 1);
    append(&mut log, b"x");
    assert_eq!(read_all(&open(dir.path()), Position::default()).0.len(), 1);
}

#[test]
fn an_append_that_cannot_be_cut_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let end = log.end();
    log.current = Arc::new(log.folder.open(&segment_name(1)).unwrap());
    assert!(matches!(log.append(&mut [0; FRAME_HEADER + 1]), Err(AppendError::Unknown(_))));
    assert_eq!(log.end(), end);
}

fn harms(log: &Segments) -> Vec<(u64, Harm)> {
    read_all(log, Position::default()).1.iter().map(|damage| (damage.at.segment, damage.harm)).collect()
}

/// Four segments of one frame each, closed.
fn four(dir: &Path) {
    let mut log = open(dir);
    for payload in [b"one", b"two", b"six", b"ten"] {
        append(&mut log, payload);
        roll(&mut log);
    }
}

#[test]
fn a_segment_that_is_missing_is_named_wherever_it_stood_and_once() {
    for missing in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        four(dir.path());
        fs::remove_file(dir.path().join(segment_name(missing))).unwrap();
        let log = open(dir.path());
        assert_eq!(harms(&log), [(missing, Harm::Missing)]);
        assert_eq!(log.end().segment, 6, "its number does not come back");
        assert_eq!(harms(&open(dir.path())), [], "it is said once");
    }
    let dir = tempfile::tempdir().unwrap();
    four(dir.path());
    let mut log = open(dir.path());
    log.forget_before(Position { segment: 3, offset: 0 }).delete().unwrap();
    assert_eq!(harms(&open(dir.path())), [], "what was given up is not missed");
}

#[test]
fn without_its_list_a_log_misses_what_lies_between_and_what_others_remember() {
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        four(dir.path());
        fs::remove_file(dir.path().join(segment_name(3))).unwrap();
        let list = dir.path().join(LIST);
        if damaged {
            fs::write(&list, "0000000000000001\n").unwrap()
        } else {
            fs::remove_file(&list).unwrap()
        }
        assert_eq!(harms(&open(dir.path())), [(3, Harm::Missing)]);
    }
    let dir = tempfile::tempdir().unwrap();
    let log = Segments::open(dir.path().into(), KIND, 7).unwrap();
    assert_eq!((harms(&log), log.end().segment), (vec![(7, Harm::Missing)], 8));
}

#[test]
fn a_damaged_head_costs_no_frame() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, frames) = fifty(dir.path());
    for bit in 0..HEADER as usize * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        match Segments::open(dir.path().into(), KIND, 0) {
            Ok(log) => {
                assert_eq!(harms(&log), [(1, Harm::Head)]);
                assert_eq!(read_all(&log, Position::default()).0, frames);
            }
            // The byte that says the format: it may be a newer one's.
            Err(error) => {
                assert!(bit / 8 == 9 && error.to_string().contains("is of format"), "bit {bit}: {error}")
            }
        }
        assert_eq!(fs::read(&path).unwrap(), flipped);
    }
}

/// Garbage in which nearly every place claims a length that could be: the worst there is for a search.
#[test]
fn a_frame_behind_megabytes_of_garbage_is_found_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let garbage = 1 << 20;
    append(&mut log, &vec![1; garbage]);
    let behind = append(&mut log, b"behind");
    drop(log);
    let path = dir.path().join(segment_name(1));
    let bytes = fs::read(&path).unwrap();
    let mut noise = 1u32;
    let fill: [fn(usize, u32) -> u8; 3] = [
        |_, noise| (noise >> 24) as u8,
        |at, noise| if at % 4 < 2 { (noise >> 24) as u8 } else { 0 },
        |at, _| [0, 16, 0, 0][at % 4],
    ];
    for fill in fill {
        let mut harmed = bytes.clone();
        for (at, byte) in harmed[HEADER as usize..][..garbage].iter_mut().enumerate() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = fill(at, noise);
        }
        fs::write(&path, harmed).unwrap();
        let began = crate::clock::Clock::system();
        let start_ms = began.now().uptime_ms;
        let (found, damage) = read_all(&open(dir.path()), Position::default());
        assert_eq!(found.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [behind]);
        assert_eq!(damage.len(), 1);
        // A search that reads what each place claims takes hours.
        assert!(began.now().uptime_ms - start_ms < 60_000);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Sync,
    Roll,
    Forget(usize),
    Fail(u64),
    Kill,
    CutPower,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(1..255u8, 1..40).prop_map(Step::Append),
        4 => Just(Step::Sync),
        2 => Just(Step::Roll),
        1 => (0..8usize).prop_map(Step::Forget),
        2 => (1..12u64).prop_map(Step::Fail),
        1 => Just(Step::Kill),
        2 => Just(Step::CutPower),
    ]
}

/// A log on a disk that fails, and what was written to it.
struct Model {
    dirs: Vec<tempfile::TempDir>,
    faults: Faults,
    log: Segments,
    /// Frames by place; whether they are durable.
    frames: BTreeMap<Position, (Vec<u8>, bool)>,
    dice: u32,
}

impl Model {
    fn new(seed: u32) -> Self {
        let (dir, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let log = Segments::open(Folder::on(dir.path(), &faults), KIND, 0).unwrap();
        Model { dirs: vec![dir], faults, log, frames: BTreeMap::new(), dice: seed }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(payload) => self.append(payload),
            Step::Sync => self.sync(),
            Step::Roll => {
                if let Ok(fresh) = self.log.next().prepare() {
                    let number = self.log.number;
                    let old = self.log.install(fresh);
                    if old.sync_data().is_ok() { self.is_durable(number) } else { self.kill() }
                }
            }
            Step::Forget(place) => {
                if let Some((&at, _)) = self.frames.iter().nth(*place) {
                    self.log.forget_before(at).delete().ok();
                    self.frames.retain(|place, _| *place >= at);
                }
            }
            Step::Fail(after) => self.faults.fail_after(*after),
            Step::Kill => self.kill(),
            Step::CutPower => self.cut_power(),
        }
    }

    fn append(&mut self, payload: &[u8]) {
        let mut buffer = vec![0; FRAME_HEADER];
        buffer.extend_from_slice(payload);
        let at = self.log.end();
        match self.log.append(&mut buffer) {
            Ok(_) => {
                self.frames.insert(at, (payload.to_vec(), false));
            }
            Err(AppendError::Undone(_)) => assert_eq!(self.log.end(), at),
            // The frame may be there after all, and was promised to nobody.
            Err(AppendError::Unknown(_)) => self.kill_with(Some((at, payload.to_vec()))),
        }
    }

    fn sync(&mut self) {
        if self.log.current().sync_data().is_ok() { self.is_durable(self.log.number) } else { self.kill() }
    }

    fn is_durable(&mut self, segment: u64) {
        let of_it = self.frames.iter_mut().filter(|(at, _)| at.segment == segment);
        of_it.for_each(|(_, (_, durable))| *durable = true);
    }

    fn kill(&mut self) {
        self.kill_with(None);
    }

    /// The page cache stays; a start that fails is tried again.
    fn kill_with(&mut self, doubtful: Option<(Position, Vec<u8>)>) {
        let folder = self.log.folder.clone();
        self.log = (0..50).find_map(|_| Segments::open(folder.clone(), KIND, 0).ok()).expect("it opens");
        let (found, damage) = self.read();
        if let Some((at, payload)) = doubtful.filter(|(at, _)| found.contains_key(at)) {
            self.frames.insert(at, (payload, false));
        }
        let expected: BTreeMap<_, _> =
            self.frames.iter().map(|(at, (bytes, _))| (*at, bytes.clone())).collect();
        assert_eq!(found, expected, "a kill takes nothing");
        assert!(damage.iter().all(|damage| damage.harm == Harm::TornTail), "{damage:?}");
    }

    /// What was synced is there, once; of the rest what is there is what was written there.
    fn cut_power(&mut self) {
        let (dir, dice) = (tempfile::tempdir().unwrap(), &mut self.dice);
        let from = self.dirs.last().unwrap().path();
        self.faults.cut_power(from, dir.path(), |n| {
            *dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*dice >> 16) as usize % n
        });
        self.dirs.push(dir);
        self.faults = Faults::default();
        let last = self.log.end().segment;
        let folder = Folder::on(self.dirs.last().unwrap().path(), &self.faults);
        self.log = Segments::open(folder, KIND, 0).unwrap();
        let (found, damage) = self.read();
        for (at, (payload, durable)) in &self.frames {
            assert!(!durable || found.get(at) == Some(payload), "{at} was durable; {damage:?}");
        }
        for (at, payload) in &found {
            assert_eq!(self.frames.get(at).map(|(bytes, _)| bytes), Some(payload), "{at}");
        }
        assert!(damage.iter().all(|damage| damage.harm == Harm::TornTail), "{damage:?}");
        assert!(self.log.end().segment > last || found.keys().all(|at| at.segment < self.log.end().segment));
        self.frames = found.into_iter().map(|(at, payload)| (at, (payload, true))).collect();
    }

    /// From the first frame on that was not given up.
    fn read(&self) -> (BTreeMap<Position, Vec<u8>>, Vec<Damage>) {
        let from = self.frames.keys().next().copied().unwrap_or(Position { segment: u64::MAX, offset: 0 });
        let (found, damage) = read_all(&self.log, from);
        (found.into_iter().map(|(at, _, payload)| (at, payload)).collect(), damage)
    }
}

/// Every operation may fail, the process may be killed and the power cut, in any order.
#[test]
fn what_was_synced_is_there_and_nothing_else_is_believed() {
    let cases =
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(crate::totals::cases(150)) };
    let steps = (prop::collection::vec(step(), 5..60), any::<u32>());
    proptest::test_runner::TestRunner::new(cases)
        .run(&steps, |(steps, seed)| {
            let mut model = Model::new(seed);
            steps.iter().for_each(|step| model.step(step));
            model.cut_power();
            Ok(())
        })
        .unwrap();
}

/// The n-th operation fails, for every n: a run of appends, syncs, rolls and removals keeps its word.
#[test]
fn whichever_operation_fails_the_log_keeps_its_word() {
    let mut failures = Vec::new();
    for n in 1..=140 {
        let mut model = Model::new(n as u32);
        model.faults.fail_after(n);
        for round in 0..8u8 {
            for step in [
                Step::Append(vec![round + 1; 9]),
                Step::Sync,
                Step::Append(vec![round + 1; 5]),
                Step::Roll,
                Step::Append(vec![round + 1; 7]),
                Step::Forget(usize::from(round) / 2),
            ] {
                model.step(&step);
            }
        }
        failures.extend(model.faults.failed());
        model.cut_power();
    }
    failures.sort();
    failures.dedup();
    use crate::totals::disk::faults::Operation::{Create, Remove, Rename, Sync, SyncNames, Write};
    assert_eq!(failures, [Create, Write, Sync, SyncNames, Rename, Remove]);
}
