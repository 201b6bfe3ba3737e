//! Progress: one line a step on stderr, with a spinner while it runs if somebody is watching.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step under way. Dropping it without `done` leaves only the line that announced it.
pub struct Step {
    text: String,
    started: Instant,
    spinner: ProgressBar,
}

impl Step {
    /// Says what begins now. `text` is a clause such as "unpacking 5 packages".
    pub fn begin(text: impl Into<String>) -> Self {
        let text = text.into();
        // `indicatif` hides the spinner where stderr is not a terminal; then the plain line stands
        // alone.
        let spinner = ProgressBar::new_spinner();
        if spinner.is_hidden() {
            eprintln!("  {text} …");
        } else {
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
                spinner.set_style(style);
            }
            spinner.set_message(text.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        Self { text, started: Instant::now(), spinner }
    }

    /// Ends the step and says how long it took.
    pub fn done(self) {
        self.spinner.finish_and_clear();
        eprintln!("  {}: done in {} s", self.text, self.started.elapsed().as_secs());
    }
}
