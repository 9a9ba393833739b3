//! Who may read what of a site, and the secrets that show it.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

words! {
    /// What is read of a site.
    pub enum ReadKind {
        /// Its counters, and those of a page.
        Counters = "counters",
        /// Views of many pages.
        Pages = "pages",
        /// The counters as they change.
        Live = "live",
        /// The footer block.
        Widget = "widget",
        /// A counter as an image.
        Badge = "badge",
    }
}

/// Who may read a site: everybody, except what is kept for those who have a token.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    /// What is read with a token only.
    pub kept: Vec<ReadKind>,
    /// The tokens: several are valid at once, so that one can take the place of another.
    pub tokens: Vec<TokenHash>,
}

impl Readers {
    /// Whether who sends this token, or none, may read it.
    pub fn may_read(&self, kind: ReadKind, token: Option<&[u8]>) -> bool {
        if !self.kept.contains(&kind) {
            return true;
        }
        let Some(given) = token.map(TokenHash::of) else { return false };
        // All of them are compared, whichever it is.
        let is_one = |any: Choice, known: &TokenHash| any | known.0.ct_eq(&given.0);
        self.tokens.iter().fold(Choice::from(0), is_one).into()
    }
}

/// The SHA-256 of a token: the token itself is known to its readers alone.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Takes `sha256:` and 64 hex digits.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64)?;
        let digit = |b: &u8| char::from(*b).to_digit(16).map(|digit| digit as u8);
        let mut hash = [0; 32];
        for (byte, two) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = digit(two.first()?)? << 4 | digit(two.last()?)?;
        }
        Some(TokenHash(hash))
    }

    fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        TokenHash(hash)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret that opens a page. It is never shown, and compared in constant time.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// The fewest characters that cannot be guessed.
    pub const SHORTEST: usize = 16;

    /// Takes a secret of characters that stand for themselves in a URL.
    pub fn new(secret: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let legal = secret.len() >= Self::SHORTEST && secret.bytes().all(is_plain);
        legal.then(|| Token(secret.into()))
    }

    /// Whether a text is this secret.
    pub fn is(&self, said: &str) -> bool {
        self.0.as_bytes().ct_eq(said.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_with_one_of_the_tokens_alone() {
        // What `printf %s one | sha256sum` prints, and the same of "two".
        let hashes = [
            "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
            "sha256:3FC4CCFE745870E2C0D99F71F30FF0656C8DEDD41CC1D7D3D376B0DBE685E2F3",
        ];
        let tokens = hashes.map(|hash| TokenHash::read(hash).unwrap()).to_vec();
        let readers = Readers { kept: vec![ReadKind::Pages, ReadKind::Live], tokens };
        let may = |kind, token: &[u8]| readers.may_read(kind, Some(token));
        for kind in [ReadKind::Pages, ReadKind::Live] {
            assert!(may(kind, b"one") && may(kind, b"two"));
            for wrong in [&b""[..], b"three", b"One", b"one ", hashes[0].as_bytes()] {
                assert!(!may(kind, wrong), "{wrong:?}");
            }
            assert!(!readers.may_read(kind, None));
        }
        assert!(readers.may_read(ReadKind::Counters, None) && may(ReadKind::Badge, b"three"));
        let none = Readers { tokens: Vec::new(), ..readers.clone() };
        assert!(!none.may_read(ReadKind::Pages, Some(b"one")));
    }

    #[test]
    fn a_hash_is_its_name_and_64_digits() {
        let (good, digits) = ("sha256:", "0123456789abcdefABCDEF".repeat(3));
        assert!(TokenHash::read(&format!("{good}{}", &digits[..64])).is_some());
        for wrong in [
            digits[..64].to_owned(),
            format!("sha512:{}", &digits[..64]),
            format!("{good}{}", &digits[..63]),
            format!("{good}{}", &digits[..65]),
            format!("{good}+{}", &digits[..63]),
            format!("{good}é{}", &digits[..62]),
            String::new(),
        ] {
            assert!(TokenHash::read(&wrong).is_none(), "{wrong}");
        }
        let shown = format!("{:?}", Readers { kept: Vec::new(), tokens: vec![TokenHash::of(b"one")] });
        assert!(shown.contains("***") && !shown.contains("7692"), "{shown}");
    }
}
