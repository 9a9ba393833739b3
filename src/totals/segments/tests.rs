//! What is read back, whatever became of the files.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KIND: u8 = b't';

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
    Segments::open(dir, KIND, 0).unwrap()
}

fn roll(log: &mut Segments, dir: &Path) {
    let fresh = Segments::prepare(dir, KIND, log.next_number()).unwrap();
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
    (path, bytes, frames)
}

#[test]
fn a_segment_cut_anywhere_gives_back_the_whole_frames_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, frames) = fifty(dir.path());
    let read = |cut: usize| {
        fs::write(&path, &bytes[..cut]).unwrap();
        let kept = BTreeMap::from([(1, cut as u64), (2, HEADER)]);
        let current = Arc::new(File::open(&path).unwrap());
        read_all(
            &Segments { dir: dir.path().into(), current, number: 2, end: HEADER, kept },
            Position::default(),
        )
    };
    for cut in 0..=bytes.len() {
        let whole = frames.iter().filter(|(_, end, _)| end.offset <= cut as u64);
        let (found, damage) = read(cut);
        assert!(found.iter().eq(whole), "cut at {cut}");
        let end = found.last().map_or(HEADER, |(_, end, _)| end.offset);
        match damage.as_slice() {
            [] => assert!(cut as u64 <= end),
            [torn] => {
                assert!(torn.torn_tail);
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
        assert_eq!(damage.torn_tail, found.len() == 49 && found.last() == frames.get(48));
        let hit = frames.iter().find(|(at, end, _)| (at.offset..end.offset).contains(&byte)).unwrap();
        assert!(log.read(hit.0).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

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
                0 => roll(&mut log, dir.path()),
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
        let mut log = Segments::open(dir.path(), KIND, last.segment).unwrap();
        assert!(log.end() > last, "round {round}");
        if round % 2 == 0 {
            append(&mut log, b"x");
            roll(&mut log, dir.path());
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
        Segments::open(dir.path(), KIND, 0).map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn segments_before_a_position_are_given_up_and_the_current_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut starts = vec![append(&mut log, b"one")];
    for payload in [b"two", b"six"] {
        roll(&mut log, dir.path());
        starts.push(append(&mut log, payload));
    }
    let bytes = log.bytes();
    assert!(log.forget_before(starts[0]).is_empty());
    assert!(log.forget_before(Position { offset: starts[0].offset + 1, ..starts[0] }).is_empty());
    let end_of_first = Position { offset: starts[0].offset + FRAME_HEADER as u64 + 3, ..starts[0] };
    assert_eq!(log.forget_before(end_of_first), [dir.path().join(segment_name(1))]);
    assert_eq!(log.bytes(), bytes - end_of_first.offset);
    let beyond = Position { segment: 99, offset: 0 };
    assert_eq!(log.forget_before(beyond), [dir.path().join(segment_name(2))]);
    assert!(log.forget_before(beyond).is_empty());
    append(&mut log, b"on");
    assert_eq!(log.bytes(), log.current_bytes());
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let foreign: [Vec<u8>; 5] = [
        header(b'o', 7).into(),
        header(KIND, 8).into(),
        vec![b'#'; 100],
        vec![0; 100],
        header(KIND, 7).iter().enumerate().map(|(i, b)| if i == 9 { FORMAT + 1 } else { *b }).collect(),
    ];
    for bytes in foreign {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(segment_name(7));
        fs::write(&path, &bytes).unwrap();
        let error = Segments::open(dir.path(), KIND, 0).map(|_| ()).unwrap_err();
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
    log.current = Arc::new(File::open(dir.path().join(segment_name(1))).unwrap());
    assert!(matches!(log.append(&mut [0; FRAME_HEADER + 1]), Err(AppendError::Unknown(_))));
    assert_eq!(log.end(), end);
}
