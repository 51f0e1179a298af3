//! The status as plain text, for pipes and files.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::content::{Section, headline, sections};
use super::units;
use crate::control::status::document::Status;

/// Writes everything that the terminal would show.
pub(super) fn write(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let traffic = &status.traffic;
    writeln!(
        out,
        "authgate {}, {}, up {}\n{}\n",
        status.version,
        status.stage,
        units::age(status.uptime_seconds),
        headline(status).text,
    )?;
    let history = &traffic.history;
    let share = |values: &[Option<f64>]| values.iter().map(|value| value.unwrap_or_default()).collect::<Vec<_>>();
    for (name, now, values) in [
        (
            "requests/s",
            units::rate(traffic.requests_per_second),
            history.requests_per_second.clone(),
        ),
        (
            "refused/s",
            units::rate(traffic.refused_per_second),
            history.refused_per_second.clone(),
        ),
        (
            "failed/s",
            units::rate(traffic.failed_per_second),
            history.failed_per_second.clone(),
        ),
        ("p50", units::duration(traffic.p50_seconds), share(&history.p50_seconds)),
        ("p99", units::duration(traffic.p99_seconds), share(&history.p99_seconds)),
    ] {
        writeln!(out, "{name:<12}{now:>8}  {}", units::bars(&values, 60))?;
    }
    writeln!(
        out,
        "{:<12}{:>8}\n{:<12}{:>8}",
        "connections", traffic.connections, "in flight", traffic.in_flight
    )?;
    sections(status).iter().try_for_each(|section| table(out, section))
}

fn table(out: &mut dyn Write, section: &Section) -> io::Result<()> {
    writeln!(out, "\n{}", section.title)?;
    if section.rows.is_empty() {
        return writeln!(out, "  {}", section.empty);
    }
    let widths = widths(section);
    let header = section.columns.iter().copied();
    if section.columns.iter().any(|column| !column.is_empty()) {
        line(out, header, &widths)?;
    }
    for row in &section.rows {
        line(out, row.iter().map(|cell| &*cell.text), &widths)?;
    }
    Ok(())
}

/// The width of each column.
pub(super) fn widths(section: &Section) -> Vec<usize> {
    let header = section.columns.iter().map(|column| column.width());
    let mut widths: Vec<usize> = header.collect();
    for row in &section.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.width());
        }
    }
    widths
}

fn line<'t>(out: &mut dyn Write, texts: impl Iterator<Item = &'t str>, widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (text, width) in texts.zip(widths) {
        line.push_str("  ");
        line.push_str(text);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width())));
    }
    writeln!(out, "{}", line.trim_end())
}
