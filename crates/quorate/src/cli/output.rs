//! Text for people or JSON for machines; progress only where somebody watches.
//!
//! Everything the program prints goes through here: a reader that has gone away, such as `head`, is
//! no reason to panic.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How to answer.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints `value` as one line of JSON, or `text`. Answers whether standard output still has a
    /// reader.
    pub(crate) fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> bool {
        if self.json {
            print(std::io::stdout(), &serde_json::to_string(value).expect("plain data"))
        } else {
            print(std::io::stdout(), &fitted(&text(), width(&std::io::stdout())))
        }
    }

    /// A spinner with a message on standard error; silent for machines and pipes.
    pub(crate) fn progress(self, message: &str) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// Writes a line on standard error, broken at words where a terminal is too narrow for it.
pub(crate) fn tell(text: &str) {
    print(std::io::stderr(), &fitted(text, width(&std::io::stderr())));
}

/// Writes a question on standard error, without the end of its line.
pub(crate) fn prompt(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes bytes on standard output as they are.
pub(crate) fn raw(bytes: &[u8]) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

fn print(mut to: impl Write, text: &str) -> bool {
    to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).is_ok()
}

/// The columns of a terminal; any number where there is none.
fn width(stream: &(impl IsTerminal + AsFd)) -> usize {
    let size = stream.is_terminal().then(|| rustix::termios::tcgetwinsize(stream).ok());
    match size.flatten() {
        Some(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => usize::MAX,
    }
}

/// The text with its lines broken between words where they exceed `width` columns. Lines with
/// control sequences, such as those of a QR code, stay as they are.
fn fitted(text: &str, width: usize) -> String {
    let line = |line: &str| {
        if line.chars().count() <= width || line.contains('\x1b') {
            return line.to_owned();
        }
        let mut fitted = String::new();
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let length = word.trim_end().chars().count();
            if column > 0 && column + length > width {
                fitted.truncate(fitted.trim_end().len());
                fitted.push('\n');
                column = 0;
            }
            fitted.push_str(word);
            column += word.chars().count();
        }
        fitted
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A table with a header; columns as wide as their widest cell. Where a terminal is too narrow for
/// it, each row becomes a block with a line per cell.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    table_within(header, rows, width(&std::io::stdout()))
}

fn table_within(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let whole: usize = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    if whole > width && !rows.is_empty() {
        return blocks(header, rows);
    }
    let line = |cells: &[String]| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let header: Vec<_> = header.iter().map(|&cell| cell.to_owned()).collect();
    std::iter::once(line(&header))
        .chain(rows.iter().map(|row| line(row)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn blocks(header: &[&str], rows: &[Vec<String>]) -> String {
    let widest = header.iter().map(|name| name.len()).max().unwrap_or(0);
    let block = |row: &Vec<String>| {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        let lines: Vec<_> = cells.map(|(name, cell)| format!("{name:<widest$}  {cell}")).collect();
        lines.join("\n")
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        let table = |width| table_within(&["x", "y"], &rows, width);
        assert_eq!(table(7), "x     y\na     1\nlong  2");
        assert_eq!(table(6), "x  a\ny  1\n\nx  long\ny  2");
    }

    #[test]
    fn long_lines_break_between_words() {
        assert_eq!(fitted("one two three", 8), "one two\nthree");
        assert_eq!(fitted("  a bc\nincomprehensible d", 4), "  a\nbc\nincomprehensible\nd");
        assert_eq!(fitted("\x1b[30m a b c", 4), "\x1b[30m a b c");
        assert_eq!(fitted("one two", usize::MAX), "one two");
    }
}
