//! `authgate man`: the manual pages, made from the help of the commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use authgate_dataplane::telemetry::build;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Failure, output};

/// Print the manual page, or write a page for each command
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Write authgate.1, and a page for each command such as authgate-token-create.1, to this folder; it is created if it does not exist
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  authgate man | man -l -
  authgate man --dir /usr/local/share/man/man1";

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(&command, None).map_err(|error| Failure::Failed(error.to_string()))?;
        return output::bytes(&page);
    };
    fs::create_dir_all(dir)
        .and_then(|()| write_pages(&command, None, dir))
        .map_err(|error| {
            Failure::Failed(format!(
                "cannot write to {}: {error}; name another folder with --dir",
                dir.display()
            ))
        })
}

/// Writes the pages of a command and of those below it. `parent`: the name of the page above.
fn write_pages(command: &Command, parent: Option<&str>, dir: &Path) -> io::Result<()> {
    let name = page_name(command);
    fs::write(dir.join(format!("{name}.1")), page(command, parent)?)?;
    command
        .get_subcommands()
        .try_for_each(|command| write_pages(command, Some(&name), dir))
}

/// `authgate-token-create`.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

fn page(command: &Command, parent: Option<&str>) -> io::Result<Vec<u8>> {
    let name = page_name(command);
    // Without a date, and without the compiler: the pages of one version are the same everywhere. An empty date would be left out, and
    // the next argument of the title taken for it.
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(" ")
        .source(format!("authgate {}", build::VERSION))
        .manual("authgate manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_help() {
        more_sections(&mut roff, &text.to_string());
    }
    if let Some(parent) = parent {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(format!("{parent}(1)"))]);
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// The text below the help of a command. A paragraph under a line such as `Examples:` is a section with these lines as they are.
fn more_sections(roff: &mut Roff, text: &str) {
    let mut has_notes = false;
    for paragraph in text.split("\n\n") {
        let heading = paragraph
            .split_once(":\n")
            .filter(|(heading, _)| !heading.contains('\n'));
        let lines = if let Some((heading, lines)) = heading {
            roff.control("SH", [heading.to_uppercase().as_str()]);
            has_notes = false;
            lines
        } else {
            if !has_notes {
                roff.control("SH", ["NOTES"]);
            }
            has_notes = true;
            paragraph
        };
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_below_the_help_are_sections() {
        let mut roff = Roff::new();
        more_sections(
            &mut roff,
            "Codes: 0 or 1.\n\nExamples:\n  authgate x\n  .y\n\nWith --json: data.\n\nMore.",
        );
        let sections = roff.to_roff();
        let headings: Vec<&str> = sections.lines().filter(|line| line.starts_with(".SH")).collect();
        assert_eq!(headings, [".SH NOTES", ".SH EXAMPLES", ".SH NOTES"], "{sections}");
        assert!(sections.contains("\n  authgate x\n"), "{sections}");
    }
}
