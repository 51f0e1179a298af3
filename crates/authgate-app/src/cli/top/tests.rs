use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::screen::{Asked, Screen};
use super::snapshot;
use crate::control::status::document::Status;

/// The status of a gateway without problems, as it was recorded.
fn well() -> Status {
    serde_json::from_str(include_str!("recorded/well.json")).expect("a status")
}

/// That of a gateway without its store, its upstream, and the keys of its identity provider, and with a refused reload.
fn trouble() -> Status {
    serde_json::from_str(include_str!("recorded/trouble.json")).expect("a status")
}

/// The text of the screen, one line for each row.
fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen.draw(frame)).expect("drawn");
    terminal.backend().to_string()
}

fn press(screen: &mut Screen, code: KeyCode) -> Asked {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn contains(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_terminal_of_80_by_24_shows_health_traffic_and_every_table() {
    let mut screen = Screen::new(well(), true);
    let first = drawn(&screen, 80, 24);
    contains(
        &first,
        &[
            "All is well.",
            "requests/s",
            "p50 ",
            "p99 ",
            "refused/s",
            "█",
            "in flight",
            "q quit",
        ],
    );
    contains(
        &first,
        &["Health  Refusals  Routes  Upstreams  Auth  Stores  Keys  Certificates  Process"],
    );
    for (key, expected) in [
        ('1', &["All is well."][..]),
        ('2', &["reason", "no_credential", "token_unknown"]),
        ('3', &["/api/admin/*", "2xx", "5xx"]),
        ('4', &["app", "127.0.0.1:", "up"]),
        ('5', &["token", "jwt", "89 %"]),
        ('6', &["file", "usable"]),
        ('7', &["No keys are fetched"]),
        ('8', &["localhost", "valid", "2120-01-01T00:00:00Z"]),
        ('9', &["/etc/authgate/gateway.toml", "rustc", "server.listen, TLS"]),
    ] {
        assert_eq!(press(&mut screen, KeyCode::Char(key)), Asked::Draw);
        contains(&drawn(&screen, 80, 24), expected);
    }
}

#[test]
fn problems_come_first() {
    let screen = Screen::new(trouble(), true);
    let text = drawn(&screen, 100, 30);
    contains(
        &text,
        &[
            "Store redis was never reached.",
            "(and 4 more problems)",
            "error",
            "warning",
        ],
    );
    contains(&text, &["Upstream app has no server that is up", "The reload of"]);
}

#[test]
fn any_size_is_drawn() {
    for status in [well(), trouble()] {
        let mut screen = Screen::new(status, true);
        for (width, height) in [(1, 1), (5, 3), (20, 8), (60, 20), (80, 24), (300, 100)] {
            for tab in '1'..='9' {
                press(&mut screen, KeyCode::Char(tab));
                drawn(&screen, width, height);
            }
            press(&mut screen, KeyCode::Char('?'));
            drawn(&screen, width, height);
            press(&mut screen, KeyCode::Char('?'));
        }
    }
}

#[test]
fn no_color_means_no_colour() {
    let coloured = |colours: bool| {
        let screen = Screen::new(trouble(), colours);
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).expect("a terminal");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        let cells = terminal.backend().buffer().content();
        cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(coloured(true));
    assert!(!coloured(false));
}

#[test]
fn a_gateway_that_does_not_answer_is_shown_until_it_answers_again() {
    let mut screen = Screen::new(well(), false);
    screen.lose("unix:/run/admin.sock: No such file\u{1b}[2J".to_owned());
    let text = drawn(&screen, 120, 24);
    contains(
        &text,
        &[
            "No status for 0 s: unix:/run/admin.sock: No such file",
            "Trying again",
            "/api/*",
        ],
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    let mut next = well();
    screen.update(next.clone());
    let text = drawn(&screen, 120, 24);
    contains(&text, &["All is well."]);
    assert!(!text.contains("restarted"), "{text}");
    next.started = "2027-01-01T00:00:00Z".to_owned();
    screen.update(next);
    contains(&drawn(&screen, 120, 24), &["The gateway has restarted 0 s ago."]);
}

#[test]
fn keys_choose_tables_scroll_and_quit() {
    let mut status = well();
    let route = status.routes.busiest[0].clone();
    for at in 0..40 {
        let mut route = route.clone();
        route.route = format!("/many/{at}/*");
        status.routes.busiest.push(route);
    }
    let mut screen = Screen::new(status, false);
    contains(&drawn(&screen, 80, 24), &["/many/0/*"]);
    for _ in 0..5 {
        press(&mut screen, KeyCode::PageDown);
    }
    let text = drawn(&screen, 80, 24);
    contains(&text, &["/many/39/*"]);
    assert!(!text.contains("/many/0/*"), "{text}");
    press(&mut screen, KeyCode::Home);
    contains(&drawn(&screen, 80, 24), &["/many/0/*"]);
    press(&mut screen, KeyCode::Left);
    contains(&drawn(&screen, 80, 24), &["since start"]);
    press(&mut screen, KeyCode::BackTab);
    press(&mut screen, KeyCode::BackTab);
    contains(&drawn(&screen, 80, 24), &["configuration"]);
    press(&mut screen, KeyCode::Tab);
    press(&mut screen, KeyCode::Char('?'));
    contains(&drawn(&screen, 80, 24), &["next table"]);
    assert_eq!(press(&mut screen, KeyCode::Esc), Asked::Draw);
    assert!(!drawn(&screen, 80, 24).contains("next table"));
    assert_eq!(press(&mut screen, KeyCode::Char('x')), Asked::Nothing);
    for quit in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut screen, quit), Asked::Quit);
    }
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(interrupt), Asked::Quit);
}

#[test]
fn names_from_elsewhere_cannot_control_the_terminal() {
    let mut status = trouble();
    status.routes.busiest[0].route = "/\u{1b}[31mred/*".to_owned();
    status.upstreams[0].servers[0].reason = Some("a\r\nb\u{7}".to_owned());
    let mut text = Vec::new();
    snapshot::write(&mut text, &status).expect("memory");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n') && text.contains("\\u001b[31mred"),
        "{text}"
    );
}
