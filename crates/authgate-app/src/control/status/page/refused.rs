//! The last reload that was refused, with its problems.

use serde_json::Value;

use super::super::document::RefusedReload;
use super::super::words::time;
use super::MAX_LINES;

pub(super) struct RefusedRow {
    pub(super) title: String,
    pub(super) problems: Vec<RefusedProblem>,
    pub(super) more: usize,
}

pub(super) struct RefusedProblem {
    pub(super) place: String,
    pub(super) text: String,
}

pub(super) fn refused(refused: &RefusedReload) -> RefusedRow {
    let problem = |problem: &Value| {
        let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        let line = problem
            .get("line")
            .and_then(Value::as_u64)
            .map(|line| format!(", line {line}"));
        let help = match text("help") {
            "" => String::new(),
            help => format!(": {help}"),
        };
        RefusedProblem {
            place: format!("{}{}", text("key"), line.unwrap_or_default()),
            text: format!("{}{help}", text("message")),
        }
    };
    RefusedRow {
        title: format!("The reload of {} was refused", time(&refused.at)),
        problems: refused.problems.iter().take(MAX_LINES).map(problem).collect(),
        more: refused.problems.len().saturating_sub(MAX_LINES),
    }
}
