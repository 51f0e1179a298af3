//! `commands.md`: every command with its arguments, from the definitions that parse them.

use std::fmt::Write;

use clap::{Arg, Command};

use super::{GENERATED, cell};

const INTRODUCTION: &str = "\
# Commands

Exit codes of all commands: 0 success, 1 failure, 2 wrong use or a configuration that cannot be used; a command that has more says so. Logs go to
standard error, data to standard output. `authgate COMMAND --help` prints the same text in a terminal.
";

/// The text of the page about the commands of `root`.
pub(super) fn page(mut root: Command) -> String {
    root.build();
    let mut page = format!("{GENERATED}{INTRODUCTION}");
    let _ = write!(page, "\n## Options of all commands\n");
    write_arguments(&mut page, &root, |argument| argument.is_global_set());
    for command in commands_of(&root) {
        write_command(&mut page, command, "authgate");
    }
    page
}

/// The commands of a command, without those that are not for people.
fn commands_of(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

fn write_command(page: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let level = if parent.contains(' ') { "###" } else { "##" };
    let _ = write!(page, "\n{level} {name}\n");
    let about = command.get_long_about().or(command.get_about());
    if let Some(about) = about {
        let about = about.to_string();
        let (summary, rest) = about.split_once("\n\n").unwrap_or((&about, ""));
        let _ = write!(page, "\n{}.\n", summary.trim_end_matches('.'));
        if !rest.is_empty() {
            let _ = write!(page, "\n{}\n", markdown(rest));
        }
    }
    let is_group = commands_of(command).next().is_some();
    if !is_group {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let _ = write!(page, "\n```text\n{}\n```\n", usage.trim());
        write_arguments(page, command, |argument| !argument.is_global_set());
    }
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        let _ = write!(page, "\n```text\n{}\n```\n", more.to_string().trim_end());
    }
    for command in commands_of(command) {
        write_command(page, command, &name);
    }
}

/// The arguments that `is_shown`, as a table.
fn write_arguments(page: &mut String, command: &Command, is_shown: impl Fn(&Arg) -> bool) {
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && is_shown(argument))
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .collect();
    if arguments.is_empty() {
        return;
    }
    let _ = write!(page, "\n| argument | default | meaning |\n| --- | --- | --- |\n");
    for argument in arguments {
        let help = argument.get_long_help().or(argument.get_help());
        let mut help = help
            .map(ToString::to_string)
            .unwrap_or_default()
            .replace("\n\n", " ")
            .replace('\n', " ");
        if !help.ends_with('.') && !help.is_empty() {
            help.push('.');
        }
        let values = argument.get_possible_values();
        if argument.get_action().takes_values() && !values.is_empty() {
            let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            let _ = write!(help, " One of {}.", names.join(", "));
        }
        if argument.get_action().takes_values()
            && let Some(variable) = argument.get_env()
        {
            let _ = write!(help, " Environment: `{}`.", variable.to_string_lossy());
        }
        if argument.is_required_set() {
            help.push_str(" Required.");
        }
        let defaults: Vec<String> = argument
            .get_default_values()
            .iter()
            .filter(|_| argument.get_action().takes_values())
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            cell(&written(argument)),
            defaults.join(", "),
            cell(help.trim())
        );
    }
}

/// An argument as it is written: `--config <FILE>`, `<KEY>`.
fn written(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let mut value: String = names.iter().map(|name| format!(" <{name}>")).collect();
    if !argument.get_action().takes_values() {
        value.clear();
    }
    let flags = [
        argument.get_short().map(|short| format!("-{short}")),
        argument.get_long().map(|long| format!("--{long}")),
    ];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    match flags.is_empty() {
        true => format!("`{}`", value.trim()),
        false => format!("`{}{value}`", flags.join("`, `")),
    }
}

/// Help text as Markdown: lines that are indented are examples.
fn markdown(text: &str) -> String {
    let mut page = String::new();
    let mut is_example = false;
    for line in text.lines() {
        let is_indented = line.starts_with("  ");
        if is_indented != is_example && !(is_example && line.is_empty()) {
            if is_example {
                page.truncate(page.trim_end().len());
                page.push_str("\n```\n");
            } else {
                page.push_str("\n```text\n");
            }
            is_example = is_indented;
        }
        page.push_str(line);
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    if is_example {
        page.push_str("\n```");
    }
    page
}
