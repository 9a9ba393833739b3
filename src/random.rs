//! The only source of chance: the operating system's, which nobody can guess.

/// As many random bytes as are asked for.
///
/// A system that has none to give ends the process: without them neither a writer nor a salt is safe to draw.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!("the system gives no random bytes ({error}); the process ends");
        std::process::abort();
    }
    bytes
}

/// 16 random hex digits: a name that nobody else has.
pub fn id() -> String {
    format!("{:016x}", u64::from_le_bytes(bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_is_16_hex_digits_and_new_each_time() {
        let (one, other) = (super::id(), super::id());
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
    }
}
