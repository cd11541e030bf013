//! Presets for programs that something else runs: Java archives, Node scripts, plain binaries. Each becomes a
//! command, with the memory limit passed on to a runtime that would not see it by itself.

use crate::document::{Field, Fields};

use super::Limits;
use super::process::{MAX_ARGUMENTS, MAX_BYTES};

/// The keys that stand in place of `command`.
pub(super) const RUNTIME_KEYS: [&str; 4] = ["runtime", "program", "options", "arguments"];

/// How much of the memory limit a runtime may use for its heap, in percent: the rest is its own.
const HEAP_PERCENT: u64 = 75;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Java,
    Node,
    Binary,
}

/// The command that a preset stands for.
pub(super) fn preset(map: &Fields<'_>, runtime: &Field<'_>, limits: Option<Limits>) -> Option<Vec<String>> {
    let words = [("java", Runtime::Java), ("node", Runtime::Node), ("binary", Runtime::Binary)];
    let kind = runtime.word(&words);
    if let Some(command) = map.get("command") {
        let remedy = "keep one of the two: runtime with program, options and arguments, or command alone";
        return command.fail("runtime makes the command by itself", remedy);
    }
    let program = match map.get("program") {
        Some(field) => field.text(4_096).and_then(|text| {
            if text.is_empty() {
                field.fail("names nothing", "write the path of what is run")
            } else {
                Some(text)
            }
        }),
        None => {
            map.missing("program", "write program: followed by the path of the archive, script or binary")
        }
    };
    let list = |key| map.get(key).map_or(Some(Vec::new()), |field| field.texts(MAX_ARGUMENTS, MAX_BYTES));
    let (options, arguments) = (list("options"), list("arguments"));
    let (kind, program, options, arguments) = (kind?, program?, options?, arguments?);
    if kind == Runtime::Binary && !options.is_empty() {
        let remedy = "write them under arguments";
        return map.get("options")?.fail("a binary is run by nothing that takes options", remedy);
    }
    let heap = limits?.memory.map(|memory| memory.0 * HEAP_PERCENT / 100);
    let mut command: Vec<String> = Vec::new();
    match kind {
        Runtime::Java => {
            command.push("java".to_owned());
            if let Some(heap) =
                heap.filter(|_| !sets(&options, &["-Xmx", "-XX:MaxRAMPercentage", "-XX:MaxHeapSize"]))
            {
                command.push(format!("-Xmx{heap}m"));
            }
            command.extend(options);
            command.extend(["-jar".to_owned(), program]);
        }
        Runtime::Node => {
            command.push("node".to_owned());
            if let Some(heap) =
                heap.filter(|_| !sets(&options, &["--max-old-space-size", "--max_old_space_size"]))
            {
                command.push(format!("--max-old-space-size={heap}"));
            }
            command.extend(options);
            command.push(program);
        }
        Runtime::Binary => command.push(program),
    }
    command.extend(arguments);
    Some(command)
}

fn sets(options: &[String], openings: &[&str]) -> bool {
    options.iter().any(|option| openings.iter().any(|opening| option.starts_with(opening)))
}

#[cfg(test)]
mod tests {
    use crate::spec::{SpecDefaults, Workload, parse_one};

    fn command(spec: &str) -> Result<String, String> {
        let text = format!("name: web\nspec: {spec}\n");
        let spec = parse_one(&text, &SpecDefaults::default()).map_err(|errors| errors.to_string())?;
        let Workload::Process(process) = &spec.workload else { panic!("{spec:?}") };
        assert_eq!(parse_one(&spec.to_yaml(), &SpecDefaults::default()).as_ref(), Ok(&spec));
        Ok(process.command.join(" "))
    }

    #[test]
    fn presets_make_commands_that_know_the_memory_limit() {
        for (spec, wanted) in [
            (
                "{runtime: java, program: /opt/app.jar, arguments: [serve], memory_limit: 400}",
                "java -Xmx300m -jar /opt/app.jar serve",
            ),
            (
                "{runtime: java, program: a.jar, options: [-Xmx64m, -ea], memory_limit: 400}",
                "java -Xmx64m -ea -jar a.jar",
            ),
            ("{runtime: java, program: a.jar}", "java -jar a.jar"),
            (
                "{runtime: node, program: app.js, options: [--trace-gc], memory_limit: 100}",
                "node --max-old-space-size=75 --trace-gc app.js",
            ),
            ("{runtime: binary, program: ./app, arguments: [-v]}", "./app -v"),
        ] {
            assert_eq!(command(spec).as_deref(), Ok(wanted), "{spec}");
        }
    }

    #[test]
    fn what_does_not_go_with_a_preset_is_refused_by_field() {
        for (spec, field, word) in [
            ("{runtime: java}", "spec", "program"),
            ("{runtime: jvaa, program: a.jar}", "spec.runtime", "did you mean java"),
            ("{runtime: java, program: ''}", "spec.program", ""),
            ("{runtime: binary, program: a, options: [-v]}", "spec.options", "arguments"),
            ("{runtime: node, program: a.js, command: [node, a.js]}", "spec.command", "keep one"),
            ("{program: a.js, command: [node, a.js]}", "spec.program", "runtime"),
        ] {
            let error = command(spec).unwrap_err();
            assert!(error.contains(field) && error.contains(word), "{spec}: {error}");
        }
    }
}
