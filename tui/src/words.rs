//! Numbers and times as people read them: short, of a stable width, never more exact than is useful.
//! Does not know where they are shown.

use quorate_core::units::{CpuMillis, MemoryMib, WallMs};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Below this an age counts as now; a quiet screen then has nothing to repaint.
pub(crate) const FRESH_MS: u64 = 2_000;

/// A length of time: `0:07`, `12:40`, `3h12m`, `5d02h`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..3_600 => format!("{}:{:02}", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// Time still to go, rounded up so that it reaches zero when it happens.
pub(crate) fn left(ms: u64) -> String {
    if ms == 0 { "now".to_owned() } else { span(ms.saturating_add(999)) }
}

/// An age: `now` while fresh.
pub(crate) fn ago(ms: u64) -> String {
    if ms < FRESH_MS { "now".to_owned() } else { span(ms) }
}

/// The time of day in UTC.
pub(crate) fn clock(at: WallMs) -> String {
    let s = at.0 / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// The day and time in UTC.
pub(crate) fn date(at: WallMs) -> String {
    // Civil date from days, after the proleptic Gregorian calendar with years that begin in March.
    let days = i64::try_from(at.0 / 86_400_000).unwrap_or(0) + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {}", clock(at))
}

/// Memory with one digit after the point where that says something.
pub(crate) fn memory(size: MemoryMib) -> String {
    bytes(size.0.saturating_mul(1_048_576))
}

/// Bytes in binary multiples: `410M`, `1.5G`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if value < 9.95 && unit > 0 {
        format!("{value:.1}{}", UNITS[unit])
    } else {
        format!("{value:.0}{}", UNITS[unit])
    }
}

/// Cores: `0.25`, `16`.
pub(crate) fn cores(cpu: CpuMillis) -> String {
    if cpu.0.is_multiple_of(1_000) {
        format!("{}", cpu.0 / 1_000)
    } else {
        format!("{:.2}", f64::from(cpu.0) / 1_000.0)
    }
}

/// A share in whole percent; nothing of nothing is nothing.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

/// `1 node`, `3 nodes`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else if what.ends_with("copy") {
        format!("{n} {}ies", &what[..what.len() - 1])
    } else {
        format!("{n} {what}s")
    }
}

/// Cuts a text to a number of columns and marks that it was cut.
pub(crate) fn fit(text: &str, columns: usize, mark: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let (mut out, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > room {
            break;
        }
        out.push(c);
        used += wide;
    }
    if columns > 0 {
        out.push_str(mark);
    }
    out
}

/// Breaks a text at spaces into lines of at most so many columns; longer words are split.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word = word;
            if !line.is_empty() && line.width() + 1 + word.width() > columns {
                lines.push(std::mem::take(&mut line));
            }
            while word.width() > columns {
                let at = word.char_indices().nth(columns).map_or(word.len(), |(at, _)| at);
                let (head, tail) = word.split_at(at);
                lines.push(head.to_owned());
                if head.is_empty() || tail.is_empty() {
                    word = tail;
                    break;
                }
                word = tail;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Text from outside with control characters made harmless: none of it may steer the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            // Direction marks and joiners could show a line other than it is.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_count_down_to_now() {
        assert_eq!([7_000, 760_000, 11_520_000, 439_200_000].map(span), ["0:07", "12:40", "3h12m", "5d02h"]);
        assert_eq!([0, 1, 1_000, 1_001].map(left), ["now", "0:01", "0:01", "0:02"]);
        assert_eq!(ago(1_999), "now");
    }

    #[test]
    fn dates_are_right_across_leap_years() {
        assert_eq!(date(WallMs(0)), "1970-01-01 00:00:00Z");
        assert_eq!(date(WallMs(1_709_210_096_000)), "2024-02-29 12:34:56Z");
        assert_eq!(date(WallMs(1_798_761_599_000)), "2026-12-31 23:59:59Z");
    }

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!([0, 999, 1_536, 430_000_000].map(bytes), ["0B", "999B", "1.5K", "410M"]);
        assert_eq!((count(1, "node"), count(2, "copy")), ("1 node".into(), "2 copies".into()));
        assert_eq!(cores(CpuMillis(250)), "0.25");
    }

    #[test]
    fn texts_are_cut_and_wrapped_by_columns() {
        assert_eq!(fit("abcdef", 4, "~"), "abc~");
        assert_eq!(fit("日本語", 4, "~"), "日~");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        assert_eq!(clean("a\u{1b}[2J\tb\u{202e}c"), "a\u{fffd}[2J b\u{fffd}c");
    }
}
