//! Text that names a person: one form of each, and what must not be in it.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// The text without blanks around it, each character in its composed form (Unicode's NFC).
pub(crate) fn tidy(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text.trim()).into_owned()
}

/// The same for two texts that differ in case only, as far as Unicode knows a pair of cases.
pub(crate) fn folded(text: &str) -> String {
    // To upper case first: "ß" and "ss" are the same then.
    tidy(&tidy(text).to_uppercase().to_lowercase())
}

/// Whether all of a text shows: no control, format or direction characters, no line ends, and
/// nothing that Unicode has not assigned.
pub(crate) fn shows(text: &str) -> bool {
    let categories = CodePointMapData::<GeneralCategory>::new();
    !text.chars().any(|character| {
        matches!(
            categories.get(character),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::PrivateUse
                | GeneralCategory::Surrogate
                | GeneralCategory::Unassigned
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_fold_to_the_same() {
        for (one, other) in [
            ("bob", "Bob"),
            ("erin", " erin\t"),
            ("jos\u{e9}", "jose\u{301}"),
            ("JOS\u{c9}", "jose\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{39f}\u{394}\u{39f}\u{3a3}", "\u{3bf}\u{3b4}\u{3bf}\u{3c2}"),
            ("\u{212b}", "\u{e5}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("bob"), folded("b0b"));
        assert_eq!(tidy(" Jose\u{301} "), "Jos\u{e9}");
    }

    #[test]
    fn what_does_not_show_is_known() {
        for hidden in [
            '\n',
            '\0',
            '\u{202e}',
            '\u{200b}',
            '\u{2066}',
            '\u{feff}',
            '\u{ad}',
            '\u{2028}',
            '\u{e000}',
            '\u{e0041}',
        ] {
            assert!(!shows(&format!("a{hidden}b")), "{hidden:?}");
        }
        for text in ["alice", "Jos\u{e9} \u{674e}", "\u{627}\u{62d}\u{645}\u{62f}", "a_b-c.d"] {
            assert!(shows(text), "{text}");
        }
    }
}
