//! Fetches an image, and says how far that is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt;
use quorate_core::spec::{ContainerWorkload, PullPolicy};

use super::access::{Reached, name};
use super::{credentials, words};
use crate::ports::Tell;

/// Sees to it that the engine has the image.
pub(super) async fn image(
    reached: &Reached,
    spec: &ContainerWorkload,
    files: &[PathBuf],
    tell: Tell<'_>,
) -> Result<(), String> {
    let (engine, image) = (name(reached.engine), &spec.image);
    if spec.pull != PullPolicy::Always {
        match reached.docker.inspect_image(image).await {
            Ok(_) => return Ok(()),
            Err(error) if words::status(&error) == Some(404) => {}
            Err(error) => return Err(words::plain(&error)),
        }
        if spec.pull == PullPolicy::Never {
            return Err(format!(
                "spec.image: {engine} has no image {image} and pull is never; run `{engine} pull {image}` on this node, or set pull: missing"
            ));
        }
    }
    tell(format!("pulling {image}"));
    let options = CreateImageOptions { from_image: Some(whole(image)), ..CreateImageOptions::default() };
    let mut news = reached.docker.create_image(Some(options), None, credentials::find(files, image));
    let (mut progress, mut told) = (Progress::default(), String::new());
    while let Some(one) = news.next().await {
        let one = one.map_err(|error| failed(image, &words::plain(&error)))?;
        if let Some(why) = one.error_detail.as_ref().and_then(|detail| detail.message.as_deref()) {
            return Err(failed(image, why));
        }
        progress.take(&one);
        let now = progress.words(image);
        if now != told {
            tell(now.clone());
            told = now;
        }
    }
    // An engine may end its answer without a word of what went wrong.
    reached.docker.inspect_image(image).await.map_err(|error| failed(image, &words::plain(&error)))?;
    Ok(())
}

fn failed(image: &str, why: &str) -> String {
    let registry = credentials::registry(image);
    let why = why.trim();
    let denied = ["denied", "unauthorized", "authentication"].iter().any(|word| why.contains(word));
    let remedy = if denied {
        format!("log in to {registry} on this node, or name an image that may be fetched")
    } else {
        format!(
            "see that the name is right and that {registry} can be reached from this node, or load the image by hand"
        )
    };
    format!("spec.image: {image} cannot be pulled: {why}; {remedy}")
}

/// Without a tag an engine would fetch every one there is.
fn whole(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[derive(Default)]
struct Layer {
    done: bool,
    current: u64,
    total: u64,
}

/// How far an image is.
#[derive(Default)]
struct Progress {
    layers: BTreeMap<String, Layer>,
}

impl Progress {
    fn take(&mut self, news: &CreateImageInfo) {
        let (Some(id), Some(status)) = (news.id.as_deref(), news.status.as_deref()) else { return };
        let status = status.to_lowercase();
        let of_layer = [
            "pulling fs layer",
            "waiting",
            "downloading",
            "verifying",
            "download complete",
            "extracting",
            "pull complete",
            "already exists",
            "copying blob",
        ];
        if !of_layer.iter().any(|word| status.contains(word)) {
            return;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        layer.done |= status.contains("pull complete") || status.contains("already exists");
        if status.contains("downloading")
            && let Some(detail) = &news.progress_detail
        {
            let whole = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
            layer.current = whole(detail.current).unwrap_or(layer.current);
            layer.total = whole(detail.total).unwrap_or(layer.total).max(layer.current);
        }
        if layer.done || status.contains("download complete") {
            layer.current = layer.total;
        }
    }

    fn words(&self, image: &str) -> String {
        if self.layers.is_empty() {
            return format!("pulling {image}");
        }
        let (all, done) = (self.layers.len(), self.layers.values().filter(|layer| layer.done).count());
        let bytes =
            |of: fn(&Layer) -> u64| self.layers.values().map(of).sum::<u64>() as f64 / f64::from(1 << 20);
        let (current, total) = (bytes(|layer| layer.current), bytes(|layer| layer.total));
        let at = (done + 1).min(all);
        format!("pulling {image}: layer {at} of {all}, {current:.1} of {total:.1} MiB")
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn news(id: &str, status: &str, progress: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: progress
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn progress_counts_layers_and_their_bytes() {
        let mut progress = Progress::default();
        progress.take(&news("1", "Pulling from library/busybox", None));
        assert_eq!(progress.words("busybox:1"), "pulling busybox:1");
        for id in ["a", "b", "c"] {
            progress.take(&news(id, "Pulling fs layer", None));
        }
        progress.take(&news("a", "Downloading", Some((4 << 20, 8 << 20))));
        progress.take(&news("b", "Downloading", Some((1 << 19, 1 << 20))));
        assert_eq!(progress.words("busybox:1"), "pulling busybox:1: layer 1 of 3, 4.5 of 9.0 MiB");
        progress.take(&news("a", "Pull complete", None));
        progress.take(&news("c", "Already exists", None));
        assert_eq!(progress.words("busybox:1"), "pulling busybox:1: layer 3 of 3, 8.5 of 9.0 MiB");
    }

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(whole("here:5000/a/b"), "here:5000/a/b:latest");
        assert_eq!(whole("a:1"), "a:1");
        assert_eq!(whole("a@sha256:0"), "a@sha256:0");
    }
}
