//! Models in Hugging Face's local cache, by their names.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

/// A model's name on Hugging Face's hub, as `google/paligemma2-3b-mix-224`, with `@REVISION` behind it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelName<'a> {
    owner: &'a str,
    name: &'a str,
    revision: Option<&'a str>,
}

impl<'a> ModelName<'a> {
    /// Reads a model's name; none where the text is no such name, or ends as files of weights do.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = path.split_once('/')?;
        let is_plain = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && part.bytes().all(plain) && part.bytes().any(|byte| byte.is_ascii_alphanumeric())
        };
        // A branch may have slashes, but no part may be `..`.
        let is_revision = |text: &str| text.split('/').all(is_plain);
        let is_file = [".gguf", ".npz", ".safetensors"].iter().any(|ending| name.ends_with(ending));
        let is_name = is_plain(owner) && is_plain(name) && !is_file && revision.is_none_or(is_revision);
        is_name.then_some(Self { owner, name, revision })
    }

    /// The model's folder in the cache that the environment names: the snapshot asked for. Where no revision is asked for and the newest
    /// snapshot is not there, the folder of the model's whole cache entry.
    ///
    /// # Errors
    /// When it is not there, or not whole.
    pub(crate) fn folder(self) -> Result<PathBuf> {
        match cache() {
            Some(cache) => self.folder_in(&cache),
            None => bail!("{self}: there is no such directory, and no HOME to look for Hugging Face's cache in"),
        }
    }

    fn folder_in(self, cache: &Path) -> Result<PathBuf> {
        let Self { owner, name, .. } = self;
        let entry = cache.join(format!("models--{owner}--{name}"));
        let fetch = match self.revision {
            Some(revision) => format!("`hf download {owner}/{name} --revision {revision}`"),
            None => format!("`hf download {owner}/{name}`"),
        };
        ensure!(
            entry.is_dir(),
            "{self}: it is neither a path nor in Hugging Face's cache ({}): fetch it with {fetch}, or name the directory it lies in",
            cache.display()
        );
        let revision = self.revision.unwrap_or("main");
        let commit = std::fs::read_to_string(entry.join("refs").join(revision));
        let commit = commit.as_deref().map_or(revision, str::trim);
        let snapshot = entry.join("snapshots").join(commit);
        if snapshot.join("config.json").exists() {
            let files = std::fs::read_dir(&snapshot).into_iter().flatten().flatten();
            let names: Vec<_> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
            let is_weights =
                |name: &String| [".safetensors", ".index.json", ".bin"].iter().any(|end| name.ends_with(end));
            ensure!(
                names.iter().any(is_weights),
                "{self}: its weights are not in {}: fetch them with {fetch}",
                entry.display()
            );
            return Ok(snapshot);
        }
        // Fetched by commits only, or the branch has moved and its files have not come.
        ensure!(self.revision.is_none(), "{self}: this revision is not in {}: fetch it with {fetch}", entry.display());
        Ok(entry)
    }
}

impl std::fmt::Display for ModelName<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { owner, name, revision } = self;
        write!(out, "{owner}/{name}")?;
        revision.map_or(Ok(()), |revision| write!(out, "@{revision}"))
    }
}

/// Where Hugging Face's tools keep what they fetch (huggingface_hub's constants.py).
fn cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let expanded = |path: PathBuf| match path.strip_prefix("~") {
        Ok(rest) => std::env::home_dir().map(|home| home.join(rest)),
        Err(_) => Some(path),
    };
    if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return expanded(cache);
    }
    let home = match variable("HF_HOME") {
        Some(home) => expanded(home)?,
        None => match variable("XDG_CACHE_HOME") {
            Some(cache) => cache.join("huggingface"),
            None => std::env::home_dir()?.join(".cache/huggingface"),
        },
    };
    Some(home.join("hub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let whole = ModelName { owner: "google", name: "paligemma2-3b-mix-224", revision: None };
        assert_eq!(ModelName::of("google/paligemma2-3b-mix-224"), Some(whole));
        assert_eq!(ModelName::of("google/paligemma2-3b-mix-224@refs/pr/3").unwrap().revision, Some("refs/pr/3"));
        for path in
            ["model", "./model", "../model", "a/b/c", "/a/b", "a/", "/", "models/x.gguf", "a/b@", "a/b@../c", "a/b c"]
        {
            assert_eq!(ModelName::of(path), None, "{path}");
        }
    }

    #[test]
    fn snapshots_are_found_by_branch_and_commit() {
        let cache = tempfile::tempdir().unwrap();
        let entry = cache.path().join("models--org--name");
        let find = |name: &str| ModelName::of(name).unwrap().folder_in(cache.path());
        assert!(find("org/name").unwrap_err().to_string().contains("hf download org/name`"));
        for (commit, branch) in [("0a", "main"), ("1b", "float16")] {
            std::fs::create_dir_all(entry.join("snapshots").join(commit)).unwrap();
            std::fs::write(entry.join("snapshots").join(commit).join("config.json"), "{}").unwrap();
            let missing = find(&format!("org/name@{commit}")).unwrap_err().to_string();
            assert!(missing.contains("its weights are not in") && missing.contains("hf download"), "{missing}");
            std::fs::write(entry.join("snapshots").join(commit).join("model.safetensors.index.json"), "{}").unwrap();
            std::fs::create_dir_all(entry.join("refs")).unwrap();
            std::fs::write(entry.join("refs").join(branch), format!("{commit}\n")).unwrap();
        }
        for (name, commit) in [("org/name", "0a"), ("org/name@float16", "1b"), ("org/name@1b", "1b")] {
            assert_eq!(find(name).unwrap(), entry.join("snapshots").join(commit), "{name}");
        }
        assert!(find("org/name@2c").unwrap_err().to_string().contains("--revision 2c"));
        std::fs::remove_dir_all(entry.join("snapshots/0a")).unwrap();
        assert_eq!(find("org/name").unwrap(), entry, "whoever reads it looks for one that is whole");
    }
}
