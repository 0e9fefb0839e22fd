//! Rows and columns: boxed on a terminal, aligned by spaces elsewhere.

use comfy_table::{CellAlignment, Table, presets};

use crate::output::{Column, Item};

/// Spaces between columns.
const GAP: usize = 3;

/// A table with a line per item; without items the titles alone.
pub(crate) fn render(columns: &[Column], items: &[Item], wide: bool, terminal: bool) -> String {
    let shown: Vec<(usize, &Column)> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| wide || !column.wide)
        .collect();
    let rows = items.iter().map(|item| {
        shown
            .iter()
            .map(|(index, _)| item.cells[*index].as_str())
            .collect::<Vec<_>>()
    });
    if terminal {
        boxed(&shown, rows)
    } else {
        aligned(&shown, rows.collect())
    }
}

fn boxed<'a>(shown: &[(usize, &Column)], rows: impl Iterator<Item = Vec<&'a str>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(shown.iter().map(|(_, column)| column.title));
    table.add_rows(rows);
    for (at, (_, column)) in shown.iter().enumerate() {
        if let (true, Some(drawn)) = (column.right, table.column_mut(at)) {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

fn aligned(shown: &[(usize, &Column)], rows: Vec<Vec<&str>>) -> String {
    let titles: Vec<String> = shown
        .iter()
        .map(|(_, column)| column.title.to_uppercase())
        .collect();
    let mut lines: Vec<Vec<&str>> = vec![titles.iter().map(String::as_str).collect()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..shown.len())
        .map(|at| lines.iter().map(|line| width(line[at])).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (at, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[at] - width(cell));
            let gap = if at == 0 { 0 } else { GAP };
            text.extend(std::iter::repeat_n(' ', gap));
            if shown[at].1.right {
                text.push_str(&pad);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&pad);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// `title: value` lines with the values below each other; further lines of a value are indented.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let column = fields
        .iter()
        .map(|(title, _)| width(title))
        .max()
        .unwrap_or(0)
        + 1;
    let mut out = String::new();
    for (title, value) in fields {
        let mut lines = value.lines();
        let first = format!(
            "{:column$} {}",
            format!("{title}:"),
            lines.next().unwrap_or("")
        );
        out.push_str(first.trim_end());
        out.push('\n');
        for line in lines {
            out.push_str(&format!("{:column$} {line}\n", ""));
        }
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const COLUMNS: &[Column] = &[
        Column::text("topic"),
        Column::number("queues"),
        Column::text("created").wide(),
    ];

    fn items() -> Vec<Item> {
        [("flights", "4"), ("o", "128")]
            .map(|(name, queues)| Item {
                name: name.to_owned(),
                cells: vec![name.to_owned(), queues.to_owned(), "today".to_owned()],
                json: Value::Null,
            })
            .into()
    }

    #[test]
    fn text_is_aligned_and_wide_columns_wait() {
        assert_eq!(
            render(COLUMNS, &items(), false, false),
            "TOPIC     QUEUES\nflights        4\no            128\n"
        );
        assert_eq!(
            render(COLUMNS, &items(), true, false),
            "TOPIC     QUEUES   CREATED\nflights        4   today\no            128   today\n"
        );
    }

    #[test]
    fn a_terminal_gets_a_box() {
        let text = render(COLUMNS, &items(), false, true);
        assert!(text.starts_with('┌'), "{text}");
        assert!(text.contains("flights"), "{text}");
    }

    #[test]
    fn fields_stand_below_each_other() {
        assert_eq!(
            fields(&[
                ("name", "a".into()),
                ("bound to", "x\ny".into()),
                ("hint", String::new())
            ]),
            "name:     a\nbound to: x\n          y\nhint:\n"
        );
    }
}
