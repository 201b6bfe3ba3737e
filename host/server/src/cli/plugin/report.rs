//! What a case came to, for people, for programs, and for build servers (JUnit).

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_sandbox::Attempt;
use quick_junit::NonSuccessKind;
use quick_junit::Report;
use quick_junit::TestCase;
use quick_junit::TestCaseStatus;
use quick_junit::TestSuite;
use serde_json::Value;
use serde_json::json;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::inside::log_line;
use crate::cli::value;
use crate::fixture::Ending;
use crate::fixture::Expect;
use crate::fixture::compare::Side;
use crate::fixture::run::Ran;

/// From so many hundredths of a limit on, its figure is shown as close to it.
const CLOSE: u64 = 80;

/// One fixture and what came of it.
#[derive(Debug)]
pub struct Case {
    /// The file's name without its ending.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// How it went.
    pub verdict: Verdict,
    /// What ran; nothing if the fixture itself is wrong.
    pub ran: Option<Ran>,
}

/// How a case went.
#[derive(Debug)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// The expectation was written anew.
    Updated,
    /// Not as expected.
    Differs(Vec<(Side, String)>),
    /// It cannot be told.
    Broken(Error),
}

impl Case {
    /// True unless somebody must look.
    pub fn is_fine(&self) -> bool {
        matches!(self.verdict, Verdict::Passed | Verdict::Updated)
    }

    /// For people; `width` is that of the longest name.
    pub fn text(&self, width: usize, paint: Paint) -> String {
        let mark = match self.verdict {
            Verdict::Passed => paint.green("ok     "),
            Verdict::Updated => paint.cyan("updated"),
            Verdict::Differs(_) | Verdict::Broken(_) => paint.red("FAILED "),
        };
        let figures = self.ran.as_ref().map(|ran| figures(ran, paint)).unwrap_or_default();
        let name = clean(&self.name);
        let mut text = format!("  {mark}  {name:width$}  {figures}").trim_end().to_owned();
        match &self.verdict {
            Verdict::Passed | Verdict::Updated => {}
            Verdict::Broken(error) => {
                for line in error.render(paint).lines() {
                    _ = write!(text, "\n      {line}");
                }
            }
            Verdict::Differs(lines) => {
                _ = write!(text, "\n      {}  {}", paint.red("- expected"), paint.green("+ happened"));
                for (side, line) in lines {
                    let line = clean(line);
                    let shown = match side {
                        Side::Both => paint.dim(&format!("  {line}")),
                        Side::Expected => paint.red(&format!("- {line}")),
                        Side::Happened => paint.green(&format!("+ {line}")),
                        Side::Gap => paint.dim("  …"),
                    };
                    _ = write!(text, "\n      {shown}");
                }
                if let Some(ran) = &self.ran {
                    text += &why(ran, "      ", paint);
                }
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let state = match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Updated => "updated",
            Verdict::Differs(_) => "failed",
            Verdict::Broken(_) => "broken",
        };
        let mut json = json!({"name": self.name, "file": self.file.display().to_string(), "state": state});
        match &self.verdict {
            Verdict::Differs(_) => json["difference"] = self.difference().into(),
            Verdict::Broken(error) => json["error"] = error.render(Paint::plain()).into(),
            Verdict::Passed | Verdict::Updated => {}
        }
        if let Some(ran) = &self.ran {
            json["happened"] = happened(&ran.happened);
            json["used"] = used(ran);
        }
        json
    }

    fn difference(&self) -> String {
        let Verdict::Differs(lines) = &self.verdict else { return String::new() };
        let lines = lines.iter().map(|(side, line)| match side {
            Side::Both => format!("  {line}"),
            Side::Expected => format!("- {line}"),
            Side::Happened => format!("+ {line}"),
            Side::Gap => "  …".to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// `fuel 12.3 k (0.0 %)  memory 1.1 MiB (6.8 %)  time 1.2 ms (0.4 %)`
pub fn figures(ran: &Ran, paint: Paint) -> String {
    let Attempt { fuel, memory, duration, .. } = &ran.attempt;
    let share = |used: u64, limit: u64| {
        let tenths = (u128::from(used) * 1_000).checked_div(u128::from(limit)).unwrap_or_default();
        let text = format!("{}.{} %", tenths / 10, tenths % 10);
        if tenths >= u128::from(CLOSE) * 10 { paint.red(&text) } else { text }
    };
    let of = |used: String, limit: String, share: String| format!("{used} of {limit} ({share})");
    let (memory, memory_max) = (*memory as u64, ran.limits.memory as u64);
    let (time, time_max) = (micros(*duration), micros(ran.limits.time));
    format!(
        "fuel {}  memory {}  time {}",
        of(value::fuel(*fuel), value::fuel(ran.limits.fuel), share(*fuel, ran.limits.fuel)),
        of(value::bytes(memory), value::bytes(memory_max), share(memory, memory_max)),
        of(value::micros(time), value::micros(time_max), share(time, time_max)),
    )
}

/// Why it failed, and the last lines of its log: what its author wants to know first.
pub fn why(ran: &Ran, indent: &str, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(failure) = &ran.happened.failure {
        let code = paint.bold(&clean(failure.code.as_deref().unwrap_or_default()));
        let reason: Vec<String> = failure.reason.as_deref().unwrap_or_default().lines().map(clean).collect();
        _ = write!(text, "\n{indent}{code} {}", reason.join(&format!("\n{indent}")));
    }
    text += &log(&ran.attempt, indent, paint);
    text
}

/// The log, a line each.
pub fn log(attempt: &Attempt, indent: &str, paint: Paint) -> String {
    let mut text = String::new();
    for line in &attempt.logs {
        let line = serde_json::to_value(line).expect("because it is plain data");
        _ = write!(text, "\n{indent}{} {}", paint.dim("log"), log_line(&line, paint));
    }
    text
}

/// The word for an ending.
pub fn ending(happened: &Expect) -> &'static str {
    match happened.outcome {
        Ending::Done => "done",
        Ending::Retry => "failed, to be tried again",
        Ending::Reject => "rejected",
    }
}

/// What happened, for programs.
pub fn happened(expect: &Expect) -> Value {
    serde_json::to_value(expect).expect("because its maps have texts as keys")
}

/// What was used, and how much there is.
pub fn used(ran: &Ran) -> Value {
    json!({
        "fuel": {"used": ran.attempt.fuel, "limit": ran.limits.fuel},
        "memory": {"used": ran.attempt.memory, "limit": ran.limits.memory},
        "time_us": {"used": micros(ran.attempt.duration), "limit": micros(ran.limits.time)},
    })
}

/// Writes all cases as JUnit reads them.
pub fn junit(plugin: &str, cases: &[Case], file: &Path) -> Result<()> {
    let mut suite = TestSuite::new(plugin);
    for case in cases {
        let status = match &case.verdict {
            Verdict::Passed | Verdict::Updated => TestCaseStatus::success(),
            Verdict::Differs(_) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message("not as expected").set_description(case.difference());
                status
            }
            Verdict::Broken(error) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(error.to_string()).set_description(error.render(Paint::plain()));
                status
            }
        };
        let mut written = TestCase::new(case.name.as_str(), status);
        written.set_classname(plugin);
        if let Some(ran) = &case.ran {
            written.set_time(ran.attempt.duration);
            let log = log(&ran.attempt, "", Paint::plain());
            if !log.is_empty() {
                written.set_system_out(log.trim_start());
            }
        }
        suite.add_test_case(written);
    }
    let mut report = Report::new("bulkhead plugin test");
    report.add_test_suite(suite);
    let text = report.to_string().map_err(|cause| Error::failed(format!("the report cannot be written: {cause}")))?;
    std::fs::write(file, text).map_err(|cause| Error::file(file, "written", &cause))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
