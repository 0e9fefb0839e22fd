//! Tables in Markdown, so that a run can be pasted into the documentation as it is.

use std::io::Write;

/// A title, a header row, and rows.
pub(crate) struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, header: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            header: header.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.header.len(), "a row of another table");
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) {
        let mut out = anstream::stdout().lock();
        // A closed pipe ends the output, not the measurement.
        let _ = writeln!(out, "\n### {}\n\n{}", self.title, line(&self.header));
        let _ = writeln!(out, "{}", line(&vec!["---".to_owned(); self.header.len()]));
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// `12 345` or `1.23`, three significant digits below a thousand.
pub(crate) fn number(value: f64) -> String {
    if value >= 1000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(' ');
            }
            out.push(digit);
        }
        out
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `met` or `MISSED`, so that nobody has to compare by eye.
pub(crate) fn verdict(met: bool) -> String {
    if met {
        "met".to_owned()
    } else {
        "**missed**".to_owned()
    }
}
