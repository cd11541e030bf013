//! Plays `demo.tape` against the real program: every key it types does what its next wait says. Sleeps are
//! for those who watch and are left out.

use std::time::Duration;

use super::screen::Screen;

/// One line of a tape, as far as it matters to the program.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keys(String),
    Wait(Duration, String),
}

/// Reads a tape; a line that it does not know is an error, so that none is passed over unseen.
fn read(tape: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for line in tape.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let wrong = || format!("the tape has a line that is not understood: {line}");
        match word {
            "Output" | "Require" | "Set" | "Sleep" => {}
            "Enter" => steps.push(Step::Keys("\r".to_owned())),
            "Escape" => steps.push(Step::Keys("\x1b".to_owned())),
            "Type" => {
                let text =
                    rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(wrong)?;
                steps.push(Step::Keys(text.to_owned()));
            }
            _ => {
                let seconds = word.strip_prefix("Wait+Screen@").and_then(|rest| rest.strip_suffix('s'));
                let seconds = seconds.and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
                let text =
                    rest.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).ok_or_else(wrong)?;
                // Plain words only: what a regular expression would match is then the text itself.
                if !text.chars().all(|c| c.is_alphanumeric() || " -".contains(c)) {
                    return Err(wrong());
                }
                steps.push(Step::Wait(Duration::from_secs(seconds), text.to_owned()));
            }
        }
    }
    Ok(steps)
}

#[test]
fn the_tape_of_the_readme_plays_against_the_real_program() {
    let tape = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/demo.tape")).unwrap();
    let steps = read(&tape).unwrap();
    assert!(steps.iter().filter(|step| matches!(step, Step::Wait(..))).count() > 8, "{steps:?}");
    let home = tempfile::tempdir().unwrap();
    let mut screen = Screen::shell(home.path());
    for step in steps {
        match step {
            Step::Keys(keys) => screen.press(&keys),
            Step::Wait(within, text) => screen.until(&text, within, |drawn| drawn.contains(&text)),
        }
    }
    screen.until("the shell is back", Duration::from_secs(60), |drawn| drawn.trim_end().ends_with('$'));
    assert!(!screen.taken());
}

#[test]
fn a_tape_with_an_unknown_line_is_not_played() {
    assert!(read("Tipe \"x\"").is_err());
    assert!(read("Wait+Screen@30s /a.*b/").is_err());
    assert_eq!(read("# a\nSleep 1s\nType \"q\"").unwrap(), [Step::Keys("q".to_owned())]);
}
