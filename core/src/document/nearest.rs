//! Finds the word somebody probably meant. Knows nothing of where the words come from.

use std::cmp::Reverse;

/// The closest of `known` to `word`, if it is close enough to be a slip.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer words are nobody's slip, and the cost of comparing grows with their length.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    // Of equally close ones the one that begins alike: people cut words short at their ends.
    let alike = |other: &str| lower.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let best = known.iter().map(|other| (distance(&lower, other), Reverse(alike(other)), *other)).min()?;
    (best.0 <= (lower.chars().count() / 3).max(1)).then_some(best.2)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut cost = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = cost;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["replicas", "priority", "placement"];
        assert_eq!(nearest("replica", &known), Some("replicas"));
        assert_eq!(nearest("prioirty", &known), Some("priority"));
        assert_eq!(nearest("Placement", &known), Some("placement"));
        assert_eq!(nearest("image", &known), None);
        assert_eq!(nearest("mem_limit", &["cpu_limit", "memory_limit"]), Some("memory_limit"));
        assert_eq!(nearest(&"replicas".repeat(1000), &known), None);
    }
}
