//! Enums of which each value has one word: on the wire, in the configuration, in metrics and in the log.

/// Declares such an enum, with all its values in their order and their words.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// The word of each value, in their order.
            pub const WORDS: [(&'static str, Self); [$($word),+].len()] = [$(($word, Self::$value)),+];

            /// The value's word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}
