//! Errors in the command's own words, and text of others that is safe to print.

use bcnorm_testkit::Failure;
use std::error::Error;

/// An error with its causes, on one line where they are. A cause that its successor in the chain has
/// quoted already is left out, and so are control characters.
pub fn describe_error(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = in_our_words(cause);
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text += ": ";
        }
        text += &cause;
    }
    printable(&text)
}

/// What the library advises its callers to do, a user of the command cannot: options say the same.
fn in_our_words(cause: &(dyn Error + 'static)) -> String {
    let library = match cause.downcast_ref() {
        Some(Failure::Library(error)) => Some(error),
        _ => cause.downcast_ref::<bcnorm::Error>(),
    };
    match library {
        Some(bcnorm::Error::OneValuePerChannel { dims, .. }) => format!(
            "statistics need more than one value, and in a tensor of shape {dims:?} they are each of \
             one: give a larger batch (instance_norm and weight_standardization: larger rows), or use \
             known statistics (running ones: --eval or --direction eval; estimates: --stats estimate \
             or --norm est_bn)"
        ),
        Some(bcnorm::Error::Checkpoint { file, problems, .. }) => listed(file, problems),
        _ => cause.to_string(),
    }
}

/// A heading and what belongs under it: on its line if it is one thing, else each on its own.
pub fn listed(heading: &str, items: &[String]) -> String {
    match items {
        [only] => format!("{heading}: {only}"),
        many => format!("{heading}:\n  {}", many.join("\n  ")),
    }
}

/// Text with control characters written out, lest a name in a file move the cursor, change colours or
/// turn the writing around. Ends of lines stay.
pub fn printable(text: &str) -> String {
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (c.is_control() && c != '\n') {
            printed.extend(c.escape_default());
        } else {
            printed.push(c);
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn what_is_quoted_is_not_said_twice() {
        let json = serde_json::from_str::<u32>("x").unwrap_err();
        let quoted = safetensors::SafeTensorError::InvalidHeaderDeserialization(json);
        let error = anyhow::Error::new(quoted).context("p.safetensors");
        let text = describe_error(&error);
        assert_eq!(text.matches("line 1 column 1").count(), 1, "{text}");
        assert!(text.starts_with("p.safetensors: invalid JSON"), "{text}");
        let error = Err::<(), _>(std::io::Error::other("full")).context("cannot write");
        assert_eq!(describe_error(&error.unwrap_err()), "cannot write: full");
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(
            printable("a\x1b[31mRED\x07\u{9b}1m\u{202e}\r\tb"),
            "a\\u{1b}[31mRED\\u{7}\\u{9b}1m\\u{202e}\\r\\tb"
        );
        let plain = "ü 漢 e\u{301} \"it's\" \\ two\nlines";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn advice_names_options() {
        let dims = vec![1, 8];
        let library = bcnorm::NormDesc::batch_norm(8);
        let tensor = bcnorm::TensorDesc::new(&dims).unwrap();
        let error = library.validate_for(&tensor, bcnorm::Mode::Train);
        let error = error.unwrap_err();
        for error in [
            anyhow::Error::new(error.clone()),
            anyhow::Error::new(Failure::Library(error)).context("x.npy"),
        ] {
            let text = describe_error(&error);
            assert!(text.contains("--stats estimate"), "{text}");
            assert!(!text.contains("::") && !text.contains("()"), "{text}");
        }
    }
}
