//! The screen: what is drawn, and what keys do.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Row, Sparkline, Table, Tabs, Wrap};

use super::content::{Cell, ROUTES, Section, Tone, headline, sections};
use super::snapshot::widths;
use super::units;
use crate::control::status::document::Status;

/// How long a restart is shown.
const RESTART_SHOWN: Duration = Duration::from_secs(30);
/// The widest column but the last one.
const MAX_COLUMN: usize = 40;

const HELP: &str = "\
q, Esc, Ctrl-C    quit
Tab, Right, l     next table
Shift-Tab, Left   previous table
1 to 9            a table
Down, Up, j, k    scroll
PgDn, PgUp, Home  scroll
?                 this help

The numbers are of /status.json, once a second.
Rates are those of the last 5 seconds, p50 and p99
of the last minute, graphs of the last 15 minutes.";

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Draw,
    Nothing,
    Quit,
}

/// What is shown.
#[derive(Debug)]
pub(super) struct Screen {
    status: Status,
    colours: bool,
    /// The index of the table. `tab < sections.len()`
    tab: usize,
    /// How many rows are above the first that is shown.
    scroll: usize,
    shows_help: bool,
    /// Since when the gateway does not answer, and why.
    lost: Option<(Instant, String)>,
    restarted: Option<Instant>,
    sections: Vec<Section>,
}

impl Screen {
    pub(super) fn new(status: Status, colours: bool) -> Self {
        Self {
            sections: sections(&status),
            tab: if status.health.ok { ROUTES } else { 0 },
            status,
            colours,
            scroll: 0,
            shows_help: false,
            lost: None,
            restarted: None,
        }
    }

    /// The gateway has answered.
    pub(super) fn update(&mut self, status: Status) {
        if status.started != self.status.started {
            self.restarted = Some(Instant::now());
        }
        self.sections = sections(&status);
        self.status = status;
        self.lost = None;
    }

    /// The gateway does not answer. What it has said before stays on the screen.
    pub(super) fn lose(&mut self, problem: String) {
        let since = self.lost.take().map_or_else(Instant::now, |(since, _)| since);
        self.lost = Some((since, problem));
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let count = self.sections.len();
        let (tab, scroll) = (self.tab, self.scroll);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::Quit,
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Esc if self.shows_help => self.shows_help = false,
            KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?') => self.shows_help = !self.shows_help,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show((tab + 1) % count),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.show((tab + count - 1) % count),
            KeyCode::Char(digit @ '1'..='9') => {
                let index = digit as usize - '1' as usize;
                self.show(index.min(count - 1));
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll = scroll + 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = scroll + 10,
            KeyCode::PageUp => self.scroll = scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = usize::MAX,
            _ => return Asked::Nothing,
        }
        // At least one row stays in sight.
        let rows = self.sections.get(self.tab).map_or(0, |section| section.rows.len());
        self.scroll = self.scroll.min(rows.saturating_sub(1));
        Asked::Draw
    }

    fn show(&mut self, tab: usize) {
        (self.tab, self.scroll) = (tab, 0);
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let graphs = if area.height >= 20 { 4 } else { 1 };
        let [title, health, traffic, tabs, table, footer] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(graphs),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        self.draw_title(frame, title);
        let padded = Block::new().padding(Padding::horizontal(1));
        frame.render_widget(
            Paragraph::new(self.health()).wrap(Wrap { trim: true }).block(padded),
            health,
        );
        self.draw_traffic(frame, traffic);
        self.draw_tabs(frame, tabs);
        self.draw_table(frame, table);
        let keys = " q quit   ←→ table   ↑↓ scroll   ? help";
        frame.render_widget(Line::styled(keys, Style::new().add_modifier(Modifier::DIM)), footer);
        if self.shows_help {
            let [area] = Layout::horizontal([Constraint::Length(54)])
                .flex(ratatui::layout::Flex::Center)
                .areas(area);
            let [area] = Layout::vertical([Constraint::Length(13)])
                .flex(ratatui::layout::Flex::Center)
                .areas(area);
            frame.render_widget(Clear, area);
            frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" Keys ")), area);
        }
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect) {
        let status = &self.status;
        let left = format!(
            " authgate {}   {}   up {}",
            status.version,
            status.stage,
            units::age(status.uptime_seconds)
        );
        let memory = status.process.as_ref().map(|usage| units::bytes(usage.resident_bytes));
        let right = format!(
            "{} connections   {} in flight   {} ",
            status.traffic.connections,
            status.traffic.in_flight,
            memory.unwrap_or_default()
        );
        let width = usize::from(area.width);
        let shown = left.chars().count() + right.chars().count();
        let text = if shown < width {
            format!("{left}{}{right}", " ".repeat(width - shown))
        } else {
            format!("{left:<width$}")
        };
        frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::REVERSED)), area);
    }

    fn health(&self) -> Text<'static> {
        if let Some((since, problem)) = &self.lost {
            let seconds = units::age(since.elapsed().as_secs());
            let problem = authgate_core::printable::escape(problem, |_| false).into_owned();
            return Text::styled(
                format!("No status for {seconds}: {problem}. Trying again; the numbers are the last ones."),
                self.style(Tone::Error),
            );
        }
        let cell = headline(&self.status);
        let restart = self.restarted.filter(|at| at.elapsed() < RESTART_SHOWN);
        let restart = restart.map(|at| {
            let seconds = units::age(at.elapsed().as_secs());
            Span::styled(
                format!("   The gateway has restarted {seconds} ago."),
                self.style(Tone::Warning),
            )
        });
        let mut line = vec![Span::styled(cell.text, self.style(cell.tone))];
        line.extend(restart);
        Text::from(Line::from(line))
    }

    fn draw_traffic(&self, frame: &mut Frame<'_>, area: Rect) {
        let traffic = &self.status.traffic;
        let history = &traffic.history;
        let flat = |values: &[Option<f64>]| values.iter().map(|value| value.unwrap_or_default()).collect::<Vec<_>>();
        let graphs = [
            (
                format!("{} requests/s", units::rate(traffic.requests_per_second)),
                history.requests_per_second.clone(),
                Tone::Plain,
            ),
            (
                format!(
                    "p50 {}, p99 {}",
                    units::duration(traffic.p50_seconds),
                    units::duration(traffic.p99_seconds)
                ),
                flat(&history.p99_seconds),
                Tone::Plain,
            ),
            (
                format!(
                    "{} refused/s, {} failed/s",
                    units::rate(traffic.refused_per_second),
                    units::rate(traffic.failed_per_second)
                ),
                history.refused_per_second.clone(),
                Tone::Warning,
            ),
        ];
        let columns: [Rect; 3] = Layout::horizontal([
            Constraint::Ratio(2, 5),
            Constraint::Ratio(3, 10),
            Constraint::Ratio(3, 10),
        ])
        .areas(area);
        for ((text, values, tone), column) in graphs.into_iter().zip(columns) {
            let [label, graph] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(column);
            frame.render_widget(Line::raw(format!(" {text}")), label);
            let width = usize::from(graph.width.saturating_sub(2));
            let graph = Rect {
                x: graph.x + 1,
                width: graph.width.saturating_sub(2),
                ..graph
            };
            let values = &values[values.len().saturating_sub(width)..];
            // Bars are of whole numbers: six digits of the value.
            let max = values.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
            let bars = values.iter().map(|value| (value / max * 1e6) as u64);
            let sparkline = Sparkline::default().data(bars).max(1_000_000).style(self.style(tone));
            frame.render_widget(sparkline, graph);
        }
    }

    fn draw_tabs(&self, frame: &mut Frame<'_>, area: Rect) {
        let titles = self.sections.iter().map(|section| section.tab);
        let selected = Style::new().add_modifier(Modifier::REVERSED);
        let all: usize = self.sections.iter().map(|section| section.tab.len() + 2).sum();
        if all <= usize::from(area.width) {
            let tabs = Tabs::new(titles).select(self.tab).highlight_style(selected);
            let [_, area] = Layout::horizontal([Constraint::Length(1), Constraint::Min(0)]).areas(area);
            frame.render_widget(tabs.divider("  ").padding("", ""), area);
            return;
        }
        // Too narrow for all of them: the present one and its number.
        let title = self.sections.get(self.tab).map_or("", |section| section.title);
        let count = self.sections.len();
        let line = Line::from(vec![
            Span::styled(format!(" {title} "), selected),
            Span::raw(format!(" {} of {count}", self.tab + 1)),
        ]);
        frame.render_widget(line, area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(section) = self.sections.get(self.tab) else {
            return;
        };
        if section.rows.is_empty() {
            frame.render_widget(Line::raw(format!(" {}", section.empty)), area);
            return;
        }
        if section.title == "Health" {
            self.draw_problems(frame, area, section);
            return;
        }
        let widths = widths(section);
        let last = widths.len().saturating_sub(1);
        let constraints = widths.iter().enumerate().map(|(at, width)| {
            if at == last {
                Constraint::Fill(1)
            } else {
                Constraint::Length(u16::try_from((*width).min(MAX_COLUMN)).unwrap_or(u16::MAX))
            }
        });
        let rows = section.rows.iter().skip(self.scroll);
        let rows = rows.map(|row| Row::new(row.iter().map(|cell| self.span(cell))));
        let mut table = Table::new(rows, constraints).column_spacing(2);
        if section.columns.iter().any(|column| !column.is_empty()) {
            let header = Row::new(section.columns.iter().copied());
            table = table.header(header.style(Style::new().add_modifier(Modifier::BOLD)));
        }
        let area = Rect {
            x: area.x + 1,
            width: area.width.saturating_sub(1),
            ..area
        };
        frame.render_widget(table, area);
    }

    /// Problems are sentences: they are wrapped.
    fn draw_problems(&self, frame: &mut Frame<'_>, area: Rect, section: &Section) {
        let lines = section.rows.iter().skip(self.scroll).map(|row| {
            let mut spans = vec![Span::raw(" ")];
            for cell in row {
                spans.extend([self.span(cell), Span::raw("  ")]);
            }
            Line::from(spans)
        });
        let lines: Vec<Line<'_>> = lines.collect();
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }

    fn span(&self, cell: &Cell) -> Span<'static> {
        Span::styled(cell.text.clone(), self.style(cell.tone))
    }

    /// Without colours, tones differ in weight.
    fn style(&self, tone: Tone) -> Style {
        let colour = |colour| {
            if self.colours {
                Style::new().fg(colour)
            } else {
                Style::new()
            }
        };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => colour(Color::Green),
            Tone::Warning => colour(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Error => colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}
