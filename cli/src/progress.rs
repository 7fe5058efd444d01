//! Progress bars on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `steps`; hidden where standard error is no terminal.
pub fn bar(steps: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64).with_prefix(what);
    let template = "{prefix} {bar:24} {pos}/{len} {msg}";
    // The template is a constant; without it the bar looks plainer.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
