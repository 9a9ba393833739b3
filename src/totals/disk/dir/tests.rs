use super::*;
use crate::totals::disk::faults::{Faults, Operation};

fn names(dir: &Path) -> Vec<String> {
    let mut names = Folder::from(dir).names().unwrap();
    names.sort();
    names
}

#[test]
fn a_text_with_any_bit_flipped_or_any_byte_cut_off_is_not_believed() {
    let whole = checked("writer 1234\nid-key 5678\n").into_bytes();
    assert_eq!(check(Some(&whole)), Kept::Whole("writer 1234\nid-key 5678\n".to_owned()));
    assert_eq!(check(None), Kept::Absent);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(Some(&bytes)), Kept::Damaged, "bit {bit}");
    }
    for cut in 0..whole.len() {
        assert_eq!(check(Some(&whole[..cut])), Kept::Damaged, "cut at {cut}");
    }
}

#[test]
fn one_damaged_copy_is_told_by_the_other_and_two_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), Kept::Absent);
    data.replace_kept("writer", "a\n").unwrap();
    let whole = Kept::Whole("a\n".to_owned());
    fs::write(dir.path().join("writer"), "nonsense").unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), whole);
    assert_eq!(fs::read(dir.path().join("writer.damaged")).unwrap(), b"nonsense");
    fs::remove_file(dir.path().join("writer.copy")).unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), whole, "it was mended");
    data.replace_kept("writer", "a\n").unwrap();
    fs::remove_file(dir.path().join("writer")).unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), whole, "a missing one is told by the other too");
    fs::remove_file(dir.path().join("writer.copy")).unwrap();
    fs::write(dir.path().join("writer"), "of old\n").unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), Kept::Whole("of old\n".to_owned()));
    fs::write(dir.path().join("writer"), "").unwrap();
    fs::write(dir.path().join("writer.copy"), "writer").unwrap();
    assert_eq!(data.read_kept("writer").unwrap(), Kept::Damaged);
    assert_eq!(names(dir.path()), ["LOCK", "writer", "writer.copy", "writer.damaged"]);
}

/// Every operation fails in turn, and then the power is cut: the text is the old one or the new one.
#[test]
fn a_text_is_the_old_one_or_the_new_one_whatever_fails() {
    let mut new_ones = 0;
    for failing in 1..=12 {
        for seed in 0..40usize {
            let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let faults = Faults::default();
            let folder = Folder::on(dir.path(), &faults);
            let data = DataDir::lock(folder).unwrap();
            data.replace_kept("salts", "old\n").unwrap();
            faults.fail_after(failing);
            let replaced = data.replace_kept("salts", "new and longer\n");
            assert_eq!(replaced.is_err(), failing <= 10, "operation {failing}");
            let mut die = seed;
            faults.cut_power(dir.path(), after.path(), |n| {
                let picked = die % n;
                die = die / n + seed;
                picked
            });
            let data = DataDir::open(after.path()).unwrap();
            let Kept::Whole(text) = data.read_kept("salts").unwrap() else { panic!("operation {failing}") };
            assert!(text == "old\n" || text == "new and longer\n", "{text}");
            assert!(replaced.is_err() || text.starts_with("new"));
            new_ones += u32::from(text.starts_with("new"));
        }
    }
    assert!(new_ones > 80);
}

#[test]
fn the_name_of_each_directory_that_is_made_is_durable() {
    let path = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let folder = Folder::on(path.path(), &faults).within("a").within("b").within("c");
    faults.only(&[Operation::SyncNames]);
    faults.fail_after(2);
    assert!(folder.exist().is_err(), "the name of b");
    faults.fail_after(2);
    assert!(folder.exist().is_err(), "the name of c: that of a is durable, and that of b is made so");
    assert!(folder.exist().is_ok());
    faults.fail_after(1);
    assert!(folder.exist().is_ok(), "one that is there is left alone");
    assert_eq!(faults.failed().len(), 2);
}
