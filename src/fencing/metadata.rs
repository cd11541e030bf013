//! What a fence agent says of itself in its XML metadata: its parameters and its actions.

use std::collections::BTreeSet;

/// A fence agent as it describes itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) parameters: BTreeSet<String>,
    pub(super) actions: BTreeSet<String>,
}

impl Metadata {
    /// Reads the `resource-agent` document that agents print.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // Some agents print a warning before it.
        let begin = text.find("<?xml").or_else(|| text.find("<resource-agent")).unwrap_or(0);
        let document = roxmltree::Document::parse(text[begin..].trim()).map_err(|error| error.to_string())?;
        let names = |tag: &str| -> BTreeSet<String> {
            let elements = document.descendants().filter(|element| element.has_tag_name(tag));
            elements.filter_map(|element| element.attribute("name")).map(str::to_owned).collect()
        };
        let found = Self { parameters: names("parameter"), actions: names("action") };
        if found.actions.is_empty() {
            return Err("it names no action".to_owned());
        }
        Ok(found)
    }

    /// Does it know a parameter? Words are joined by `-` and by `_` alike.
    pub(super) fn knows(&self, parameter: &str) -> bool {
        let plain = |name: &str| name.replace('-', "_");
        self.parameters.iter().any(|known| plain(known) == plain(parameter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_actions_are_read_and_anything_else_is_refused() {
        let text = r#"a warning
<?xml version="1.0" ?>
<resource-agent name="fence_x"><parameters>
  <parameter name="ip" unique="0"><content type="string"/></parameter>
  <parameter name="power_wait"/>
</parameters><actions><action name="off"/><action name="status"/></actions></resource-agent>
"#;
        let read = Metadata::parse(text).unwrap();
        assert!(read.knows("ip") && read.knows("power-wait") && !read.knows("ipadr"));
        assert!(read.actions.contains("off") && !read.actions.contains("on"));
        for wrong in ["", "usage: fence_x", "<resource-agent name='x'/>"] {
            assert!(Metadata::parse(wrong).is_err(), "{wrong}");
        }
    }
}
