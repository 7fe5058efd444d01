//! JSON, as far as plans need it.

use std::fmt::Write as _;

/// A string with its quotes.
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An array of what is JSON already.
pub fn array(values: impl IntoIterator<Item = String>) -> String {
    let mut out = String::from("[");
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&value);
    }
    out.push(']');
    out
}

/// An array of sizes.
pub fn sizes(values: &[usize]) -> String {
    array(values.iter().map(ToString::to_string))
}

/// An object; the values are JSON already.
pub fn object<const N: usize>(fields: [(&str, String); N]) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&string(name));
        out.push(':');
        out.push_str(&value);
    }
    out.push('}');
    out
}

/// A value, or null.
pub fn option(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}
