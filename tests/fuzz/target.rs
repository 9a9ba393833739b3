//! Has one of the readers, which `FOOTFALL_READER` names, read what libFuzzer breeds.
#![no_main]

use std::sync::LazyLock;

static READER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FOOTFALL_READER").unwrap_or_default();
    let found = footfall::fuzzed::READERS.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("FOOTFALL_READER={wanted}: there is no such reader")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| READER(bytes));
