//! Commands in the documentation are accepted: each `authgate …` line of a shell block is parsed as the program would parse it, and each
//! command and flag that a text names exists.

use std::path::Path;

use clap::error::ErrorKind;
use pulldown_cmark::Event;

use crate::documentation::{Page, pages};

/// The arguments of each call of authgate in a shell block.
fn calls(block: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for (at, word) in block.match_indices("authgate ") {
        let before = block[..at].chars().next_back();
        let arguments = arguments(&block[at + word.len()..]);
        let first = arguments.first().map_or("", String::as_str);
        let is_call = before.is_none_or(|c| c.is_whitespace() || "(/".contains(c))
            && (first.chars().all(|c| c.is_ascii_lowercase()) || first == "--version")
            && !first.is_empty();
        if is_call {
            calls.push(arguments);
        }
    }
    calls
}

/// The words up to the end of the command: a line end, `|`, `;`, `&`, `)` or a comment, outside of quotes. Redirections are left out.
fn arguments(text: &str) -> Vec<String> {
    let mut command = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) if chars.peek() == Some(&'\n') => {
                chars.next();
                command.push(' ');
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\n' | '|' | ';' | '&' | ')', None) => break,
            ('#', None) if command.ends_with(char::is_whitespace) => break,
            _ => {}
        }
        command.push(c);
    }
    let words = shlex::split(&command).unwrap_or_else(|| panic!("not a command: {command}"));
    let mut words = words.into_iter();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix(['>', '<'])
        {
            Some("") => drop(words.next()), // the file is the next word
            Some(_) => {}
            None => kept.push(word),
        }
    }
    kept
}

/// The pages that describe the present program.
fn current() -> impl Iterator<Item = Page> {
    pages()
        .into_iter()
        .filter(|page| page.path != Path::new("CHANGELOG.md"))
}

/// The commands of authgate. Operators may write `--database` into the environment, which is empty here.
fn command() -> clap::Command {
    authgate_app::cli::command().mut_subcommand("token", |token| {
        token.mut_subcommand("verify-import", |verify| {
            verify.mut_arg("database", |database| database.required(false))
        })
    })
}

#[test]
fn every_command_in_a_shell_block_is_accepted() {
    let mut parsed = 0;
    for page in current() {
        let blocks = page
            .blocks()
            .into_iter()
            .filter(|(info, _)| info.split(' ').next() == Some("sh"));
        for arguments in blocks.flat_map(|(_, block)| calls(&block)) {
            let words = [&["authgate".to_owned()], &arguments[..]].concat();
            if let Err(error) = command().try_get_matches_from(&words) {
                assert_eq!(
                    error.kind(),
                    ErrorKind::DisplayVersion,
                    "{}: {words:?}\n{error}",
                    page.path.display()
                );
            }
            parsed += 1;
        }
    }
    assert!(parsed > 30, "{parsed} commands");
}

/// What a text says of authgate that does not exist: a command, or a flag of it.
fn unknown(text: &str) -> Option<String> {
    let mut command = command();
    command.build();
    let mut command = &command;
    let mut is_path = true;
    for word in text.split_whitespace().skip(1) {
        let word = word.trim_end_matches(['.', ',', '…', ']']).trim_start_matches('[');
        if let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) {
            let flag = flag.split('=').next().unwrap_or_default();
            if flag != "version"
                && !command
                    .get_arguments()
                    .any(|argument| argument.get_long() == Some(flag))
            {
                return Some(format!("--{flag}"));
            }
            is_path = false;
        } else if is_path && command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(found) => command = found,
                None if word.chars().all(|c| c.is_ascii_lowercase()) => return Some(word.to_owned()),
                None => is_path = false,
            }
        }
    }
    None
}

#[test]
fn every_command_that_a_text_names_exists() {
    let mut named = 0;
    let mut missing = Vec::new();
    for page in current() {
        for event in page.events() {
            let Event::Code(text) = event else { continue };
            // Two commands in short, as in `authgate token|user`, are not followed.
            if text.starts_with("authgate ") && !text.contains(['|', '*']) {
                if let Some(unknown) = unknown(&text) {
                    missing.push(format!("{}: `{text}`: there is no {unknown}", page.path.display()));
                }
                named += 1;
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 100, "{named} commands");
}

#[test]
fn calls_are_found_in_shell_blocks() {
    let found = calls(
        "KEY=$(authgate token create --user 1)\nchgrp authgate tls.key\nrunuser -u authgate -- authgate revoke \\\n  --user 2 >out 2>/dev/null | x\nauthgate check # 'all'\n",
    );
    assert_eq!(
        found,
        [
            &["token", "create", "--user", "1"][..],
            &["revoke", "--user", "2"],
            &["check"]
        ]
    );
}
