//! Short names of source files: as much of the end of a path as tells the files apart.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Files that are given a short name. Beyond that they have their whole paths.
const MOST: usize = 4096;

/// The files that have one.
#[derive(Debug, Default)]
pub struct Files {
    /// By path; each short name is that of one file.
    short: HashMap<Arc<str>, Arc<str>, foldhash::fast::RandomState>,
    taken: HashSet<Arc<str>, foldhash::fast::RandomState>,
}

impl Files {
    /// The short name of a file, the same each time.
    pub fn short(&mut self, path: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.short.get(path) {
            return Arc::clone(known);
        }
        if self.short.len() >= MOST {
            return Arc::clone(path);
        }
        let ends = path.rmatch_indices('/').map(|(slash, _)| &path[slash + 1..]);
        let is_free = |name: &str| !name.is_empty() && !self.taken.contains(name);
        let short = ends.map(str::to_owned).find(|end| is_free(end)).unwrap_or_else(|| {
            // A path that does not begin at the root may be the end of another one.
            let mut whole = path.to_string();
            while self.taken.contains(&*whole) {
                whole.insert_str(0, "./");
            }
            whole
        });
        let short: Arc<str> = short.into();
        self.taken.insert(Arc::clone(&short));
        self.short.insert(Arc::clone(path), Arc::clone(&short));
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_long_as_it_has_to_be() {
        let mut files = Files::default();
        let mut short = |path: &str| files.short(&path.into()).to_string();
        assert_eq!(short("/a/llama/model.py"), "model.py");
        assert_eq!(short("/a/mistral/model.py"), "mistral/model.py");
        assert_eq!(short("/b/mistral/model.py"), "b/mistral/model.py");
        assert_eq!(short("/mistral/model.py"), "/mistral/model.py", "all of it");
        assert_eq!(short("/a/llama/model.py"), "model.py", "the same each time");
        assert_eq!(short("model.py"), "./model.py", "no path, and no other file");
        assert_eq!(short("llama/model.py"), "llama/model.py");
        assert_eq!([short("<string>"), short("/"), short("")], ["<string>", "/", ""]);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let mut files = Files::default();
        for number in 0..=MOST {
            let path: Arc<str> = format!("/a/{number}.py").into();
            let short = files.short(&path);
            assert_eq!(*short == *path, number == MOST);
        }
        assert_eq!(files.short.len(), MOST);
    }
}
