//! Filters as they are typed: words, `column:word`, and `!` before either. A word matches where a word
//! of the text begins like it, so `healthy` does not find `unhealthy`.

use crate::rows::{Ctx, Head, Kind, Row};

/// A filter, ready to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    wanted: bool,
    /// `None` asks all columns; an empty list is a column that does not exist.
    columns: Option<Vec<usize>>,
    needle: String,
}

impl Query {
    /// Reads a filter; beside it, what is wrong with it.
    pub fn parse(text: &str, kind: Kind) -> (Query, Option<String>) {
        let heads = kind.heads();
        let (mut terms, mut wrong) = (Vec::new(), None);
        for word in text.split_whitespace() {
            let (wanted, word) = word.strip_prefix('!').map_or((true, word), |rest| (false, rest));
            let (columns, needle) = match word.split_once(':') {
                Some((column, needle)) if !column.is_empty() => {
                    let found = columns_called(column, &heads);
                    if found.is_empty() {
                        let known: Vec<String> = heads.iter().map(|h| h.title.to_ascii_lowercase()).collect();
                        wrong = Some(format!("no column {column:?}; there are {}", known.join(", ")));
                    }
                    (Some(found), needle)
                }
                _ => (None, word),
            };
            if !needle.is_empty() {
                terms.push(Term { wanted, columns, needle: needle.to_lowercase() });
            }
        }
        (Query { terms }, wrong)
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, row: &Row, columns: usize, ctx: &Ctx<'_>) -> bool {
        self.terms.iter().all(|term| {
            let has = |column: usize| begins(&row.cell(column, ctx).text, &term.needle);
            let found = match &term.columns {
                Some(some) => some.iter().any(|column| has(*column)),
                None => (0..columns).any(has),
            };
            found == term.wanted
        })
    }
}

fn columns_called(name: &str, heads: &[Head]) -> Vec<usize> {
    let name = name.to_ascii_lowercase();
    (0..heads.len()).filter(|at| heads[*at].title.to_ascii_lowercase().starts_with(&name)).collect()
}

fn begins(text: &str, needle: &str) -> bool {
    let text = text.to_lowercase();
    text.match_indices(needle)
        .any(|(at, _)| text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_only_where_a_word_begins() {
        assert!(begins("web/0 on n4", "n4"));
        assert!(begins("lost: n4", "lost"));
        assert!(!begins("unhealthy", "healthy"));
        assert!(!begins("", "a"));
    }

    #[test]
    fn columns_are_named_by_their_beginning_and_unknown_ones_are_reported() {
        let (query, wrong) = Query::parse("pri:critical !node:n4 web", Kind::Instances);
        assert_eq!(wrong, None);
        assert_eq!(query.terms.len(), 3);
        assert_eq!(query.terms[0].columns, Some(vec![3]));
        assert!(!query.terms[1].wanted);
        let (_, wrong) = Query::parse("colour:red", Kind::Instances);
        assert!(wrong.is_some_and(|w| w.contains("\"colour\"") && w.contains("health")));
    }
}
