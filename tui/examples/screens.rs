//! Prints a screen as text, from the fixtures of the tests: `screens FIXTURE WIDTHxHEIGHT [KEYS..]`, a key
//! such as `3`, `j`, `enter`, `ctrl-s`, or `type:TEXT`, `wait:MS`, `size:WIDTHxHEIGHT`, `foresees`; `ascii` first of
//! all for a terminal that knows no other letters.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
#[path = "../tests/keys/mod.rs"]
mod keys;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: screens healthy|lost|drain|empty|no_quorum|split|fenced|to_be_fenced|big WIDTHxHEIGHT [KEYS..]";
    let [fixture, size, rest @ ..] = &args[..] else { return Err(usage.into()) };
    let view = match fixture.as_str() {
        "healthy" => fixtures::healthy(),
        "lost" => fixtures::lost(),
        "drain" => fixtures::drain(),
        "empty" => fixtures::empty(),
        "no_quorum" => fixtures::no_quorum(),
        "split" => fixtures::split(),
        "fenced" => fixtures::fenced(),
        "to_be_fenced" => fixtures::to_be_fenced(),
        "big" => fixtures::big(1_000, 50_000),
        _ => return Err(usage.into()),
    };
    let (width, height) = size.split_once('x').ok_or(usage)?;
    let (width, height) = (width.parse()?, height.parse()?);
    let (mut cockpit, rest) = match rest {
        [first, rest @ ..] if first == "ascii" => (keys::Keys::ascii(view, width, height), rest),
        rest => (keys::Keys::over(view, width, height), rest),
    };
    for key in rest {
        match key.split_once(':') {
            Some(("wait", ms)) => cockpit.wait(ms.parse()?),
            Some(("size", size)) => {
                let (width, height) = size.split_once('x').ok_or(usage)?;
                cockpit.resize(width.parse()?, height.parse()?);
            }
            None if key == "foresees" => {
                cockpit.foresees(Ok(fixtures::foresight(1_204)));
            }
            _ => {
                cockpit.all(&[key]);
            }
        }
    }
    println!("{}", cockpit.screen());
    Ok(())
}
